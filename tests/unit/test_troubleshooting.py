"""The messages that docs/troubleshooting.md quotes are those of the code, word for word."""

import ast

import pytest

from support.pages import DOCS, ROOT, blocks_of

SERVERS = {"WRONGTYPE Operation against a key holding the wrong kind of value"}  # what the servers themselves say
HOLE = "…"


def texts_of(tree):
    """The texts of a module, with holes for what an f-string fills in; implicit concatenations are one text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def said():
    """All texts of the code."""
    paths = (ROOT / "loader").rglob("*.py")
    return "\n".join(text for path in paths for text in texts_of(ast.parse(path.read_text(encoding="utf-8"))))


QUOTED = [
    line
    for block in blocks_of(DOCS / "troubleshooting.md")
    if block.language == "text"
    for line in block.text.splitlines()
]


@pytest.mark.parametrize("message", QUOTED)
def test_messages_are_those_of_the_code(message, said):
    """Each piece of a message between its holes stands in one text of the code; the servers' own are named."""
    pieces = [piece.strip(" :;,.()?%") for piece in message.split(HOLE)]
    longest = max(pieces, key=len)
    assert message in SERVERS or len(longest) > 8
    assert message in SERVERS or [piece for piece in pieces if piece not in said] == []
