"""Two processes of a distributed job, each explored by itself: files named by rank, merged and compared."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import explorer
from explorer import across, merge
from explorer.across import RankCall, RankRun, compare
from explorer.cli import main
from explorer.graph import Source
from explorer.layers import whole_gradient
from explorer.ranks import Rank, named, rank_now
from explorer.render import ranks
from explorer.report import Finding
from tests.test_neutrality import COMMAND

PATIENCE = 60
"""Seconds a group has to form and to finish, without us; with us twice as many."""

GROUP = """
import os, sys, time
from datetime import timedelta
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
import torch
rank, wrapped, after = int(sys.argv[1]), sys.argv[3] == "ddp", sys.argv[4]
meeting = {"store": torch.distributed.FileStore(sys.argv[2] + "/store", 2), "timeout": timedelta(seconds=45)}
torch.distributed.init_process_group("gloo", rank=rank, world_size=2, **meeting)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
model = torch.nn.parallel.DistributedDataParallel(net) if wrapped else net
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
torch.manual_seed(rank)
for step in range(3):
    optimizer.zero_grad()
    loss = model(torch.randn(6, 4)).pow(2).mean()
    if step == 1 and after == "nan" and rank == 1:
        loss = loss * float("nan")
    loss.backward()
    optimizer.step()
print([parameter.sum().item() for parameter in net.parameters()])
# Without a moment in between, torch's gloo may hang in the next line: see tests/groups.py.
time.sleep(0.3)
torch.distributed.destroy_process_group()
"""


def both(
    folder: Path, *words: str, arguments: tuple[str, ...], patience: int = 2 * PATIENCE
) -> list[tuple[int, str, str]]:
    """Run the script as two ranks under `words`; what hangs is killed. Exit code, stdout, stderr of each."""
    (folder / "job.py").write_text(GROUP)
    (folder / "store").unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [*words, "job.py", str(rank), str(folder), *arguments], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    ended = []
    try:
        for process in running:
            out, err = process.communicate(timeout=patience)
            ended.append((process.returncode, out, err))
    finally:
        for process in running:
            process.kill()
            process.wait()
    return ended


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str]]:
    """The job without us; a machine on which two processes cannot meet says so here."""
    folder = tmp_path_factory.mktemp("plain")
    try:
        ended = both(folder, sys.executable, arguments=("ddp", "well"), patience=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.skip(f"two gloo processes did not meet on localhost within {PATIENCE} s, without us")
    if any(code for code, _, _ in ended):
        pytest.skip(f"two gloo processes could not meet, without us: {ended[0][2][-300:]}")
    return ended


@pytest.fixture(scope="module")
def explored(plain: list[tuple[int, str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job with each rank explored, and one whose second rank has a NaN in its second step."""
    folder = tmp_path_factory.mktemp("explored")
    options = ("-q", "--every", "2", "-o", "report.json", "-o", "steps.jsonl", "-o", "a.svg")
    ended = both(folder, *COMMAND, *options, arguments=("ddp", "well"))
    assert [(code, out) for code, out, _ in ended] == [(code, out) for code, out, _ in plain]
    return folder


