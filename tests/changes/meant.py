"""Scripts as people write them that change values past autograd and get the gradients they mean."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters
from torch.utils.checkpoint import checkpoint

from tests.changes.registry import healthy, labels, mlp


@healthy
def ste_data_hard() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = l1(torch.randn(8, 6)).tanh()
    y.data = (y.data > 0).float()
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def ste_data_noise() -> None:
    """The result replaced by noisy values."""
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = l1(torch.randn(8, 6)).tanh()
    y.data = y.data + 0.3 * torch.randn(8, 5)
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def ste_data_add_inplace() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = l1(torch.randn(8, 6))
    y.data.add_(0.3 * torch.randn(8, 5))
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def ste_data_clamp_inplace_relu() -> None:
    """Relu6 by hand."""
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = l1(torch.randn(8, 6) * 3).relu()
    y.data.clamp_(max=1.0)
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def ste_clamp_sigmoid() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 1))
    p = l2(l1(torch.randn(8, 6))).sigmoid()
    p.data.clamp_(0.4, 0.6)
    F.binary_cross_entropy(p, torch.ones(8, 1)).backward()


@healthy
def ste_clamp_sigmoid_mul() -> None:
    l1 = nn.Linear(6, 5)
    p = (3 * l1(torch.randn(8, 6))).sigmoid()
    p.data.clamp_(0.3, 0.7)
    (p * torch.randn(8, 5)).sum().backward()


@healthy
def weight_binarize_before_forward() -> None:
    """BinaryConnect: data replaced by sign before forward, restored after backward, then step."""
    m = mlp(6, 8, 3)
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        real = [p.data.clone() for p in m.parameters()]
        for p in m.parameters():
            p.data.sign_()
        loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
        opt.zero_grad()
        loss.backward()
        for p, r in zip(m.parameters(), real, strict=True):
            p.data.copy_(r)
        opt.step()


@healthy
def wgan_clip() -> None:
    g, d = (mlp(4, 16, 6), mlp(6, 16, 1))
    od = torch.optim.RMSprop(d.parameters(), 0.001)
    og = torch.optim.RMSprop(g.parameters(), 0.001)
    for _ in range(2):
        for _ in range(2):
            od.zero_grad()
            loss = d(g(torch.randn(8, 4)).detach()).mean() - d(torch.randn(8, 6)).mean()
            loss.backward()
            od.step()
            for p in d.parameters():
                p.data.clamp_(-0.01, 0.01)
        og.zero_grad()
        (-d(g(torch.randn(8, 4))).mean()).backward()
        og.step()


@healthy
def ema_teacher() -> None:
    s = mlp(6, 8, 8, 4)
    t = copy.deepcopy(s)
    opt = torch.optim.SGD(s.parameters(), 0.1)
    for p in t.parameters():
        p.requires_grad_(False)
    for _ in range(3):
        x = torch.randn(8, 6)
        loss = F.mse_loss(s(x), t(x))
        opt.zero_grad()
        loss.backward()
        opt.step()
        for p, q in zip(t.parameters(), s.parameters(), strict=True):
            p.data.mul_(0.9).add_(q.data, alpha=0.1)


@healthy
def ema_between_forward_and_backward() -> None:
    """A momentum encoder updated between its forward under no_grad and backward."""
    s = mlp(6, 8, 8, 4)
    t = copy.deepcopy(s)
    opt = torch.optim.SGD(s.parameters(), 0.1)
    for p in t.parameters():
        p.requires_grad_(False)
    for _ in range(3):
        x = torch.randn(8, 6)
        z = s(x)
        with torch.no_grad():
            target = t(x)
        for p, q in zip(t.parameters(), s.parameters(), strict=True):
            p.data.mul_(0.9).add_(q.data, alpha=0.1)
        loss = F.mse_loss(z, target)
        opt.zero_grad()
        loss.backward()
        opt.step()


@healthy
def ema_weights_updated_teacher_not_frozen_no_grad() -> None:
    s = mlp(6, 8, 8, 4)
    t = copy.deepcopy(s)
    for _ in range(2):
        x = torch.randn(8, 6)
        with torch.no_grad():
            target = t(x)
        loss = F.mse_loss(s(x), target)
        for p, q in zip(t.parameters(), s.parameters(), strict=True):
            p.data.lerp_(q.data, 0.1)
        loss.backward()


@healthy
def spectral_norm_old() -> None:
    m = nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(6, 8)), nn.ReLU(), nn.utils.spectral_norm(nn.Linear(8, 3))
    )
    for _ in range(3):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()


@healthy
def spectral_norm_two_forwards() -> None:
    m = nn.Sequential(
        nn.utils.spectral_norm(nn.Linear(6, 8)), nn.LeakyReLU(), nn.utils.spectral_norm(nn.Linear(8, 1))
    )
    for _ in range(2):
        (m(torch.randn(8, 6)).mean() - m(torch.randn(8, 6)).mean()).backward()


@healthy
def spectral_norm_new() -> None:
    P = nn.utils.parametrizations
    m = nn.Sequential(P.spectral_norm(nn.Linear(6, 8)), nn.ReLU(), P.spectral_norm(nn.Linear(8, 3)))
    for _ in range(2):
        (m(torch.randn(8, 6)).mean() - m(torch.randn(8, 6)).square().mean()).backward()


@healthy
def spectral_norm_by_hand() -> None:
    """Power iteration with u.data, as in old repos (l2normalize)."""
    w = nn.Parameter(torch.randn(5, 6))
    u = nn.Parameter(torch.randn(5), requires_grad=False)
    v = nn.Parameter(torch.randn(6), requires_grad=False)

    def weight():
        v.data = F.normalize(torch.mv(w.data.t(), u.data), dim=0)
        u.data = F.normalize(torch.mv(w.data, v.data), dim=0)
        return w / u.dot(w.mv(v))

    for _ in range(2):
        x = torch.randn(8, 6)
        (F.linear(x, weight()).square().mean() - F.linear(x, weight()).mean()).backward()


@healthy
def weight_norm() -> None:
    m = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(6, 8)),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)),
    )
    for _ in range(2):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()


@healthy
def weight_norm_data_init() -> None:
    """Data-dependent init: g.data, b.data set in first forward then output rescaled (Salimans)."""
    v = nn.Parameter(torch.randn(5, 6))
    g = nn.Parameter(torch.ones(5))
    x = torch.randn(8, 6)
    y = x @ (g[:, None] * v / v.norm(dim=1, keepdim=True)).t()
    g.data.div_(y.data.std(0))
    y = x @ (g[:, None] * v / v.norm(dim=1, keepdim=True)).t()
    y.square().mean().backward()


@healthy
def reentrant_checkpoint() -> None:
    b = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 6))
    checkpoint(b, torch.randn(4, 6, requires_grad=True), use_reentrant=True).square().sum().backward()


@healthy
def inplace_dropout() -> None:
    m = nn.Sequential(
        nn.Linear(6, 8),
        nn.Dropout(0.5, inplace=True),
        nn.LeakyReLU(inplace=True),
        nn.Linear(8, 8),
        nn.Dropout(0.3, inplace=True),
        nn.Linear(8, 3),
    )
    for _ in range(3):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()


@healthy
def dqn_target() -> None:
    q = mlp(4, 8, 8, 2)
    t = copy.deepcopy(q)
    opt = torch.optim.Adam(q.parameters())
    for _i in range(4):
        s, a, r, n = (torch.randn(8, 4), labels(8, 2), torch.randn(8), torch.randn(8, 4))
        y = r + 0.9 * t(n).max(1)[0].detach()
        loss = F.smooth_l1_loss(q(s).gather(1, a[:, None])[:, 0], y)
        opt.zero_grad()
        loss.backward()
        for p in q.parameters():
            p.grad.data.clamp_(-1, 1)
        opt.step()
        for p, o in zip(t.parameters(), q.parameters(), strict=True):
            p.data.copy_(0.05 * o.data + 0.95 * p.data)


@healthy
def ddpg() -> None:
    actor, critic = (mlp(4, 8, 2), mlp(6, 8, 1))
    ta, tc = (copy.deepcopy(actor), copy.deepcopy(critic))
    oa, oc = (torch.optim.Adam(actor.parameters()), torch.optim.Adam(critic.parameters()))
    for _ in range(2):
        s, a, r, n = (torch.randn(8, 4), torch.randn(8, 2), torch.randn(8, 1), torch.randn(8, 4))
        with torch.no_grad():
            y = r + 0.9 * tc(torch.cat([n, ta(n)], 1))
        oc.zero_grad()
        F.mse_loss(critic(torch.cat([s, a], 1)), y).backward()
        oc.step()
        oa.zero_grad()
        (-critic(torch.cat([s, actor(s)], 1)).mean()).backward()
        oa.step()
        for m, t in ((actor, ta), (critic, tc)):
            for p, q in zip(m.parameters(), t.parameters(), strict=True):
                q.data.mul_(0.99).add_(p.data, alpha=0.01)


@healthy
def no_grad_add_retained_unrelated() -> None:
    """The weight of a layer whose input wants no gradient is saved by nobody."""
    m = mlp(6, 8, 3)
    x = torch.randn(8, 6)
    loss = F.cross_entropy(m(x), labels(8, 3))
    loss.backward(retain_graph=True)
    with torch.no_grad():
        m[0].weight.add_(0.1)
    loss.backward()


@healthy
def vqvae() -> None:
    enc, dec = (nn.Linear(6, 4), nn.Linear(4, 6))
    book = nn.Embedding(8, 4)
    for _ in range(2):
        x = torch.randn(10, 6)
        z = enc(x)
        d = torch.cdist(z, book.weight)
        i = d.argmin(1)
        q = book(i)
        loss = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(q.detach(), z)
        q = z + (q - z).detach()
        (F.mse_loss(dec(q), x) + loss).backward()


@healthy
def vqvae_ema() -> None:
    enc, dec = (nn.Linear(6, 4), nn.Linear(4, 6))
    book = torch.randn(8, 4)
    n = torch.ones(8)
    s = book.clone()
    for _ in range(2):
        x = torch.randn(10, 6)
        z = enc(x)
        d = z.pow(2).sum(1, keepdim=True) - 2 * z @ book.t() + book.pow(2).sum(1)
        h = F.one_hot(d.argmin(1), 8).float()
        q = h @ book
        n.data.mul_(0.99).add_(h.sum(0), alpha=0.01)
        s.data.mul_(0.99).add_(h.t() @ z.data, alpha=0.01)
        book.data.copy_(s / n[:, None])
        st = z + (q - z).detach()
        (F.mse_loss(dec(st), x) + 0.25 * F.mse_loss(z, q.detach())).backward()


@healthy
def gumbel_hard() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    for _ in range(3):
        F.cross_entropy(l2(F.gumbel_softmax(l1(torch.randn(8, 6)), hard=True)), labels(8, 3)).backward()


@healthy
def gumbel_hard_data() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = F.gumbel_softmax(l1(torch.randn(8, 6)))
    y.data = F.one_hot(y.data.argmax(1), 5).float()
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def gumbel_hard_scatter_data() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = F.gumbel_softmax(l1(torch.randn(8, 6)))
    i = y.data.argmax(1, keepdim=True)
    y.data.zero_().scatter_(1, i, 1.0)
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def batchnorm_three_forwards() -> None:
    m = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    outs = [m(torch.randn(8, 6)) for _ in range(3)]
    m.eval()
    outs.append(m(torch.randn(8, 6)))
    m.train()
    sum(o.logsumexp(1).mean() for o in outs).backward()


@healthy
def bn_buffers_reset_data() -> None:
    """Running stats recalibrated through .data between forward (train mode) and backward."""
    m = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    m[1].running_mean.data.zero_()
    m[1].running_var.data.fill_(1)
    loss.backward()


@healthy
def qat() -> None:
    fq = FakeQuantize(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
    fw = FakeQuantize(observer=MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8)
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    for _ in range(3):
        h = fq(F.relu(F.linear(torch.randn(8, 6), fw(l1.weight), l1.bias)))
        F.cross_entropy(F.linear(h, fw(l2.weight)), labels(8, 3)).backward()


@healthy
def lsq_by_hand() -> None:
    """Learned step: (w/s).round with STE through data."""
    w = nn.Parameter(torch.randn(5, 6))
    s = nn.Parameter(torch.tensor(0.3))
    x = torch.randn(8, 6, requires_grad=True)
    q = w / s
    q.data.round_()
    (x @ (q * s).t()).square().mean().backward()


@healthy
def autocast_cache() -> None:
    m = mlp(16, 32, 32, 4)
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(m(torch.randn(8, 16)).float(), labels(8, 4))
        opt.zero_grad()
        loss.backward()
        opt.step()


@healthy
def master_weights() -> None:
    """Apex-like fp32 master copied into half model after step."""
    m = mlp(16, 32, 4).bfloat16()
    master = [p.detach().float().requires_grad_() for p in m.parameters()]
    opt = torch.optim.SGD(master, 0.1)
    for _ in range(2):
        loss = F.cross_entropy(m(torch.randn(8, 16).bfloat16()).float(), labels(8, 4))
        loss.backward()
        for p, q in zip(m.parameters(), master, strict=True):
            q.grad = p.grad.float()
        opt.step()
        for p, q in zip(m.parameters(), master, strict=True):
            p.data.copy_(q.data)
            p.grad = None


@healthy
def grad_scaler_loss_data() -> None:
    m = mlp(6, 8, 3)
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    loss.data.mul_(128.0)
    loss.backward()


@healthy
def sam() -> None:
    m = mlp(6, 8, 3)
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(2):
        x, y = (torch.randn(8, 6), labels(8, 3))
        F.cross_entropy(m(x), y).backward()
        old = [p.data.clone() for p in m.parameters()]
        for p in m.parameters():
            p.data.add_(p.grad, alpha=0.05 / p.grad.norm().item())
        opt.zero_grad()
        F.cross_entropy(m(x), y).backward()
        for p, o in zip(m.parameters(), old, strict=True):
            p.data = o
        opt.step()
        opt.zero_grad()


@healthy
def fgsm_pgd() -> None:
    m = mlp(6, 8, 3)
    x = torch.randn(8, 6)
    d = torch.zeros_like(x, requires_grad=True)
    for _ in range(4):
        F.cross_entropy(m(x + d), labels(8, 3)).backward()
        d.data = (d + 0.1 * d.grad.sign()).clamp(-0.3, 0.3)
        d.grad.zero_()


@healthy
def free_at() -> None:
    m = mlp(6, 8, 3)
    d = torch.zeros(8, 6)
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        n = d.clone().requires_grad_()
        F.cross_entropy(m(torch.randn(8, 6) + n), labels(8, 3)).backward()
        d += 0.1 * n.grad.sign()
        d.clamp_(-0.3, 0.3)
        opt.step()
        opt.zero_grad()


@healthy
def rnn_hidden_data() -> None:
    """Old word LM: repackage hidden by .data."""
    r = nn.RNN(6, 8)
    o = nn.Linear(8, 3)
    h = torch.zeros(1, 4, 8)
    for _ in range(3):
        y, h = r(torch.randn(5, 4, 6), h.data)
        F.cross_entropy(o(y).flatten(0, 1), labels(20, 3)).backward()


@healthy
def rnn_hidden_reset_rows() -> None:
    """State of finished episodes zeroed via data before the next step."""
    c = nn.GRUCell(6, 8)
    o = nn.Linear(8, 3)
    h = torch.zeros(4, 8)
    loss = 0
    for _i in range(4):
        h = c(torch.randn(4, 6), h)
        loss = loss + F.cross_entropy(o(h), labels(4, 3))
        h = h * torch.tensor([1.0, 0, 1, 1])[:, None]
    loss.backward()


@healthy
def langevin_sgld() -> None:
    m = mlp(6, 8, 1)
    x = torch.randn(8, 6, requires_grad=True)
    for _ in range(3):
        (g,) = torch.autograd.grad(m(x).sum(), x)
        x.data += -0.1 * g + 0.01 * torch.randn_like(x)
    m(x.detach()).mean().backward()


@healthy
def embedding_renorm() -> None:
    e = nn.Embedding(10, 6, max_norm=1.0)
    layer = nn.Linear(6, 3)
    for _ in range(3):
        F.cross_entropy(layer(e(labels(8, 10))), labels(8, 3)).backward()


@healthy
def embedding_pad_zero_data() -> None:
    e = nn.Embedding(10, 6)
    layer = nn.Linear(6, 3)
    for _ in range(2):
        e.weight.data[0].zero_()
        F.cross_entropy(layer(e(labels(8, 10))), labels(8, 3)).backward()
        e.weight.data.sub_(0.1 * e.weight.grad)


@healthy
def pruning() -> None:

    m = mlp(6, 8, 8, 3)
    prune.l1_unstructured(m[0], "weight", 0.5)
    prune.l1_unstructured(m[2], "weight", 0.5)
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(2):
        opt.zero_grad()
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        opt.step()


@healthy
def pruning_mask_data_before_forward() -> None:
    m = mlp(6, 8, 8, 3)
    mask = (torch.rand(8, 8) > 0.5).float()
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(2):
        m[2].weight.data.mul_(mask)
        opt.zero_grad()
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        opt.step()


@healthy
def maml() -> None:
    w = torch.randn(6, 3, requires_grad=True)
    x, y = (torch.randn(8, 6), labels(8, 3))
    (g,) = torch.autograd.grad(F.cross_entropy(x @ w, y), w, create_graph=True)
    F.cross_entropy(x @ (w - 0.1 * g), y).backward()


@healthy
def reptile() -> None:
    m = mlp(6, 8, 3)
    old = [p.data.clone() for p in m.parameters()]
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        opt.zero_grad()
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        opt.step()
    for p, o in zip(m.parameters(), old, strict=True):
        p.data = o + 0.5 * (p.data - o)
    F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()


@healthy
def grad_penalty() -> None:
    d = mlp(6, 8, 1)
    x = torch.randn(8, 6, requires_grad=True)
    (g,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    ((g.norm(2, dim=1) - 1) ** 2).mean().backward()


@healthy
def mask_logits_data() -> None:
    """Invalid actions masked through logits.data before softmax."""
    layer = nn.Linear(6, 4)
    z = layer(torch.randn(8, 6))
    z.data[:, 2] = -1000000000.0
    F.cross_entropy(z, labels(8, 2)).backward()


@healthy
def mask_logits_data_mm() -> None:
    layer = nn.Linear(6, 4)
    a = nn.Linear(6, 6)
    z = layer(a(torch.randn(8, 6)).tanh())
    z.data[:, 2] = -1000000000.0
    (z.softmax(1) * torch.randn(8, 4)).sum().backward()


@healthy
def attention_mask_data() -> None:
    q = nn.Linear(6, 6)
    k = nn.Linear(6, 6)
    x = torch.randn(2, 5, 6)
    s = q(x) @ k(x).transpose(1, 2)
    s.data.masked_fill_(torch.ones(5, 5).triu(1).bool(), -1000000000.0)
    (s.softmax(-1) @ x).square().mean().backward()


@healthy
def normalised_activation_data() -> None:
    """Y.data rescaled before use (LSUV style init pass output)."""
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = l1(torch.randn(8, 6))
    y.data /= y.data.std()
    F.cross_entropy(l2(y.relu()), labels(8, 3)).backward()


@healthy
def stochastic_depth_data() -> None:
    l1, l2 = (nn.Linear(6, 6), nn.Linear(6, 3))
    x = torch.randn(8, 6)
    y = l1(x).relu()
    y.data.mul_((torch.rand(8, 1) > 0.5).float())
    F.cross_entropy(l2(y + x), labels(8, 3)).backward()


@healthy
def logged_numpy() -> None:
    m = mlp(6, 8, 3)
    y = m(torch.randn(8, 6))
    a = y.detach().numpy().copy()
    a *= 2
    F.cross_entropy(y, labels(8, 3)).backward()


@healthy
def state_dict_loaded_after_backward() -> None:
    m = mlp(6, 8, 8, 3)
    best = copy.deepcopy(m.state_dict())
    for _ in range(2):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        m.load_state_dict(best)


@healthy
def swa_ema_context() -> None:
    """Evaluate with EMA weights between backward and next forward."""
    m = mlp(6, 8, 8, 3)
    e = [p.data.clone() for p in m.parameters()]
    for _ in range(2):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        b = [p.data for p in m.parameters()]
        for p, q in zip(m.parameters(), e, strict=True):
            p.data = q
        with torch.no_grad():
            m(torch.randn(8, 6))
        for p, q in zip(m.parameters(), b, strict=True):
            p.data = q


@healthy
def ema_swap_between_forward_and_backward() -> None:
    """Weights swapped by .data = other and back before backward."""
    m = mlp(6, 8, 8, 3)
    e = [p.data.clone() * 1.1 for p in m.parameters()]
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    b = [p.data for p in m.parameters()]
    for p, q in zip(m.parameters(), e, strict=True):
        p.data = q
    with torch.no_grad():
        m(torch.randn(8, 6))
    for p, q in zip(m.parameters(), b, strict=True):
        p.data = q
    loss.backward()


@healthy
def double_backward_steps() -> None:
    m1, m2 = (mlp(6, 8, 4), mlp(4, 8, 1))
    o1, o2 = (torch.optim.SGD(m1.parameters(), 0.1), torch.optim.SGD(m2.parameters(), 0.1))
    z = m1(torch.randn(8, 6))
    l2 = m2(z.detach()).mean()
    o2.zero_grad()
    l2.backward()
    o2.step()
    o1.zero_grad()
    (-m2(z).mean()).backward()
    o1.step()


@healthy
def lion_decoupled() -> None:
    m = mlp(6, 8, 3)
    for _ in range(3):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        for p in m.parameters():
            p.data.mul_(0.99).sub_(p.grad.sign(), alpha=0.01)
            p.grad = None


@healthy
def hogwild_free_running_bias() -> None:
    m = mlp(6, 8, 3)
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    m[0].bias.data.zero_()
    m[2].bias.data.zero_()
    loss.backward()


@healthy
def parameters_through_a_vector() -> None:
    m = mlp(6, 8, 3)
    for _ in range(2):
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        vector_to_parameters(parameters_to_vector(m.parameters()) * 0.9, m.parameters())


@healthy
def batch_buffer_reused_prefetch() -> None:
    """Input buffer overwritten after the forward whose first layer has frozen weights: nothing saved."""
    l0, l1 = (nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 3))
    buf = torch.randn(8, 6)
    loss = F.cross_entropy(l1(l0(buf)), labels(8, 3))
    buf.data.normal_()
    loss.backward()


@healthy
def hard_sigmoid_ste_function() -> None:

    class Hard(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (x > 0).float()

        @staticmethod
        def backward(ctx, g):
            return g

    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    F.cross_entropy(l2(Hard.apply(l1(torch.randn(8, 6)))), labels(8, 3)).backward()


@healthy
def surrogate_spike_data() -> None:
    """Spiking: membrane*surrogate sigmoid with data replaced by step."""
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    v = torch.zeros(8, 5)
    out = 0
    for _ in range(3):
        v = 0.9 * v + l1(torch.randn(8, 6))
        s = torch.sigmoid(4 * (v - 1))
        s.data = (v.data > 1).float()
        v = v * (1 - s)
        out = out + l2(s)
    F.cross_entropy(out, labels(8, 3)).backward()


@healthy
def relu_data_leaky_hook() -> None:
    """Loss.data replaced by reduced mean (all_reduce)."""
    m = mlp(6, 8, 3)
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    loss.data = loss.data / 4
    loss.backward()


@healthy
def magnitude_exp_replaced_param() -> None:
    """A weight set from another one before the forward, as weight drop does."""
    raw = nn.Parameter(torch.randn(5, 6))
    lin = nn.Linear(6, 5)
    x = torch.randn(8, 6, requires_grad=True)
    lin.weight.data = F.dropout(raw, 0.5).data
    lin(x).square().mean().backward()


@healthy
def logged_everywhere() -> None:
    m = mlp(6, 8, 8, 3)
    seen = []
    for _ in range(2):
        h = m[0](torch.randn(8, 6)).relu()
        z = m[4](m[2](h).relu())
        loss = F.cross_entropy(z, labels(8, 3))
        seen.append(h.data.cpu().numpy().mean())
        seen.append(z.data.max(1)[1])
        seen.append(loss.data.item())
        kept = h.data
        seen.append(kept.norm())
        loss.backward()


@healthy
def first_layer_stepped_by_data_between_two_losses() -> None:
    layer = nn.Linear(4, 3)
    x = torch.randn(5, 4)
    a = F.cross_entropy(layer(x), labels(5, 3))
    b = F.cross_entropy(layer(2 * x), labels(5, 3))
    a.backward()
    layer.weight.data.sub_(layer.weight.grad)
    layer.bias.data.sub_(layer.bias.grad)
    b.backward()


@healthy
def first_layer_stepped_between_two_losses() -> None:
    layer = nn.Linear(4, 3)
    opt = torch.optim.SGD(layer.parameters(), 0.5)
    x = torch.randn(5, 4)
    a = F.cross_entropy(layer(x), labels(5, 3))
    b = F.cross_entropy(layer(2 * x), labels(5, 3))
    a.backward()
    opt.step()
    b.backward()


@healthy
def first_layer_edited_through_numpy_after_its_use() -> None:
    layer = nn.Linear(4, 3)
    a = F.cross_entropy(layer(torch.randn(5, 4)), labels(5, 3))
    layer.weight.detach().numpy()[:] = 0
    a.backward()


@healthy
def forward_hook_clamps_by_data() -> None:
    m = mlp(6, 8, 8, 3)

    def clamp(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.data.clamp_(max=0.5)

    m[1].register_forward_hook(clamp)
    m[2].register_forward_hook(clamp)
    F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()


@healthy
def relu6_by_index() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    y = (5 * l1(torch.randn(8, 6))).relu()
    y.data[y.data > 3] = 3
    F.cross_entropy(l2(y), labels(8, 3)).backward()


@healthy
def masked_element_losses() -> None:
    m = mlp(6, 8, 3)
    e = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3), reduction="none")
    e.data.mul_((torch.arange(8) % 2).float())
    e.mean().backward()


@healthy
def masked_element_losses_square() -> None:
    m = mlp(6, 8, 3)
    e = F.mse_loss(m(torch.randn(8, 6)), torch.randn(8, 3), reduction="none")
    e.data[2:4] = 0
    e.sum().backward()


@healthy
def parameter_noise_taken_back_after_backward() -> None:
    m = mlp(6, 8, 8, 3)
    for _ in range(2):
        noise = [0.1 * torch.randn_like(p) for p in m.parameters()]
        for p, n in zip(m.parameters(), noise, strict=True):
            p.data.add_(n)
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        for p, n in zip(m.parameters(), noise, strict=True):
            p.data.sub_(n)


@healthy
def lookahead() -> None:
    m = mlp(6, 8, 8, 3)
    slow = [p.data.clone() for p in m.parameters()]
    opt = torch.optim.SGD(m.parameters(), 0.1)
    for i in range(4):
        opt.zero_grad()
        F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)).backward()
        opt.step()
        if i % 2:
            for p, s in zip(m.parameters(), slow, strict=True):
                s += 0.5 * (p.data - s)
                p.data.copy_(s)


@healthy
def lbfgs() -> None:
    m = mlp(6, 8, 3, act=nn.Tanh)
    opt = torch.optim.LBFGS(m.parameters(), max_iter=3)
    x = torch.randn(8, 6)

    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(m(x), labels(8, 3))
        loss.backward()
        return loss

    opt.step(closure)


@healthy
def accumulated() -> None:
    m = mlp(6, 8, 8, 3)
    opt = torch.optim.AdamW(m.parameters())
    for i in range(4):
        (F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3)) / 2).backward()
        if i % 2:
            nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            opt.step()
            opt.zero_grad()


@healthy
def lora_merged_for_evaluation() -> None:
    w = nn.Linear(6, 6).requires_grad_(False)
    a, b = (nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(6, 2)))
    o = nn.Linear(6, 3)
    for _ in range(2):
        x = torch.randn(8, 6)
        F.cross_entropy(o(w(x) + x @ a.t() @ b.t()), labels(8, 3)).backward()
        w.weight.data += (b @ a).data
        with torch.no_grad():
            o(w(x))
        w.weight.data -= (b @ a).data
        b.data -= 0.1 * b.grad


@healthy
def hidden_state_zeroed_at_the_start() -> None:
    c = nn.GRUCell(6, 8)
    o = nn.Linear(8, 3)
    h = torch.randn(4, 8)
    for _ in range(2):
        h = h.detach()
        h.data.zero_()
        h = c(torch.randn(4, 6), h)
        F.cross_entropy(o(h), labels(4, 3)).backward()


@healthy
def batch_buffer_filled_again_after_backward() -> None:
    m = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    buf = torch.empty(4, 1, 8, 8)
    for _ in range(3):
        buf.data.normal_()
        F.cross_entropy(m(buf), labels(4, 3)).backward()


@healthy
def augmented_through_numpy_before_use() -> None:
    a = np.zeros((8, 6), "float32")
    m = mlp(6, 8, 3)
    for _ in range(2):
        x = torch.from_numpy(a)
        a[:] = np.random.randn(8, 6)
        F.cross_entropy(m(x), labels(8, 3)).backward()


@healthy
def two_heads_share_a_replaced_trunk() -> None:
    t, a, b = (nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 2))
    h = t(torch.randn(8, 6)).sigmoid()
    h.data = h.data.round() + 0.01 * torch.randn(8, 5)
    (F.cross_entropy(a(h), labels(8, 3)) + F.cross_entropy(b(h), labels(8, 2))).backward()


@healthy
def scores_scaled_by_data_then_tanh() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    z = l1(torch.randn(8, 6))
    z.data /= 2.0
    F.cross_entropy(l2(z.tanh()), labels(8, 3)).backward()


@healthy
def view_of_a_result_replaced_before_use() -> None:
    l1, l2 = (nn.Linear(6, 6), nn.Linear(6, 3))
    z = l1(torch.randn(8, 6))
    z.view(8, 2, 3).data[:, 1] = 0
    F.cross_entropy(l2(z.relu()), labels(8, 3)).backward()


@healthy
def linear_weights_assigned_before_backward() -> None:
    """What a linear layer saved is a view of the old memory."""
    m = mlp(6, 8, 8, 3)
    others = [p.data.clone() * 1.1 for p in m.parameters()]
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    for p, q in zip(m.parameters(), others, strict=True):
        p.data = q
    loss.backward()


@healthy
def pooled_memory_used_again() -> None:
    """Max pooling needs its winners alone: what went in may go."""
    first, second = nn.Conv2d(1, 2, 3), nn.Linear(18, 3)
    z = first(torch.randn(4, 1, 8, 8))
    y = second(F.max_pool2d(z, 2).flatten(1))
    z.data.zero_()
    F.cross_entropy(y, labels(4, 3)).backward()


@healthy
def relu_result_scaled_after_its_last_use() -> None:
    """A relu needs the sign of its result alone."""
    h = nn.Linear(6, 5)(torch.randn(8, 6)).relu()
    loss = (h * torch.randn(5)).sum()
    h.data.mul_(2)
    loss.backward()


@healthy
def perturbation_clamped_before_backward() -> None:
    """Nobody saves what is only added."""
    m = mlp(6, 8, 3)
    delta = torch.zeros(8, 6, requires_grad=True)
    x = torch.randn(8, 6)
    for _ in range(2):
        loss = F.cross_entropy(m(x + delta), labels(8, 3))
        delta.data.add_(1).clamp_(-0.1, 0.1)
        loss.backward()


@healthy
def leaf_of_an_exponential_scaled() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    loss = (x.exp() * torch.randn(5)).sum()
    x.data.mul_(2)
    loss.backward()


@healthy
def distances_scaled_after_use() -> None:
    """The gradient of an absolute value is a sign."""
    x = nn.Linear(6, 5)(torch.randn(8, 6))
    loss = (x.abs() * torch.randn(5)).exp().sum()
    x.data.mul_(3)
    loss.backward()
