"""Sends batches to all nodes at the same time, counts their replies in bulk, and accounts for every row.

A refused command is cut out of its batch and sent again by itself to the node that the reply names; a permanent refusal
is a reject; anything that leaves the fate of a row unknown fails the chunk. Tables in `errors` tell them apart.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from loader.errors import Kind, TargetError
from loader.model import Acks, Batch, Mark, Node, Reject
from loader.net.limit import allowed
from loader.records import dataclass
from loader.redis.client import HOPS, RedisClient
from loader.redis.errors import DATA, NAMELESS, PROTOCOL, REDIRECT, error_text
from loader.redis.sockets import NodeConnection, NodePool
from loader.redis.value_limit import LIMITS, SMALL
from loader.wire import resp
from loader.wire.codec import count_replies
from loader.wire.slots import SlotMap

SHORTEST = 4  # bytes of the shortest reply, `:0` and its line end
SLOW = 1.0  # seconds of waiting for a node's acknowledgement after which it is spared: a hundred times the usual
REPLICA_WAIT = 2.0  # seconds that a replica has to acknowledge a chunk: a dead node has been detected by then
OTHERS_WAIT = 0.05  # seconds that the other replicas then have: one that is behind must not delay every chunk
PAUSE = 0.05  # seconds before a command is retried that two nodes redirect to each other


@dataclass(slots=True)
class _Sent:
    """A batch in flight: the replies still to come, and which commands were refused and why."""

    batch: Batch
    left: int
    refused: dict[int, str] = field(default_factory=dict)
    unexpected: list[int] = field(default_factory=list)  # commands that got another reply than expected


class Marking(Protocol):
    """Makes the masters record the progress of writing, so that lost writes are noticed."""

    def begin(self, nodes: Iterable[Node], /) -> Mapping[Node, Mark]:
        """The mark that masters are to record, if they can."""

    def command(self, mark: Mark, /) -> list[bytes]:
        """The command that records it; the reply is 0 if the previous mark is lost."""

    def end(self, marks: Mapping[Node, Mark], /) -> None:
        """All masters have recorded it."""

    def move(self, node: Node, /) -> None:
        """Make a master record it in another slot."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How safe the writes are: masters with replicas that may lack them, and the marks that vouch for them."""

    exposed: frozenset[Node] = frozenset()
    marks: tuple[Mark, ...] = ()


