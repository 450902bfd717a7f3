"""Graphs shaped like the ones people train, from a block to 50,000 nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from explorer.graph import Graph, Source
from explorer.report import (
    Report,
)
from tests.render.building import Builder, filled, wave


def transformer_block(build: Builder, after: Sequence[int], name: str, width: int = 16) -> int:
    """Append one GPT-2 block in backward order; returns the node that stands for its input."""
    full, heads = (2, 8, width), (2, 2, 8, 8)

    def linear(consumers: Sequence[int], module: str, out: int, into: int) -> int:
        view = build.op("View", *consumers, shape=(2, 8, out), module=module)
        addmm = build.op("Addmm", view, shape=(16, out), module=module)
        build.leaf(f"{module}.bias", addmm, shape=(out,), module=module)
        back = build.op("View", addmm, shape=(16, into), module=module)
        turned = build.op("T", addmm, shape=(into, out), module=module)
        build.leaf(f"{module}.weight", turned, shape=(out, into), module=module)
        return back

    def norm(consumers: Sequence[int], module: str) -> int:
        node = build.op("NativeLayerNorm", *consumers, shape=full, module=module)
        build.leaf(f"{module}.weight", node, shape=(width,), module=module)
        build.leaf(f"{module}.bias", node, shape=(width,), module=module)
        return node

    second = build.op("Add", *after, shape=full, module=name)
    project = linear([second], f"{name}.mlp.c_proj", width, 4 * width)
    act = f"{name}.mlp.act"
    wide = (2, 8, 4 * width)
    outer = build.op("Mul", project, shape=wide, module=act)
    half = build.op("Mul", outer, shape=wide, module=act)
    plus = build.op("Add", outer, shape=wide, module=act)
    tanh = build.op("Tanh", plus, shape=wide, module=act)
    scaled = build.op("Mul", tanh, shape=wide, module=act)
    inner = build.op("Add", scaled, shape=wide, module=act)
    cubed = build.op("Pow", build.op("Mul", inner, shape=wide, module=act), shape=wide, module=act)
    opened = linear([half, inner, cubed], f"{name}.mlp.c_fc", 4 * width, width)
    middle = norm([opened], f"{name}.ln_2")
    first = build.op("Add", second, middle, shape=full, module=name)
    attn = f"{name}.attn"
    out = linear([first], f"{attn}.c_proj", width, width)
    joined = build.op(
        "Transpose", build.op("View", out, shape=full, module=attn), shape=(2, 8, 2, 8), module=attn
    )
    mixed = build.op("Bmm", joined, shape=heads, module=attn)
    weights = build.op("Softmax", mixed, shape=heads, module=attn)
    masked = build.op("MaskedFill", weights, shape=heads, module=attn)
    score = build.op("Bmm", build.op("Mul", masked, shape=heads, module=attn), shape=heads, module=attn)
    query = build.op("Transpose", score, shape=heads, module=attn)
    key = build.op(
        "Transpose", build.op("Transpose", score, shape=heads, module=attn), shape=heads, module=attn
    )
    value = build.op("Transpose", mixed, shape=heads, module=attn)
    split = build.op("Split", query, key, value, shape=(2, 8, 3 * width), module=attn)
    whole = linear([split], f"{attn}.c_attn", 3 * width, width)
    start = norm([whole], f"{name}.ln_1")
    return build.op("Alias", first, start, shape=full, module=name)


def block() -> Report:
    """A GPT-2 block of some 60 nodes with its modules, under a squared loss."""
    build = Builder()
    mean = build.op("Mean")
    power = build.op("Pow", mean, shape=(2, 8, 16))
    scaled = build.op("Mul", power, shape=(2, 8, 16))
    start = transformer_block(build, [scaled], "block")
    build.leaf("x", start, shape=(2, 8, 16), role="input")
    graph = build.graph()
    return filled(
        graph,
        lambda node: 1.0 if node.id == 0 else 10 ** (-2.3 + 1.1 * math.sin(1.7 * node.id)),
        script="block.py",
        where=Source("block.py", 31, "loss.backward()"),
    )


def gpt(layers: int = 48) -> Report:
    """GPT-2 of so many blocks under a cross-entropy loss, with tied embeddings."""
    build = Builder()
    loss = build.op("NllLoss", label="loss")
    soft = build.op("LogSoftmax", loss, shape=(16, 50))
    logits = build.op("Mm", build.op("View", soft, shape=(16, 50)), shape=(16, 50), module="lm_head")
    turned = build.op("T", logits, shape=(16, 50), module="lm_head")
    norm = build.op(
        "NativeLayerNorm", build.op("View", logits, shape=(2, 8, 16)), shape=(2, 8, 16), module="ln_f"
    )
    build.leaf("ln_f.weight", norm, shape=(16,), module="ln_f")
    build.leaf("ln_f.bias", norm, shape=(16,), module="ln_f")
    flow = norm
    for layer in reversed(range(layers)):
        flow = transformer_block(build, [flow], f"h.{layer}")
    summed = build.op("Add", flow, shape=(2, 8, 16))
    token = build.op("Embedding", summed, shape=(2, 8, 16), module="wte")
    place = build.op("Embedding", summed, shape=(8, 16), module="wpe")
    build.leaf("wte.weight", turned, token, shape=(50, 16), module="wte")
    build.leaf("wpe.weight", place, shape=(8, 16), module="wpe")
    return filled(
        build.graph(), wave, script="train_gpt.py", where=Source("train_gpt.py", 88, "loss.backward()")
    )


def resnet() -> Report:
    """ResNet-50's graph: 16 bottlenecks in four stages."""
    build = Builder()
    loss = build.op("NllLoss", label="loss")
    soft = build.op("LogSoftmax", loss, shape=(4, 1000))
    fc = build.op("Addmm", soft, shape=(4, 1000), module="fc")
    build.leaf("fc.bias", fc, shape=(1000,), module="fc")
    turned = build.op("T", fc, shape=(2048, 1000), module="fc")
    build.leaf("fc.weight", turned, shape=(1000, 2048), module="fc")
    flow = build.op("View", fc, shape=(4, 2048))
    flow = build.op("Mean", flow, shape=(4, 2048, 1, 1), module="avgpool")

    def unit(after: int, conv: str, norm: str, width: int) -> int:
        normed = build.op("CudnnBatchNorm", after, shape=(4, width, 7, 7), module=norm)
        convolved = build.op("Convolution", normed, shape=(4, width, 7, 7), module=conv)
        build.leaf(f"{norm}.weight", normed, shape=(width,), module=norm)
        build.leaf(f"{norm}.bias", normed, shape=(width,), module=norm)
        build.leaf(f"{conv}.weight", convolved, shape=(width, width, 3, 3), module=conv)
        return convolved

    for stage, blocks in reversed(list(enumerate((3, 4, 6, 3), 1))):
        for block_number in reversed(range(blocks)):
            name, width = f"layer{stage}.{block_number}", 64 * 2 ** (stage - 1)
            last = build.op("Relu", flow, shape=(4, width, 7, 7), module=f"{name}.relu", call=2)
            added = build.op("Add", last, shape=(4, width, 7, 7), module=name)
            third = unit(added, f"{name}.conv3", f"{name}.bn3", width)
            second = unit(
                build.op("Relu", third, shape=(4, width, 7, 7), module=f"{name}.relu", call=1),
                f"{name}.conv2",
                f"{name}.bn2",
                width,
            )
            first = unit(
                build.op("Relu", second, shape=(4, width, 7, 7), module=f"{name}.relu"),
                f"{name}.conv1",
                f"{name}.bn1",
                width,
            )
            if block_number:
                flow = build.op("Alias", first, added, shape=(4, width, 7, 7), module=name)
            else:
                side = unit(added, f"{name}.downsample.0", f"{name}.downsample.1", width)
                flow = build.op("Alias", first, side, shape=(4, width, 7, 7), module=name)
    pooled = build.op("MaxPool2DWithIndices", flow, shape=(4, 64, 56, 56), module="maxpool")
    active = build.op("Relu", pooled, shape=(4, 64, 112, 112), module="relu")
    unit(active, "conv1", "bn1", 64)
    return filled(build.graph(), wave, script="resnet.py", where=Source("resnet.py", 40, "loss.backward()"))


