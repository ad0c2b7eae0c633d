"""Imports of a part of a library: all of one may take longer than a small table, and most of it is never used."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any


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


def import_bare(package: str, *functions: str) -> None:
    """Make modules of a package importable alone: its own module runs once something is asked of the package itself.

    These functions of it can be imported before; it runs once one of them is called.
    """
    if package in sys.modules or (spec := find_spec(package)) is None or spec.loader is None:
        return  # importing a module of it says why
    module, loader = module_from_spec(spec), spec.loader
    lock, begun = threading.RLock(), list[str]()

    def ask(name: str) -> Any:
        if not begun and not name.startswith("__") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        with lock:  # of another thread that has begun; this one may ask while the package's own module runs
            if not begun:
                begun.append(name)
                loader.exec_module(module)
                del module.__dict__["__getattr__"]
        try:
            return module.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    def late(name: str) -> Callable[..., Any]:
        def function(*args: Any, **named: Any) -> Any:
            ask("__doc__")
            return module.__dict__[name](*args, **named)

        return function

    module.__dict__.update({name: late(name) for name in functions}, __getattr__=ask)
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)  # as importing does
