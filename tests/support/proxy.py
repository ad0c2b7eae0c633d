"""A bad network between the loader and one server: cut, stalled, slow, or dead without a word, as a test says."""

import queue
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress

from loader.lab.process import HOST

UP, DOWN = "up", "down"  # to the server, and back to the loader
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
TICK = 0.002  # seconds between two looks at what cannot go on yet


class _Way:
    """One direction of one connection."""

    def __init__(self, direction, source, sink):
        self.direction, self.source, self.sink = direction, source, sink
        self.other = None
        self.pending = bytearray()
        self.held = None  # bytes kept back, once they are
        self.free = 0  # of the pending bytes, those that go at once
        self.slow = False  # the others go one by one
        self.due = 0.0  # when the next of them may go


class Proxy:
    """A port that leads to a server's port; `seen` counts the bytes that went each way, over all connections."""

    def __init__(self, port, host=HOST):
        self.server_port = port
        self.seen = Counter()
        self.begun = []  # what `seen` was when each connection began
        self._listener = socket.create_server((host, 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._ways = {}  # source socket → way
        self._calls = queue.SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._ear.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._stopped = False
        self._clear()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._call(self._stop)
        self._thread.join()

    def reset(self, *, cut=None, hold=None, drip=None):
        """Cut all connections, count from nothing, and do only what is said now.

        `cut` (direction, n): once, right after byte n. `hold` (direction, mark): of one connection, keep everything
        from the mark on. `drip` (direction, mark, seconds): let it through byte by byte, with a pause for each.
        """
        self._call(lambda: self._clear(cut, hold, drip))

    def release(self):
        """Let go what was held, and hold nothing more."""
        self._call(self._release)

    def freeze(self):
        """Let the connections that there are be dead without a word; later ones are not."""
        self._call(lambda: self._frozen.update(self._ways))

    # what the thread does

    def _call(self, action):
        done = threading.Event()
        self._calls.put((action, done))
        with suppress(OSError):  # it may have been heard already, and have stopped
            self._bell.send(b"!")
        assert done.wait(10)

    def _clear(self, cut=None, hold=None, drip=None):
        for source in list(self._ways):
            self._abort(source)
        self.seen.clear()
        self.begun.clear()
        self._cut, self._hold, self._drip = cut, hold, drip
        self._frozen = set()

    def _stop(self):
        self._clear()
        self._stopped = True

    def _serve(self):
        while not self._stopped:
            waiting = any(way.pending for way in self._ways.values())
            for key, _ in self._selector.select(TICK if waiting else None):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._ear:
                    self._ear.recv(64)
                elif key.fileobj in self._ways:
                    self._receive(self._ways[key.fileobj])
            for way in list(self._ways.values()):
                if way.source in self._ways:
                    self._send(way)
            while not self._calls.empty():
                action, done = self._calls.get()
                action()
                done.set()
        for each in (self._listener, self._ear, self._bell, self._selector):
            each.close()

    def _accept(self):
        client, _ = self._listener.accept()
        self.begun.append(Counter(self.seen))
        try:
            server = socket.create_connection((HOST, self.server_port), timeout=5)
        except OSError:
            self._reset(client)
            return
        up, down = _Way(UP, client, server), _Way(DOWN, server, client)
        up.other, down.other = down, up
        for way in (up, down):
            way.source.settimeout(0)
            way.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways[way.source] = way
            self._selector.register(way.source, selectors.EVENT_READ)
        if self._cut and self._cut[1] == 0:
            self._abort(client)
            self._cut = None

    def _receive(self, way):
        try:
            data = way.source.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        frozen = way.source in self._frozen
        if not data and (frozen or way.held is not None):  # the other side hears nothing of it
            self._selector.unregister(way.source)
        if frozen:
            return
        if not data and way.held is not None:
            return
        if not data:
            self._send(way)
            self._abort(way.source)
            return
        if way.held is not None:
            way.held += data
        elif (at := self._marked(self._hold, way, data)) >= 0:
            way.held, self._hold = bytearray(data[at:]), None
            self._add(way, data[:at])
        else:
            self._add(way, data)

    def _add(self, way, data):
        way.pending += data
        if not way.slow:
            at = self._marked(self._drip, way, data)
            way.slow = at >= 0
            way.free += at if way.slow else len(data)

    @staticmethod
    def _marked(fault, way, data):
        """Where a fault begins in what came; -1 where it does not."""
        return data.find(fault[1]) if fault and fault[0] == way.direction else -1

    def _send(self, way):
        """Pass on what may go."""
        data = way.pending[: way.free]
        if way.slow and not data:
            if time.monotonic() < way.due:
                return
            data, way.due = way.pending[:1], time.monotonic() + self._drip[2]
        left = None
        if self._cut and self._cut[0] == way.direction:
            left = self._cut[1] - self.seen[way.direction]
            data = data[:left]
        if data:
            try:
                sent = way.sink.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._abort(way.source)
                return
            del way.pending[:sent]
            way.free = max(0, way.free - sent)
            self.seen[way.direction] += sent
            left = None if left is None else left - sent
        if left == 0:
            self._abort(way.source)
            self._cut = None

    def _release(self):
        self._hold = None
        for way in list(self._ways.values()):
            if way.held is not None:
                held, way.held = way.held, None
                self._add(way, held)
                if way.source in self._ways:
                    self._send(way)

    def _abort(self, source):
        """End a connection with RST on both sides."""
        way = self._ways.pop(source, None)
        if way is None:
            return
        self._ways.pop(way.other.source, None)
        for each in (way.source, way.other.source):
            with suppress(KeyError, ValueError):
                self._selector.unregister(each)
            self._reset(each)

    @staticmethod
    def _reset(each):
        with suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        each.close()
