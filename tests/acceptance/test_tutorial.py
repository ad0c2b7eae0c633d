"""The tutorial is typed as it stands."""

from loader.lab.lab import Lab
from support.pages import DOCS


def test_tutorial(open_shell, tmp_path):
    """From nothing: each command works, in order, and prints what the page shows."""
    try:
        open_shell().play(DOCS / "tutorial.md")
    finally:
        Lab(tmp_path / ".lab").down()
