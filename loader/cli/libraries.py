"""Libraries, imported in less time: what they would do as they are imported, and seldom need, is done when it is used.

Each is imported as it is, but within a block in which a function of the standard library does its work later. A module
that is not there, or does without that function, is imported as ever.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from loader import records
from loader.imports import Around, Block, import_bare, instead, late_names


class Fields(dict[str, Any]):
    """In place of TypedDict, whose fields nobody looks up: the schemas of pydantic_core are six hundred."""

    def __init_subclass__(cls, total: bool = True) -> None:  # as TypedDict takes it
        """Take what TypedDict takes."""


class Pattern:
    """A regular expression that is compiled when it is first used."""

    def __init__(self, *words: Any) -> None:
        self._words = words

    def __getattr__(self, name: str) -> Any:
        self.__dict__[name] = found = getattr(COMPILE(*self._words), name)
        return found


COMPILE = re.compile
with_late_dataclasses = partial(instead, "dataclasses", "dataclass", records.dataclass)
with_late_patterns = partial(instead, "re", "compile", Pattern)


@contextmanager
def without_plugins() -> Iterator[None]:
    """The block of pydantic, whose plugins are switched off, but would be looked for with a library of its own."""
    with with_late_dataclasses(), late_names("importlib.metadata", "entry_points"):
        yield


def with_plain_dicts() -> AbstractContextManager[None]:
    """The block in which TypedDict is `Fields`."""
    return instead("typing" if sys.version_info >= (3, 12) else "typing_extensions", "TypedDict", Fields)


BLOCKS: dict[str, Block] = {
    "annotated_types": with_late_dataclasses,
    "pydantic": without_plugins,
    "pydantic_core": with_plain_dicts,
    "pymysql": with_late_patterns,
    "redis": with_late_dataclasses,
    "structlog": with_late_dataclasses,
    "typer": with_late_dataclasses,
    "yaml": with_late_patterns,
}


def prepare() -> None:
    """Have the libraries imported so, from now on."""
    sys.meta_path.insert(0, Around(BLOCKS))
    import_bare("importlib.metadata")
    import_bare("asyncio")
