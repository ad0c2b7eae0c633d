"""The init command: writes a config by looking at live tables. Modules are imported inside it, for a quick `--help`."""

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loader.cli.common import note, say
from loader.cli.options import option
from loader.errors import ConfigError, LoaderError
from loader.words import counted

if TYPE_CHECKING:
    from loader.cli.init.config_writer import Draft, Style, Wanted
    from loader.cli.init.prompts import Prompter
    from loader.cli.init.script import Script
    from loader.config.load import Config
    from loader.config.statement import Statement
    from loader.model import TableSummary
    from loader.mysql.connection import Connection
    from loader.report.screen import Screen

ENVIRONMENT = ".env.example"
NAMED = 8  # jobs listed one by one
MOST_BYTES = 1 << 20  # of a script


SourceUrl = Annotated[
    str | None,
    option("--source", metavar="URL", help="MySQL: mysql://user@host:3306/database; else $MYSQL_URL, else a prompt."),
]
TargetUrl = Annotated[
    str | None, option("--target", metavar="URL", help="Redis: redis://host:6379; else $REDIS_URL, else a prompt.")
]
Tables = Annotated[
    list[str] | None, option("--table", metavar="GLOB", help="A table, or a pattern: 'user*'; repeatable.")
]
OutputFile = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",  # $LOADER_OUTPUT is the format of results
        readable=False,
        help="The config to write; .env.example goes beside it.",
    ),
]
Scripts = Annotated[
    list[Path] | None,
    option(
        "--from-script",
        metavar="FILE",
        readable=False,  # told by us
        help="A script that pipes mysql into redis-cli: its statements become jobs.",
    ),
]
KeyTemplate = Annotated[
    str | None,
    option("--key", metavar="TEMPLATE", help="All keys: {table}, {database}, and {pk} for the primary key's columns."),
]
Update = Annotated[bool, option("--update", help="Add jobs for new tables to the config, and keep all that is in it.")]
Force = Annotated[bool, option("--force", help="Overwrite existing files.")]


def init(
    context: typer.Context,
    *,
    source: SourceUrl = None,
    target: TargetUrl = None,
    table: Tables = None,
    output: OutputFile = Path("loader.yaml"),
    from_script: Scripts = None,
    key: KeyTemplate = None,
    update: Update = False,
    force: Force = False,
) -> None:
    """Write a config by looking at live tables.

    It ends with the next commands to run. Passwords come from $MYSQL_PASSWORD and $REDIS_PASSWORD, or are asked for;
    they are never written.
    """
    from loader.cli.init.config_writer import environment_text
    from loader.cli.init.prompts import Prompter

    if context.obj.files:
        raise ConfigError("init reads no config; name the file to write with --output")
    if str(output) in {"json", "text"}:
        raise ConfigError(f"--output {output}: init writes a config, name its file: --output loader.yaml")
    if from_script and table:
        raise ConfigError("give --table or --from-script, not both: a script names its tables itself")
    if from_script and (key or update):
        raise ConfigError("give --from-script alone: a script names its keys itself, and makes a config of its own")
    style = _style(key)
    if update:
        _update(output, table or [], style)
        return
    files = (output, output.parent / ENVIRONMENT)
    _refuse(files, force=force)
    script = _script(from_script) if from_script else None
    prompter = Prompter(note)
    urls = prompter.addresses({"source": source, "target": target}, script.urls() if script else {})
    if script:
        _tell_of_script(script, urls)
    draft = _draft(prompter, urls, script, table or [], style)
    os.environ |= {"MYSQL_URL": urls["source"], "REDIS_URL": urls["target"]}
    _write({files[0]: draft.text, files[1]: environment_text(urls["source"], urls["target"])}, check=bool(draft.jobs))
    _report(files, draft)
    if not draft.jobs:
        raise ConfigError(f"{output} has no job yet: choose a key for one of them and uncomment it")
    fine = _examine(output, context.obj.screen)
    say("\nNext:" if fine else "\nNext, once the failures above are fixed:")
    for line in _next(output, draft.jobs):
        say(f"  {line}", whole=True)


def _style(key: str | None) -> "Style":
    """How keys are written, by the template that was given."""
    from loader.cli.init.config_writer import Style
    from loader.config.parsers import key_parts

    try:
        if key is not None:
            key_parts(key)
    except ValueError as error:
        raise ConfigError(f"--key: {error}") from None
    return Style(key or "")


