"""Fuzzes the compiled encoder, comparer and reply counter under AddressSanitizer and UndefinedBehaviorSanitizer.

Two instrumented copies of loader/wire/_codec.pyx are built in a temporary directory: one as it is, and a tight one,
whose buffers have no slack and whose packets are continued from 97 bytes on, so that its rare paths are everyday ones.
Row packets, batches and replies are made up, mutated, cut into pieces and fed to them; what reaches new code is mutated
further. Bytes that have not arrived yet are poisoned, so that reading one of them is an error.

The compiler is gcc, whose sanitizers and block tracing come with the compiler that the package needs anyway. Atheris
and libFuzzer would want clang of a matching version, and to trace the interpreter's time more than that of the kernel.
"""

import argparse
import ctypes
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from loader.errors import SourceError, TargetError
from loader.model import Batch, Layout, Listpack
from loader.wire import comparer, packets, resp
from loader.wire import encoder as frames
from loader.wire.listpack import crc64
from loader.wire.slots import SLOTS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "loader" / "wire" / "_codec.pyx"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "--coverage"]
FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZE, "-fsanitize-coverage=trace-pc"]

# What makes the tight copy: buffers that are exactly as large as was asked for, and small packets and batches.
TIGHT_PACKET, TIGHT_ROOM = 97, 700
TIGHT = {
    "room = max(out.room * 2, ": "room = min(0, ",
    "cdef Py_ssize_t WORDS = 96": "cdef Py_ssize_t WORDS = 44",  # an EXPIRE with numbers of six and ten digits
    "cdef Py_ssize_t BULK = 24": "cdef Py_ssize_t BULK = 10",  # a size of five digits
    "self._key_room = size + 256": "self._key_room = size",
    "room = to.room * 2 + 64": "room = to.room + 1",
    "room = 16\n": "room = 2\n",
    "cdef bint CAN_MULTIPLY = CAN_FOLD": "cdef bint CAN_MULTIPLY = False",
    "if length == 0xFFFFFF:": f"if length >= {TIGHT_PACKET}:",
}

# Faults that --prove puts into the copies, one at a time: each must be found.
FAULTS = {
    "a listpack's memory is not given back": ("        free(self._dump.data)\n", ""),
    "an integer is read beyond its end": ("for i in range(i, size):", "for i in range(i, size + 1):"),
    "a listpack has no room in front": ("cdef Py_ssize_t BEFORE = 24", "cdef Py_ssize_t BEFORE = 2"),
    "a checksum reads what is behind its end": ("zeros = -(to - start) & 15", "zeros = 0"),
    "a cell may begin at the end": ("if at >= end:", "if at > end:"),
    "a row may have too many cells": ("FOUND if at == end else", "FOUND if at <= end else"),
    "a two-byte length is not checked": ("elif first == 252 and end - at >= 2:", "elif first == 252:"),
    "an eight-byte length may be negative": (" and at[7] < 0x80:", ":"),
    "a packet may end one byte late": ("if end - self._start - 4 < length:", "if end - self._start - 5 < length:"),
    "a value's frame is not counted": ("self._name[i].size + text.size + BULK", "self._name[i].size + text.size"),
    "a line end is not looked for": ("if end - at < 2 or at[0] != 13 or at[1] != 10:", "if at[0] != 13:"),
    "an EXPIRE's words are not counted": ("if not reserve(out, WORDS + key", "if not reserve(out, key"),
    "a batch is kept by who has handed it over": ("    out.data = NULL\n", ""),
    "a key's memory is not given back": ("free(self._key)\n        free(self._out)", "free(self._out)"),
    "a node may be fed when it is full": ("if start == self._start or self.ready():", "if start == self._start:"),
    "there is a cell too many": (
        "for i in range(self._cells):\n            if at",
        "for i in range(self._cells + 1):\n            if at",
    ),
    "a value may be longer than Redis takes": ("if text.size > self._most:", "if text.size > self._most + 1:"),
    "a line of a reply may end one byte late": ("    if at + 1 == end:\n        return end + 1\n", ""),
    "a text's line end is looked for anywhere": ("if at <= end and (data[at - 2]", "if (data[at - 2]"),
    "a reply may end one byte late": (
        "at = bulk_at(reply, self._walked, size, &text)\n            if at > size:",
        "at = bulk_at(reply, self._walked, size, &text)\n            if at > size + 1:",
    ),
    "a reply is compared beyond its end": ("and body <= size - self._head", ""),
    "a reply may have become shorter": ("if end - self._start < self.wanted:", "if end == self._start:"),
    "a batch may end anywhere": (
        "at = bulk_at(data, at, end, &word)\n        if not 0 <= at <= end:",
        "at = bulk_at(data, at, end, &word)\n        if at < 0:",
    ),
    "a noted key's length is not counted": ("reserve(&self._keys, 4 + self", "reserve(&self._keys, self"),
    "a digest's last word is read whole": ("memcpy(&word, data, left)", "memcpy(&word, data, 8)"),
    "noted keys are not given back": ("        free(self._keys.data)\n", ""),
    "a read's key is not counted": ("if not reserve(out, WORDS + command.key.size", "if not reserve(out, WORDS"),
    "the table of names may be full": ("while room < 2 * fields:", "while room < fields:"),
    "a list of texts grows late": ("if to.count == to.room:", "if to.count == to.room + 1:"),
    "a reply may name a field twice": ("if self._field[field].reply == self.left:", "if False:"),
    "a reply's texts are not given back": ("free(self._got.span)\n", "pass\n"),
}