def adversarial() -> Report:
    """Two losses of one backward; the discriminator D is called three times, once on what G made."""
    build = Builder()
    fool, tell = build.op("Mean", label="loss_g"), build.op("Add", label="loss_d")
    ends = (fool, build.op("Mean", tell), build.op("Mean", tell))
    uses: dict[str, list[int]] = {}
    after = 0
    for call, end in enumerate(ends):
        made = end
        for layer in (2, 0):
            module = f"D.{layer}"
            made = build.op("Addmm", made, shape=(8, 16), module=module, call=call)
            turned = build.op("T", made, shape=(16, 16), module=module, call=call)
            uses.setdefault(f"{module}.bias", []).append(made)
            uses.setdefault(f"{module}.weight", []).append(turned)
            if layer:
                made = build.op("LeakyRelu", made, shape=(8, 16), module="D.1", call=call)
        after = after or made
    for name, users in uses.items():
        build.leaf(name, *users, shape=(16,), module=name.rpartition(".")[0])
    for layer in (2, 0):
        after = build.op("Addmm", after, shape=(8, 16), module=f"G.{layer}")
        for name in ("weight", "bias"):
            build.leaf(f"G.{layer}.{name}", after, shape=(16,), module=f"G.{layer}")
    graph = build.graph()
    both = Graph(graph.nodes, graph.edges, ((fool, 0), (tell, 0)), graph.arity)
    return filled(both, wave, root_name="loss_g")