class PipelineWriter:
    """Sends batches to all nodes at once and accounts for every row of them; serves one worker.

    `spare` is told of a node that is waited for more than `SLOW` seconds, and for how long to leave it alone. `guard`
    raises if nothing may be sent any more, and is asked before anything is. After a `LoaderError` it is no longer
    usable: `close` it, and write the whole chunk again with a new one.
    """

    def __init__(
        self,
        target: RedisClient,
        spare: Callable[[str, float], None] | None = None,
        marking: Marking | None = None,
    ) -> None:
        self._target = target
        self._spare = spare
        self._marking = marking
        self.slots = target.slots
        self._links = NodePool(target, _least, self._take)
        self._rows: Counter[str] = Counter()
        self._bytes = 0
        self._rejects: list[Reject] = []
        self._expiring: list[bytes] = []  # keys of hashes whose expiry is not as it should be
        self._written: set[Node] = set()  # since replicas were last awaited
        self._redirected: set[Node] = set()  # likewise, nodes that took commands which others had refused
        self._exposed: set[Node] = set()  # of those, masters some of whose replicas may lack them

    restores = True

    def guard(self, check: Callable[[], None]) -> None:
        """Set the check that runs before anything is sent."""
        self._links.guard = check

    @property
    def most(self) -> int:
        """Largest value in bytes that all nodes accept."""
        return self._target.limit.most

    def begin(self) -> SlotMap:
        """Adopt the newest topology; return the map for the next batches."""
        self.slots = self._target.slots
        return self.slots

    def send(self, index: int, batch: Batch) -> None:
        """Queue a batch for the node of that index; waits while `WINDOW` batches are in flight there."""
        link = self._links.to(self.slots.nodes[index])
        try:
            self._links.make_room(link, self._tell)
            self._queue(link, batch)
            self._links.send()
        except TargetError as error:
            self._learn(error)
            raise

    def drain(self) -> Acks:
        """Wait until every row sent is acknowledged or refused; return the counts."""
        started = time.monotonic()
        try:
            while link := self._links.slowest():
                self._links.turn()
                self._tell(link.node, time.monotonic() - started)
        except TargetError as error:
            self._learn(error)
            raise
        acks = Acks(dict(self._rows), self._bytes, tuple(self._rejects), tuple(self._expiring))
        self._rows, self._bytes, self._rejects, self._expiring = Counter(), 0, [], []
        return acks

    def await_replicas(self) -> Kept:
        """Wait until a replica of each written node has acknowledged everything; a transient error if none does.

        A node that was a master when it was written to and no longer is may have lost acknowledged writes. A master is
        exposed if not all of its replicas have acknowledged, or if replicas it had are gone: writes they lack are lost
        if one of them takes over. Each written master records a mark, after all writes that it got.
        """
        written, self._written = self._written, set()
        masters = set(self._target.slots.nodes)
        if gone := written - masters:
            raise TargetError(f"redis {min(gone)}: was written to, but is no longer a master", kind=Kind.UNAVAILABLE)
        nodes = written | (self._redirected & masters)
        exposed = (self._exposed | (nodes & self._target.topology.exposed)) & masters
        self._redirected, self._exposed = set(), set()
        marks = self._marking.begin(nodes) if self._marking else {}
        commands: dict[Node, list[list[bytes]]] = {}
        for node in nodes:
            noting = [self._marking.command(marks[node])] if self._marking and node in marks else []
            if words := noting + _waits(self._target.topology.replicas_of(node)):
                commands[node] = words
        patience = REPLICA_WAIT + OTHERS_WAIT + allowed(self._target.patience)
        for node, replies in self._links.numbers(commands, patience, self._tell):
            if node in marks:
                self._check_mark(node, replies[0])
            counts = replies[node in marks :]
            if counts and self._check_replicas(node, counts) < self._target.topology.replicas_of(node):
                exposed.add(node)
        if self._marking:
            self._marking.end(marks)
        exposed |= nodes & self._target.topology.exposed
        return Kept(frozenset(exposed), tuple(marks.values()))

    def close(self) -> None:
        """Close all connections; the servers must forget rows in flight before they are written to again."""
        self._links.close()

    def _check_mark(self, node: Node, reply: int | str) -> None:
        """Check the reply of the marker; one whose slot is being moved no longer vouches for its master."""
        if isinstance(reply, str):
            if reply.partition(" ")[0] in REDIRECT and self._marking:
                self._target.mark_stale()
                self._marking.move(node)
            raise self._target.error(reply, node)
        if not reply:
            raise TargetError(f"redis {node}: has lost writes that it had acknowledged", kind=Kind.UNAVAILABLE)

    def _check_replicas(self, node: Node, counts: Sequence[Any]) -> int:
        """Check the reply of WAIT; the number of replicas that have everything."""
        for count in counts:
            if isinstance(count, Exception | str):
                raise self._target.error(count, node)
        if counts[0] < 1:
            raise TargetError(f"redis {node}: no replica acknowledged within {REPLICA_WAIT:g} s", kind=Kind.UNAVAILABLE)
        return int(counts[-1])

    def _tell(self, node: Node, waited: float) -> None:
        if waited > SLOW and self._spare:
            self._spare(str(node), waited)

    def _queue(self, link: NodeConnection, batch: Batch) -> None:
        self._written.add(link.node)
        self._links.queue(link, batch.data, _Sent(batch, batch.replies))
        self._bytes += len(batch.data)

    def _take(self, link: NodeConnection, data: bytes) -> None:
        """Account for the replies that have arrived, and for the batches that they complete."""
        done = _count(link, data)
        if link.awaited and (refused := link.awaited[0].refused):
            number, text = max(refused.items())
            if text.startswith(PROTOCOL):  # no more replies will come
                raise self._too_large(link.node, list(resp.split_commands(link.awaited[0].batch.data))[number], text)
        for sent in done:
            then = self._settle(link.node, sent)
            if then and then.replies:
                self._queue(link, then)

    def _learn(self, error: TargetError) -> None:
        """Find out whether a node closed a connection because of a value's size, or say that it cannot be checked."""
        if not isinstance(error.__cause__, ConnectionError):
            return
        for link in self._links:
            batches = [sent.batch for sent in link.awaited if isinstance(sent, _Sent)]
            large = [batch.data for batch in batches if len(batch.data) > SMALL]
            size = max((_largest(words) for data in large for words in resp.split_commands(data)), default=0)
            if size > SMALL and str(link.node) == error.node and not self._target.limit.learn(link.node, size):
                hint = f"a value of {size:,} bytes was being sent: see {' and '.join(LIMITS)} of redis"
                error.args = (f"{error}: {hint}",)

    def _too_large(self, node: Node, words: Sequence[bytes], text: str) -> TargetError:
        """The transient error for a value that is too large for a node: it is not sent there again."""
        size = _largest(words)
        self._target.limit.learn(node, size, refused=True)
        return self._target.error(f"{text}, of {size:,} bytes", node)

    def _settle(self, node: Node, sent: _Sent) -> Batch | None:
        """Count a batch's rows; refused commands are sent again along their redirection, or are rejects.

        Returns the commands to send next to the same node.
        """
        if sent.unexpected:
            asked = list(resp.split_commands(sent.batch.data))
            self._expiring += (asked[number][1] for number in sent.unexpected)
        if not sent.refused:
            self._rows[str(node)] += sent.batch.rows
            return sent.batch.then
        if any(text.startswith("MOVED") for text in sent.refused.values()):
            self._target.mark_stale()
        commands = list(resp.split_commands(sent.batch.data))
        numbers = resp.number_rows(commands)
        outcome: dict[int, Node | Reject] = dict.fromkeys(range(sent.batch.rows), node)
        redo = [_Redo(commands[i], numbers[i], node, text) for i, text in sent.refused.items()]
        for hop in range(HOPS):
            redo = [again for again in redo if not self._is_final(again, outcome)]
            if not redo:
                break
            redo = self._again(redo, hop, sent.batch.expects)
        else:
            raise TargetError(
                f"redis {node}: {redo[0].text}: still redirected after {HOPS} hops", kind=Kind.UNAVAILABLE
            )
        rejects = [result for result in outcome.values() if isinstance(result, Reject)]
        self._rejects += rejects
        self._rows.update(str(result) for result in outcome.values() if isinstance(result, Node))
        return _without(sent.batch.then, {reject.key for reject in rejects})

    def _is_final(self, redo: "_Redo", outcome: dict[int, Node | Reject]) -> bool:
        if not redo.text:
            if isinstance(outcome.get(redo.row), Node):
                outcome[redo.row] = redo.node
            return True
        code = redo.text.split()[0]
        if code in REDIRECT:
            return False
        if code in DATA and redo.row in outcome:
            outcome[redo.row] = Reject(redo.words[1], redo.text)
            return True
        if redo.text.startswith(PROTOCOL):
            raise self._too_large(redo.node, redo.words, redo.text)
        raise self._target.error(redo.text, redo.node)

    def _again(self, redo: list["_Redo"], hop: int, expects: bytes) -> list["_Redo"]:
        """Send commands to the nodes that their replies name, in order; return them with their new node and reply."""
        to: dict[tuple[Node, bool], list[_Redo]] = {}
        for again in redo:
            code = again.text.partition(" ")[0]
            place = self._target.topology.redirected(again.text, again.node) if code != "TRYAGAIN" else again.node
            to.setdefault((place, code == "ASK"), []).append(again)
            if code == "TRYAGAIN":
                time.sleep(PAUSE)
        if hop > 1:
            time.sleep(PAUSE)  # nodes that disagree need a moment
        results: list[_Redo] = []
        for (node, asking), group in to.items():
            lead: list[list[bytes]] = [[b"ASKING"]] if asking else []
            commands = [words for again in group for words in [*lead, again.words]]
            self._redirected.add(node)
            replicas = self._target.topology.replicas_of(node)
            waits = _waits(replicas)  # these use a connection that `await_replicas` may not wait on
            replies = self._target.commands(node, commands + waits)
            counts, replies = replies[len(commands) :], replies[: len(commands)]
            if counts and self._check_replicas(node, counts) < replicas:
                self._exposed.add(node)
            for again, reply in zip(group, replies[len(lead) :: len(lead) + 1], strict=True):
                text = error_text(reply) if isinstance(reply, Exception) else ""
                if expects and not text and reply != int(expects[1:]):
                    self._expiring.append(again.words[1])
                results.append(_Redo(again.words, again.row, node, text))
        return results


