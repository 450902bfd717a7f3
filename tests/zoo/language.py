"""Tokens in: GPT-2, BERT, Llama, T5, a mixture of experts, low-rank adapters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.utils.checkpoint import checkpoint

from tests.zoo.registry import model
from tests.zoo.vision import Block

VOCABULARY, WIDTH, HEADS = 23, 16, 4


def tokens(batch: int = 2, length: int = 7) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length))


def next_token(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


# -------------------------------------------------------------------- GPT-2 and BERT


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight is stored transposed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * 0.1)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class GPT2Block(nn.Module):
    """Attention written out, with a causal mask, and the tanh form of GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = Conv1D(WIDTH, 3 * WIDTH), Conv1D(WIDTH, WIDTH)
        self.wide, self.narrow = Conv1D(WIDTH, 4 * WIDTH), Conv1D(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.first(x)).split(WIDTH, dim=2)
        q, k, v = (one.view(batch, length, HEADS, -1).permute(0, 2, 1, 3) for one in (q, k, v))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(WIDTH // HEADS)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        scores = torch.where(causal, scores, torch.finfo(scores.dtype).min)
        y = torch.matmul(self.drop(scores.softmax(-1)), v).permute(0, 2, 1, 3).contiguous()
        x = x + self.drop(self.out(y.view(batch, length, WIDTH)))
        y = self.wide(self.second(x))
        y = 0.5 * y * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (y + 0.044715 * torch.pow(y, 3.0))))
        return x + self.drop(self.narrow(y))


@model("GPT-2")
def gpt2() -> None:
    words, places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(32, WIDTH)
    body, norm, ids = nn.Sequential(GPT2Block(), GPT2Block()), nn.LayerNorm(WIDTH), tokens()
    hidden = norm(body(F.dropout(words(ids) + places(torch.arange(7)), 0.1)))
    next_token(hidden @ words.weight.t(), ids).backward()


@model("GPT-2, each block checkpointed")
def gpt2_checkpointed() -> None:
    words, blocks, norm, ids = (
        nn.Embedding(VOCABULARY, WIDTH),
        [GPT2Block() for _ in range(2)],
        nn.LayerNorm(WIDTH),
        tokens(),
    )
    hidden = words(ids)
    for block in blocks:
        hidden = checkpoint(block, hidden, use_reentrant=False)
    next_token(norm(hidden) @ words.weight.t(), ids).backward()


@model("BERT")
def bert() -> None:
    words, places, kinds = (
        nn.Embedding(VOCABULARY, WIDTH, padding_idx=0),
        nn.Embedding(32, WIDTH),
        nn.Embedding(2, WIDTH),
    )
    norm, layer = (
        nn.LayerNorm(WIDTH, eps=1e-12),
        nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.1, "gelu", batch_first=True),
    )
    encoder, pooler = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, WIDTH)
    change, bias, pair = nn.Linear(WIDTH, WIDTH), nn.Parameter(torch.zeros(VOCABULARY)), nn.Linear(WIDTH, 2)
    ids = tokens()
    ids[1, 5:] = 0
    hidden = norm(words(ids) + places(torch.arange(7)) + kinds((torch.arange(7) > 3).long()))
    hidden = encoder(hidden, src_key_padding_mask=ids.eq(0))
    logits = norm(F.gelu(change(hidden))) @ words.weight.t() + bias
    masked = torch.where(torch.rand(2, 7) < 0.4, ids, -100)
    masked[0, 0] = 3
    first = F.cross_entropy(logits.view(-1, VOCABULARY), masked.view(-1), ignore_index=-100)
    (first + F.cross_entropy(pair(torch.tanh(pooler(hidden[:, 0]))), torch.tensor([0, 1]))).backward()


@model("masked attention, filled in place")
def filled() -> None:
    """What people write by hand: a view of the scores is overwritten."""
    q, k, v = (torch.randn(2, 5, 4, requires_grad=True) for _ in range(3))
    scores = q @ k.transpose(1, 2) / 2
    scores[:, torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)] = -torch.inf
    out = torch.zeros(2, 5, 4)
    out[:, 1:] = (scores.softmax(-1) @ v)[:, :-1]
    out.square().mean().backward()


# -------------------------------------------------------------------- Llama and T5


