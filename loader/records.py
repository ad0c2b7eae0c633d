"""Dataclasses that are quick to define: their methods are made when they are first called.

A program of a hundred dataclasses would otherwise compile six hundred methods as it starts, for a fifth of the time
that a small table takes from start to end; it calls about fifty of them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass as standard
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

KNOWN = frozenset({"slots", "frozen", "eq", "kw_only"})  # options
UNSET: Any = object()  # in place of a value that each instance has for itself

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  # for type checkers
else:

    def dataclass(kind: type | None = None, /, **options: bool) -> Any:
        """As the standard library's, which makes those of other options, with own methods, or derived from another.

        `inspect.signature` cannot see the fields.
        """

        def made(kind: type) -> type:
            if options.keys() - KNOWN or _is_special(kind):
                return standard(**options)(kind)
            return _with_late(kind, **options)

        return made if kind is None else made(kind)


def _is_special(kind: type) -> bool:
    """Whether a class derives from another dataclass, or its fields are not the arguments of its `__init__`."""
    return (
        dataclasses.is_dataclass(kind)
        or bool(OWN & vars(kind).keys())
        or any("InitVar" in str(each) or "KW_ONLY" in str(each) for each in kind.__annotations__.values())
        or any(isinstance(each, dataclasses.Field) and not each.init for each in vars(kind).values())
    )


def _with_late(kind: type, *, frozen: bool = False, eq: bool = True, **options: bool) -> type:
    """The dataclass with methods that are made later."""
    if kind.__doc__ is None:
        kind.__doc__ = kind.__name__  # else it is made of the signature, in more time than all the rest
    made: type = standard(init=False, repr=False, eq=False, **options)(kind)
    made.__dataclass_params__.frozen = frozen  # type: ignore[attr-defined]  # for those that derive from it
    shared: dict[str, Any] = {name: _late(made, name) for name in LATE if eq or name not in {"__eq__", "__hash__"}}
    shared |= (FROZEN if options.get("slots") else REFUSED) if frozen else {"__hash__": None} if eq else {}
    for name in shared.keys() - (vars(kind).keys() & MAY_HAVE):
        setattr(made, name, shared[name])
    return made


def _late(kind: type, name: str) -> Callable[..., Any]:
    """A method that puts the one of this name, made for its class, in its place."""

    def late(self: Any, *args: Any, **named: Any) -> Any:
        method = LATE[name](kind)
        setattr(kind, name, method)
        return method(self, *args, **named)

    return late


def _init(kind: Any) -> Callable[..., None]:
    """The `__init__` of a class: sets each field to the argument of its name."""
    names: dict[str, Any] = {"UNSET": UNSET, "put": object.__setattr__}
    parameters: tuple[list[str], list[str]] = ["self"], ["*"]  # the second ones are given by their names
    lines = ["pass"]
    for each in dataclasses.fields(kind):
        name = each.name
        put = f"put(self, {name!r}, "
        if "__slots__" in vars(kind):
            names[f"set_{name}"], put = getattr(kind, name).__set__, f"set_{name}(self, "
        if each.default_factory is not dataclasses.MISSING:
            names[f"new_{name}"] = each.default_factory
            parameters[each.kw_only is True].append(f"{name}=UNSET")
            lines.append(f"{put}new_{name}() if {name} is UNSET else {name})")
            continue
        if each.default is not dataclasses.MISSING:
            names[f"default_{name}"] = each.default
        parameters[each.kw_only is True].append(f"{name}=default_{name}" if f"default_{name}" in names else name)
        lines.append(f"{put}{name})")
    words = parameters[0] + (parameters[1] if len(parameters[1]) > 1 else [])
    exec(f"def __init__({', '.join(words)}):\n " + "\n ".join(lines), names)  # noqa: S102  # of names of fields
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
MAY_HAVE = frozenset({"__init__", "__repr__", "__hash__"})  # methods of its own that a class keeps
OWN = frozenset({"__eq__", "__post_init__", "__setattr__", "__delattr__"})  # those with which it is special
REFUSED = {"__setattr__": _refuse, "__delattr__": _refuse}
FROZEN = REFUSED | {"__getstate__": _state, "__setstate__": _restore}
