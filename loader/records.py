"""Dataclasses that are quick to define: their methods are made when they are first called.

A program of a hundred dataclasses would otherwise compile six hundred methods as it starts, for a fifth of the time
that a small table takes from start to end; it calls about fifty of them.
"""

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

KNOWN = frozenset({"slots", "frozen", "eq"})  # options
UNSET: Any = object()  # in place of a value that each instance has for itself

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  # for type checkers
else:

    def dataclass(**options: bool) -> Callable[[type], type]:
        """As the standard library's, for classes with slots; options of others are left to it.

        Classes derive from no other, and their fields are arguments of `__init__`; `inspect.signature` cannot see them.
        """

        def made(kind: type) -> type:
            if not options.get("slots") or options.keys() - KNOWN or LATE.keys() & vars(kind).keys():
                return dataclasses.dataclass(**options)(kind)
            return _with_late(kind, frozen=options.get("frozen", False), eq=options.get("eq", True))

        return made


def _with_late(kind: type, *, frozen: bool, eq: bool) -> type:
    """The dataclass with methods that are made later."""
    made: type = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(kind)
    shared: dict[str, Any] = {name: _late(name) for name in LATE if eq or name not in {"__eq__", "__hash__"}}
    shared |= FROZEN if frozen else {"__hash__": None} if eq else {}
    for name, method in shared.items():
        setattr(made, name, method)
    return made


def _late(name: str) -> Callable[..., Any]:
    """A method that puts the one of this name, made for its class, in its place."""

    def late(self: Any, *args: Any, **named: Any) -> Any:
        kind = type(self)
        method = LATE[name](kind)
        setattr(kind, name, method)
        return method(self, *args, **named)

    return late


def _init(kind: Any) -> Callable[..., None]:
    """The `__init__` of a class: sets each slot to the argument of its name."""
    names: dict[str, Any] = {"UNSET": UNSET}
    parameters, lines = ["self"], ["pass"]
    for each in dataclasses.fields(kind):
        name = each.name
        names[f"set_{name}"] = getattr(kind, name).__set__
        if each.default_factory is not dataclasses.MISSING:
            names[f"new_{name}"] = each.default_factory
            parameters.append(f"{name}=UNSET")
            lines.append(f"set_{name}(self, new_{name}() if {name} is UNSET else {name})")
            continue
        if each.default is not dataclasses.MISSING:
            names[f"default_{name}"] = each.default
        parameters.append(f"{name}=default_{name}" if f"default_{name}" in names else name)
        lines.append(f"set_{name}(self, {name})")
    exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines), names)  # noqa: S102  # of names of fields
    method: Callable[..., None] = names["__init__"]
    method.__qualname__ = f"{kind.__qualname__}.__init__"
    return method


def _repr(kind: Any) -> Callable[[Any], str]:
    """The `__repr__` of a class: its name and its fields, but for those that are left out."""
    names = [each.name for each in dataclasses.fields(kind) if each.repr]

    @recursive_repr()
    def method(self: Any) -> str:
        return f"{kind.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return method


def _eq(kind: Any) -> Callable[[Any, object], bool]:
    """The `__eq__` of a class: the values of its fields, in order."""
    values = _values(kind)

    def method(self: Any, other: object) -> bool:
        return bool(values(self) == values(other)) if other.__class__ is self.__class__ else NotImplemented

    return method


def _hash(kind: Any) -> Callable[[Any], int]:
    """The `__hash__` of a class: of the values of its fields."""
    values = _values(kind)

    def method(self: Any) -> int:
        return hash(values(self))

    return method


def _values(kind: Any) -> Callable[[Any], Any]:
    """The values of the fields that are compared, as a tuple."""
    names = [each.name for each in dataclasses.fields(kind) if each.compare]
    return attrgetter(*names) if len(names) > 1 else lambda one: tuple(getattr(one, name) for name in names)


def _refuse(self: Any, name: str, _: Any = None) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r} of {type(self).__qualname__}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


LATE: dict[str, Callable[[type], Callable[..., Any]]] = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
}
FROZEN = {"__setattr__": _refuse, "__delattr__": _refuse, "__getstate__": _state, "__setstate__": _restore}