def merged(folder: Path, *words: str, code: int = 0) -> str:
    """What ``explore --merge`` prints."""
    words = tuple(str(folder / word) if "." in word else word for word in words)
    ended = subprocess.run([*COMMAND, "--merge", *words], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def test_every_rank_writes_files_of_its_own(explored: Path) -> None:
    names = sorted(path.name for path in explored.iterdir())
    for rank in (0, 1):
        for name in ("report.rank{}.json", "steps.rank{}.jsonl", "a.rank{}.svg", "a.rank{}-2.svg"):
            assert name.format(rank) in names
        document = json.loads((explored / f"report.rank{rank}.json").read_text())
        assert (document["rank"], document["ranks"]) == (rank, 2)
    assert "report.json" not in names
    assert "steps.jsonl" not in names


def test_ranks_that_agree(explored: Path) -> None:
    said = merged(explored, "report.rank1.json", "report.rank0.json", "-o", "all.json", "-o", "all.html")
    assert "2 ranks of job.py · 2 backward calls compared" in said
    assert (
        "✓ the ranks agree: the same graph, a gradient for the same layers, one .grad after each call" in said
    )
    document = json.loads((explored / "all.json").read_text())
    assert document["differences"] == []
    assert [call["call"] for call in document["calls"]] == [1, 3]
    for call in document["calls"]:
        assert {row["layer"] for row in call["layers"]} == {"0", "2"}
        for row in call["layers"]:
            assert row["norms"][0] != row["norms"][1]  # each rank has data of its own
            assert row["averaged"][0] == row["averaged"][1] > 0
            assert not row["differs"]
    assert "<th>0</th>" in (explored / "all.html").read_text()
    assert "3 backward calls compared" in merged(explored, "steps.rank0.jsonl", "steps.rank1.jsonl")


def test_ranks_that_were_never_joined(plain: object, tmp_path: Path) -> None:
    """A model that nobody wrapped in DistributedDataParallel: every rank trains its own."""
    ended = both(
        tmp_path, *COMMAND, "-q", "-o", "report.json", "-o", "steps.jsonl", arguments=("alone", "nan")
    )
    assert [code for code, _, _ in ended] == [0, 0]
    said = merged(tmp_path, "report.rank0.json", "report.rank1.json")
    assert "✗ call 1: " in said
    assert ".grad differs from rank to rank" in said
    assert "wrapped in DistributedDataParallel" in said
    assert "error: non-finite-gradient, on rank 1" in said
    said = merged(tmp_path, "steps.rank0.jsonl", "steps.rank1.jsonl")
    assert "call 2 (the first of 2): `2`, `0`: the gradient is not finite on rank 1" in said


# ---------------------------------------------------------------- the comparison alone


def run(rank: int, calls: Mapping[int, RankCall], of: int = 2) -> RankRun:
    return RankRun(f"r{rank}.json", rank, of, calls, max(calls, default=0))


def call(own: float | None = 1.0, after: float | None = 2.0, nodes: tuple[str, ...] = ("A",)) -> RankCall:
    layers = {"shared": 1.0} | ({} if own is None else {"0": own})
    return RankCall(layers, {} if after is None else {"0": after}, nodes=dict.fromkeys(nodes, 1))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (call(), call(), None),
        (call(1.0), call(5.0), None),
        (call(after=None), call(after=None), None),
        (call(after=math.nan), call(after=math.nan), None),
        (call(after=2.0), call(after=2.0 * (1 + 1e-7)), None),
        (call(after=2.0), call(after=2.1), ".grad differs from rank to rank after the call: the ranks no"),
        (call(2.0, 2.0), call(3.0, 3.0), "each rank kept its own gradient"),
        (call(after=2.0), call(after=math.nan), ".grad differs"),
        (call(after=2.0), call(after=None), ".grad differs"),
        (call(), call(None), "call 1: `0` got no gradient on rank 1, and one on the others"),
        (call(), call(math.inf), "call 1: `0`: the gradient is not finite on rank 1"),
        (call(nodes=("A", "B")), call(nodes=("A", "C")), "differ: 1 C more on rank 1; 1 B more on rank 0"),
        (call(), replace(call(), error="ValueError: x"), "rank 1: backward call 1 ended with ValueError: x"),
    ],
)  # fmt: skip
def test_what_is_told(one: RankCall, other: RankCall, said: str | None) -> None:
    found = compare([run(0, {1: one}), run(1, {1: other})])
    if said is None:
        assert found.differences == ()
        assert "✓ the ranks agree" in ranks.text(found)
    else:
        assert any(said in difference for difference in found.differences), found.differences
        assert said in ranks.text(found)
        json.dumps(ranks.plain(found), allow_nan=False)
    assert "<script" not in ranks.page(found)


def test_calls_and_ranks_that_are_missing() -> None:
    found = compare([run(0, {1: call(), 2: call()}, of=4), run(2, {1: call()}, of=4)])
    assert found.calls == 1
    assert "ranks 1, 3 of 4 not among the files" in found.differences
    assert "the ranks made different numbers of backward calls: 2 on rank 0, 1 on rank 2" in found.differences
    assert (
        "no backward call was recorded on every rank"
        in compare([run(0, {1: call()}), run(1, {2: call()})]).differences
    )


def test_a_finding_of_several_ranks_is_told_once() -> None:
    everywhere = Finding("cut-graph", "error", "cut <here>", "mend it", where=Source("a.py", 3))
    alone = Finding("dead-units", "warning", "dead")
    runs = [
        replace(run(rank, {1: call()}, of=3), findings=(alone, everywhere) if rank == 1 else (everywhere,))
        for rank in range(3)
    ]
    found = compare(runs)
    assert found.findings == ((everywhere, (0, 1, 2)), (alone, (1,)))
    text = ranks.text(found)
    assert "error: cut-graph, on every rank · a.py:3" in text
    assert "warning: dead-units, on rank 1" in text
    assert "cut &lt;here&gt;" in ranks.page(found)


