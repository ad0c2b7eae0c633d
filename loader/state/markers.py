"""Markers: a key of a run on every master, which reveals that a master has lost some writes.

Redis can lose its newest writes: a replica that takes over lacks those it had not received yet, and a restarted server
has only those it had saved. So each worker makes the masters record a number after each of its chunks, in its own field
of every marker, and only if the previous number is still there. As long as a number is there, nothing written before it
is lost. A master without its marker was emptied; if the marker is of another run, that run writes too. It also has the
name of that run's connections: a later run that finds it shuts them out, even if the fence was lost with the lock.
"""

import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from loader.errors import StartOver, StateError
from loader.model import Mark, Node
from loader.redis.client import RedisClient
from loader.redis.errors import REDIRECT, error_text
from loader.redis.key_reader import KeyReader, Question
from loader.redis.prefetch import Prefetched
from loader.wire.slots import SlotMap, slot_of

GONE = "markers of this run are gone: a master was emptied, came back from an older snapshot, or evicted keys"
LOST = "a master has lost writes of this run: it came back from an older snapshot, or a replica without them took over"
RUN, NAME = "run", "name"  # fields with the id of the run and the name of its connections; other fields are numbers
CALLED = re.compile(r"loader-[0-9a-f]+")  # possible names of a run's connections: others are not the loader's
EARLIER = re.compile(rb"[0-9a-f]{12}")  # the whole of a marker that an earlier version has left: a run
DIGITS = 18  # of a number
END = "end"  # the field that is set once all chunks are loaded
# KEYS: the marker. ARGV: field, the previous number, number. Returns whether that was there.
NOTE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


# KEYS: the marker. ARGV: name, run. Leaves a new marker, and returns 1; returns 0 if something is there.
LEAVE = f"""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('HSET', KEYS[1], '{NAME}', ARGV[1], '{RUN}', ARGV[2]) / 2
"""


