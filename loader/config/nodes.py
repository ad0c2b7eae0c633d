"""The nodes of a YAML text.

libyaml finds them forty times as fast as ruamel does. It is asked first and believed only about plain text, of which
both say the same; ruamel, which knows YAML 1.2, reads the rest, and says what is wrong with a text, and where.
"""

import re
import warnings
from typing import Any, Protocol

TAG = "tag:yaml.org,2002:"
TEXT = f"{TAG}str"
OTHER = f"{TAG}value"  # of a plain scalar that may be a number, true, false or null

MAX_DEPTH = 16  # the deepest value of a config has four levels
TOO_DEEP = f"its values are more than {MAX_DEPTH} levels deep"

SLIPS = (AssertionError, AttributeError, LookupError, TypeError, ValueError)  # the parser's own on broken input

# By the parser's message, the most likely mistake.
ADVICE = (
    ("mapping values are not allowed", "put text that contains a colon and a space in quotes, all of it"),
    ("parsing a block mapping", "text that begins with a quote must end with it: put all of it in other quotes"),
    ("parsing a flow mapping", "put text that contains any of : , [ ] { } in quotes, all of it"),
    ("parsing a flow sequence", "put text that contains any of : , [ ] { } in quotes, all of it"),
)

MAX_OPEN = 64  # collections within one another; far more than any config has

# The two parsers differ about line breaks of YAML 1.1 alone, marks of byte order, tabs, directives, ends of documents,
# and a comment right after the sign of a block of text.
NOT_PLAIN = re.compile(r"[\x85\u2028\u2029\ufeff\t]|^(?:%|\.\.\.)|[|>][-+0-9]*#", re.MULTILINE)

NOT_TEXT = re.compile(  # by the rules of YAML 1.2, as ruamel has them
    r"""(?:true|True|TRUE|false|False|FALSE|~|null|Null|NULL|)
    |[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?
    |[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?0b[0-1_]+
    |[-+]?0o?[0-7_]+
    |[-+]?[0-9_]+
    |[-+]?0x[0-9a-fA-F_]+""",
    re.VERBOSE,
)


class Mark(Protocol):
    """A place in a text; line and column count from 0."""

    line: int
    column: int


class Node(Protocol):
    """A scalar with its text, a sequence of nodes, or a mapping, which is a list of pairs of nodes; `id` says which."""

    id: str
    tag: str
    value: Any
    start_mark: Mark


class NotYamlError(Exception):
    """A text that is not YAML: why, and the line and column, which count from 0."""

    def __init__(self, reason: str, line: int = 0, column: int = 0) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column


class _NotPlainError(Exception):
    """A text that libyaml is not believed about."""


class _PlainNode:
    __slots__ = ("id", "start_mark", "tag", "value")

    def __init__(self, kind: str, tag: str, value: Any, start_mark: Mark) -> None:
        self.id = kind
        self.tag = tag
        self.value = value
        self.start_mark = start_mark


def compose(text: str) -> Node | None:
    """The root of a text's nodes, None if it has none. Nothing is constructed from them, so no tag can run code.

    Raises NotYamlError.
    """
    try:
        return _compose_plain(text)
    except _NotPlainError:
        return compose_any(text)


def _compose_plain(text: str) -> Node | None:
    try:
        from yaml.cyaml import CParser
    except ImportError:  # PyYAML was built without libyaml
        raise _NotPlainError from None
    from yaml.error import YAMLError

    if NOT_PLAIN.search(text):
        raise _NotPlainError
    try:
        return _Tree().grown(CParser(text))
    except YAMLError:
        raise _NotPlainError from None


class _Tree:
    """The nodes that a parser's events describe."""

    def __init__(self) -> None:
        self.documents: list[_PlainNode] = []
        self.around: list[_PlainNode] = []  # the open collections, the innermost last
        self.anchors: dict[str, _PlainNode] = {}

    def grown(self, parser: Any) -> Node | None:
        """The root, None if there is none."""
        from yaml import events as of

        grow = {
            of.ScalarEvent: self._scalar,
            of.MappingStartEvent: self._mapping,
            of.SequenceStartEvent: self._sequence,
            of.MappingEndEvent: self._end,
            of.SequenceEndEvent: self._end,
            of.AliasEvent: self._alias,
        }
        while not isinstance(event := parser.get_event(), of.StreamEndEvent):
            if step := grow.get(type(event)):
                step(event)
        if len(self.documents) > 1:
            raise _NotPlainError
        return self.documents[0] if self.documents else None

    def _scalar(self, event: Any) -> None:
        text = event.value
        tag = OTHER if event.implicit[0] and NOT_TEXT.fullmatch(text) else TEXT
        self._add(_PlainNode("scalar", tag, text, event.start_mark), event)

    def _mapping(self, event: Any) -> None:
        self._open(_PlainNode("mapping", f"{TAG}map", [], event.start_mark), event)

    def _sequence(self, event: Any) -> None:
        self._open(_PlainNode("sequence", f"{TAG}seq", [], event.start_mark), event)

    def _open(self, node: _PlainNode, event: Any) -> None:
        self._add(node, event)
        self.around.append(node)
        if len(self.around) > MAX_OPEN:
            raise _NotPlainError

    def _end(self, _event: Any) -> None:
        node = self.around.pop()
        if node.id == "mapping":
            node.value = list(zip(node.value[::2], node.value[1::2], strict=True))

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            raise _NotPlainError
        self._put(self.anchors[event.anchor])

    def _add(self, node: _PlainNode, event: Any) -> None:
        if event.tag is not None:
            raise _NotPlainError
        if event.anchor is not None:
            self.anchors[event.anchor] = node  # of two with one name, the later one wins
        self._put(node)

    def _put(self, node: _PlainNode) -> None:
        (self.around[-1].value if self.around else self.documents).append(node)


def compose_any(text: str) -> Node | None:
    """The root of a text's nodes as ruamel composes them; raises NotYamlError."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor used twice
            return _by_ruamel(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = (mark.line, mark.column) if mark else (0, 0)
        raise NotYamlError(_in_words(error.context or "", error.problem or ""), *at) from None
    except ReaderError as error:
        lines = text[: error.position].split("\n")
        raise NotYamlError("there is a control character here", len(lines) - 1, len(lines[-1])) from None
    except RecursionError:
        raise NotYamlError(TOO_DEEP) from None
    except (YAMLError, *SLIPS):
        raise NotYamlError("it is not YAML") from None


def _by_ruamel(text: str) -> Node | None:
    from ruamel.yaml import YAML

    node: Node | None
    try:
        node = YAML(pure=True).compose(text)
    except NotImplementedError:  # it does not know what a comment belongs to, which is of no interest here
        node = YAML(typ="safe", pure=True).compose(text)
    return node


def _in_words(context: str, problem: str) -> str:
    """The parser's message without the text of the file, which may be a secret, plus advice."""
    message = ", ".join(filter(None, (context, problem)))
    if "undefined alias" in message:
        return "undefined alias; put text that begins with * in quotes"
    if "alias" in message:
        return 'put text that begins with * in quotes, like cron: "*/15 * * * *"'
    if found := re.search(r"character '([@`%])' that cannot start", problem):
        return f"put text that begins with {found[1]} in quotes"
    return message + next((f"; {advice}" for said, advice in ADVICE if said in message), "")
