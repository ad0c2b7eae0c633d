"""Commands about keys, for code that only reads the loader's own keys."""

from typing import Any, Protocol

from loader.model import Node

Words = tuple[str | bytes | int, ...]  # of a command
Question = tuple[bytes, Words]  # a key, and a command about it


class KeyReader(Protocol):
    """Sends commands about keys, each to the node that owns the key."""

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, from the node that owns it, and that node."""

    def time(self, key: str) -> float:
        """The time on the node that owns a key, in seconds since 1970: a clock that all readers share."""
        seconds, micros = self.ask(key.encode(), "TIME")[1]
        return int(seconds) + int(micros) / 1e6
