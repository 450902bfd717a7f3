"""Scripts whose gradients are silently wrong, for a saved value was changed after it was used."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from tests.changes.registry import damaged, labels, mlp


@damaged("p.data.sub_(p.grad, alpha=0.5)")
def step_data_retained() -> None:
    m = mlp(6, 8, 8, 3)
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    loss.backward(retain_graph=True)
    for p in m.parameters():
        p.data.sub_(p.grad, alpha=0.5)
    loss.backward()


@damaged("p.data.clamp_(-0.01, 0.01)")
def clip_between_forward_and_backward() -> None:
    m = mlp(6, 8, 8, 1)
    loss = m(torch.randn(8, 6)).mean()
    for p in m.parameters():
        p.data.clamp_(-0.01, 0.01)
    loss.backward()


@damaged("p.data.mul_(0.9).add_(q.data * 0.5, alpha=0.1)")
def ema_of_student_itself() -> None:
    s = mlp(6, 8, 8, 4)
    e = copy.deepcopy(s)
    loss = s(torch.randn(8, 6)).square().mean()
    for p, q in zip(s.parameters(), e.parameters(), strict=True):
        p.data.mul_(0.9).add_(q.data * 0.5, alpha=0.1)
    loss.backward()


@damaged("h.data.zero_()")
def activation_zeroed_after_use() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    h = l1(torch.randn(8, 6)).tanh()
    loss = F.cross_entropy(l2(h), labels(8, 3))
    h.data.zero_()
    loss.backward()


@damaged("h.data.mul_(2)")
def activation_scaled_after_use_relu() -> None:
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    h = l1(torch.randn(8, 6)).relu()
    loss = F.cross_entropy(l2(h), labels(8, 3))
    h.data.mul_(2)
    loss.backward()


@damaged("x.data.sub_(x.mean(0))")
def batch_normalised_after_forward() -> None:
    l1 = nn.Linear(6, 5)
    l2 = nn.Linear(5, 3)
    x = torch.randn(8, 6)
    loss = F.cross_entropy(l2(l1(x).tanh()), labels(8, 3))
    x.data.sub_(x.mean(0))
    loss.backward()


@damaged("")
def numpy_buffer_reused() -> None:
    a = np.random.randn(8, 6).astype("float32")
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    loss = F.cross_entropy(l2(l1(torch.from_numpy(a)).relu()), labels(8, 3))
    a[:] = np.random.randn(8, 6)
    loss.backward()


@damaged("p.data[p.data < 0.2] = 0")
def softmax_probs_thresholded_after() -> None:
    layer = nn.Linear(6, 5)
    p = layer(torch.randn(8, 6)).softmax(1)
    loss = -(p * p.log()).sum(1).mean()
    p.data[p.data < 0.2] = 0
    loss.backward()


@damaged("h.data[1].zero_()")
def hidden_state_zeroed_in_place() -> None:
    """RNN: done rows zeroed in place through .data after they were used."""
    c = nn.Linear(6, 8)
    r = nn.Linear(8, 8)
    o = nn.Linear(8, 3)
    h = torch.zeros(4, 8)
    loss = 0
    for _ in range(3):
        h = torch.tanh(c(torch.randn(4, 6)) + r(h))
        loss = loss + F.cross_entropy(o(h), labels(4, 3))
        h.data[1].zero_()
    loss.backward()


@damaged("t.data.mul_(2)")
def target_edited_after() -> None:
    m = mlp(6, 8, 3)
    t = torch.randn(8, 3)
    loss = F.mse_loss(m(torch.randn(8, 6)), t)
    t.data.mul_(2)
    loss.backward()


@damaged("l2.weight.data.div_(l2.weight.data.norm(dim=1, keepdim=True))")
def weights_normalised_after_forward() -> None:
    """Unit-norm constraint applied before backward."""
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    loss = F.cross_entropy(l2(l1(torch.randn(8, 6)).relu()), labels(8, 3))
    l2.weight.data.div_(l2.weight.data.norm(dim=1, keepdim=True))
    loss.backward()


@damaged("m[2].weight.data.mul_((torch.rand(8, 8) > 0.5).float())")
def mask_prune_after_forward() -> None:
    m = mlp(6, 8, 8, 3)
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    m[2].weight.data.mul_((torch.rand(8, 8) > 0.5).float())
    loss.backward()


@damaged("m[2].weight.data.mul_(1.5)")
def conv_weight_after() -> None:
    m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    loss = F.cross_entropy(m(torch.randn(8, 3, 8, 8)), labels(8, 3))
    m[2].weight.data.mul_(1.5)
    loss.backward()


@damaged("m[1].weight.data.mul_(1.5)")
def layernorm_weight_after() -> None:
    m = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    m[1].weight.data.mul_(1.5)
    loss.backward()


@damaged("a.data.masked_fill_(torch.ones(5, 5).triu(1).bool(), 0.0)")
def attention_weights_edited_after() -> None:
    x = torch.randn(2, 5, 6)
    q, k, v = (nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    a = (q(x) @ k(x).transpose(1, 2)).softmax(-1)
    y = a @ v(x)
    loss = y.square().mean()
    a.data.masked_fill_(torch.ones(5, 5).triu(1).bool(), 0.0)
    loss.backward()


@damaged("p.data.copy_(r)")
def restored_weights_before_backward() -> None:
    m = mlp(6, 8, 8, 3)
    real = [p.data.clone() for p in m.parameters()]
    for p in m.parameters():
        p.data.sign_()
    loss = F.cross_entropy(m(torch.randn(8, 6)), labels(8, 3))
    for p, r in zip(m.parameters(), real, strict=True):
        p.data.copy_(r)
    loss.backward()


@damaged("m[2].weight.data = other")
def convolution_weight_assigned_before_backward() -> None:
    m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    other = torch.randn(4, 4, 3, 3)
    loss = F.cross_entropy(m(torch.randn(8, 3, 8, 8)), labels(8, 3))
    m[2].weight.data = other
    loss.backward()


@damaged("")
def running_statistics_moved() -> None:
    bn = nn.BatchNorm1d(6)
    layer = nn.Linear(6, 6)
    bn.eval()
    y = bn(layer(torch.randn(8, 6)))
    bn.train()
    with torch.no_grad():
        bn(torch.randn(8, 6) * 5)
    y.square().mean().backward()


@damaged("h.data[:, 2:] = 0")
def used_by_one_head_then_masked_for_the_other() -> None:
    t, a, b = (nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 2))
    h = t(torch.randn(8, 6)).tanh()
    first = F.cross_entropy(a(h), labels(8, 3))
    h.data[:, 2:] = 0
    (first + F.cross_entropy(b(h), labels(8, 2))).backward()


@damaged("buf.data.normal_()")
def first_batch_buffer_overwritten() -> None:
    m = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    buf = torch.randn(4, 1, 8, 8)
    loss = F.cross_entropy(m(buf), labels(4, 3))
    buf.data.normal_()
    loss.backward()


@damaged("v.data.mul_(2)")
def attention_value_edited() -> None:
    project = nn.Linear(8, 24)
    parts = project(torch.randn(2, 5, 8)).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    q, k, v = (one.contiguous() for one in parts.unbind(0))
    loss = F.scaled_dot_product_attention(q, k, v).square().mean()
    v.data.mul_(2)
    loss.backward()


@damaged("m[0].weight.data.add_(0.1)")
def shared_weight_of_a_convolution_before_pooling() -> None:
    m = nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(4, 2, 8, 8, requires_grad=True)
    loss = F.cross_entropy(m(x), labels(4, 3))
    m[0].weight.data.add_(0.1)
    loss.backward()


@damaged("h.data.neg_()")
def sign_of_a_relu_turned() -> None:
    h = nn.Linear(6, 5)(torch.randn(8, 6)).relu()
    loss = (h * torch.randn(5)).sum()
    h.data.neg_()
    loss.backward()


@damaged("adversarial.data.clamp_(-0.1, 0.1)")
def adversarial_batch_clamped_before_backward() -> None:
    m = mlp(6, 8, 3)
    adversarial = (torch.randn(8, 6) + 0.1 * torch.randn(8, 6)).requires_grad_()
    loss = F.cross_entropy(m(adversarial), labels(8, 3))
    adversarial.data.clamp_(-0.1, 0.1)
    loss.backward()