# Counts the pairs of blocks that ran one after the other; loaded before the copies, which call it in every block.
TRACE = """
#include <stdint.h>
unsigned trace_count;
static uint8_t seen[1 << 16];
static uintptr_t last;
void __sanitizer_cov_trace_pc(void) {
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    uint8_t *pair = &seen[(here ^ (last >> 1) ^ (here >> 16)) & 0xFFFF];
    last = here;
    if (!*pair) { *pair = 1; trace_count++; }
}
"""

# Of an input: seed, copy, layout, bytes, three cuts, 1 where the plain twin is asked too, and bytes of the batch.
HEADER = struct.Struct("<QIIIIIIII")
DATA_AT = 64
WINDOW = 36 * 1024 * 1024  # bytes: two packets of 16 MiB and more
LAYOUTS = 64
MANY = 3  # of them have many fields
PLAIN_EVERY = 100  # inputs between two that the plain encoder encodes too
REPLIES_EVERY = 5  # of so many inputs, one is for the reply counter
CHECKS_EVERY = 4  # of so many others, one is for the comparer
STREAMS_EVERY = 8  # of so many streams, one goes to the copy as it is
HUGE_EVERY = 100_000  # inputs between two with a packet of 16 MiB: each takes as long as thousands of others
PROOF = 1_000_000  # inputs in which a fault must be found
LATEST = 60  # seconds of CPU that a thousand inputs may take before they count as hanging
LEAK = 8 * 1024 * 1024  # bytes that a run may hold at its end and not in its middle
LONGEST = 4000  # bytes of a row that is kept to be mutated further
KEPT = 4000  # rows, of each layout, and replies that are kept

PLAIN, TIGHT_COPY, REPLIES, CHECK = range(4)
MARKS = b"\xfb\xfc\xfd\xfe\xff\x00\x01\xfa\x7f\x80"
EOF_PACKET = b"\x05\0\0\x09\xfe\0\0\2\0"
ERR_PACKET = b"\x17\0\0\x09\xff\x25\x05#70100Query execution"
SMALL = (0, 1, 1, 2, 3, 4, 5, 8, 13, 20)
LARGE = (40, 97, 101, 250, 251, 255, 256, 300)
WORDS = (b"", b"{", b"}", b"{}", b"{a}", b"\r\n", b"$3\r\n", b"NULL", b"\0", b"\xff\xfe")
REPLY_LINES = (b"+OK\r\n", b"+OK\r\n", b":0\r\n", b":1\r\n", b":12345678901234567890\r\n", b"-ERR no\r\n", b"$-1\r\n")
REPLY_PARTS = (
    b"*0\r\n",
    b"*2\r\n",
    b"*4\r\n",
    b"$1\r\n",
    b"$0\r\n\r\n",
    b"-",
    b"-ERR no\r\n",
    b"\r",
    b"\n",
    b"\r\n",
    b"0",
    b"9",
    b"$-1\r\n",
    b"*9999999999\r\n",
    b"$9999999999\r\n",
    b"*99999999999",
)
MOVED = b"-MOVED 1 127.0.0.1:7000\r\n"


class Finding(Exception):
    """What must not be, in words."""


class Case(NamedTuple):
    """One input: for which copy, by which layout, and up to where it has arrived at each step."""

    copy: int
    layout: int
    data: bytes
    cuts: tuple[int, int, int]
    twin: bool  # the plain encoder or comparer must make the same of it
    batch: bytes = b""  # what the data, which is replies, is compared with


# Building


def build(directory: Path, fault: tuple[str, str] | None = None) -> dict[str, str]:
    """Make both copies and the tracer in a directory; return the environment in which they run."""
    from Cython.Build import cythonize  # noqa: PLC0415  # not wanted by the process that runs the copies
    from setuptools import Distribution, Extension  # noqa: PLC0415

    runtime = output("gcc", "-print-file-name=libasan.so")
    if not Path(runtime).is_absolute():
        sys.exit("fuzz: missing; gcc has no libasan: install libgcc-dev of its version (the name is Debian's)")
    source = SOURCE.read_text()
    if fault:
        source = changed(source, *fault)
    tight = source
    for old, new in TIGHT.items():
        tight = changed(tight, old, new)
    (directory / "asis.pyx").write_text(source)
    (directory / "tight.pyx").write_text(tight)
    (directory / "trace.c").write_text(TRACE)
    output("gcc", "-O2", "-shared", "-fPIC", "-o", str(directory / "trace.so"), str(directory / "trace.c"))
    extensions = [
        Extension(name, [str(directory / f"{name}.pyx")], extra_compile_args=FLAGS, extra_link_args=SANITIZE)
        for name in ("asis", "tight")
    ]
    os.environ["CC"] = "gcc"
    modules = cythonize(extensions, quiet=True, build_dir=str(directory / "c"), emit_linenums=True)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp, command.parallel = str(directory), str(directory / "o"), 2
    command.ensure_finalized()
    command.run()
    return {
        **os.environ,
        "LD_PRELOAD": f"{runtime} {directory / 'trace.so'}",
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:malloc_context_size=8",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(directory),
        "PYTHONHASHSEED": "0",
    }


