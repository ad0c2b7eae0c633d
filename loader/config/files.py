"""YAML files and the environment in, plain values out, with the place of each value and all faults found on the way."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from loader.config.nodes import MAX_DEPTH, TAG, TEXT, TOO_DEEP, Mark, Node, NotYamlError, compose
from loader.errors import ConfigError
from loader.records import dataclass

DEFAULT_FILES = (Path("loader.yaml"), Path("/etc/loader/loader.yaml"))

MAX_BYTES = 1 << 22  # ten thousand jobs take about 2 MiB
MAX_VALUES = 500_000  # counted with aliases expanded: nine lines of ten aliases each are a thousand million
Keys = tuple[str | int, ...]
"""The way to a value: keys of mappings, numbers in lists."""

TEXT_TAGS = {TEXT, f"{TAG}timestamp"}  # dates stay text
TAGS = TEXT_TAGS | {TAG + kind for kind in ("map", "seq", "null", "bool", "int", "float", "merge", "value")}
FOLD = "\a"
PLAIN = {"true": True, "false": False, "null": None, "~": None, "": None}

PLACEHOLDER = re.compile(r"\$(\$\{)|\$\{(?:([A-Za-z_]\w*)(?::([-?])([^{}]*))?\})?", re.ASCII)


class Place(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1


class Problem(NamedTuple):
    """One fault of a config; `str()` is its line for a person."""

    place: Place
    path: Keys
    message: str

    def __str__(self) -> str:
        path = ".".join(step if step.isprintable() else ascii(step) for step in map(str, self.path)) or "file"
        place = ":".join(map(str, self.place))
        return f"{place}: error: {path}: {' '.join(self.message.split())}"


class _UnreadableError(Exception):
    """A file without any values: its place, and the reason."""

    def __init__(self, place: Place, message: str) -> None:
        self.problem = Problem(place, (), message)


@dataclass(slots=True)
class Document:
    """The merged values of all files, and the problems found so far."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)  # of values
    keys: dict[Keys, Place] = field(default_factory=dict)  # of the keys before them
    problems: list[Problem] = field(default_factory=list)
    unknown: set[Keys] = field(default_factory=set)  # values that could not be determined
    variables: dict[Keys, str] = field(default_factory=dict)  # of the environment, one that each value has

    def place(self, path: Keys) -> Place:
        """The place of a value, or else of the nearest one around it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def report(self, path: Keys, message: str) -> None:
        """Add a problem that leaves the value at that path unknown."""
        self.unknown.add(path)
        self.problems.append(Problem(self.place(path), path, message))

    def error(self) -> ConfigError:
        """All problems as one error, a line each, in the order of their places."""
        return ConfigError("\n".join(map(str, sorted(set(self.problems), key=lambda p: (p.place, str(p))))))


def files_of(named: Sequence[Path]) -> Sequence[Path]:
    """The files of a config: those named, those of $LOADER_CONFIG, or the first of DEFAULT_FILES that exists."""
    return named or _default_files()


def _default_files() -> list[Path]:
    if named := [Path(name) for name in os.environ.get("LOADER_CONFIG", "").split(os.pathsep) if name]:
        return named
    for file in DEFAULT_FILES:
        if file.exists():
            return [file]
    places = ", ".join(map(str, DEFAULT_FILES))
    raise ConfigError(
        f"no config found: $LOADER_CONFIG is not set, and there is no {places}; name one with -c FILE, or let"
        " `loader init` write one"
    )


def read_document(files: Sequence[Path], environment: Mapping[str, str]) -> Document:
    """Read and merge the files, later ones winning key by key, then replace `${…}` in the remaining texts.

    Duplicate keys, foreign tags and unset variables end up in `problems`. Raises ConfigError if a file has no mapping
    at all.
    """
    document = Document()
    unreadable = False
    for file in files:
        try:
            reader = _Reader(str(file), document)
            document.values = _merged(document.values, reader.read(file))
        except _UnreadableError as error:
            document.problems.append(error.problem)
            unreadable = True
    if unreadable:
        raise document.error()
    document.values = _filled(document.values, (), document, environment)
    return document


def _merged(earlier: Any, later: Any) -> Any:
    if not isinstance(earlier, dict) or not isinstance(later, dict):
        return later
    return earlier | {key: _merged(earlier.get(key), value) for key, value in later.items()}


def _filled(value: Any, path: Keys, document: Document, environment: Mapping[str, str]) -> Any:
    """Replace the placeholders in all texts below; one that cannot be replaced stays and is reported."""

    def replacement(match: re.Match[str]) -> str:
        escaped, name, operator, word = match.groups()
        if escaped:
            return str(escaped)
        if name is None:
            document.report(path, "write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ is a literal ${")
            return match[0]
        document.variables[path] = name
        found = environment.get(name)
        if found is not None and (found or not operator):
            return found
        if operator == "-":
            return str(word)
        document.report(path, f"${{{name}}}: {word}" if word else f"${{{name}}} is not set in the environment")
        return match[0]

    if isinstance(value, dict):
        return {key: _filled(item, (*path, key), document, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, (*path, number), document, environment) for number, item in enumerate(value)]
    return PLACEHOLDER.sub(replacement, value) if isinstance(value, str) else value


@dataclass(slots=True)
class _Reader:
    """Turns the nodes of one file into values; notes places and problems in the document."""

    file: str
    document: Document
    values: int = 0

    def read(self, file: Path) -> dict[str, Any]:
        root = self._compose(self._text(file))
        if root is None or (root.id == "scalar" and _scalar(root) is None):
            raise _UnreadableError(Place(self.file), "it is empty; a config begins with `version: 1`")
        if root.id != "mapping":
            raise _UnreadableError(self._place(root.start_mark), "it must be a mapping of keys to values")
        values = self._value(root, ())
        assert isinstance(values, dict)
        return values

    def _text(self, file: Path) -> str:
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise _UnreadableError(Place(self.file), f"it is larger than {MAX_BYTES} bytes, too large for a config")
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start].rpartition(b"\n")
            place = Place(self.file, data.count(b"\n", 0, error.start) + 1, len(before[2]) + 1)
            raise _UnreadableError(place, "it is not UTF-8 text") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or str(error)
            raise _UnreadableError(Place(self.file), f"it cannot be read: {reason}") from None

    def _compose(self, text: str) -> Node | None:
        try:
            return compose(text)
        except NotYamlError as error:
            raise _UnreadableError(self._place(error), str(error)) from None

    def _value(self, node: Node, path: Keys) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            message = f"it has more than {MAX_VALUES} values once its aliases are expanded"
            raise _UnreadableError(self._place(node.start_mark), message)
        if len(path) > MAX_DEPTH:
            raise _UnreadableError(self._place(node.start_mark), TOO_DEEP)
        self.document.places[path] = self._place(node.start_mark)
        if node.tag not in TAGS:
            self.document.report(path, "tags are not allowed; put text that begins with ! in quotes")
        if node.id == "mapping":
            return self._mapping(node, path)
        if node.id == "sequence":
            return [self._value(item, (*path, number)) for number, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: Node, path: Keys) -> dict[str, Any]:
        """Keys are their literal text, whatever it looks like; of duplicates, the first one wins."""
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node.start_mark)
            key = _text(key_node) if key_node.id == "scalar" else ""
            if not key or any(map(_is_half, key)):
                self.document.problems.append(Problem(place, path, "a key must be plain text"))
            elif key in values:
                first = self.document.keys[*path, key]
                message = f"duplicate key, first written in line {first.line}"
                self.document.problems.append(Problem(place, (*path, key), message))
            else:
                self.document.keys[*path, key] = place
                values[key] = self._value(value_node, (*path, key))
                if values[key] is None and not value_node.value:
                    self.document.places[*path, key] = place  # there is no text to point at
        return values

    def _place(self, mark: Mark) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)


def _text(node: Node) -> str:
    r"""The text of a node; pairs of JSON escapes for one character, like \ud83d\ude00, are joined.

    Ruamel puts a mark where it folds a line.
    """
    text = node.value.replace(FOLD, "") if getattr(node, "style", "") == ">" else node.value
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _is_half(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _scalar(node: Node) -> str | int | float | bool | None:
    """The value by YAML 1.2: `no`, `22:22` and dates are text, `012` is twelve."""
    text = _text(node)
    if node.tag in TEXT_TAGS:
        return text
    if text.lower() in PLAIN:
        return PLAIN[text.lower()]
    for number in (int, lambda digits: int(digits, 0), float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML."""
    from ruamel.yaml import YAML

    stream = StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 100
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(values, stream)
    return stream.getvalue()
