"""Foreseen replies: many questions about the keys of one slot in one command, instead of a round trip for each."""

import json
from collections.abc import Sequence
from typing import Any, Final

from loader.redis.key_reader import Question, Words
from loader.redis.replies import is_plausible

READS = frozenset({"GET", "HGETALL", "HLEN", "LRANGE", "TIME", "EXISTS", "HSCAN"})  # commands that change nothing
# KEYS: the keys. ARGV: the questions as JSON, each a list of words. Returns a list with the reply to each question, or
# an empty list for one that was an error.
ASK = """
local replies = {}
for i, words in ipairs(cjson.decode(ARGV[1])) do
  local reply = redis.pcall(unpack(words))
  replies[i] = (type(reply) == 'table' and reply['err']) and {} or {reply}
end
return replies
"""
MISSING: Final = object()


class Foresight:
    """The replies to questions that were asked together; one is given until something changes its key."""

    def __init__(self) -> None:
        self._replies: dict[Question, Any] = {}

    def learn(self, questions: Sequence[Question], replies: Sequence[Any]) -> None:
        """Keep the replies to questions; those that were errors are asked again."""
        for (key, words), reply in zip(questions, replies, strict=True):
            if reply and is_plausible(str(words[0]), reply[0]):
                self._replies[key, words] = reply[0]

    def reply(self, key: bytes, words: Words) -> Any:
        """The reply to a command about a key; `MISSING` if it was not foreseen."""
        return self._replies.get((key, words), MISSING) if self._replies else MISSING

    def note(self, key: bytes, commands: Sequence[Words]) -> None:
        """Forget the replies about a key that these commands may change."""
        if self._replies and any(words[0] not in READS for words in commands):
            self._replies = {asked: reply for asked, reply in self._replies.items() if asked[0] != key}

    def clear(self) -> None:
        """Forget all."""
        self._replies.clear()


def words_of(questions: Sequence[Question]) -> Words:
    """The command that asks all questions; their words are texts and numbers."""
    keys = list(dict.fromkeys(key.decode() for key, _ in questions))
    return ("EVAL", ASK, len(keys), *keys, json.dumps([list(map(str, words)) for _, words in questions]))
