"""Commands about keys, as those who only read the loader's own keys need them."""

from typing import Any, Protocol

from loader.model import Node

Words = tuple[str | bytes | int, ...]  # of a command


class KeyReader(Protocol):
    """Asks commands about keys, each at the node that owns the key."""

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, from the node that owns it, and that node."""

    def time(self, key: str) -> float:
        """What time it is by the node that owns a key, in seconds since 1970: a clock that all who ask share."""
        seconds, micros = self.ask(key.encode(), "TIME")[1]
        return int(seconds) + int(micros) / 1e6