def changed(text: str, old: str, new: str) -> str:
    """A text with its first `old` replaced."""
    if old not in text:
        sys.exit(f"fuzz: {SOURCE} no longer says {old!r}: say what it says now in {__file__}")
    return text.replace(old, new, 1)


def output(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, encoding="utf-8").stdout.strip()


# Making inputs


def layouts(seed: int) -> list[tuple[Layout, int]]:
    """Layouts with their number of nodes: composite keys, repeated fields, many fields, and what else a job can ask."""
    chance = random.Random(seed)  # reproducible, not secret
    made = [(Layout(3, (b"stu_", 0), ((b"sid", 0), (b"sname", 1), (b"address", 2))), 1)]
    while len(made) < LAYOUTS:
        many = len(made) <= MANY
        cells = 60 if many else chance.choice((1, 2, 3, 4, 5, 9))
        pieces = [chance.choice((b"u:", b"_", b"{", b"}", b"", 0, chance.randrange(cells))) for _ in range(4)]
        names = [chance.choice((b"", b"n", b"x" * 300, b"f%d" % n, b"f%d" % n, b"a name %d" % n)) for n in range(cells)]
        fields = [(name, chance.randrange(cells)) for name in names[: cells if many else chance.choice((1, 3, cells))]]
        ttl = chance.choice((None, None, 1, 60, 10**7, 3 * 10**9))
        layout = Layout(
            cells=cells,
            key=(0, *pieces[: chance.randrange(5)]),
            fields=tuple(fields + fields[:1] * chance.choice((0, 0, 1, 5))),
            nulls_empty=chance.random() < 0.5,
            ttl=ttl,
            ttl_jitter=chance.randrange(ttl) if ttl else 0,
            most=chance.choice((1 << 29, 1 << 29, 1 << 29, 96, 19)),  # one less than some values have
            listpack=chance.choice((None, Listpack(128, 64), Listpack(8, 5000), Listpack(512, 300))),
        )
        made.append((layout, chance.choice((1, 2, 3, 7))))
    return made


def cell(value: bytes | None) -> bytes:
    """One length-encoded cell."""
    if value is None:
        return b"\xfb"
    size = len(value)
    if size < 0xFB:
        return bytes([size]) + value
    if size < 1 << 16:
        return b"\xfc" + size.to_bytes(2, "little") + value
    if size < 1 << 24:
        return b"\xfd" + size.to_bytes(3, "little") + value
    return b"\xfe" + size.to_bytes(8, "little") + value


def framed(row: bytes, most: int) -> bytes:
    """A row in as many packets as its size needs."""
    if len(row) < most:
        return len(row).to_bytes(3, "little") + b"\1" + row
    parts = [row[start : start + most] for start in range(0, len(row) + 1, most)]
    return b"".join(len(part).to_bytes(3, "little") + b"\1" + part for part in parts)


def hashes(layout: Layout, rows: list[bytes]) -> list[tuple[bytes, list[bytes]]]:
    """The commands of each row that can be a hash, and the fields and values of that."""
    made = []
    for row in rows:
        data = framed(row, packets.PACKET_MAX)
        encoder = frames.Encoder(replace(layout, listpack=None), array("H", bytes(2 * SLOTS)), 1)
        encoder.feed(data, 0, len(data))
        batch = encoder.take(0)
        if batch.rows:
            first = next(resp.split_commands(batch.data))
            made.append((bytes(batch.data), first[2:] if first[0] == b"HMSET" else []))
    return made


