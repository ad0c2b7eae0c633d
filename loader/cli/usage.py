"""Mistakes on the command line in our own words."""

import re
from collections.abc import Mapping
from typing import Any

import typer

WORDS: Mapping[str, str] = {  # of pydantic's kinds of mistakes in a value
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "greater_than_equal": "write a number of at least {ge:,}",
    "less_than_equal": "write a number of at most {le:,}",
}
EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)")
QUOTED = re.compile("'([^']*)'")


def mistake_of(error: typer.TyperException) -> str:
    """What is wrong with a command line, and where its help is."""
    parameter, context = getattr(error, "param", None), getattr(error, "ctx", None)
    told = error.format_message().strip().removesuffix(".")
    if isinstance(error, typer.BadParameter) and parameter is not None and error.message:
        flags = [flag for flag in parameter.opts if flag.startswith("--")]
        told = f"{flags[0] if flags else parameter.metavar or parameter.name}: {_reason(error)}"
    told = EXTRA.sub(r"unexpected: \1", told)
    told = told if told.startswith("-") else told[:1].lower() + told[1:]
    if context is None:
        return told
    command = f"loader{context.command_path.removeprefix(str(context.find_root().info_name))}"
    return f"{told}{' See' if told.endswith('?') else '; see'} `{command} --help`"


def _reason(error: typer.BadParameter) -> str:
    """Why a value is refused; not in the words of the library that did."""
    told = error.message.removeprefix("Value error, ")
    seen, is_choice, choices = told.partition(" is not one of ")
    if is_choice:
        return f"write one of {', '.join(QUOTED.findall(choices))}, not {seen.strip(chr(39))}"
    faults: Any = getattr(error.__cause__, "errors", list)()
    if not faults:
        return told
    kind, facts = faults[0]["type"], faults[0].get("ctx", {})
    if kind not in WORDS:
        return str(facts.get("error") or told)
    return f"{WORDS[kind].format(**facts)}, not {faults[0]['input']}"
