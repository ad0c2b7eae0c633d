"""Writes docs/reference/ and the man page from the code, which they so cannot contradict: scripts/reference.sh."""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
from prometheus_client.metrics import MetricWrapperBase

from loader.cli.help import EXAMPLES, rows_of
from loader.cli.main import app_of
from loader.web.metrics import Metrics

ROOT = Path(__file__).parents[1]
SECTIONS = {
    "source": "SourceConfig",
    "target": "TargetConfig",
    "jobs.NAME": "JobConfig",
    "jobs.NAME.schedule": "ScheduleConfig",
    "jobs.NAME.incremental": "IncrementalConfig",
    "jobs.NAME.follow": "FollowConfig",
    "daemon": "DaemonConfig",
}
FILES = """\
loader.yaml
The config, in the current directory, unless --config or LOADER_CONFIG names another.
"""
CODES = """\
0
success (also: the daemon was told to stop)
1
failed
2
usage or configuration error
3
finished with rejected rows, verify found differences, or a doctor check failed
4
MySQL or Redis was unreachable after all retries
5
another run of the job is in progress
130, 143
stopped by a signal
"""


class Entry:
    """A command, or a group of them: its words, what it does, its usage, arguments and options."""

    def __init__(self, words: Sequence[str], command: Any, context: Any) -> None:
        self.name = " ".join(words)
        self.text = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "").replace("\b", "").strip()
        self.usage = f"{self.name} {' '.join(command.collect_usage_pieces(context))}"
        self.arguments, options = (
            [(names, " ".join(text.split())) for names, text in rows_of(command, context, kind)]
            for kind in ("argument", "option")
        )
        self.options = [each for each in options if "--help" not in each[0]]
        self.example = EXAMPLES.get(" ".join(words[1:]), "")


def entries() -> Iterator[Entry]:
    """`loader` itself, and each of its commands."""
    root = typer.main.get_command(app_of())

    def walk(command: Any, words: list[str], parent: Any) -> Iterator[Entry]:
        context = (
            type(parent)(command, info_name=words[-1], parent=parent)
            if parent
            else root.make_context("loader", [], resilient_parsing=True)
        )
        if not parent or not hasattr(command, "commands"):
            yield Entry(words, command, context)
        for name in getattr(command, "commands", ()):
            if not command.commands[name].hidden:
                yield from walk(command.commands[name], [*words, name], context)

    return walk(root, ["loader"], None)