def test_many_calls_are_shown_by_the_first_the_last_and_the_first_that_differs() -> None:
    calls = {number: call() for number in range(1, 101)}
    found = compare([run(0, calls), run(1, {**calls, 40: call(after=9.0), 50: call(after=8.0)})])
    assert [table.call for table in found.tables] == [1, 40, 100]
    assert found.differences == (
        "call 40 (the first of 2): `0`: .grad differs from rank to rank after the call: the ranks no longer "
        "train one model",
    )


def test_many_layers_and_ranks_fit_the_page() -> None:
    layers = {f"block.{number}.with.a.rather.long.name.indeed": 1.0 for number in range(100)}
    found = compare([run(rank, {1: RankCall(layers)}, of=20) for rank in range(20)])
    text = ranks.text(found)
    assert "... and 60 layers more" in text
    assert "(and 12 ranks more)" in text
    assert max(map(len, text.splitlines())) < 140


def test_files_that_cannot_be_merged(tmp_path: Path) -> None:
    w = torch.ones(2, requires_grad=True)
    explorer.explore((w * 2).sum()).save(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    assert "at least two ranks" in merged(tmp_path, "a.json", code=2)
    assert "b.json" in merged(tmp_path, "a.json", "b.json", code=2)
    assert "cannot read" in merged(tmp_path, "a.json", "c.json", code=2)
    assert "one of .txt .json .html" in merged(tmp_path, "a.json", "a.json", "-o", "x.svg", code=2)
    # files that do not say whose they are count in the order given
    assert "✓ the ranks agree" in merged(tmp_path, "a.json", "a.json")


def test_options_of_a_run_do_not_go_with_merge(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--merge", "--paths", "x", "a.json", "b.json"], "explore")
    assert ended.value.code == 2
    assert "cannot go with --paths" in capfd.readouterr().err


def test_two_files_of_one_rank() -> None:
    with pytest.raises(explorer.UsageError, match="both of rank 1"):
        compare([run(1, {1: call()}), run(1, {1: call()})])


def test_an_output_that_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    w = torch.ones(2, requires_grad=True)
    file = str(tmp_path / "a.json")
    explorer.explore((w * 2).sum()).save(file)
    with pytest.raises(SystemExit) as ended:
        main.main(["--merge", "-o", str(tmp_path / "none" / "x.txt"), "-q", file, file], "explore")
    assert ended.value.code == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "cannot write" in printed.err


# ---------------------------------------------------------------- names


def test_names_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named("out/report.json", Rank(3, 8)) == "out/report.rank3.json"
    assert named("a.b.modelexplorer.json", Rank(0, 2)) == "a.b.rank0.modelexplorer.json"
    assert named("report.json", None) == "report.json"
    assert rank_now() is None
    for size, rank in [("4", Rank(2, 4)), ("1", None), ("2", None), ("x", None)]:
        monkeypatch.setenv("RANK", "2" if size != "1" else "0")
        monkeypatch.setenv("WORLD_SIZE", size)
        assert rank_now() == rank


def test_a_watch_saves_by_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ``watch`` in each process of a job does, and the reading of what it wrote."""
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        w = torch.ones(2, requires_grad=True)
        with explorer.watch(log=tmp_path / "s.jsonl") as watch:
            (w * (rank + 1)).sum().backward()
        assert watch.save(tmp_path / "r.json") == (str(tmp_path / f"r.rank{rank}.json"),)
        assert watch.report.averaged == {2: pytest.approx(math.sqrt(2) * (rank + 1))}
    runs = [merge.read(str(tmp_path / f"r.rank{rank}.json"), 5) for rank in (0, 1)]
    assert [(run.rank, run.ranks, run.total) for run in runs] == [(0, 2, 1), (1, 2, 1)]
    (difference,) = compare(runs).differences
    assert "`w`: .grad differs" in difference
    (other,) = compare([merge.read(str(tmp_path / f"s.rank{rank}.jsonl"), 5) for rank in (0, 1)]).differences
    assert other == difference


def test_a_shard_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What FSDP or tensor parallelism leave on a rank differs from the others', as it should."""

    class FlatParameter(torch.nn.Parameter):
        pass

    whole, flat, sharded = torch.nn.Parameter(torch.ones(2)), FlatParameter(torch.ones(2)), torch.ones(2)
    for leaf in (whole, flat, sharded.requires_grad_()):
        leaf.grad = torch.ones(2)
    sharded.grad._local_tensor = torch.ones(1)  # type: ignore[union-attr] # as a DTensor has it
    assert whole_gradient(whole) is whole.grad
    assert whole_gradient(flat) is None
    assert whole_gradient(sharded) is None
    assert whole_gradient(torch.ones(2, requires_grad=True)) is None


def test_the_norm_of_several_parameters() -> None:
    assert across._joined(3.0, 4.0) == 5.0
    assert math.isnan(across._joined(math.nan, math.inf))
