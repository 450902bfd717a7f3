"""``python -m explorer script.py`` is ``explore script.py``."""

from explorer.cli import main

if __name__ == "__main__":
    main(prog_name="explore")
