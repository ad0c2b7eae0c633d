"""Prefetched replies: many commands about keys in one pipeline per node, instead of a round trip for each."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from loader.model import Node
from loader.redis.client import RedisClient
from loader.redis.key_reader import KeyReader, Question


class Prefetched(KeyReader):
    """The replies to `questions`, as they were when this was made; other commands are sent as they come.

    A reply that was an error, a redirection for example, is fetched again too.
    """

    def __init__(self, target: RedisClient, questions: Iterable[Question]) -> None:
        self._target = target
        self._replies: dict[Question, tuple[Node, Any]] = {}
        target.refresh()
        for node, group in target.slots.by_node(questions, itemgetter(0)).items():
            replies = target.commands(node, [words for _, words in group])
            for question, reply in zip(group, replies, strict=True):
                if not isinstance(reply, Exception):
                    self._replies[question] = node, reply

    def ask(self, key: bytes, *words: str | bytes | int) -> tuple[Node, Any]:
        """The reply to a command about a key, and the node that gave it."""
        return self._replies.get((key, words)) or self._target.ask(key, *words)
