"""Two GPT-2-like blocks with tied embeddings predict the next token of a short sequence.

Pre-norm attention and MLP as in GPT-2 (Radford et al. 2019): the token embedding is also the output
layer, so its gradient has two parts, and every parameter gets one.

    explore -o gpt_block.svg examples/gpt_block.py
"""

import torch
from torch import nn
from torch.nn import functional

VOCABULARY, CONTEXT, WIDTH, HEADS = 50, 16, 32, 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.c_proj = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("future", torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1))

    def forward(self, x):
        rows, length, width = x.shape
        parts = self.c_attn(x).split(width, dim=2)
        q, k, v = (part.view(rows, length, HEADS, width // HEADS).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(2, 3) / (width // HEADS) ** 0.5
        scores = scores.masked_fill(self.future[:length, :length], float("-inf"))
        mixed = scores.softmax(-1) @ v
        return self.c_proj(mixed.transpose(1, 2).reshape(rows, length, width))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU("tanh"), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, layers=2):
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.wpe = nn.Embedding(CONTEXT, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(layers))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.wte.weight
        for embedding in (self.wte, self.wpe):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


torch.manual_seed(0)
model = GPT()
tokens = torch.randint(VOCABULARY, (2, CONTEXT + 1))
logits = model(tokens[:, :-1])
loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
loss.backward()

print(f"loss {loss.item():.3f}")
print(f"every parameter has a gradient: {all(p.grad is not None for p in model.parameters())}")