def _largest(words: Sequence[bytes]) -> int:
    return max(map(len, words))


def _waits(replicas: int) -> list[list[bytes]]:
    """The commands that wait until a master's replicas have all writes: first for one of them, then for all."""
    times = [(1, REPLICA_WAIT), (replicas, OTHERS_WAIT)][: min(replicas, 2)]
    return [[b"WAIT", b"%d" % count, b"%d" % int(seconds * 1000)] for count, seconds in times]


def _least(link: NodeConnection) -> int:
    """The least number of bytes until all replies to the oldest batch have arrived."""
    sent: _Sent = link.awaited[0]
    return max(1, sent.left * SHORTEST - len(link.tail))


def _count(link: NodeConnection, data: bytes) -> list[_Sent]:
    """Count replies; return the batches they complete."""
    data = bytes(link.tail) + data
    cut = data.rfind(b"\n") + 1
    link.tail = data[cut:]
    done: list[_Sent] = []
    marks: list[tuple[int, str]] = []
    replies = count_replies(data[:cut])
    lines: list[bytes] = []
    if replies < 0 or _has_unexpected(link, data, replies):
        lines = data[:cut].split(b"\r\n")[:-1]
    if replies < 0:
        replies = len(lines)
        marks = [
            (number, line[1:].decode(errors="replace") or NAMELESS)
            for number, line in enumerate(lines)
            if line[:1] == b"-"
        ]
        if any(count_replies(line + b"\r\n") < 0 for line in lines if line[:1] != b"-"):
            raise ConnectionError("a reply that fits none of the commands sent")
    marks.reverse()
    seen = 0
    while replies > seen:
        if not link.awaited:
            raise ConnectionError("more replies than commands")
        sent: _Sent = link.awaited[0]
        taken = min(sent.left, replies - seen)
        first = sent.batch.replies - sent.left
        while marks and marks[-1][0] < seen + taken:
            number, text = marks.pop()
            sent.refused[first + number - seen] = text
        if lines and (expects := sent.batch.expects):
            part = enumerate(lines[seen : seen + taken], first)
            sent.unexpected += [number for number, line in part if line != expects and line[:1] != b"-"]
        sent.left -= taken
        seen += taken
        if not sent.left:
            done.append(link.awaited.popleft())
    return done


def _has_unexpected(link: NodeConnection, data: bytes, replies: int) -> bool:
    """Whether any reply in these lines may differ from the one its batch expects."""
    expected = {sent.batch.expects for sent in link.awaited} - {b""}
    counts = (data.count(each + b"\r\n") for each in (*expected, b"+OK"))
    return bool(expected) and sum(counts) != replies


def _without(batch: Batch | None, keys: set[bytes]) -> Batch | None:
    """A batch without the commands of some keys."""
    if batch is None or not keys:
        return batch
    left = [resp.pack(words) for words in resp.split_commands(batch.data) if words[1] not in keys]
    return Batch(b"".join(left), batch.rows, len(left), expects=batch.expects)


@dataclass(frozen=True, slots=True)
class _Redo:
    """A refused command: its words, the row of its batch, the node that answered last, and the answer."""

    words: list[bytes]
    row: int
    node: Node
    text: str
