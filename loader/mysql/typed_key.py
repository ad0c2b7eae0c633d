"""Makes a Redis key of what a person typed. Pure."""

import re

from loader.errors import ConfigError
from loader.model import Table
from loader.mysql.forms import INTEGERS
from loader.mysql.plan import Plan
from loader.words import counted


def key_of(plan: Plan, table: Table, text: str) -> bytes:
    """The Redis key for what a person typed: the key itself, or the key columns' values, joined by commas.

    An integer may be written with or without the zeros that ZEROFILL adds.
    """
    prefix = plan.layout.key[0] if isinstance(plan.layout.key[0], bytes) else b""
    typed = text.encode(errors="surrogateescape")
    if prefix and typed.startswith(prefix):
        return typed
    columns = plan.key_columns
    values = text.split(",") if len(columns) > 1 else [text]
    if len(values) != len(columns):
        raise ConfigError(
            f"key {text!r}: job {plan.job.name!r} needs {counted(len(columns), 'value')}: {','.join(columns)}"
        )
    stored = iter(_as_stored(table, *pair) for pair in zip(columns, values, strict=True))
    return b"".join(
        piece if isinstance(piece, bytes) else next(stored).encode(errors="surrogateescape")
        for piece in plan.layout.key
    )


def _as_stored(table: Table, name: str, value: str) -> str:
    column = table.column(name)
    if column is None or column.type not in INTEGERS or not re.fullmatch(r"-?[0-9]+", value):
        return value
    number = int(value)
    return f"{number:0{column.zerofill_width}d}" if column.zerofill_width else str(number)
