"""``python -m explorer script.py`` is ``explore script.py``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python has put the current folder first, where a user's own ``hooks.py`` may lie.
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(Path(__file__).resolve().parents[1])
    from explorer.cli import main

    main(prog_name="explore")
