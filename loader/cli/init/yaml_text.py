"""Texts of a config that is written for a person: values that read back the same, and comments that stay comments."""

import json
import re
from textwrap import wrap

from loader.formats import rough_size
from loader.model import TableSummary
from loader.words import counted

WIDTH = 100  # columns of a comment
LONGEST = 60  # characters shown of a comment of MySQL's, or of a type
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WORDS = {
    "null",
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "nan",
    "inf",
    "infinity",
}  # not plain text to some parsers


def scalar(text: str) -> str:
    """A value as YAML that reads back the same, unquoted if that is safe, else in double quotes."""
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else quoted(text)


def quoted(text: str) -> str:
    """A value in double quotes; in a config, `$${` is a literal `${`."""
    return _in_quotes(text.replace("${", "$${"))


def mapping_key(text: str) -> str:
    """A text as a mapping key, in which `${` has no meaning."""
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else _in_quotes(text)


def _in_quotes(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in written)


def in_comment(text: str, longest: int = LONGEST) -> str:
    """A text for a comment: on one line, and not too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def wrapped(text: str, indent: str, further: str | None = None, width: int = WIDTH) -> list[str]:
    """A comment or a message, wrapped behind an indent; later lines have their own."""
    return wrap(
        in_comment(text, 2000),
        width,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def size_text(listed: TableSummary) -> str:
    """About how large a table is, for people."""
    if listed.is_view:
        return "a view"
    rows = "rows unknown" if listed.rows is None else f"about {counted(listed.rows, 'row')}"
    return rows if listed.bytes is None else f"{rows}, {rough_size(listed.bytes)}"


def _escaped(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"
