"""Deletes the hashes of keys whose row is gone: each key is looked up in MySQL right before; other types stay."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from loader.errors import Kind, SourceError
from loader.mysql.connection import Connection
from loader.mysql.keys import TOGETHER, KeyMatcher
from loader.mysql.plan import Plan, keys_only
from loader.pipeline.throttle import Throttle
from loader.pipeline.transfer import BatchWriter, send_each, transfer
from loader.redis.client import RedisClient
from loader.redis.collector import CollectingWriter
from loader.redis.writer import PipelineWriter

PAGE = 1000  # keys in one request to a node


class HashDeleter:
    """Deletes hashes of a job; `plan` reads all its rows, `lookup` decides which keys belong to it alone."""

    def __init__(self, plan: Plan, lookup: KeyMatcher, target: RedisClient, throttle: Throttle) -> None:
        self._made = keys_only(plan)
        self._lookup = lookup
        self._target = target
        self._throttle = throttle

    def erase(
        self,
        keys: Collection[bytes],
        source: Connection,
        writer: PipelineWriter | CollectingWriter,
        way: BatchWriter | None = None,
    ) -> tuple[int, list[bytes]]:
        """Delete the hashes of those keys that have no row; return how many there were, and which stay.

        `way` takes the commands to send. Raises a transient `LoaderError` if the lock has expired meanwhile.
        """
        deleted, stay = 0, list[bytes]()
        owned = sorted(filter(self._lookup.owns, keys))
        for start in range(0, len(owned), TOGETHER):
            part, grant = owned[start : start + TOGETHER], self._throttle.grant()
            there = [key for key, kind in asked(self._target, "TYPE", part) if kind == b"hash"]
            if not there:
                continue
            made = made_of(there, self._made, self._lookup, source, self._target, self._throttle)
            stay += (key for key in there if key in made)
            self._throttle.hold(grant)
            send_each(b"UNLINK", (key for key in there if key not in made), way or writer, rows=True)
            deleted += sum(writer.drain().rows.values())
        return deleted, stay

    def keys(self, plan: Plan, statement: str, source: Connection) -> Iterator[bytes]:
        """The keys that the rows of a statement make."""
        sink = CollectingWriter(self._target, keep=True)
        transfer(plan, statement, source, sink, self._throttle)
        yield from dict.fromkeys(words[1] for _, words in sink.kept)


def made_of(
    keys: Collection[bytes],
    plan: Plan,
    lookup: KeyMatcher,
    source: Connection,
    target: RedisClient,
    throttle: Throttle,
    *,
    counted: bool = True,
) -> set[bytes]:
    """The keys that rows make, out of some that fit; `plan` reads only the keys.

    Keys without a row may be deleted: so if one is missing, MySQL has `counted` the rows too. Raises a transient
    `SourceError` if the count differs, because rows were added or removed meanwhile, or the result was cut.
    """
    condition = lookup.condition(list(keys))
    sink = CollectingWriter(target, keep=True)
    read = transfer(plan, plan.matching(condition), source, sink, throttle).rows
    made = {words[1] for _, words in sink.kept}
    if counted and not made.issuperset(keys):
        (count,) = source.single(plan.count(condition))
        if count != str(read):
            raise SourceError(
                f"mysql {source.address}: not deleted: {read:,} rows were read, but {count} are counted",
                kind=Kind.UNSETTLED,
            )
    return made


def asked(target: RedisClient, command: str, keys: Sequence[bytes]) -> Iterator[tuple[bytes, Any]]:
    """Each key with the reply to a command about it, in any order."""
    for node, owned in target.slots.by_node(keys, lambda key: key).items():
        for start in range(0, len(owned), PAGE):
            part = owned[start : start + PAGE]
            replies = target.commands(node, [[command, key] for key in part])
            for key, reply in zip(part, replies, strict=True):
                yield key, target.ask(key, command, key)[1] if isinstance(reply, Exception) else reply