class RMSNorm(nn.Module):
    """y = w x / √(mean x² + ε), computed in float32."""

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(WIDTH)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotated(x: Tensor) -> Tensor:
    """Rotary position embedding over the last axis."""
    half = x.shape[-1] // 2
    speeds = 1.0 / (10000 ** (torch.arange(half) / half))
    angle = torch.outer(torch.arange(x.shape[-2]).float(), speeds)
    cos, sin = (torch.cat([f(angle)] * 2, -1).to(x.dtype) for f in (torch.cos, torch.sin))
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class LlamaBlock(nn.Module):
    """Grouped-query attention with rotary places, and a gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.pairs = RMSNorm(), RMSNorm(), HEADS // 2
        each = WIDTH // HEADS
        self.q, self.k, self.v, self.o = (
            nn.Linear(WIDTH, n, bias=False) for n in (WIDTH, 2 * each, 2 * each, WIDTH)
        )
        self.gate, self.up, self.down = (
            nn.Linear(WIDTH, 32, bias=False),
            nn.Linear(WIDTH, 32, bias=False),
            nn.Linear(32, WIDTH, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.first(x)
        q, k, v = (
            f(y).view(batch, length, -1, WIDTH // HEADS).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        q, k = rotated(q), rotated(k)
        k, v = (one[:, :, None].expand(-1, -1, 2, -1, -1).reshape(batch, HEADS, length, -1) for one in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, WIDTH))
        y = self.second(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


@model("Llama")
def llama() -> None:
    words, body, norm = nn.Embedding(VOCABULARY, WIDTH), nn.Sequential(LlamaBlock(), LlamaBlock()), RMSNorm()
    head, ids = nn.Linear(WIDTH, VOCABULARY, bias=False), tokens()
    next_token(head(norm(body(words(ids)))).float(), ids).backward()


@model("Llama in bfloat16")
def llama_bfloat16() -> None:
    words, body, norm = nn.Embedding(VOCABULARY, WIDTH), nn.Sequential(LlamaBlock(), LlamaBlock()), RMSNorm()
    head, ids = nn.Linear(WIDTH, VOCABULARY, bias=False), tokens()
    for one in (words, body, norm, head):
        one.to(torch.bfloat16)
    next_token(head(norm(body(words(ids)))).float(), ids).backward()


class T5Attention(nn.Module):
    """Attention without scaling, with a learnt bias by distance."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.bias = nn.Embedding(8, HEADS)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
        q, k, v = (
            f(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for f, y in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        apart = torch.arange(memory.shape[1])[None] - torch.arange(x.shape[1])[:, None]
        scores = q @ k.transpose(3, 2) + self.bias(apart.abs().clamp(max=7)).permute(2, 0, 1).unsqueeze(0)
        if causal:
            scores = scores + torch.full_like(apart, -1e9, dtype=x.dtype).triu(1)
        weights = F.softmax(scores.float(), dim=-1).type_as(scores)
        return self.o((F.dropout(weights, 0.1) @ v).transpose(1, 2).contiguous().view(*x.shape))


@model("T5")
def t5() -> None:
    words, norms = nn.Embedding(VOCABULARY, WIDTH), [RMSNorm() for _ in range(6)]
    encode, decode, cross = T5Attention(), T5Attention(), T5Attention()
    first, second, third = (
        nn.Linear(WIDTH, 32, bias=False),
        nn.Linear(WIDTH, 32, bias=False),
        nn.Linear(32, WIDTH, bias=False),
    )
    source, target = tokens(2, 6), tokens(2, 5)
    x = words(source)
    y = norms[0](x)
    x = x + encode(y, y)
    y = norms[1](x)
    x = norms[2](x + third(F.gelu(first(y), approximate="tanh") * second(y)))
    d = words(F.pad(target[:, :-1], (1, 0)))
    y = norms[3](d)
    d = d + decode(y, y, causal=True)
    d = d + cross(norms[4](d), x)
    logits = (norms[5](d) * WIDTH**-0.5) @ words.weight.t()
    F.cross_entropy(logits.view(-1, VOCABULARY), target.view(-1)).backward()


# -------------------------------------------------------------------- sparse and low-rank layers


@model("mixture of experts")
def mixture() -> None:
    words, router, ids = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, 4, bias=False), tokens()
    experts = [nn.Sequential(nn.Linear(WIDTH, 24), nn.SiLU(), nn.Linear(24, WIDTH)) for _ in range(4)]
    hidden = words(ids).view(-1, WIDTH)
    logits = router(hidden)
    chances = F.softmax(logits, dim=1, dtype=torch.float)
    weights, chosen = torch.topk(chances, 2, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    out = torch.zeros_like(hidden)
    for number, expert in enumerate(experts):
        place, rank = torch.where(chosen == number)
        out = out.index_add(0, place, expert(hidden[place]) * weights[place, rank, None])
    share = F.one_hot(chosen, 4).float().mean((0, 1))
    balance = 4 * (share * chances.mean(0)).sum() + 1e-3 * torch.logsumexp(logits, -1).square().mean()
    (next_token((out + hidden).view(2, 7, WIDTH) @ words.weight.t(), ids) + 0.01 * balance).backward()


@model("low-rank adapters on a frozen model, preference loss")
def adapters() -> None:
    base, ids = (
        nn.Sequential(
            nn.Embedding(VOCABULARY, WIDTH), Block(WIDTH, HEADS), nn.Linear(WIDTH, VOCABULARY)
        ).requires_grad_(False),
        tokens(4),
    )
    down, up = nn.Parameter(torch.randn(WIDTH, 2) * 0.1), nn.Parameter(torch.randn(2, VOCABULARY) * 0.1)
    hidden = base[1](base[0](ids))
    before = base[2](hidden)
    after = before + (F.dropout(hidden, 0.1) @ down @ up) * 2.0
    taken = [x.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1).sum(-1) for x in (after, before)]
    gain = taken[0] - taken[1]
    (-F.logsigmoid(0.1 * (gain[:2] - gain[2:]))).mean().backward()
