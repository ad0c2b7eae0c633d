"""Imports of a part of a library: all of one may take longer than a small table, and most of it is never used."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

BARE = set[str]()  # packages that are imported without their own modules
Block = Callable[[], AbstractContextManager[None]]


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Within the block, let these libraries, which others can do without, count as not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None, as importing says that there is none
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def import_bare(package: str, **homes: str) -> None:
    """Make modules of a package importable alone: its own module runs once something is asked of the package itself.

    A name with a home, a module of the package, is taken from there, if it is there.
    """
    if package in sys.modules or (spec := find_spec(package)) is None or spec.loader is None:
        return  # importing a module of it says why
    module, loader = module_from_spec(spec), spec.loader
    lock, begun = threading.RLock(), list[str]()

    def ask(name: str) -> Any:
        if not begun and not name.startswith("__") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        if not begun and name in homes:
            with suppress(ImportError, AttributeError):
                return getattr(import_module(homes[name]), name)
        with lock:  # of another thread that has begun; this one may ask while the package's own module runs
            if not begun:
                begun.append(name)
                loader.exec_module(module)
                del module.__dict__["__getattr__"]
        try:
            return module.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    module.__dict__["__getattr__"] = ask
    sys.modules[package] = module
    BARE.add(package)
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)  # as importing does


@contextmanager
def late_names(package: str, *names: str) -> Iterator[None]:
    """Within the block, let these functions and classes of a bare package be imported without running it.

    It runs once one of them is called; until then, they serve as types too, but have no instances.
    """
    module = sys.modules.get(package)
    if package not in BARE or module is None or "__getattr__" not in vars(module) or names[0] in vars(module):
        yield
        return

    def late(name: str) -> Callable[..., Any]:
        def function(*args: Any, **named: Any) -> Any:
            return getattr(module, name)(*args, **named)

        return function

    made = {name: late(name) for name in names}
    vars(module).update(made)
    yield
    for name, function in made.items():
        if vars(module)[name] is function:  # it was not run meanwhile
            del vars(module)[name]


class Around:
    """Runs the modules of packages, when they are imported, each within the block of its package."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self._blocks = blocks

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """As importing asks it."""
        spec = PathFinder.find_spec(name, path) if name.partition(".")[0] in self._blocks else None
        if spec and spec.loader:
            spec.loader.exec_module = partial(self._run, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _run(self, run: Callable[[Any], None], module: Any) -> None:
        with self._blocks[module.__name__.partition(".")[0]]():
            run(module)


@contextmanager
def instead(module: str, name: str, value: object) -> Iterator[None]:
    """Within the block, let a name of a module mean this."""
    owner = import_module(module)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