def commands_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    lines = ["# Commands", "", "Options are also environment variables: `--workers 4` is `LOADER_WORKERS=4`."]
    for entry in entries():
        lines += ["", f"## {entry.name}", "", entry.text, "", f"    {entry.usage}"]
        if entry.arguments or entry.options:
            lines += ["", "| name | description |", "|---|---|"]
            lines += [f"| `{cell(names)}` | {cell(text)} |" for names, text in entry.arguments + entry.options]
        lines += ["", "Example:", "", f"    {entry.example}"] if entry.example else []
    pairs = CODES.splitlines()
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {text} |" for code, text in zip(pairs[::2], pairs[1::2], strict=True)]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """A text that does not end a cell of a table."""
    return text.replace("|", "\\|")


def man_page() -> str:
    """The same as a man page."""
    lines = [f'.TH LOADER 1 "" "loader {version("mysql-redis-loader")}" "User Commands"']
    first, *rest = entries()
    lines += [".SH NAME", r"loader \- " + roff(first.text.rstrip(".")[0].lower() + first.text.rstrip(".")[1:])]
    lines += [".SH SYNOPSIS", ".nf", roff(first.usage), ".fi", ".SH OPTIONS", *man_list(first.options)]
    lines += [".SH COMMANDS"]
    for entry in rest:
        lines += [f".SS {roff(entry.name)}", *roff(entry.text).split("\n\n"), ".PP", ".nf", roff(entry.usage), ".fi"]
        lines += man_list(entry.arguments + entry.options)
        lines += [".PP", "Example:", roff(entry.example)]
    pairs = CODES.splitlines()
    lines += [".SH EXIT STATUS", *man_list(zip(pairs[::2], pairs[1::2], strict=True))]
    name, text = FILES.splitlines()
    lines += [".SH FILES", *man_list([(name, text)])]
    lines += [".SH ENVIRONMENT", "Options are also environment variables:", r"\-\-workers 4 is LOADER_WORKERS=4."]
    return "\n".join(lines) + "\n"


def man_list(records: Any) -> list[str]:
    """Names, each with its text, as roff."""
    return [line for names, text in records for line in (".TP", rf"\fB{roff(names)}\fR", roff(text))]


def roff(text: str) -> str:
    """A text without what roff would take for its own."""
    return re.sub(r"^([.'])", r"\\&\1", text.replace("\\", r"\e").replace("-", r"\-"), flags=re.MULTILINE)


def config_page() -> str:
    """Every key of the config, from its JSON Schema."""
    schema = json.loads((ROOT / "configs/loader.schema.json").read_text(encoding="utf-8"))
    lines = [
        "# Config keys",
        "",
        schema["description"],
        "",
        "A `${VARIABLE}` of the environment can be a part of any value.",
    ]
    lines += key_table(schema)
    for place, name in SECTIONS.items():
        part = schema["$defs"][name]
        lines += ["", f"## {place}", "", part["description"], *key_table(part)]
    without = sorted(
        set(schema["$defs"]["JobConfig"]["properties"]) - set(schema["$defs"]["JobDefaults"]["properties"])
    )
    lines += ["", "## defaults", "", schema["$defs"]["JobDefaults"]["description"]]
    lines += ["", f"These are the keys of a job but {', '.join(f'`{key}`' for key in without)}."]
    return "\n".join(lines) + "\n"


def key_table(part: Any) -> list[str]:
    """The keys of one mapping of the config."""
    lines = ["", "| key | value | default | description |", "|---|---|---|---|"]
    for key, value in part["properties"].items():
        default = f"`{json.dumps(value['default'], ensure_ascii=False)}`" if value.get("default") is not None else ""
        default = "required" if key in part.get("required", ()) else default
        lines.append(f"| `{key}` | {cell(form_of(value))} | {default} | {cell(value.get('description', ''))} |")
    return lines


def form_of(value: Any) -> str:
    """How a value of the config is written."""
    forms = value.get("anyOf") or value.get("oneOf") or [value]
    return " or ".join(dict.fromkeys(text for form in forms if (text := _form(form))))


def _form(form: Any) -> str:
    if "enum" in form or "const" in form:
        return ", ".join(f"`{json.dumps(each).strip(chr(34))}`" for each in form.get("enum", [form.get("const")]))
    if "examples" in form:
        return "like " + ", ".join(f"`{each}`" for each in form["examples"])
    if "oneOf" in form or "anyOf" in form:
        return form_of(form)
    kind = form.get("type", "mapping" if "$ref" in form else "")
    if kind == "integer":
        return f"{form.get('minimum', '')} to {form['maximum']:,}" if "maximum" in form else "number"
    if kind == "string" and form.get("pattern") == r"\$\{":
        return ""
    names = {"string": "text", "boolean": "`true`, `false`", "array": "list", "object": "mapping", "null": ""}
    return names.get(kind, kind) if isinstance(kind, str) else "text"


def metrics_page() -> str:
    """Every metric, from a registry without a job."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` of the daemon has, besides the `process_` metrics of the Prometheus client.",
    ]
    lines += ['With more than 50 jobs, details are of all jobs together, with `job="*"`.', ""]
    lines += ["| metric | type | labels | description |", "|---|---|---|---|"]
    registry = Metrics()._registry  # noqa: SLF001  # the page of metrics shows what there is, not how to get it
    for collector in registry._collector_to_names:  # noqa: SLF001
        for family in collector.describe() if isinstance(collector, MetricWrapperBase) else ():
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in collector._labelnames)  # noqa: SLF001
            lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


PAGES = {
    "docs/reference/commands.md": commands_page,
    "docs/reference/config.md": config_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/loader.1": man_page,
}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / name).write_text(make(), encoding="utf-8")
