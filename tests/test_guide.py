"""README's user guide, followed to the letter: its script, its commands, and what they answer."""

from __future__ import annotations

import re
import shlex
from math import trunc
from pathlib import Path

import pytest
import torch

from explorer.cli import main

README = Path(__file__).parents[1] / "README.md"
GUIDE = README.read_text("utf-8").partition("## A first backward")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)
"""(language, content) of every block of the guide."""


def commands() -> list[tuple[str, str]]:
    """Each command, and the answer that stands under it ("" for none)."""
    pairs = zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    return [
        (content.strip(), after if kind == "" else "")
        for (language, content), (kind, after) in pairs
        if language == "sh"
    ]


def follows(answer: str, said: str) -> bool:
    """Whether the lines of `answer` stand in `said` in this order; "..." may stand for any."""
    lines = iter(" ".join(line.split()) for line in said.splitlines())
    wanted = [" ".join(line.split()) for line in answer.splitlines() if line.strip() not in {"", "..."}]
    return all(any(line == one for line in lines) for one in wanted)


def test_the_guide_has_a_script_and_five_commands() -> None:
    assert [language for language, _ in BLOCKS].count("python") == 1
    assert len(commands()) == 5
    assert sum(answer != "" for _, answer in commands()) == 4
    assert follows("a\n...\nc", "a\nb\nc")
    assert not follows("c\na", "a\nb\nc")


@pytest.mark.parametrize("command", commands(), ids=lambda pair: pair[0])
def test_what_a_command_of_the_guide_answers(
    command: tuple[str, str],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed, answer = command
    monkeypatch.chdir(tmp_path)
    Path("first.py").write_text(next(content for language, content in BLOCKS if language == "python"))
    name, *arguments = shlex.split(typed)
    assert name == "explore"
    with pytest.raises(SystemExit) as ended:
        main.main(arguments, name)
    printed = capfd.readouterr()
    assert ended.value.code == 0
    assert printed.out == ""
    assert follows(answer, printed.err), printed.err
    for place, one in enumerate(arguments):
        if one == "-o":
            assert Path(arguments[place + 1]).stat().st_size > 1000


def test_the_notebooks_are_as_many_as_the_guide_says() -> None:
    assert "eleven small notebooks" in " ".join(GUIDE.split())
    assert len(list((README.parent / "examples" / "gallery").glob("[0-9]*.ipynb"))) == 11


def test_the_engine_alone_answers_as_the_readme_says() -> None:
    _, _, section = README.read_text("utf-8").partition("## The engine alone")
    code = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(code, names)
    weight = torch.tensor([[0.5, -0.2], [0.1, 0.3]], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(torch.tensor([[1.0, 2.0]]) @ weight, torch.tensor([1]))
    (expected,) = torch.autograd.grad(loss, weight)
    found = torch.tensor(names["w"].grad.tolist())  # type: ignore[attr-defined]  # the snippet's own name
    torch.testing.assert_close(found, expected)
    printed = [float(number) for number in re.findall(r"-?\d+\.\d+(?=\.\.\.)", code)]
    assert printed == [trunc(1000 * number) / 1000 for number in expected.flatten().tolist()]
