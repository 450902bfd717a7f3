"""Sequences in: LSTM and GRU, packed sequences, CTC, a state space scan, a temporal convolution, seq2seq."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.zoo.registry import model


@model("LSTM")
def lstm() -> None:
    """In float32 each layer and direction is one oneDNN node."""
    network, head = nn.LSTM(5, 6, 2, batch_first=True, dropout=0.2, bidirectional=True), nn.Linear(12, 3)
    out, (h, c) = network(torch.randn(3, 7, 5))
    (
        F.cross_entropy(head(out[:, -1]), torch.tensor([0, 2, 1])) + h.square().mean() + c.tanh().mean()
    ).backward()


@model("LSTM in float64")
def lstm_double() -> None:
    network = nn.LSTM(5, 6, 2, proj_size=3).double()
    out, (h, _) = network(torch.randn(7, 3, 5, dtype=torch.float64))
    (out.square().sum() + h.sum()).backward()


@model("LSTM cells")
def lstm_cells() -> None:
    cell, head = nn.LSTMCell(5, 6), nn.Linear(6, 1)
    h, c = torch.zeros(3, 6), torch.zeros(3, 6)
    for x in torch.randn(5, 3, 5):
        h, c = cell(x, (h, c))
    F.mse_loss(head(h), torch.randn(3, 1)).backward()


@model("GRU")
def gru() -> None:
    network, words = nn.GRU(6, 8, 2, batch_first=True, bidirectional=True), nn.Embedding(11, 6)
    out, _ = network(words(torch.randint(11, (3, 6))))
    F.cross_entropy(nn.Linear(16, 11)(out).transpose(1, 2), torch.randint(11, (3, 6))).backward()


@model("packed sequences, GRU")
def packed_gru() -> None:
    network = nn.GRU(4, 5, batch_first=True)
    packed = pack_padded_sequence(
        torch.randn(3, 6, 4, requires_grad=True), torch.tensor([6, 3, 2]), batch_first=True
    )
    out, hidden = network(packed)
    whole, _ = pad_packed_sequence(out, batch_first=True)
    (whole.square().sum() + hidden.sum()).backward()


@model("packed sequences, LSTM")
def packed_lstm() -> None:
    network = nn.LSTM(4, 5, bidirectional=True)
    x = torch.randn(6, 3, 4, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor([4, 6, 2]), enforce_sorted=False)
    out, (h, c) = network(packed)
    whole, lengths = pad_packed_sequence(out)
    kept = torch.arange(6)[:, None] < lengths[None]
    ((whole * kept.unsqueeze(-1)).square().sum() + h.sum() + c.sum()).backward()


@model("CTC")
def ctc() -> None:
    network = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 1))
    chances = network(torch.randn(3, 4, 12)).permute(2, 0, 1).log_softmax(2)
    targets, lengths = torch.randint(1, 6, (3, 4)), torch.tensor([4, 3, 2])
    F.ctc_loss(chances, targets, torch.tensor([12, 10, 9]), lengths, zero_infinity=True).backward()


@model("Mamba-like scan")
def mamba() -> None:
    batch, length, width, states = 2, 6, 8, 4
    inner, conv, out = (
        nn.Linear(width, 2 * width, bias=False),
        nn.Conv1d(width, width, 3, padding=2, groups=width),
        nn.Linear(width, width, bias=False),
    )
    project, step = nn.Linear(width, 2 * states + 1, bias=False), nn.Linear(1, width)
    log_a = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
    skip, norm = nn.Parameter(torch.ones(width)), nn.RMSNorm(width)
    u, gate = inner(norm(torch.randn(batch, length, width))).chunk(2, -1)
    u = F.silu(conv(u.transpose(1, 2))[..., :length]).transpose(1, 2)
    dt, b, c = project(u).split([1, states, states], -1)
    dt = F.softplus(step(dt))
    decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(log_a))
    drive = dt.unsqueeze(-1) * b.unsqueeze(2) * u.unsqueeze(-1)
    state, ys = torch.zeros(batch, width, states), []
    for t in range(length):
        state = decay[:, t] * state + drive[:, t]
        ys.append(torch.einsum("bds,bs->bd", state, c[:, t]))
    y = (torch.stack(ys, 1) + u * skip) * F.silu(gate)
    out(y).square().mean().backward()


@model("linear attention with a cumulative sum")
def linear_attention() -> None:
    q, k, v = (F.elu(nn.Linear(6, 6)(torch.randn(2, 7, 6))) + 1 for _ in range(3))
    state = torch.cumsum(torch.einsum("btd,bte->btde", k, v), 1)
    size = torch.einsum("btd,btd->bt", q, k.cumsum(1)).unsqueeze(-1)
    (torch.einsum("btd,btde->bte", q, state) / size).square().mean().backward()


@model("dilated temporal convolution with weight norm")
def wavenet() -> None:
    parametrize = torch.nn.utils.parametrizations.weight_norm
    filters, gates = (parametrize(nn.Conv1d(4, 4, 2, dilation=2)) for _ in range(2))
    x = torch.randn(2, 4, 12, requires_grad=True)
    padded = F.pad(x, (2, 0))
    y = torch.tanh(filters(padded)) * torch.sigmoid(gates(padded))
    F.glu(torch.cat([y + x, x], 1), 1).square().mean().backward()


class Additive(nn.Module):
    """Bahdanau's attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.score = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, 1),
        )

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        scores = self.score(torch.tanh(self.query(query).unsqueeze(1) + self.key(keys))).squeeze(-1)
        return torch.bmm(scores.softmax(-1).unsqueeze(1), keys).squeeze(1)


@model("sequence to sequence with attention")
def seq2seq() -> None:
    words, encoder, cell = nn.Embedding(9, 6), nn.GRU(6, 6, batch_first=True), nn.GRUCell(12, 6)
    attend, head = Additive(6), nn.Linear(6, 9)
    keys, state = encoder(words(torch.randint(9, (2, 5))))
    h, target, losses = state.squeeze(0), torch.randint(9, (2, 4)), []
    for t in range(3):
        h = cell(torch.cat([words(target[:, t]), attend(h, keys)], -1), h)
        losses.append(F.cross_entropy(head(h), target[:, t + 1]))
    torch.stack(losses).mean().backward()
