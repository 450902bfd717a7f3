"""Reports built by hand, from three scalars to 50,000 nodes: what the renderers are tried on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from explorer.graph import Edge, Graph, Node, Saved, Source, TensorSpec
from explorer.report import (
    CheckSummary,
    Finding,
    GradientRecord,
    NodeGradients,
    Report,
    Status,
    Verdict,
)

SCALAR = TensorSpec((), "float32")


class Builder:
    """Writes a graph down in backward order: every node before those it sends gradients to."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.arity: list[int] = []

    def add(
        self,
        name: str,
        consumers: Iterable[int | tuple[int, int]] = (),
        *,
        shape: tuple[int, ...] | None = (),
        label: str = "",
        role: str = "",
        module: str = "",
        call: int = 0,
        kind: str = "",
        line: int = 0,
        **more: object,
    ) -> int:
        """A node that takes its gradient from `consumers`, each an id or (id, source slot)."""
        number = len(self.nodes)
        leaf = name == "AccumulateGrad"
        self.nodes.append(
            Node(
                number,
                name,
                kind=kind or ("leaf" if leaf else "op"),  # type: ignore[arg-type]  # tests name it freely
                label=label,
                role=role or ("parameter" if leaf else ""),  # type: ignore[arg-type]  # tests name it freely
                module=module,
                module_call=call,
                outputs=() if shape is None else (TensorSpec(shape, "float32"),),
                source=Source("model.py", line) if line else None,
                **more,  # type: ignore[arg-type]  # passed through to Node
            )
        )
        self.arity.append(0)
        for consumer in consumers:
            source, slot = consumer if isinstance(consumer, tuple) else (consumer, self.arity[consumer])
            self.edges.append(Edge(source, slot, number, 0))
            self.arity[source] = max(self.arity[source], slot + 1)
        return number

    def op(self, name: str, *consumers: int | tuple[int, int], **more: object) -> int:
        """An operation; `name` without "Backward0"."""
        return self.add(f"{name}Backward0", consumers, **more)  # type: ignore[arg-type]  # as in add

    def leaf(self, label: str, *consumers: int | tuple[int, int], **more: object) -> int:
        """A leaf."""
        return self.add("AccumulateGrad", consumers, label=label, **more)  # type: ignore[arg-type]  # as in add

    def graph(self) -> Graph:
        """The graph, rooted at node 0."""
        return Graph(tuple(self.nodes), tuple(self.edges), ((0, 0),), tuple(self.arity))


def record(rms: float, shape: Sequence[int] = (), **more: object) -> GradientRecord:
    """A gradient of the given RMS; a scalar keeps its value."""
    numel = math.prod(shape)
    values = (rms,) if numel == 1 else None
    fields = {"zero": rms == 0, "finite": math.isfinite(rms), "values": values, **more}
    return GradientRecord(tuple(shape), "float32", abs(rms) * math.sqrt(numel), numel=numel, **fields)  # type: ignore[arg-type]  # free fields


def checked(graph: Graph, status: Status = "match") -> tuple[tuple[Verdict, ...], CheckSummary]:
    """Every node with the same verdict, all elements compared."""
    sizes = [sum(spec.numel for spec in node.outputs if spec is not None) for node in graph.nodes]
    verdicts = tuple(
        Verdict(node.id, status, "local", 0.25, amount, amount)
        for node, amount in zip(graph.nodes, sizes, strict=True)
    )
    total = len(graph.nodes)
    summary = CheckSummary(
        total, total, total - 1, {status: total}, "full", sum(sizes), sum(sizes), 0.0, 0.012
    )
    return verdicts, summary


def scalar_report(
    graph: Graph,
    forward: dict[int, float],
    gradients: dict[int, float],
    edges: dict[int, float],
    **more: object,
) -> Report:
    """A report of a scalar graph from numbers worked by hand."""
    verdicts, check = checked(graph)
    fields: dict[str, object] = {
        "graph": graph,
        "forward": {node: ((value,),) for node, value in forward.items()},
        "gradients": tuple(
            NodeGradients((record(gradients[node.id]),), 4e-6, node.id) if node.id in gradients else None
            for node in graph.nodes
        ),
        "edge_gradients": tuple(
            record(edges.get(index, gradients[edge.target])) for index, edge in enumerate(graph.edges)
        ),
        "verdicts": verdicts,
        "check": check,
        "torch": "2.13.0",
        **more,
    }
    return Report(**fields)  # type: ignore[arg-type]  # fields of Report


def xyz() -> Report:
    """f = x·y·z at (2, −3, 4): gradients −12, 8, −6."""
    build = Builder()
    outer = build.op("Mul")
    inner = build.op("Mul", outer)
    x = build.leaf("x", inner, role="input")
    y = build.leaf("y", inner, role="input")
    z = build.leaf("z", outer, role="input")
    return scalar_report(
        build.graph(),
        {outer: -24.0, inner: -6.0, x: 2.0, y: -3.0, z: 4.0},
        {outer: 1.0, inner: 4.0, x: -12.0, y: 8.0, z: -6.0},
        {},
        root_name="f",
        script="xyz.py",
        where=Source("xyz.py", 7, "f.backward()"),
        looked_for=("backward-never-called", "unreached-parameter", "non-finite-gradient"),
    )


