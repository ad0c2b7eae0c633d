"""Reads values from their JSON in Redis, where anything may have replaced it. Pure.

`ValueError` says what is wrong with a text.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

LATEST = 253_402_300_799  # seconds since 1970 in the year 9999: the last that can be shown
MOST = 1 << 63

T = TypeVar("T")


def parsed(text: bytes) -> dict[str, Any]:
    """The names and values in a text."""
    values = _read(text)
    if not isinstance(values, dict):
        raise ValueError("it holds no names")  # noqa: TRY004  # of what is in Redis, not of an argument
    return values


def listed(text: bytes) -> list[str]:
    """The texts in a list."""
    values = _read(text)
    if not isinstance(values, list) or not all(isinstance(each, str) and _is_text(each) for each in values):
        raise ValueError("it is not a list of texts")
    return values


def recalled(kind: type[T], text: bytes, version: int) -> T:
    """The value of a dataclass, as that version of it was stored."""
    values = parsed(text)
    if values.pop("version", None) != version:
        raise ValueError("another version wrote it")
    return built(kind, values)


def text_of(value: Any, version: int) -> str:
    """The JSON of a dataclass, to be `recalled`; unlike `asdict`, nothing is copied."""
    return json.dumps({"version": version, **_values(value)}, default=_values)


def built(kind: type[T], values: object, least: int = 0, most: int = MOST) -> T:
    """The value of a dataclass from names and values; whole numbers are in that range, others are times."""
    made: T = _Builder(least, most).make(kind, values, "it")
    return made


class _Builder:
    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most

    def make(self, kind: Any, value: Any, name: str) -> Any:
        """A value of the type."""
        if kind is Any or self._is_plain(kind, value):
            return value
        origin, args = get_origin(kind), get_args(kind)
        if origin in {Union, UnionType}:
            return self._one_of(args, value, name)
        if is_dataclass(kind):
            return self._dataclass(kind, value, name)
        if origin is tuple and isinstance(value, list):
            return tuple(self.make(args[0], each, name) for each in value)
        if origin in {Mapping, dict} and isinstance(value, dict):
            return {self.make(str, key, name): self.make(args[1], each, name) for key, each in value.items()}
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return kind(value)
        raise ValueError(f"{name} is not of type {getattr(origin or kind, '__name__', kind)}")

    def _is_plain(self, kind: Any, value: Any) -> bool:
        if kind is str:
            return isinstance(value, str) and (value.isascii() or _is_text(value))
        if kind is bool or isinstance(value, bool):
            return kind is type(value)
        if kind is int:
            return isinstance(value, int) and self._least <= value <= self._most
        return kind is float and isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= LATEST

    def _one_of(self, kinds: tuple[Any, ...], value: Any, name: str) -> Any:
        if value is None and NoneType in kinds:
            return None
        *others, last = (kind for kind in kinds if kind is not NoneType)
        for kind in others:
            try:
                return self.make(kind, value, name)
            except ValueError:
                continue
        return self.make(last, value, name)

    def _dataclass(self, kind: Any, values: Any, name: str) -> Any:
        hints, needed = _fields(kind)
        if not isinstance(values, dict):
            raise ValueError(f"{name} holds no names")  # noqa: TRY004  # of what is in Redis, not of an argument
        if missing := needed - values.keys():
            raise ValueError(f"{min(missing)} is missing")
        if more := values.keys() - hints.keys():
            raise ValueError(f"it has {min(more)!a}, which no version wrote")
        return kind(**{each: self.make(hints[each], value, each) for each, value in values.items()})


def _values(value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _is_text(value: str) -> bool:
    """Whether it has no half of a surrogate pair, which JSON allows and UTF-8 does not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields by name, and the names that are required."""
    needed = (each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING)
    return get_type_hints(kind), frozenset(needed)