def _update(output: Path, patterns: Sequence[str], style: "Style") -> None:
    """Add what is new to a config; all that is in it stays as it is."""
    from loader.cli.init.update import updated

    was = updated(output, patterns, style)
    if was.draft is None:
        say(was.words)
        return
    _write({output.resolve(): was.text}, check=True, mode=stat.S_IMODE(output.stat().st_mode))
    say(f"{was.words} {_named(was.draft.jobs)}.")
    _warn(was.draft)


def _draft(
    prompter: "Prompter", urls: Mapping[str, str], script: "Script | None", patterns: Sequence[str], style: "Style"
) -> "Draft":
    """Look at both servers, and draft a config of the script's statements, or else of the tables that are chosen."""
    from loader.cli.init.config_writer import draft_config
    from loader.cli.init.many_tables import draft_many, looked_at
    from loader.config.files import MAX_BYTES
    from loader.mysql import catalog

    with prompter.open_source(urls["source"]) as source:
        prompter.check_target(urls["target"])
        database = str(source.single("SELECT DATABASE()")[0])
        origin = f"database {database} at {source.address}"
        if script:
            wanted = _of_script(source, script, database)
            draft = draft_config(origin, wanted)
        else:
            listing = catalog.listing(source)
            chosen = prompter.tables(listing, patterns, database)
            names = patterns or (["*"] if len(chosen) == len(listing) else [])
            wanted = looked_at(source, chosen)
            draft = draft_many(origin, wanted, names, replace(style, database=database))
    if script and draft.refused:
        raise ConfigError("\n".join(f"{place}: error: {why}" for place, why in draft.refused))
    if len(draft.text.encode()) > MAX_BYTES:
        raise ConfigError(f"{len(wanted)} tables make too large a config; choose fewer of them with --table")
    return draft


def _refuse(files: Sequence[Path], *, force: bool) -> None:
    """Refuse files that cannot be written, before asking anything."""
    for file in files:
        if file.is_dir() or not file.parent.is_dir():
            raise ConfigError(f"{file}: {'is a directory' if file.is_dir() else 'no such directory'}")
        if not force and os.path.lexists(file):
            raise ConfigError(f"{file} exists; --force overwrites it, --output FILE writes elsewhere")


def _script(files: Sequence[Path]) -> "Script":
    """The statements and servers in the scripts; an error that lists everything that cannot be read."""
    from loader.cli.init.script import read_script

    texts = {}
    for file in files:
        try:
            with file.open("rb") as stream:
                data = stream.read(MOST_BYTES + 1)
            texts[str(file)] = data.decode()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ConfigError(
                f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
            ) from None
        if len(data) > MOST_BYTES:
            raise ConfigError(f"{file}: larger than {MOST_BYTES} bytes, too large for a script")
    script = read_script(texts)
    if script.faults:
        raise ConfigError(
            "\n".join(fault.replace(": ", ": error: ", 1) for fault in script.faults)
            + "\nnothing was written; remove these statements from a copy of the script, or write their jobs by hand"
        )
    if len(script.databases) > 1:
        raise ConfigError(
            f"the script reads several databases, {', '.join(sorted(script.databases))}; a config has one"
        )
    return script


def _tell_of_script(script: "Script", urls: Mapping[str, str]) -> None:
    note(f"From {urls['source']} to {urls['target']}.")
    if script.passwords:
        note("The password in the script is not copied: put it into .env.")


def _of_script(source: "Connection", script: "Script", database: str) -> list["Wanted"]:
    from loader.cli.init.script import stray_databases
    from loader.model import TableSummary
    from loader.mysql import catalog

    if strays := list(stray_databases(script, database)):
        raise ConfigError("\n".join(stray.replace(": ", ": error: ", 1) for stray in strays))
    there = {listed.name.lower(): listed for listed in catalog.listing(source)}
    there |= {listed.name: listed for listed in there.values()}
    if twice := list(_shared(script)):
        raise ConfigError("\n".join(twice))
    wanted = []
    for statement in script.statements:
        listed = there.get(statement.table) or there.get(statement.table.lower()) or TableSummary(statement.table)
        wanted.append(_wanted(source, listed, statement))
    return wanted


def _wanted(source: "Connection", listed: "TableSummary", statement: "Statement | None" = None) -> "Wanted":
    """A table to make a job of, or why MySQL refuses to show it."""
    from loader.cli.init.config_writer import Wanted
    from loader.mysql import catalog

    try:
        return Wanted(listed, catalog.table(source, listed.name), statement=statement)
    except LoaderError as error:
        if not error.kind.is_refusal:
            raise
        return Wanted(listed, None, str(error), statement)