class Maker:
    """Makes inputs out of valid ones and of those that reached new code, and takes note of the latter."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # as above
        self.rnd = self.chance.random
        self.layouts = layouts(seed)
        self.rows = [[self._row(layout.cells) for _ in range(12)] for layout, _ in self.layouts]
        self.streams: list[list[bytes]] = [[b""] for _ in self.layouts]
        self.replies = [b"".join(self.chance.choices(REPLY_LINES[:4], k=size)) for size in range(12)]
        pools = [hashes(layout, rows) for (layout, _), rows in zip(self.layouts, self.rows, strict=True)]
        self.hashes = [pool for pool in pools if pool]
        self.checks: list[tuple[bytes, bytes]] = [(b"", b"")]
        # What of the last input is worth keeping, if it reaches new code.
        self._made: list[bytes] | list[tuple[bytes, bytes]] = []
        self._keep: list[bytes] | list[tuple[bytes, bytes]] = []

    def case(self, number: int) -> Case:
        """The next input."""
        if number % HUGE_EVERY == HUGE_EVERY - 1:
            return self._huge()
        if number % REPLIES_EVERY == 0:
            data = self._replies()
            return Case(REPLIES, 0, data, (len(data),) * 3, twin=True)
        if number % CHECKS_EVERY == 3:
            return self._check()
        copy = PLAIN if number % STREAMS_EVERY == 1 else TIGHT_COPY
        layout = int(self.rnd() * LAYOUTS)
        data = self._stream(layout, packets.PACKET_MAX if copy == PLAIN else TIGHT_PACKET)
        return Case(copy, layout, data, self._cuts(len(data)), twin=number % PLAIN_EVERY == 2)

    def keep(self) -> None:
        """The last input reached new code."""
        if len(self._keep) < KEPT:
            self._keep += [made for made in self._made if len(made[0] if isinstance(made, tuple) else made) <= LONGEST]

    def _row(self, cells: int) -> bytes:
        return b"".join(cell(self._value()) for _ in range(cells))

    def _value(self) -> bytes | None:
        kind = self.rnd()
        if kind < 0.15:
            return None
        if kind < 0.25:
            return self.chance.choice(WORDS)
        if kind < 0.4:
            edge = 1 << self.chance.choice((0, 7, 12, 15, 23, 31, 63))
            return b"%d" % (self.chance.choice((-edge, edge)) + self.chance.choice((-1, 0, 1)))
        return self.chance.randbytes(66_000 if kind < 0.2503 else self.chance.choice(LARGE if kind > 0.95 else SMALL))

    def _stream(self, layout: int, most: int) -> bytes:
        rnd, rows, streams = self.rnd, self.rows[layout], self.streams[layout]
        kind = rnd()
        if kind < 0.1:
            data = bytearray(streams[int(rnd() * len(streams))])
            self._made, self._keep = [], streams
        else:
            chosen = [rows[int(rnd() * len(rows))] for _ in range(1 + int(rnd() * rnd() * 5))]
            if kind < 0.7:
                row = bytearray(chosen[-1])
                self._mutate(row, rows)
                chosen[-1] = bytes(row)
            self._made, self._keep = chosen[-1:], rows
            data = bytearray().join([framed(row, most) for row in chosen])
            if kind > 0.4:
                data += EOF_PACKET if kind < 0.95 else ERR_PACKET
        if kind < 0.1 or kind > 0.6:
            self._mutate(data, streams)
            self._made, self._keep = [bytes(data)], streams
        return bytes(data)

    def _replies(self) -> bytes:
        rnd, replies = self.rnd, self.replies
        data = bytearray(replies[int(rnd() * len(replies))])
        if rnd() < 0.3:
            data += REPLY_LINES[int(rnd() * len(REPLY_LINES))]
        if rnd() < 0.7:
            self._mutate(data, replies)
        self._made, self._keep = [bytes(data)], replies
        return bytes(data)

    def _check(self) -> Case:
        """A batch and replies to it: right, wrong or none at all."""
        rnd = self.rnd
        rows = self.hashes[int(rnd() * len(self.hashes))]
        chosen = [rows[int(rnd() * len(rows))] for _ in range(1 + int(rnd() * rnd() * 5))]
        batch = b"".join([commands for commands, _ in chosen])
        data = bytearray().join([self._reply(words) for _, words in chosen])
        if rnd() < 0.1:
            batch, replies = self.checks[int(rnd() * len(self.checks))]
            data = bytearray(replies)
        kind = rnd()
        if kind < 0.2:
            at = int(rnd() * (len(data) + 1))
            data[at : at + int(rnd() * 4)] = REPLY_PARTS[int(rnd() * len(REPLY_PARTS))]
        elif kind < 0.4:
            self._mutate(data, REPLY_PARTS)
        twin = True
        if rnd() < 0.1:
            changed = bytearray(batch)
            self._mutate(changed, REPLY_PARTS)
            batch, twin = bytes(changed), False
        self._made, self._keep = [(batch, bytes(data))] * twin, self.checks
        first, second, third = self._cuts(len(data))
        cuts = (second, first, third) if rnd() < 0.3 else (first, second, third)
        return Case(CHECK, 0, bytes(data), cuts, twin, batch)

    def _reply(self, words: list[bytes]) -> bytes:
        """What HGETALL may say where a hash should have these fields and values."""
        kind = self.rnd()
        if kind < 0.15:
            return MOVED if kind < 0.05 else b"*0\r\n"
        if kind < 0.5:
            return resp.pack(words)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        if kind < 0.9:
            pairs = list(dict(pairs).items())
        self.chance.shuffle(pairs)
        if kind > 0.8 and pairs:
            name, value = pairs.pop()
            changes = (
                [],
                [(name, value + b"x")],
                [(name, value)] * 2,
                [(value, name)],
                [pairs[0] if pairs else (b"", b"")],
            )
            pairs += self.chance.choice(changes)
        return resp.pack([word for pair in pairs for word in pair])

    def _mutate(self, data: bytearray, others: Sequence[bytes]) -> None:  # noqa: C901  # a table of calls costs more than all else here
        """One change or a few; to bytes and lengths, or by cutting, repeating and joining."""
        rnd = self.rnd
        while True:
            if not data:
                data += others[int(rnd() * len(others))]
            size = len(data)
            at = int(rnd() * size)
            kind = int(rnd() * 8)
            if not size:
                return
            if kind == 0:
                data[at] = MARKS[int(rnd() * len(MARKS))]
            elif kind == 1:
                data[at] = int(rnd() * 256)
            elif kind == 2:
                data[at] = (data[at] + (1 if rnd() < 0.5 else -1)) & 255
            elif kind == 3:
                del data[at:]
            elif kind == 4:
                del data[at : at + 1 + int(rnd() * 8)]
            elif kind == 5:
                data[at:at] = data[int(rnd() * size) :][: 1 + int(rnd() * 20)]
            elif kind == 6:
                wide = 1 + int(rnd() * 8)
                length = int(rnd() * 2 * (size - at)) if rnd() < 0.9 else 256**wide - 1 - int(rnd() * 3)
                data[at : at + 1 + wide] = bytes((0xFC + wide % 4,)) + (length % 256**wide).to_bytes(wide, "little")
            else:
                data += others[int(rnd() * len(others))]
            if rnd() < 0.6:
                return

    def _cuts(self, size: int) -> tuple[int, int, int]:
        rnd = self.rnd
        if rnd() < 0.6:
            return size, size, size
        first, second, third = sorted((int(rnd() * (size + 1)), int(rnd() * (size + 1)), int(rnd() * (size + 1))))
        return first, second, size if rnd() < 0.7 else third

    def _huge(self) -> Case:
        """A row at the seam of packets of 16 MiB, now and then with a mutation."""
        layout = 2 + int(self.rnd() * (LAYOUTS - 2))
        cells = self.layouts[layout][0].cells
        row = bytearray(self._row(cells - 1))
        at = 0 if self.rnd() < 0.5 else len(row)
        row[at:at] = cell(bytes(packets.PACKET_MAX - len(row) - 4 - int(self.rnd() * 3) + int(self.rnd() * 3)))
        if self.rnd() < 0.3:
            row[0] = MARKS[int(self.rnd() * len(MARKS))]
        following = self.rows[layout][0]
        data = framed(bytes(row), packets.PACKET_MAX) + framed(following, packets.PACKET_MAX) + EOF_PACKET
        self._made, self._keep = [], []
        return Case(PLAIN, layout, data, (int(self.rnd() * len(data)), len(data), len(data)), twin=True)


# Running them


def batch_at(size: int) -> int:
    """Where in a window the batch stands: what is poisoned may begin anywhere, what is not at multiples of eight."""
    return (size + 64) // 8 * 8


class Window:
    """A file in memory that holds the input under way, for whoever finds the process dead; a part can be poisoned."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(DATA_AT + WINDOW)
            self._file = mmap.mmap(file.fileno(), 0)
        whole = memoryview(self._file)
        self.data = whole[DATA_AT:]
        self._header = whole[: HEADER.size]
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._file, DATA_AT))
        library = ctypes.CDLL(None)
        self._size = 0
        self._poison, self._unpoison = (library[f"__asan_{verb}_memory_region"] for verb in ("poison", "unpoison"))
        for function in (self._poison, self._unpoison):
            function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t), None

    def load(self, seed: int, case: Case) -> memoryview:
        """Put an input there, of which nothing has arrived yet; return its batch, which may be read."""
        size, start = len(case.data), batch_at(len(case.data))
        end = start + len(case.batch)
        self._unpoison(self._at, end + 1024)
        self.data[:size] = case.data
        self.data[start:end] = case.batch
        HEADER.pack_into(self._header, 0, seed, case.copy, case.layout, size, *case.cuts, case.twin, len(case.batch))
        self._size = size
        self._poison(self._at, end + 1024)
        self._unpoison(self._at + start, end - start)
        return self.data[start:end]

    def arrive(self, end: int) -> None:
        """Everything up to there may be read, and nothing behind."""
        self._unpoison(self._at, end)
        self._poison(self._at + end, self._size + 8 - end)


