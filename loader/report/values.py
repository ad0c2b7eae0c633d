"""How bytes are shown: for a terminal, in JSON, and as a command that one would type into redis-cli."""

import base64
import json
from collections.abc import Sequence


def command_text(words: Sequence[bytes]) -> str:
    """A command as typed into redis-cli."""
    return " ".join(shown(word) for word in words)


def shown(value: bytes) -> str:
    r"""Bytes for a terminal: text as it is, quoted for redis-cli if needed, `\xNN` for bytes that are not text."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and text and all(c.isprintable() and c not in " \"'\\" for c in text):
        return text
    if text is not None:
        escaped = (c if c.isprintable() and c not in '"\\' else _escape(c) for c in text)
        return '"' + "".join(escaped) + '"'
    return '"' + "".join(chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else _escape_byte(b) for b in value) + '"'


def as_json(value: bytes) -> str | dict[str, str]:
    """Bytes in JSON: text, or `{"base64": …}` for what is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def as_json_name(name: bytes) -> str:
    """The name of a field in JSON, which is text in any case."""
    text = as_json(name)
    return text if isinstance(text, str) else json.dumps(text)


def _escape(char: str) -> str:
    return "".join(_escape_byte(byte) for byte in char.encode())


def _escape_byte(byte: int) -> str:
    return {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}.get(byte, f"\\x{byte:02x}")