def sigmoid() -> Report:
    """CS231n's circuit: 1 / (1 + exp(−(w0·x0 + w1·x1 + w2)))."""
    build = Builder()
    r = build.op("Reciprocal")
    i = build.op("Add", r)
    ex = build.op("Exp", i)
    n = build.op("Mul", ex)
    p1 = build.op("Add", n)
    p0 = build.op("Add", p1)
    m0 = build.op("Mul", p0)
    w0 = build.leaf("w0", m0)
    x0 = build.leaf("x0", m0, role="input")
    m1 = build.op("Mul", p0)
    w1 = build.leaf("w1", m1)
    x1 = build.leaf("x1", m1, role="input")
    w2 = build.leaf("w2", p1)
    e = math.exp(-1.0)
    s = 1 / (1 + e)
    d = s * (1 - s)
    return scalar_report(
        build.graph(),
        {r: s, i: 1 + e, ex: e, n: -1.0, p1: 1.0, p0: 4.0, m0: -2.0, m1: 6.0, w0: 2.0, x0: -1.0, w1: -3.0}
        | {x1: -2.0, w2: -3.0},
        {
            r: 1.0,
            i: -s * s,
            ex: -s * s,
            n: -s * s * e,
            p1: d,
            p0: d,
            m0: d,
            m1: d,
            w0: -d,
            x0: 2 * d,
            w1: -2 * d,
        }
        | {x1: -3 * d, w2: d},
        {},
        root_name="σ",
        script="sigmoid.py",
        where=Source("sigmoid.py", 12, "out.backward()"),
    )


def reused() -> Report:
    """f = x·x + x at 3, forward values unknown: the contributions 3, 3 and 1 sum to 7."""
    build = Builder()
    add = build.op("Add")
    square = build.op("Mul", add)
    x = build.leaf("x", square, square, add, role="input")
    return scalar_report(
        build.graph(), {}, {add: 1.0, square: 1.0, x: 7.0}, {1: 3.0, 2: 3.0, 3: 1.0}, root_name="f"
    )


def filled(graph: Graph, level: Callable[[Node], float], **more: object) -> Report:
    """A report whose gradients have the RMS that `level` gives each node."""
    verdicts, check = checked(graph)
    levels = [level(node) for node in graph.nodes]
    shapes = [node.outputs[0].shape if node.outputs and node.outputs[0] else () for node in graph.nodes]
    fields: dict[str, object] = {
        "graph": graph,
        "gradients": tuple(
            NodeGradients((record(rms, shape),), 2e-5, place)
            for place, (rms, shape) in enumerate(zip(levels, shapes, strict=True))
        ),
        "edge_gradients": tuple(record(levels[edge.target], shapes[edge.target]) for edge in graph.edges),
        "verdicts": verdicts,
        "check": check,
        "torch": "2.13.0",
        **more,
    }
    return Report(**fields)  # type: ignore[arg-type]  # fields of Report


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


def kinds() -> Report:
    """Every mark at once: NaN, zero, None, custom, not reached, a mismatch and a finding."""
    build = Builder()
    loss = build.op("Mean", label="loss")
    log = build.op("Log", loss, shape=(2, 8))
    relu = build.op("Relu", log, shape=(2, 8))
    swish = build.add("MySwishBackward", [relu], shape=(2, 8), kind="custom")
    bad = build.op("Sin", swish, shape=(2, 8), label="h")
    saved = (
        Saved("mat1", TensorSpec((2, 16), "float32"), 128),
        Saved("mat2", TensorSpec((16, 8), "float32"), 512),
    )
    addmm = build.op("Addmm", bad, shape=(2, 8), saved=saved)
    build.leaf("fc.bias", addmm, shape=(8,))
    x = build.leaf("x", addmm, shape=(2, 16), role="input")
    weight = build.leaf("fc.weight", addmm, shape=(8, 16))
    graph = build.graph()
    levels = {loss: 1.0, relu: 0.0, swish: 4.1e-5, bad: 1e-3, addmm: 2.8e-3, weight: 1.3e-2}
    gradients: list[NodeGradients | None] = []
    for node in graph.nodes:
        shape = node.outputs[0].shape if node.outputs and node.outputs[0] else ()
        if node.id in levels:
            gradients.append(NodeGradients((record(levels[node.id], shape),), 1e-5, node.id))
        elif node.id == log:
            gradients.append(NodeGradients((record(math.nan, shape, nans=3),), 1e-5, node.id))
        elif node.id == x:
            gradients.append(NodeGradients((None,), 1e-5, node.id))
        else:
            gradients.append(None)
    verdicts, _ = checked(graph)
    wrong = list(verdicts)
    wrong[bad] = Verdict(bad, "mismatch", "local, at [1, 3]: torch 0.31, engine 0.62", 4.1e3, 16, 16)
    wrong[swish] = Verdict(swish, "unchecked", "no rule")
    finding = Finding(
        "non-finite-gradient",
        "error",
        "3 of 16 gradient elements became NaN at LogBackward0",
        "log of 0 has no gradient: clamp its argument",
        log,
        Source("train.py", 24, "h = torch.log(h)"),
    )
    unreached = Finding(
        "unreached-parameter", "warning", "fc.bias received no gradient", "use it in the loss", node=6
    )
    return Report(
        graph,
        tuple(gradients),
        tuple(
            given.received[0] if (given := gradients[edge.target]) is not None else None
            for edge in graph.edges
        ),
        verdicts=tuple(wrong),
        check=CheckSummary(9, 8, 7, {"match": 7, "mismatch": 1, "unchecked": 1}, "off", 300, 316, 0.01, 0.02),
        findings=(unreached, finding),
        where=Source("train.py", 40, "loss.backward()"),
        problems=("forward values were not recorded: the graph was built before watching began",),
        script="train.py",
        torch="2.13.0",
    )


# ---------------------------------------------------------------- large graphs, generated


def wave(node: Node) -> float:
    """RMS levels over four decades that do not repeat with the structure."""
    return float(10 ** (-3 + 1.5 * math.sin(0.37 * node.id)))


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