def lstm(steps: int = 500, layers: int = 4) -> Report:
    """An LSTM written with cells in a loop: every cell's weights are used at every step."""
    build = Builder()
    loss = build.op("Mean", label="loss")
    top: int = loss
    hidden: list[list[int]] = [[] for _ in range(layers)]
    state: list[int | None] = [None] * layers
    used: list[dict[str, list[int]]] = [{} for _ in range(layers)]
    for step in reversed(range(steps)):
        above = [top] if step == steps - 1 else []
        for layer in reversed(range(layers)):
            module = f"cells.{layer}"
            more = {"module": module, "call": step, "shape": (8, 32)}
            out = build.op("Mul", *above, *hidden[layer], **more)
            tanh = build.op("Tanh", out, **more)
            carried = [tanh] + ([state[layer]] if state[layer] is not None else [])
            cell = build.op("Add", *carried, **more)  # type: ignore[arg-type]  # None was filtered
            keep = build.op("Mul", cell, **more)
            fresh = build.op("Mul", cell, **more)
            gates = [
                build.op("Sigmoid", out, **more),
                build.op("Sigmoid", keep, **more),
                build.op("Sigmoid", fresh, **more),
                build.op("Tanh", fresh, **more),
            ]
            split = build.op("Split", *gates, **{**more, "shape": (8, 128)})
            both = build.op("Add", split, **{**more, "shape": (8, 128)})
            seen = build.op("Addmm", both, **{**more, "shape": (8, 128)})
            recalled = build.op("Addmm", both, **{**more, "shape": (8, 128)})
            for name, user in (("weight_ih", seen), ("weight_hh", recalled)):
                turned = build.op("T", user, **{**more, "shape": (32, 128)})
                used[layer].setdefault(name, []).append(turned)
            used[layer].setdefault("bias_ih", []).append(seen)
            used[layer].setdefault("bias_hh", []).append(recalled)
            above, hidden[layer], state[layer] = [seen], [recalled], keep
    for layer in range(layers):
        for name, users in used[layer].items():
            build.leaf(f"cells.{layer}.{name}", *users, shape=(128, 32), module=f"cells.{layer}")
    return filled(build.graph(), wave, script="lstm.py")


def loop(steps: int = 16_666, lines: bool = True) -> Report:
    """h = tanh(w·h + x) in a plain loop of three operations a step, without modules; 50,000 nodes."""
    build = Builder()
    flow, users = build.op("Sum", label="loss"), []
    for _ in range(steps):
        tanh = build.op("Tanh", flow, shape=(8,), line=12 if lines else 0)
        add = build.op("Add", tanh, shape=(8,), line=11 if lines else 0)
        flow = build.op("Mul", add, shape=(8,), line=10 if lines else 0)
        users.append(flow)
    build.leaf("w", *users, shape=(8,))
    build.leaf("h0", flow, shape=(8,), role="input")
    return filled(build.graph(), wave, script="loop.py")


def tangle(nodes: int = 50_000) -> Report:
    """A graph without any structure: each node feeds up to three earlier ones at random."""
    build, chaos = Builder(), 12345
    names = ("Mul", "Add", "Tanh", "Sin", "Exp", "Sub", "Div", "Relu")
    build.op("Sum", label="loss")
    for place in range(1, nodes):
        users = []
        for _ in range(1 + chaos % 3):
            chaos = (1103515245 * chaos + 12345) % 2**31
            users.append(max(0, place - 1 - chaos // 65536 % 50))
        build.op(names[chaos // 1024 % 8], *dict.fromkeys(users), shape=(4,))
    return filled(build.graph(), wave, script="tangle.py")
