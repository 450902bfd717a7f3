"""The command run in this process, for every test of what it prints, writes and returns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from explorer.cli import main

Explore = Callable[..., tuple[int, str, str]]


@pytest.fixture
def explore(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explore:
    """Run the command on a script given as text, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(script: str, *options: str, arguments: tuple[str, ...] = ()) -> tuple[int, str, str]:
        (tmp_path / "user.py").write_text(textwrap.dedent(script))
        with pytest.raises(SystemExit) as ended:
            main.main([*options, "user.py", *arguments], "explore")
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run
