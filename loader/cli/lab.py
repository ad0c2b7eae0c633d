"""The lab commands. Modules are imported inside them, so that `loader --help` stays quick."""

from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from loader.cli.common import say, tell
from loader.cli.help import Command, Group
from loader.cli.options import Format, Output
from loader.errors import LoaderError

lab = typer.Typer(
    cls=Group,
    help="A throwaway MySQL and a six-node Redis Cluster on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _names(context: typer.Context) -> list[str]:
    """The servers of the lab, for completion; empty if there is no lab."""
    from loader.lab.lab import Lab

    with suppress(LoaderError, OSError, ValueError):
        return Lab(context.params["directory"]).names
    return []


Directory = Annotated[
    Path,
    typer.Option(
        "--dir", metavar="DIR", envvar="LOADER_LAB_DIR", show_envvar=False, help="Directory of the lab's files."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NODE", help="n1, n2, … or mysql.", autocompletion=_names)]


@lab.command(cls=Command)
def up(
    *,
    nodes: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Redis servers.")] = 6,
    replicas: Annotated[int, typer.Option(metavar="N", min=0, max=5, help="Replicas of each master.")] = 1,
    sql: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", readable=False, help="SQL that creates tables; default: the table stu."),
    ] = None,
    directory: Directory = Path(".lab"),
) -> None:
    """Start the servers, make the cluster, load the tables, write a config."""
    from loader.lab.files import sample
    from loader.lab.lab import Lab

    made = Lab(directory)
    started = made.up(nodes, replicas, [sample()] if sql is None else sql)
    say(f"started {', '.join(started)}" if started else "the lab is already running")
    named = "" if directory == Path(".lab") else f" --dir {quote(str(directory))}"
    say(f"config: {made.config}\nvariables: {made.config.with_name('env')}\nstop it with: loader lab down{named}")


@lab.command(cls=Command)
def down(*, directory: Directory = Path(".lab")) -> None:
    """Stop the servers and delete their files."""
    from loader.lab.lab import Lab

    say("the lab is gone" if Lab(directory).down() else "there was no lab")


@lab.command(cls=Command)
def status(*, directory: Directory = Path(".lab"), output: Output = Format.TEXT) -> None:
    """Show the servers."""
    from loader.lab.lab import Lab
    from loader.report.documents import lab_document

    rows = Lab(directory).status()
    if output is Format.JSON:
        tell(lab_document(rows))
        return
    for row in rows:
        state = "up" if row.running else "down"
        of = f" of {row.master}" if row.master else ""
        slots = f", {row.slots} slots" if row.slots else ""
        say(f"{row.name:6}  {state:4}  {row.address:21}  pid {row.pid:<7}  {row.role}{of}{slots}")


@lab.command(cls=Command)
def kill(node: Name, *, directory: Directory = Path(".lab")) -> None:
    """Kill a server as a crash would (SIGKILL)."""
    from loader.lab.lab import Lab

    Lab(directory).kill(node)
    say(f"{node} is dead")


@lab.command(cls=Command)
def start(node: Name, *, directory: Directory = Path(".lab")) -> None:
    """Start a killed server again, with its files."""
    from loader.lab.lab import Lab

    say(f"{node} is up" if Lab(directory).start(node) else f"{node} is already running")


@lab.command("add-replica", cls=Command)
def add_replica(
    node: Annotated[
        str | None, typer.Argument(metavar="NODE", help="A killed node; by default a new one.", autocompletion=_names)
    ] = None,
    *,
    master: Annotated[
        str | None,
        typer.Option(
            metavar="NODE", help="Its master; by default the one with the fewest replicas.", autocompletion=_names
        ),
    ] = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Empty the node first.")] = False,
    directory: Directory = Path(".lab"),
) -> None:
    """Add a node to the cluster as a replica."""
    from loader.lab.lab import Lab

    say(Lab(directory).add_replica(node, master, wipe=wipe))
