"""Images in: convolutional networks, vision transformers, segmentation, detection, a spatial transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from tests.zoo.registry import model


def images(batch: int = 2, size: int = 16, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, size, size)


def labels(batch: int = 2, classes: int = 5) -> Tensor:
    return torch.randint(classes, (batch,))


# -------------------------------------------------------------------- convolutional networks


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with batch norm, and a skip that is projected where shapes differ."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x), inplace=True)


@model("ResNet")
def resnet() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
        Bottleneck(8, 4, 1), Bottleneck(16, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    F.cross_entropy(network(images(2, 32)), labels(), label_smoothing=0.1).backward()


@model("ResNet, channels last, autocast to bfloat16")
def resnet_bfloat16() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), Bottleneck(8, 4, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    x = images().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(network(x), labels())
    loss.backward()


class Squeeze(nn.Module):
    """Squeeze and excitation: channels weighted by their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    """An inverted residual: expand, depthwise, squeeze, project."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        wide = 3 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), activation,
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), activation,
            Squeeze(wide), nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@model("MobileNet")
def mobilenet() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Hardswish(), Inverted(4, nn.ReLU6()), Inverted(4, nn.Hardswish()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 5),
    )  # fmt: skip
    F.cross_entropy(network(images()), labels()).backward()


@model("EfficientNet part")
def efficientnet() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(inplace=True), Inverted(4, nn.SiLU()))
    y = network(images())
    keep = (torch.rand(2, 1, 1, 1) < 0.8).float() / 0.8  # stochastic depth
    (y * keep).mean((2, 3)).square().sum().backward()


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.scale = nn.LayerNorm(width, eps=1e-6), nn.Parameter(torch.full((width,), 1e-1))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.scale * self.narrow(F.gelu(self.wide(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


@model("ConvNeXt part")
def convnext() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8), ConvNeXtBlock(8))
    head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5))
    F.cross_entropy(head(network(images(2, 32)).mean([-2, -1])), labels()).backward()


@model("U-Net")
def unet() -> None:
    def double(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(2, outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs, affine=True), nn.ReLU(),
        )  # fmt: skip

    first, second, low = double(3, 4), double(4, 8), double(8, 8)
    up, third, fourth, head = nn.ConvTranspose2d(8, 8, 2, 2), double(16, 4), double(8, 4), nn.Conv2d(4, 3, 1)
    x = images()
    a = first(x)
    b = second(F.max_pool2d(a, 2))
    c = third(torch.cat([up(low(F.max_pool2d(b, 2))), b], 1))
    grown = F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=True)
    logits = head(fourth(torch.cat([grown, a], 1)))
    target = torch.randint(3, (2, 16, 16))
    chances = logits.softmax(1)
    onehot = F.one_hot(target, 3).permute(0, 3, 1, 2).float()
    dice = 1 - (2 * (chances * onehot).sum((2, 3)) + 1) / ((chances + onehot).sum((2, 3)) + 1)
    (F.cross_entropy(logits, target, ignore_index=2) + dice.mean()).backward()


@model("super-resolution with pixel shuffle and a bicubic skip")
def super_resolution() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 12, 3, padding=1))
    x = images(2, 8).requires_grad_()
    y = F.pixel_shuffle(network(x), 2) + F.interpolate(x, scale_factor=2, mode="bicubic")
    small = F.interpolate(y, size=(6, 6), mode="bilinear", antialias=True)
    (F.l1_loss(y, images(2, 16)) + F.smooth_l1_loss(small, torch.zeros_like(small))).backward()


@model("spatial transformer")
def spatial_transformer() -> None:
    locate = nn.Sequential(nn.Conv2d(3, 2, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 6))
    x = images().requires_grad_()
    turns = locate(x).view(2, 2, 3) * 0.1 + torch.eye(2, 3)
    grid = F.affine_grid(turns, [2, 3, 10, 10], align_corners=False)
    F.grid_sample(x, grid, align_corners=False).square().mean().backward()


# -------------------------------------------------------------------- attention over patches


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.first(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.dropout(self.out(y))
        return x + self.dropout(self.mlp(self.second(x)))


@model("ViT")
def vit() -> None:
    patches, token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
    places = nn.Parameter(torch.randn(1, 17, 16) * 0.02)
    body = nn.Sequential(Block(16, 4, 0.1), Block(16, 4, 0.1), nn.LayerNorm(16))
    x = patches(images()).flatten(2).transpose(1, 2)
    x = torch.cat([token.expand(2, -1, -1), x], 1) + places
    F.cross_entropy(nn.Linear(16, 5)(body(x)[:, 0]), labels()).backward()


@model("Swin part")
def swin() -> None:
    width, heads, window, size = 8, 2, 4, 8
    norm, qkv, out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
    bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.02)
    merge = nn.Linear(4 * width, 2 * width, bias=False)
    ticks = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    apart = (ticks[:, :, None] - ticks[:, None]).permute(1, 2, 0) + window - 1
    index = (apart[..., 0] * (2 * window - 1) + apart[..., 1]).flatten()
    x = nn.Conv2d(3, width, 2, 2)(images()).permute(0, 2, 3, 1)
    y = torch.roll(norm(x), (-2, -2), (1, 2))
    y = y.view(2, size // window, window, size // window, window, width).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(-1, window * window, width)
    q, k, v = qkv(y).reshape(-1, 16, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = q * (width // heads) ** -0.5 @ k.transpose(-2, -1)
    scores = scores + bias[index].view(16, 16, heads).permute(2, 0, 1).unsqueeze(0)
    mask = torch.zeros(4, 16, 16).masked_fill(torch.rand(4, 16, 16) > 0.9, -100.0)
    scores = (scores.view(2, 4, heads, 16, 16) + mask[None, :, None]).view(-1, heads, 16, 16)
    y = out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, width))
    y = y.view(2, 2, 2, window, window, width).permute(0, 1, 3, 2, 4, 5).reshape(2, size, size, width)
    x = x + torch.roll(y, (2, 2), (1, 2))
    parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    merge(torch.cat(parts, -1)).square().mean().backward()


@model("detection head")
def detection() -> None:
    """Boxes and classes of matched queries: L1, generalised IoU and focal loss, as DETR and RetinaNet."""
    memory = torch.randn(2, 9, 8)
    decoder = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    queries, classes, boxes = nn.Embedding(4, 8), nn.Linear(8, 3), nn.Linear(8, 4)
    found = decoder(queries.weight.unsqueeze(0).expand(2, -1, -1), memory)
    centre, size = boxes(found).sigmoid().chunk(2, -1)
    corners = torch.cat([centre - size / 2, centre + size / 2], -1)[:, :2].reshape(-1, 4)
    wanted = torch.tensor([[0.1, 0.1, 0.5, 0.6]]).expand(4, 4)
    low, high = torch.max(corners[:, :2], wanted[:, :2]), torch.min(corners[:, 2:], wanted[:, 2:])
    inner = (high - low).clamp(min=0).prod(1)
    area = (corners[:, 2:] - corners[:, :2]).prod(1)
    union = area + (wanted[:, 2:] - wanted[:, :2]).prod(1) - inner
    hull = torch.max(corners[:, 2:], wanted[:, 2:]) - torch.min(corners[:, :2], wanted[:, :2])
    giou = inner / union - (hull.prod(1) - union) / hull.prod(1)
    logits = classes(found)
    target = torch.zeros_like(logits)
    target[:, :2, 1] = 1
    p = logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (cross * (1 - (p * target + (1 - p) * (1 - target))) ** 2).mean()
    ((1 - giou).sum() + F.l1_loss(corners, wanted) + focal).backward()