class Markers:
    """The markers of one run, whose keys begin with `prefix`; `left` are those of an earlier process of that run.

    They are `passing` if they are deleted when the run is over.
    """

    def __init__(
        self, target: RedisClient, prefix: str, run: str, left: Sequence[str] = (), *, passing: bool = True
    ) -> None:
        self.run = run
        self.strange: set[str] = set()  # invalid markers, which are rewritten
        self._passing = passing
        self._target = target
        self._prefix = prefix
        self._keys = list(left)
        self._left = list(left)  # not looked at yet: an earlier version's are rewritten
        self._life = secrets.token_hex(2)  # an earlier process of the run has counted in its own fields
        self._numbers = count(1)
        self._moved = self.field("moved")
        self._slots: SlotMap | None = None
        self._places: dict[Node, str] = {}
        self._moves: set[str] = set()  # markers whose slot is being moved
        self._lock = threading.Lock()
        self._leaving = threading.Lock()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all markers."""
        return tuple(self._keys)

    def leave(self) -> None:
        """Leave a marker on every master that has none; a replica of each has it then, unless it is only passing.

        A passing one that is lost in a failover is missed: what the run has written before is written again.
        """
        with self._leaving:
            while self._left:
                if self._earlier_run(self._left[-1]) == self.run.encode():
                    self._write(self._left[-1])
                self._left.pop()
            slots = self._target.slots
            without = set(slots.nodes) - {slots.node_of(slot_of(key.encode())) for key in self._usable()}
            keys = self._free(without, slots)
            for key in self._not_left(keys) if self._passing else keys:
                if self._passing and (other := self._name_in(key)):
                    self._target.fences.shut_out([other])
                self._write(key)
            self._keys += keys

    def place(self, node: Node) -> str | None:
        """The key of a master's marker; None if it has none."""
        slots = self._target.slots
        with self._lock:
            if slots is not self._slots:
                self._places = {slots.node_of(slot_of(key.encode())): key for key in self._usable()}
                self._slots = slots
            return self._places.get(node)

    def move(self, node: Node) -> None:
        """Move a master's marker to another slot, because its own is being moved."""
        with self._lock:
            key = self._places.pop(node, None)
        self.retire(key)

    def retire(self, key: str | None) -> None:
        """Leave another marker on the master of this one, if its slot is still there."""
        with self._lock:
            self._moves |= {key} if key else set()
            self._slots = None
        self.leave()
        self._slots = None

    def field(self, name: object) -> "Field":
        """The marks of one worker, recorded in all markers."""
        return Field(self, f"{self._life}.{name}")

    def note_moves(self) -> tuple[Mark, ...]:
        """Make every master record that slots have moved; the marks that vouch for everything written before."""
        self.leave()
        marks = self._moved.begin(self._target.slots.nodes)
        for mark in marks.values():
            if not self._target.ask(mark[0].encode(), *self._moved.command(mark))[1]:
                raise StartOver(LOST)
        self._moved.end(marks)
        return tuple(marks.values())

    def reach_all(self, node: Node, seconds: float) -> bool:
        """Whether all replicas of a master have all its writes, or get them within this many seconds."""
        key, replicas = self.place(node), self._target.topology.replicas_of(node)
        if key is None or not replicas:
            return False
        mark = ("HSET", key, f"{self._life}.{END}", next(self._numbers))
        *marked, count = self._target.commands(node, [mark, ("WAIT", replicas, int(seconds * 1000))])
        for reply in (*marked, count):
            if isinstance(reply, Exception):
                if error_text(reply).partition(" ")[0] in REDIRECT:
                    self._target.mark_stale()
                    self.move(node)
                raise self._target.error(reply, node)
        return int(count) >= replicas

    @property
    def questions(self) -> list[Question]:
        """What `read` asks for."""
        return [(key.encode(), ("HGETALL", key)) for key in self.keys]

    def read(self, seen: KeyReader | None = None) -> dict[str, dict[str, int] | None]:
        """The content of each marker, by field; None for one that is gone, or is another run's.

        The `questions` may have been asked already, and `seen` has the replies.
        """
        replies = seen or Prefetched(self._target, self.questions)
        return {key: self._content(self._fields(key, replies)) for key in self.keys}

    def next(self) -> int:
        """A number greater than all before."""
        return next(self._numbers)

    def forget(self) -> None:
        """Delete the markers."""
        self._target.ask_each([(key.encode(), ("DEL", key)) for key in self.keys])

    def _not_left(self, keys: Sequence[str]) -> list[str]:
        """Leave markers where nothing is; the keys where something is."""
        words = self._target.name, self.run
        questions: list[Question] = [(key.encode(), ("EVAL", LEAVE, 1, key, *words)) for key in keys]
        replies = self._target.ask_each(questions)
        return [key for key, reply in zip(keys, replies, strict=True) if reply != 1]

    def _write(self, key: str) -> None:
        told = [("HSET", key, NAME, self._target.name)] if self._passing else []
        self._target.keep(key.encode(), ("DEL", key), *told, ("HSET", key, RUN, self.run))

    def _content(self, fields: dict[bytes, bytes]) -> dict[str, int] | None:
        if fields.pop(RUN.encode(), b"") != self.run.encode():
            return None
        numbers = {name: text for name, text in fields.items() if text.isdigit() and len(text) <= DIGITS}
        return {name.decode(errors="replace"): int(text) for name, text in numbers.items()}

    def _name_in(self, key: str) -> str:
        """The name of the connections of another run that has left a marker there."""
        fields = self._fields(key, self._target)
        name = fields.get(NAME.encode(), b"").decode(errors="replace")
        if fields and not (CALLED.fullmatch(name) and RUN.encode() in fields) and not self._earlier_run(key):
            self.strange.add(key)
        return name if CALLED.fullmatch(name) and name != self._target.name else ""

    def _fields(self, key: str, replies: KeyReader) -> dict[bytes, bytes]:
        """The fields of a marker; empty if it is invalid."""
        try:
            flat = replies.ask(key.encode(), "HGETALL", key)[1]
        except StateError:
            if run := self._earlier_run(key):
                return {RUN.encode(): run}
            self.strange.add(key)
            return {}
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _earlier_run(self, key: str) -> bytes:
        """The run that has left this marker as an earlier version does, a text that is its id; empty for any other."""
        try:
            text = self._target.ask(key.encode(), "GET", key)[1] or b""
        except StateError:
            return b""
        return text if EARLIER.fullmatch(text) else b""

    def _usable(self) -> list[str]:
        return [key for key in self._keys if key not in self._moves]

    def _free(self, nodes: set[Node], slots: SlotMap) -> list[str]:
        """A key for each of these masters, in a slot that it owns."""
        found: dict[Node, str] = {}
        for number in count() if nodes else ():
            key = f"{self._prefix}:{{{number}}}"
            node = slots.node_of(slot_of(key.encode()))
            if node in nodes and key not in self._keys:
                found.setdefault(node, key)
            if len(found) == len(nodes):
                break
        return list(found.values())


class Field:
    """One worker's field in all markers; a new one if its content is unknown."""

    def __init__(self, markers: Markers, name: str) -> None:
        self._markers = markers
        self._name = name
        self._epoch = 0
        self._before: dict[str, int] = {}  # the content, by the key of the marker
        self._open = False

    def begin(self, nodes: Iterable[Node]) -> dict[Node, Mark]:
        """The mark that masters are to record, if they have a marker."""
        if self._open:  # the last attempt did not finish
            self._epoch += 1
            self._before = {}
        self._open = True
        field, number = f"{self._name}.{self._epoch}", self._markers.next()
        places = ((node, self._markers.place(node)) for node in nodes)
        return {node: (key, field, number) for node, key in places if key}

    def command(self, mark: Mark) -> list[bytes]:
        """The command that records it; the reply is 0 if the previous mark is lost."""
        key, field, number = mark
        before = self._before.get(key)
        words = ["HSET", key, field, number] if before is None else ["EVAL", NOTE, 1, key, field, before, number]
        return [str(word).encode() for word in words]

    def end(self, marks: Mapping[Node, Mark]) -> None:
        """All masters have recorded it."""
        self._before |= {key: number for key, _, number in marks.values()}
        self._open = False

    def move(self, node: Node) -> None:
        """Move a master's marker to another slot."""
        self._markers.move(node)


def lacking(seen: Mapping[str, Mapping[str, int] | None], marks: Iterable[Mark]) -> bool:
    """Whether any write that these marks vouch for is lost, judging by the markers that are there."""
    for key, field, number in marks:
        there = seen.get(key)
        if there is not None and there.get(field, 0) < number:
            return True
    return False
