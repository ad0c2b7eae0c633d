"""The command line: parses arguments, calls one function, prints the result, exits with a code.

Modules are imported inside the commands, so that `loader --help` and completion stay quick.
"""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from loader.cli.command_line import wants_document
from loader.cli.common import Common, note, of_job, say, tell
from loader.cli.help import Command, Group
from loader.cli.options import Every, Format, JobArgument, JobNames, LogFormat, LogLevel, Output, option
from loader.errors import Exit, LoaderError, Stopped, text_of
from loader.words import counted

COMMANDS = {  # their modules, in the order of --help
    "init": "init.command",
    "check": "main",
    "schema": "main",
    "plan": "main",
    "get": "main",
    "cluster": "main",
    "doctor": "doctor",
    "sync": "run",
    "backfill": "run",
    "follow": "follow",
    "daemon": "daemon",
    "verify": "verify",
    "prune": "verify",
    "status": "status",
    "runs": "status",
    "rejects": "verify",
    "lab": "lab",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
COMPLETE = "_LOADER_COMPLETE"


def main(command: str = "", *, hears: bool = False) -> NoReturn:
    """Run the command line and exit with the code of the contract; a user's mistake never prints a traceback.

    The `command` is the one among the arguments, if it is known already. With `hears`, signals are heard already, until
    the command hears them itself.
    """
    code = 0
    _open_streams()
    try:
        for number in () if hears else SIGNALS:
            signal.signal(number, _stop)
        for stream in (sys.stdout, sys.stderr):  # print values as they are, even in the locale C
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        if COMPLETE in os.environ:  # shells set it; registering would add two options to every --help
            from typer.completion import completion_init  # type: ignore[attr-defined]

            completion_init()
        code = int(app_of(command)(standalone_mode=False) or 0)
    except LoaderError as error:
        code = _fail(str(error), error.exit_code)
    except (OSError, MemoryError) as error:  # of this machine: no file descriptors, threads or memory left
        code = _fail(text_of(error), Exit.FAILED)
    except typer.Abort:  # a question was not answered
        code = _fail("aborted", Exit.FAILED)
    except typer.TyperException as error:
        code = _misused(error)
    finally:
        _leave_streams()
        for number in SIGNALS:  # nothing is left to stop: while the interpreter ends, nobody would catch it
            signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def app_of(command: str = "") -> typer.Typer:
    """The command line with one command, as importing all of them takes long; with all, if it is not one of them."""
    app = typer.Typer(
        cls=Group,
        help="Keeps Redis hashes equal to MySQL rows.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        epilog="Options are also environment variables: --workers 4 is LOADER_WORKERS=4.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(common)
    for name in [command] if command in COMMANDS else COMMANDS:
        found = getattr(import_module(f"loader.cli.{COMMANDS[name]}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(cls=Command)(found)
    return app


def _fail(error: str, code: Exit) -> int:
    """Print why the command ends, with its document if one is waited for; return its exit code in any case."""
    with suppress(OSError):
        note(error if ": error: " in error else f"error: {error}")
    if wants_document(sys.argv[1:], os.environ):
        from loader.report.documents import error_document

        with suppress(OSError):
            tell(error_document(error, code))
    return int(code)


def _misused(error: typer.TyperException) -> int:
    """Print what is wrong with the words of the command line, or the help of a group without a command."""
    if error.message.startswith("Usage:"):
        note(error.message)
        return int(Exit.CONFIG)
    from loader.cli.usage import mistake_of

    return _fail(mistake_of(error), Exit.CONFIG)


def _leave_streams() -> None:
    """Ignore errors of a stream that accepts no more output, for example on a full disk."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_streams() -> None:
    """Redirect a closed stream (`2>&-`) to nowhere; otherwise the next socket would take its place."""
    if None in {sys.stdin, sys.stdout, sys.stderr}:
        while (taken := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(taken)
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  # for good


def _stop(number: int, _: object) -> None:
    """Stop at the next safe moment; a second signal stops at once."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise Stopped.by(signal.Signals(number).name)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from loader.wire.codec import COMPILED

        say(f"loader {version('mysql-redis-loader')}, {'compiled' if COMPILED else 'plain Python'} encoder")
        raise typer.Exit


def common(
    context: typer.Context,
    *,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            readable=False,  # told by us
            help="Config file; repeatable, later files win.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, option("--log-format", help="auto, console or json.", metavar="FORM")
    ] = LogFormat.AUTO,
    log_level: Annotated[
        LogLevel, option("--log-level", help="debug, info, warning or error.", metavar="LEVEL")
    ] = LogLevel.INFO,
    no_color: Annotated[bool, option("--no-color", help="No colour (like NO_COLOR).")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keep Redis hashes equal to MySQL rows."""
    color = not no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    context.obj = Common(tuple(config or ()), log_format.value, log_level.value, color)


def check(context: typer.Context, *, output: Output = Format.TEXT) -> None:
    """Validate the config, offline."""
    from loader.net.tls import client_context
    from loader.report.documents import check_document

    config = context.obj.config()
    for source in config.named_sources.values():
        if source.tls:
            client_context(source, "source")
    if config.target.tls:
        client_context(config.target, "target")
    names = list(dict.fromkeys(job.part_of or job.name for job in config.jobs.values()))
    if output is Format.JSON:
        tell(check_document(names, config.warnings))
    else:
        screen = context.obj.screen
        say(f"{screen.state('ok')}: {counted(len(names), 'job')}: {', '.join(names)}", screen)


def schema() -> None:
    """Print the JSON Schema of the config."""
    import json

    from loader.config.load import json_schema

    say(json.dumps(json_schema(), indent=2, ensure_ascii=False), whole=True)


def plan(
    context: typer.Context,
    jobs: JobNames = None,
    *,
    every: Every = False,
    output: Output = Format.TEXT,
) -> None:
    """Show what a sync would do; nothing is written."""
    from loader.jobs.preview import preview
    from loader.report.documents import plan_document
    from loader.report.text import plan_text

    config, named = context.obj.chosen(jobs, every=every)
    for number, job in enumerate(named):
        try:
            shown = preview(config, job)
        except LoaderError as error:
            error.args = (of_job(job.name, str(error), several=len(named) > 1),)
            raise
        if output is Format.JSON:
            tell(plan_document(shown))
        else:
            say(("\n" if number else "") + plan_text(shown))
        for warning in shown.plan.warnings:
            note(f"warning: {of_job(job.name, warning, several=len(named) > 1)}")


def get(
    context: typer.Context,
    job: JobArgument,
    keys: Annotated[list[str], typer.Argument(metavar="KEY", help="Primary keys (a,b if composite), or whole keys.")],
    *,
    output: Output = Format.TEXT,
) -> None:
    """Read hashes back, with the slot and the node that holds them."""
    from loader.jobs.preview import read_back
    from loader.report.documents import hash_document
    from loader.report.text import hash_text

    config, named = context.obj.one(job)
    missing = False
    for found in read_back(config, named, keys):
        if output is Format.JSON:
            tell(hash_document(*found))
        else:
            say(hash_text(*found))
        missing |= found[-1] is None
    raise typer.Exit(Exit.FAILED if missing else Exit.OK)


def cluster(context: typer.Context, *, output: Output = Format.TEXT) -> None:
    """Show masters, slots, keys and replicas."""
    from loader.redis.client import RedisClient
    from loader.redis.servers import ClusterState, describe_cluster
    from loader.report.text import cluster_text

    with RedisClient(context.obj.config().target) as target:
        document = describe_cluster(target)
    if output is Format.JSON:
        tell(document)
    else:
        say(cluster_text(document, context.obj.screen), context.obj.screen)
    raise typer.Exit(Exit.FAILED if document["state"] is ClusterState.FAIL else Exit.OK)
