"""The commands that the documentation shows are typed as they stand, page by page, and print what it shows."""

import pytest

from loader.lab.lab import Lab
from loader.lab.process import free_ports
from support.pages import DOCS, Shell, blocks_of


def play(page, shell):
    """Type all blocks of a page that can be run here."""
    for block in blocks_of(page):
        if block.skipped or not (block.title or block.language == "console"):
            continue
        try:
            shell.run(block)
        except AssertionError as error:
            error.add_note(f"{page.name}, block at line {block.line}")
            raise


@pytest.fixture
def ports():
    """The ports that pages name, each with a free one that stands for it."""
    named = ("9462", *(str(port) for port in range(7001, 7007)))
    return dict(zip(named, map(str, free_ports(len(named))), strict=True))


def test_tutorial(tmp_path, ports):
    """The tutorial, from nothing: each command works, in order, and prints what the page shows."""
    shell = Shell(tmp_path, ports)
    try:
        play(DOCS / "tutorial.md", shell)
    finally:
        shell.close()
        Lab(tmp_path / ".lab").down()