class Runner:
    """Runs inputs and checks what comes out."""

    def __init__(self, seed: int, window: Window) -> None:
        self.rows = self.refused = self.compared = self.different = 0
        self._seed = seed
        self._layouts = layouts(seed)
        self._window = window
        self._owners = {nodes: array("H", [slot % nodes for slot in range(SLOTS)]) for _, nodes in self._layouts}
        self._whole = packets.PACKET_MAX, frames.ROOM
        self._asis = import_module("asis")
        with self._sizes(TIGHT_COPY):
            self._tight = import_module("tight")
        # Of the copy as it is and of the tight one, with what it should be; these are never emptied.
        self._tallies = [(module.SlotChecksums(), comparer.SlotChecksums()) for module in (self._asis, self._tight)]

    def run(self, case: Case) -> None:
        """Run an input; a `Finding` says what is wrong with what became of it."""
        window = self._window
        batch = window.load(self._seed, case)
        if case.copy == CHECK:
            self._check(case, batch)
            return
        if case.copy == REPLIES:
            window.arrive(len(case.data))
            counts = [module.count_replies(window.data[: len(case.data)]) for module in (self._asis, self._tight)]
            expected = resp.count_replies(case.data)
            if counts != [expected, expected]:
                raise Finding(f"{expected} replies are counted as {counts}")
            return
        module, room = (self._asis, self._whole[1]) if case.copy == PLAIN else (self._tight, TIGHT_ROOM)
        layout, nodes = self._layouts[case.layout]
        known = None if len(case.data) % 2 else self._known(case)
        encoder = module.Encoder(layout, self._owners[nodes], nodes, known)
        steps, batches = drive(encoder, window.data, case.cuts, room, window.arrive)
        self.rows += encoder.rows
        self.refused += isinstance(steps[-1], str)
        check(encoder, layout, batches)
        if not case.twin:
            return
        with self._sizes(case.copy):
            plain = frames.Encoder(layout, self._owners[nodes], nodes, known)
            expected_steps, expected_batches = drive(plain, case.data, case.cuts, room, lambda _: None)
        if steps != expected_steps:
            raise Finding(f"steps {steps}, and those of the plain encoder are {expected_steps}")
        ours, theirs = (
            [*map(flat, made), *one.rejects, one.unchanged, one.digests, one.keys]
            for made, one in ((batches, encoder), (expected_batches, plain))
        )
        if ours != theirs:
            raise Finding(f"made of the rows: {len(ours)}, {ours}\nand by the plain encoder: {len(theirs)}, {theirs}")

    def _known(self, case: Case) -> bytes:
        """The digests of every other row, where the plain encoder is asked anyway."""
        if not case.twin:
            return b""
        layout, nodes = self._layouts[case.layout]
        with self._sizes(case.copy):
            plain = frames.Encoder(layout, self._owners[nodes], nodes, b"")
            drive(plain, case.data, case.cuts, frames.ROOM, lambda _: None)
        return b"".join(plain.digests[at : at + 8] for at in range(0, len(plain.digests), 16))

    def _check(self, case: Case, batch: memoryview) -> None:
        window, tight = self._window, len(case.data) % STREAMS_EVERY > 0
        module = self._tight if tight else self._asis
        if not case.twin:
            try:
                module.reads(batch)
                watch(module.Comparer(batch, 3), window.data, case.cuts, window.arrive)
            except ValueError:  # no batch of ours any more
                self.refused += 1
            return
        heads = list(resp.row_heads(case.batch))
        reads, expected_reads = module.reads(batch), resp.reads(case.batch)
        tally, expected_tally = self._tallies[tight]
        one = module.Comparer(batch, len(heads), tally)
        plain = comparer.Comparer(case.batch, len(heads), expected_tally)
        seen = watch(one, window.data, case.cuts, window.arrive)
        expected = watch(plain, case.data, case.cuts, lambda _: None)
        self.compared += len(heads) - one.left
        self.different += len(one.differences)
        slots = {frames.slot_of(head[1]) for head in heads}
        counts, expected_counts = ([each.of(slot) for slot in slots] for each in (tally, expected_tally))
        if (reads, seen, counts) != (expected_reads, expected, expected_counts):
            raise Finding(
                f"compared: {reads}, {seen}, {counts}\nand plain: {expected_reads}, {expected}, {expected_counts}"
            )

    def _sizes(self, copy: int) -> "Sizes":
        return Sizes(self._whole if copy == PLAIN else (TIGHT_PACKET, TIGHT_ROOM), self._whole)


