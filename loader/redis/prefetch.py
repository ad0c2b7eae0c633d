"""Prefetched replies: many commands about keys, sent to all nodes at once, instead of a round trip for each."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from loader.model import Node
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader, Question, Words


class Prefetched(KeyReader):
    """The replies to `questions`, as they were when this was made; other commands are sent as they come.

    A reply that was an error, a redirection for example, is fetched again too. `told` has what the masters said to
    commands for `each` of them, errors too.
    """

    def __init__(self, target: RedisClient, questions: Iterable[Question], each: Sequence[Words] = ()) -> None:
        self._target = target
        self.told: dict[Node, list[Any]] = {}
        self._replies: dict[Question, tuple[Node, Any]] = {}
        target.refresh()
        groups = target.slots.by_node(questions, itemgetter(0))
        nodes = target.slots.nodes if each else groups
        asked = {node: [*each, *(words for _, words in groups.get(node, []))] for node in nodes}
        for node, replies in target.commands_at(asked).items():
            self.told[node] = replies[: len(each)]
            for question, reply in zip(groups.get(node, []), replies[len(each) :], strict=True):
                if not isinstance(reply, Exception):
                    self._replies[question] = node, reply

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, and the node that gave it."""
        return self._replies.get((key, words)) or self._target.ask(key, *words)
