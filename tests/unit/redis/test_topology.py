"""Whom to ask about the cluster, whom to believe, and how often."""

import pytest

from loader.errors import Kind, TargetError
from loader.model import Node
from loader.redis import topology
from loader.redis.topology import Topology

ONE, TWO, THREE = (Node("10.0.0.1", port) for port in (7001, 7002, 7003))
OK, FAIL = b"cluster_state:ok\r\n", b"cluster_state:fail\r\n"


def slots(*masters, host=b"10.0.0.1"):
    """What CLUSTER SLOTS says of masters with about the same number of slots each."""
    size = 16384 // len(masters)
    spans = [(number * size, number * size + size - 1) for number in range(len(masters))]
    spans[-1] = (spans[-1][0], 16383)
    return [[*span, [host, master.port, b"id", []]] for span, master in zip(spans, masters, strict=True)]


class Nodes:
    """Nodes that answer what they are told to, and who was asked."""

    def __init__(self, **views):
        self.views = views
        self.asked = []

    def look(self, node):
        self.asked.append(node)
        view = self.views.get(f"n{node.port}")
        if view is None:
            raise TargetError(f"redis {node}: no reply", kind=Kind.UNAVAILABLE)
        return [*view]


@pytest.fixture
def nodes():
    return Nodes(n7001=(slots(ONE, TWO), OK), n7002=(slots(ONE, TWO), OK))


@pytest.fixture
def view(nodes):
    """A topology of two masters, of which the first is in the config."""

    def look(node, commands, patience):
        try:
            return nodes.look(node)
        except TargetError:
            view.note(node, failed=True)
            raise

    view = Topology([ONE], look)
    return view


def refresh(view, *, force=False):
    view.refresh(view.read, force=force)


def later(monkeypatch, seconds):
    """Let time pass."""
    now = topology.time.monotonic()
    monkeypatch.setattr(topology.time, "monotonic", lambda: now + seconds)


def test_a_node_that_failed_is_asked_last(nodes, view):
    """Each look begins with another master; one that failed lately is not asked while another answers."""
    refresh(view)
    for _ in range(4):
        view.read()
    assert {ONE, TWO} == set(nodes.asked)
    del nodes.views["n7001"]
    view.read()
    view.read()
    nodes.asked.clear()
    for _ in range(4):
        view.read()
    assert nodes.asked == [TWO] * 4


def test_a_failed_node_is_not_waited_for_where_the_cluster_is_down(nodes, view):
    """The others say that the cluster has failed: that has to do."""
    refresh(view)
    nodes.views = {"n7002": (slots(ONE, TWO), FAIL)}
    view.note(ONE, failed=True)
    nodes.asked.clear()
    view.read()
    assert nodes.asked == [TWO]


@pytest.mark.parametrize("first", [FAIL, None])
def test_who_counts_the_cluster_as_ok_is_believed(nodes, view, first):
    """A node that is cut off from its cluster, or silent, is passed over."""
    nodes.views = {"n7001": (slots(ONE), first), "n7002": (slots(TWO), OK)} if first else {"n7002": (slots(TWO), OK)}
    view.seeds = (ONE, TWO)
    refresh(view)
    assert view.slots.nodes == (TWO,)
    nodes.views["n7002"] = (slots(TWO), FAIL)
    refresh(view, force=True)
    assert view.slots.nodes == (TWO,)


def test_looks_are_rare(nodes, view, monkeypatch):
    """At most one a second, after redirections as after failures; the first after a failure comes at once."""
    for _ in range(3):
        refresh(view)
    assert len(nodes.asked) == 1
    for _ in range(3):
        view.stale = True
        refresh(view)
    assert len(nodes.asked) == 1
    for _ in range(3):
        refresh(view, force=True)
    assert len(nodes.asked) == 2
    assert not view.stale
    later(monkeypatch, 1.5)
    for _ in range(3):
        refresh(view, force=True)
    refresh(view)
    assert len(nodes.asked) == 3
    later(monkeypatch, 12)
    refresh(view)
    assert len(nodes.asked) == 4


def test_a_failed_look_leaves_the_old_map(nodes, view):
    """What was known is kept, and is stale still."""
    refresh(view)
    old, view.stale = view.slots, True
    nodes.views.clear()
    with pytest.raises(TargetError):
        refresh(view, force=True)
    assert (view.slots, view.stale) == (old, True)


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ([b"10.0.0.9", 7001, b"id", []], "10.0.0.9"),
        ([b"10.0.0.9", 7001], "10.0.0.9"),
        ([b"node.example", 7001, b"id", [b"ip", b"10.0.0.9"]], "node.example"),
        ([b"?", 7001, b"id", [b"ip", b"10.0.0.9"]], "10.0.0.9"),
        ([b"?", 7001, b"id", [b"hostname", b"node.example"]], "node.example"),
        ([b"?", 7001, b"id", []], "10.0.0.1"),
        ([b"", 7001, b"id", [b"ip", b"10.0.0.9"]], "10.0.0.1"),
        ([None, 7001, b"id", [b"ip", b"10.0.0.9"]], "10.0.0.1"),
    ],
)
def test_the_address_of_an_entry(nodes, view, entry, host):
    """A name or an address; by its metadata where it is a question mark; else where the answer came from."""
    nodes.views = {"n7001": ([[0, 16383, entry]], OK)}
    refresh(view)
    assert view.slots.nodes == (Node(host, 7001),)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("MOVED 1 10.0.0.9:7009", "10.0.0.9"),
        ("ASK 1 ::1:7009", "::1"),
        ("MOVED 1 :7009", "10.0.0.2"),
        ("MOVED 1 ?:7009", "10.0.0.2"),
        ("MOVED 1 ?:7001", "10.0.0.1"),
    ],
)
def test_the_address_of_a_redirection(view, text, host):
    """No host is the one that was asked; a question mark the known node of that port, if there is one."""
    refresh(view)
    asked = Node("10.0.0.2", 7002)
    node = view.redirected(text, asked)
    assert node == Node(host, int(text.rpartition(":")[2]))
    assert view.announcers[node] in {asked, ONE}