class Sizes:
    """The sizes that both encoders go by, for as long as it lasts: the compiled one takes them as it is imported."""

    def __init__(self, now: tuple[int, int], then: tuple[int, int]) -> None:
        self._now, self._then = now, then

    def __enter__(self) -> None:
        packets.PACKET_MAX, frames.ROOM = self._now
        frames.PACKET_MAX = packets.PACKET_MAX

    def __exit__(self, *_: object) -> None:
        packets.PACKET_MAX, frames.ROOM = self._then
        frames.PACKET_MAX = packets.PACKET_MAX


Step = tuple[int, int, bool] | str
Made = list[tuple[int, Batch]]


def drive(
    encoder: frames.Encoder, buffer: resp.Buffer, cuts: Sequence[int], room: int, arrive: Callable[[int], None]
) -> tuple[list[Step], Made]:
    """Have an encoder encode a stream that arrives in pieces, as `transfer` does; the steps and the batches."""
    steps: list[Step] = []
    batches: Made = []
    position = 0
    try:
        for cut in cuts:
            arrive(cut)
            while (after := encoder.feed(buffer, position, cut)) > position:
                position = after
                batches += [(node, encoder.take(node)) for node in encoder.ready(room)]
            steps.append((position, encoder.wanted, bool(encoder.ended)))
    except SourceError as error:
        steps.append(str(error))
    batches += [(node, encoder.take(node)) for node in encoder.ready(1)]
    return steps, batches