def _shared(script: "Script") -> Iterator[str]:
    """Faults of statements that write hashes under another statement's prefix: their owner would be ambiguous."""
    first: dict[str, str] = {}
    for statement in script.statements:
        prefix = statement.key[0][0]
        if (other := first.setdefault(prefix, statement.place)) != statement.place:
            yield f"{statement.place}: error: makes keys {prefix}… like {other}; let one job make them, with all fields"


def _write(texts: Mapping[Path, str], *, check: bool, mode: int = 0o600) -> None:
    """Write all files or none: first as temporary files beside them, readable by their owner only unless `mode` says.

    The first file is a config and must be valid.
    """
    from loader.config.load import load_config

    with _drafts(texts) as drafts:
        for file, text in texts.items():
            _write_draft(file, drafts[file], text, mode)
        file, draft = next(iter(drafts.items()))
        try:
            if check:
                load_config([draft])
        except ConfigError as error:
            raise ConfigError(f"nothing was written: {str(error).replace(str(draft), str(file))}") from None
        for file, draft in drafts.items():
            draft.replace(file)


def _write_draft(file: Path, draft: Path, text: str, mode: int) -> None:
    """Write the draft of a file; an error names the file."""
    try:
        draft.touch(mode=0o600, exist_ok=False)
        draft.chmod(mode)
        draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, f"it cannot be written: {error.strerror}", str(file)) from error


@contextmanager
def _drafts(files: Mapping[Path, str]) -> Iterator[dict[Path, Path]]:
    drafts = {file: file.with_name(f".{file.name}.{os.getpid()}") for file in files}
    try:
        yield drafts
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink()


def _report(files: Sequence[Path], draft: "Draft") -> None:
    jobs = counted(len(draft.jobs), "job") + (": " if draft.jobs else "")
    say(f"Wrote {files[0]} ({jobs}{_named(draft.jobs)}) and {files[1]}.")
    _warn(draft)


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _warn(draft: "Draft") -> None:
    """Tell what a person should look at before the first run."""
    from loader.cli.init.yaml_text import in_comment

    warnings = [f"{in_comment(table)}: no job yet, commented out: {why}" for table, why in draft.refused]
    if draft.secrets:
        seem = "looks like a secret" if len(draft.secrets) == 1 else "look like secrets"
        names = _named([in_comment(name) for name in draft.secrets])
        warnings.append(f"{names} {seem}: whoever reads Redis will see the values; leave out what nobody needs")
    for warning in warnings:
        note(f"warning: {warning}")


def _examine(output: Path, screen: "Screen") -> bool:
    """Read the written config and print doctor's findings; return whether no check failed."""
    from loader.config.load import load_config
    from loader.doctor.diagnose import diagnose
    from loader.doctor.findings import Level
    from loader.doctor.shown import tell_findings
    from loader.jobs.expand import expand

    config: Config = expand(load_config([output])).config
    say("")
    found = diagnose(config, [output], list(config.jobs.values())[:NAMED])
    tells = partial(say, screen=screen, whole=True)
    return tell_findings(found, tells, screen, everything=len(config.jobs) <= NAMED) is not Level.FAIL


def _next(output: Path, jobs: Sequence[str]) -> list[str]:
    """The next commands, ready to paste."""
    found = output == Path("loader.yaml") and not os.environ.get("LOADER_CONFIG")
    program = _program() + ("" if found else f" -c {shlex.quote(str(output))}")
    beside = output.parent if str(output.parent) != "." else Path()
    example, filled = shlex.quote(str(beside / ENVIRONMENT)), shlex.quote(str(beside / ".env"))
    dotted = filled if filled.lstrip("'").startswith("/") else f"./{filled}"
    is_there = (beside / ".env").exists()
    lines = [
        f"# copy the lines of {example} into {filled}, with the passwords"
        if is_there
        else f"cp {example} {filled}    # then fill in the passwords",
        f"set -a; . {dotted}; set +a",
        *(f"{program} {command} {jobs[0]}" for command in ("plan", "sync", "verify")),
    ]
    if len(jobs) > 1:
        lines.append(f"{program} sync --all    # all {len(jobs)} jobs")
    return lines


def _program() -> str:
    """How this program was called."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return shlex.join([sys.executable, "-m", "loader"])
    found = shutil.which(Path(called).name)
    if found and Path(found).resolve() == Path(called).resolve():
        return Path(called).name
    return shlex.quote(called)
