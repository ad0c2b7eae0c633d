"""The commands that the documentation shows are typed as they stand, page by page, and print what it shows."""

import pytest

from loader.lab.lab import Lab
from loader.lab.process import free_ports
from support.pages import DOCS, Shell, blocks_of

PORTS = ("9462", *(str(port) for port in range(7001, 7007)))  # that pages name


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
def open_shell(tmp_path):
    """Opens shells in the test's directory, in which free ports stand for those that pages name."""
    shells = []

    def opened(replaced=(), **variables):
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        shells.append(Shell(tmp_path, ports | dict(replaced), **variables))
        return shells[-1]

    yield opened
    for shell in shells:
        shell.close()


@pytest.fixture
def stage(world, open_shell, tmp_path):
    """A shell that has what `.lab/env` sets, for a database with the table `stu`."""
    world.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu")
    own = tmp_path / ".lab"
    own.mkdir()
    for name in ("env", "my.cnf"):
        text = (world.lab.directory / name).read_text()
        (own / name).write_text(text.replace("/test\n", f"/{world.name}\n").replace("=test\n", f"={world.name}\n"))
    told = dict(line.split("=", 1) for line in (own / "env").read_text().splitlines())
    return open_shell({"test.stu": f"{world.name}.stu"}, **told)


def test_tutorial(open_shell, tmp_path):
    """The tutorial, from nothing: each command works, in order, and prints what the page shows."""
    try:
        play(DOCS / "tutorial.md", open_shell())
    finally:
        Lab(tmp_path / ".lab").down()


@pytest.mark.parametrize("name", ["howto", "migrating"])
def test_page(name, stage, tmp_path):
    """A page that begins with a lab, the table `stu` and its variables."""
    play(DOCS / f"{name}.md", stage)