def watch(
    each: comparer.Comparer, buffer: resp.Buffer, cuts: Sequence[int], arrive: Callable[[int], None]
) -> list[object]:
    """Have a comparer look at replies that arrive in pieces, or go again; all that can be seen of it."""
    steps: list[object] = []
    position = 0
    try:
        for cut in cuts:
            arrive(max(position, cut))
            position = each.feed(buffer, position, max(position, cut))
            steps.append((position, each.wanted, each.left))
    except TargetError as error:
        steps.append(str(error))
    return [*steps, each.wanted, each.left, each.present, each.differences]


def check(encoder: frames.Encoder, layout: Layout, batches: Made) -> None:
    """Every batch is well-formed and has as many rows and replies as it says."""
    rows = 0
    for _, batch in batches:
        data = bytes(batch.data)
        commands = list(resp.split_commands(data))
        if b"".join(map(resp.pack, commands)) != data or len(commands) != batch.replies:
            raise Finding(f"{batch.replies} commands are not what {data!r} is")
        hashes = restored = 0
        for words in commands:
            if words[0] == b"RESTORE":
                restored += check_restore(layout, words)
                continue
            fields = (len(words) - 2) / 2 if words[0] == b"HMSET" else len(words) - 2
            if words[0] not in {b"HMSET", b"HDEL"} or not 0 < fields <= len(layout.fields) or fields % 1:
                raise Finding(f"no command of ours: {words}")
            if max(map(len, words[1:2] + words[3::2] if words[0] == b"HMSET" else words[1:2])) > layout.most:
                raise Finding(f"more than {layout.most} bytes long: {words}")
            hashes += words[0] == b"HMSET"
        if not max(hashes, len(commands) - hashes - restored) <= batch.rows - restored <= len(commands) - restored:
            raise Finding(f"{batch.rows} rows are said to be in {commands}")
        rows += batch.rows
        check_expires(layout, hashes, batch)
    if rows + encoder.unchanged + len(encoder.rejects) != encoder.rows:
        told = f"{rows} made, {encoder.unchanged} left out and {len(encoder.rejects)} rejected"
        raise Finding(f"{encoder.rows} rows: {told}")


def check_restore(layout: Layout, words: list[bytes]) -> bool:
    """A ready-made hash has its time to live, and is one that Redis takes."""
    ttl, dump = int(words[2]) / 1000, words[3]
    if abs(ttl - (layout.ttl or 0)) > layout.ttl_jitter or words[4:] != [b"REPLACE"]:
        raise Finding(f"{layout.ttl} ± {layout.ttl_jitter} seconds become {words}")
    if (
        len(words[1]) > layout.most
        or len(dump) > layout.most
        or crc64(dump[:-8]) != int.from_bytes(dump[-8:], "little")
    ):
        raise Finding(f"no hash that Redis takes: {words}")
    return True


def check_expires(layout: Layout, hashes: int, batch: Batch) -> None:
    """Each hash has its EXPIRE where there is a time to live."""
    expires = list(resp.split_commands(batch.then.data)) if batch.then else []
    if len(expires) != (hashes if layout.ttl else 0) or (batch.then and batch.then.replies != len(expires)):
        raise Finding(f"{hashes} hashes expire by {expires}")
    for name, _, seconds in expires:
        if name != b"EXPIRE" or abs(int(seconds) - (layout.ttl or 0)) > layout.ttl_jitter:
            raise Finding(f"{layout.ttl} ± {layout.ttl_jitter} seconds become {seconds!r}")


def flat(made: tuple[int, Batch]) -> tuple[int, bytes, int, int, tuple[bytes, int] | None]:
    node, batch = made
    then = (bytes(batch.then.data), batch.then.replies) if batch.then else None
    return node, bytes(batch.data), batch.rows, batch.replies, then


def fuzz(seed: int, inputs: int, window: Window) -> None:
    """Make inputs and run them, until one is a finding."""
    maker, runner = Maker(seed), Runner(seed, window)
    library = ctypes.CDLL(None)
    reached = ctypes.c_uint.in_dll(library, "trace_count")
    held = library["__sanitizer_get_current_allocated_bytes"]
    held.restype = ctypes.c_size_t
    known = middle = kept = 0
    started = time.monotonic()
    for number in range(inputs):
        if number % 1000 == 0:
            signal.setitimer(signal.ITIMER_VIRTUAL, LATEST)
        runner.run(maker.case(number))
        if reached.value != known:
            known = reached.value
            kept += 1
            maker.keep()
        if number == inputs // 2:
            middle = held()
        if (number + 1) % 1_000_000 == 0 or number + 1 == inputs:
            seconds = time.monotonic() - started
            rate = (number + 1) / seconds
            print(
                f"{number + 1:,} inputs in {seconds:.0f} s, {rate:,.0f} inputs/s,"
                f" {known:,} pairs of blocks reached, {kept:,} inputs kept for them;"
                f" {runner.rows:,} rows encoded, {runner.compared:,} compared, {runner.different:,} of them different,"
                f" {runner.refused:,} streams refused",
                flush=True,
            )
    if held() - middle > LEAK:
        raise Finding(f"{held() - middle:,} bytes more are held than in the middle: something leaks")


def child(words: Sequence[str]) -> None:
    """What the instrumented process does."""
    path, seed, inputs, replay = Path(words[0]), int(words[1]), int(words[2]), words[3:]
    try:
        if replay:
            seed, case = read(Path(replay[0]))
            Runner(seed, Window(path)).run(case)
        else:
            fuzz(seed, inputs, Window(path))
    except Exception:  # noqa: BLE001  # whatever it is, it is a finding
        traceback.print_exc()
        sys.exit(1)


def read(path: Path) -> tuple[int, Case]:
    """The seed and the input in a file."""
    with path.open("rb") as file:
        seed, copy, layout, size, *cuts, twin, batch = HEADER.unpack(file.read(HEADER.size))
        file.seek(DATA_AT)
        data = file.read(size)
        file.seek(DATA_AT + batch_at(size))
        return seed, Case(copy, layout, data, (cuts[0], cuts[1], cuts[2]), bool(twin), file.read(batch))


# What a person types


def arguments(prog: str, description: str, inputs: int) -> argparse.Namespace:
    """What was typed: how many inputs, of which seed, the file of one to run again, or that faults are to be found."""
    parser = argparse.ArgumentParser(prog=prog, description=description.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=inputs, metavar="N", help="how many; default %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="another seed, other inputs; default 1")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the input of a finding again")
    parser.add_argument("--prove", action="store_true", help="put faults into copies: each must be found")
    return parser.parse_args()


def main() -> None:
    args = arguments("scripts/fuzz.sh", __doc__, 10_000_000)
    if args.prove:
        sys.exit(prove(args.seed, min(args.inputs, PROOF)))
    with tempfile.TemporaryDirectory(prefix="loader-fuzz-") as name:
        directory = Path(name)
        environment = build(directory)
        replay = [str(args.replay.resolve())] if args.replay else []
        code = spawn(directory, environment, args.seed, args.inputs, replay)
        if not replay and not code:
            print(coverage(directory))
        elif not replay:
            kept = Path(f"fuzz-{args.seed}-{os.getpid()}.input").resolve()
            save(directory / "window", kept)
            print(f"fuzz: a finding; its input: scripts/fuzz.sh --replay {kept}", file=sys.stderr)
        sys.exit(1 if code else 0)


def spawn(directory: Path, environment: dict[str, str], seed: int, inputs: int, replay: Sequence[str] = ()) -> int:
    words = [str(directory / "window"), str(seed), str(inputs), *replay]
    quiet = subprocess.DEVNULL if "LOADER_FUZZ_QUIET" in environment else None
    command = [sys.executable, __file__, "child", *words]
    return subprocess.run(command, env=environment, stdout=quiet, stderr=quiet, check=False).returncode


def coverage(directory: Path) -> str:
    """Which lines of the kernel the tight copy has run, and which it has not."""
    counts = next(directory.rglob("tight.gcda"))
    output("gcov", "-o", str(counts.parent), counts.name, cwd=directory)
    reached, missed = set(), {}
    for line in (directory / "tight.pyx.gcov").read_text().splitlines():
        count, _, rest = line.partition(":")
        number, _, text = rest.partition(":")
        if "#" in count:
            missed[int(number)] = text
        elif count.strip(" *").isdecimal():
            reached.add(int(number))
    missed = {number: text for number, text in missed.items() if number not in reached}
    lines = [f"{len(reached)} of {len(reached) + len(missed)} lines of {SOURCE.name} reached; not reached:"]
    return "\n".join([*lines, *(f"{number:6}: {text}" for number, text in missed.items())])


def save(window: Path, path: Path) -> None:
    """Keep the input that a window holds."""
    _, case = read(window)
    with window.open("rb") as source, path.open("wb") as target:
        target.write(source.read(DATA_AT + batch_at(len(case.data)) + len(case.batch)))


def prove(seed: int, inputs: int) -> int:
    """Put in one fault after the other; the number of those that were not found, or that are found without one."""
    missed = 0
    for what, fault in {"no fault": None, **FAULTS}.items():
        with tempfile.TemporaryDirectory(prefix="loader-fuzz-") as name:
            environment = build(Path(name), fault) | {"LOADER_FUZZ_QUIET": "1"}
            started = time.monotonic()
            found = spawn(Path(name), environment, seed, inputs) != 0
            missed += found is not (fault is not None)
            print(f"{'found' if found else 'not found'} in {time.monotonic() - started:.1f} s: {what}", flush=True)
    return missed


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2:])
    else:
        main()
