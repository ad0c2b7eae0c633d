"""Fuzzes the compiled scanner of binlog packets under AddressSanitizer and UndefinedBehaviorSanitizer.

An instrumented copy of loader/wire/_binlog.pyx is built in a temporary directory. Packets of a binlog are made up,
mutated, cut into pieces and fed to it and to the plain scanner: both must end with the same keys, positions and errors.
Bytes that have not arrived yet are poisoned, so that reading one of them is an error.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fuzz import FLAGS, LATEST, SANITIZE, Case, Finding, Window, arguments, output, read, save
from loader.errors import PlanError, SourceError
from loader.wire import binlog, compression, row_images
from loader.wire.table_map import FollowedTable, parse_table_map
from support import binlog_bytes as make

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "loader" / "wire" / "_binlog.pyx"
TESTS = ROOT / "tests"
CHECKSUMMED_EVERY = 4  # of so many inputs, one has checksums: with them, hardly a mutation goes deep
PROOF = 30_000  # inputs in which a fault must be found
STATES = ["wanted", "stopped", "group", "source", "number", "offset", "time", "ended"]

# Faults that --prove puts into the copy, one at a time: each must be found.
FAULTS = {
    "a field may end late": ("<uint64_t>(event.end - event.at):", "<uint64_t>(event.end - event.at) + 1:"),
    "a number may be none": ("if first == 0xFB or first == 0xFF:", "if first == 0xFF:"),
    "a packet may end late": ("if end - start < self.wanted:", "if end - start < self.wanted - 1:"),
    "a GTID may end early": ("if left < 25:", "if left < 24:"),
    "a GTID of MariaDB may end early": ("if left < 13:", "if left < 12:"),
    "a size is not compared": ("is_whole = number4(event + 9) == <uint64_t>size", "is_whole = True"),
    "a checksum is not compared": ("crc_of(event, size) == number4(event + size)", "True"),
    "extra data may have no length": ("if extra < 2:", "if extra < 1:"),
    "columns may be others": ("lenenc(event) != <uint64_t>table.columns", "lenenc(event) < <uint64_t>table.columns"),
    "a key may be missing": ("if not table.keys or table.keys_in(before) < table.keys:", "if not table.keys:"),
    "NULL is a key": ("if cells[i].state != PRESENT:", "if cells[i].state == ABSENT:"),
    "an image after has no key": ("has_key_after = table.keys_in(after) > 0", "has_key_after = False"),
    "an image after begins anew": ("memcpy(table.after, table.before, table.keys * sizeof(Cell))", "pass"),
    "keys that are as long are the same": (
        "if memcmp(self.after[i].data, self.before[i].data, self.after[i].size):", "if False:",
    ),
    "a table map of the same length is the same": (
        "return memcmp(PyBytes_AS_STRING(known.body), event.data + HEADER, size) == 0", "return True",
    ),
    "tables are not forgotten": ("self._tables.clear()\n        self._last = None", "self._tables.clear()"),
    "an end has 32 bits": ("self.offset += <unsigned long long>1 << 32", "pass"),
    "a run has gaps": ("last + 1 == self.number", "last < self.number"),
}  # fmt: skip


class Maker:
    """Makes inputs out of valid events, some of them mutated."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # reproducible, not secret
        self.tables = [
            ([3, 15], b"\x50\0"),
            ([15, 3, 246, 18], b"\x2c\1\5\2\3"),
            ([3, 245, 254, 245], b"\4\xfe\x50\4"),
            ([8] * 9 + [252], b"\2"),
            ([254, 16, 2], b"\xee\x50\2\1"),
        ]
        self.keys = [(0,), (1, 0), (0,), (8, 0, 3), (2, 1)]

    def setup(self) -> list[tuple[bytes, FollowedTable | None]]:
        """The table maps that a scanner knows, and their tables."""
        maps = [make.table_map(*table, table=number) for number, table in enumerate(self.tables)]
        known = [(each, FollowedTable(parse_table_map(each), key)) for each, key in zip(maps, self.keys, strict=True)]
        return [*known[:4], (make.table_map([3], table=7), None)]

    def case(self, number: int) -> Case:
        """The next input: packets, and up to where they have arrived at each step."""
        events = [self._event() for _ in range(self.chance.choice((1, 1, 2, 4)))]
        if self.chance.random() < 0.85:
            events = [make.query(b"BEGIN"), *events, make.xid()]
        if number % 3:
            place = self.chance.randrange(len(events))
            mutated = bytearray(events[place])
            self._mutate(mutated)
            size = len(mutated) if self.chance.random() < 0.9 else self.chance.randrange(300)
            mutated[9:13] = (size + 4 * (number % CHECKSUMMED_EVERY == 0)).to_bytes(4, "little")
            events[place] = bytes(mutated)
        if number % CHECKSUMMED_EVERY == 0:
            events = [make.checksummed(each) if len(each) > 13 else each for each in events]
        data = bytearray(b"".join(map(make.packet, events)))
        if number % 5 == 0:
            self._mutate(data)
        cuts = sorted(self.chance.randrange(len(data) + 1) for _ in range(3))
        if self.chance.random() < 0.6:
            cuts = [len(data)] * 3
        return Case(0, number % CHECKSUMMED_EVERY, bytes(data), (cuts[0], cuts[1], len(data)), twin=True)

    def _event(self) -> bytes:
        chance = self.chance
        return chance.choice((
            lambda: make.gtid(chance.randrange(5), chance.choice((b"u" * 16, b"v" * 16)), kind=chance.choice((33, 34))),
            lambda: make.mariadb_gtid(chance.randrange(5), chance.randrange(2), 1, chance.choice((0, 0x29))),
            lambda: make.query(b"BEGIN"),
            lambda: make.query(b"CREATE TABLE t"),
            lambda: make.xid(chance.choice((0, 8, 1000, 0xFFFFFFFF)), chance.randrange(9)),
            lambda: make.event(chance.choice((160, 161, 3, 40, 27, 99)), b"some"),
            self._map,
            self._rows, self._rows, self._rows, self._rows,
        ))()  # fmt: skip

    def _map(self) -> bytes:
        number = self.chance.randrange(len(self.tables))
        return make.table_map(*self.tables[number], table=self.chance.choice((number, number, 4)))

    def _rows(self) -> bytes:
        chance = self.chance
        number = chance.randrange(len(self.tables))
        types, metadata = self.tables[number]
        columns = parse_table_map(make.table_map(types, metadata)).columns
        everything = range(len(types))
        before = everything if chance.random() < 0.8 else sorted({*self.keys[number], *chance.choices(everything, k=2)})
        after = (
            everything if chance.random() < 0.5 else sorted(chance.sample(everything, chance.randrange(len(types) + 1)))
        )
        kind = chance.choice((23, 24, 25, 30, 31, 32, 39))
        images = []
        for _ in range(chance.randrange(4)):
            images.append(make.image(*(self._cell(columns[place]) for place in before)))
            if kind in {24, 31, 39}:
                json = sum(int(column.type) == 245 for column in columns)
                parts = chance.choice(
                    (b"\1" + bytes((json + 7) // 8), b"\1" + bytes((json + 7) // 8), b"\0", b"\xfb\0")
                )
                image = make.image(*(self._cell(columns[place]) for place in after))
                images.append((parts if kind == 39 else b"") + image)
        return make.rows(
            kind, len(types), images, table=chance.choice((number, number, number, 7, 0xFFFFFF, 99)), present=before,
            after=after, extra=chance.choice((b"", b"", b"xyz")),
        )  # fmt: skip

    def _cell(self, column: Any) -> bytes | None:
        chance = self.chance
        if chance.random() < 0.1:
            return None
        if not column.lead:
            return bytes(chance.choices(b"ab", k=column.size)) if column.size < 9 else bytes(column.size)
        size = chance.choice((0, 1, 2, 2, 60))
        return size.to_bytes(column.lead, "little") + bytes(chance.choices(b"ab", k=size))

    def _mutate(self, data: bytearray) -> None:
        chance = self.chance
        for _ in range(chance.choice((1, 1, 2, 4))):
            at = chance.randrange(len(data) + 1)
            kind = chance.randrange(6)
            if kind == 0:
                del data[at:]
            elif kind == 1:
                del data[at : at + chance.randrange(9)]
            elif kind == 2:
                data[at:at] = chance.randbytes(chance.randrange(9))
            elif kind == 3:
                data[at : at + 1] = bytes([chance.choice(b"\xfb\xfc\xfd\xfe\xff\x00\x01\xfa\x7f\x80")])
            elif kind == 4 and at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            else:
                data[at : at + 1] = chance.randbytes(1)
            if not data:
                data += b"\0"


def drive(kind: Any, setup: Sequence[Any], case: Case, data: Any, arrive: Callable[[int], None]) -> list[object]:
    """Have a scanner read packets that arrive in pieces, as a stream does; all that can be seen of it."""
    scanner = kind(0xFFFFFF00)
    scanner.is_checksummed = case.layout == 0
    names = {followed: number for number, (_, followed) in enumerate(setup) if followed}
    seen: list[object] = []
    for event, followed in setup:
        scanner.define(event, followed)
    position = 0
    try:
        for cut in case.cuts:
            arrive(max(position, cut))
            while True:
                position = scanner.feed(data, position, max(position, cut))
                seen.append((position, *(getattr(scanner, name) for name in STATES)))
                if not scanner.stopped or not (taken := _take(scanner, case, position, max(position, cut), names)):
                    break
                position += taken
    except (SourceError, PlanError) as error:
        seen.append((type(error), str(error)))
    kept = scanner.take_open() if len(case.data) % 2 else {}
    if len(case.data) % 3 == 0:
        scanner.take(setup[0][0])
        scanner.forget()
        scanner.open(b"", 0, begun=True)
        try:
            scanner.take(make.rows(30, 2, [], table=0))
        except SourceError as error:
            seen.append(str(error))
        scanner.close(len(case.data), 5)
    done, runs = scanner.drain()
    return [*seen, *([(names[followed], list(keys)) for followed, keys in each.items()] for each in (kept, done)), runs]


def _take(scanner: Any, case: Case, position: int, end: int, names: dict[Any, int]) -> int:
    """Take the packet that a scanner stopped at, as a stream does; its bytes, or 0 if that cannot be."""
    size = int.from_bytes(case.data[position : position + 3], "little")
    if end - position < 4 + size or case.data[position + 4 : position + 5] != b"\0":
        return 0
    event = binlog.unwrap(case.data[position + 5 : position + 4 + size], is_checksummed=scanner.is_checksummed)
    if scanner.take(event, 77):
        return 4 + size
    if event[4] == binlog.EventType.TABLE_MAP:
        table = parse_table_map(event)
        followed = FollowedTable(table, (0,)) if len(names) % 2 else None
        if followed:
            names[followed] = len(names)
        scanner.define(event, followed)
    for inner in compression.plain_events(event) or ():
        scanner.take(inner, 99)
    return 4 + size


class Runner:
    """Runs inputs by both scanners, and compares what comes out."""

    def __init__(self, seed: int, kind: Any) -> None:
        self.keys = self.refused = 0
        self._seed = seed
        self._kind = kind
        self._setup = Maker(seed).setup()

    def run(self, case: Case, window: Window | None = None) -> None:
        """Run an input; a `Finding` says in what both differ."""
        if window is None:
            seen = drive(self._kind, self._setup, case, case.data, lambda _: None)
        else:
            window.load(self._seed, case)
            seen = drive(self._kind, self._setup, case, window.data, window.arrive)
        expected = drive(row_images.KeyScanner, self._setup, case, case.data, lambda _: None)
        self.refused += any(isinstance(step, tuple) and isinstance(step[0], type) for step in seen)
        self.keys += sum(len(keys) for _, keys in expected[-2])
        if seen != expected:
            raise Finding(f"{seen}\nand by the plain scanner\n{expected}")


def build(directory: Path, fault: tuple[str, str] | None = None) -> dict[str, str]:
    """Make the copy in a directory; return the environment in which it runs."""
    from Cython.Build import cythonize  # noqa: PLC0415  # not wanted by the process that runs the copy
    from setuptools import Distribution, Extension  # noqa: PLC0415

    source = SOURCE.read_text()
    if fault and fault[0] not in source:
        sys.exit(f"fuzz: {SOURCE} no longer says {fault[0]!r}: say what it says now in {__file__}")
    (directory / "scanner.pyx").write_text(source.replace(*fault, 1) if fault else source)
    extension = Extension(
        "scanner", [str(directory / "scanner.pyx")], extra_compile_args=[*FLAGS[:-1]], extra_link_args=SANITIZE
    )
    os.environ["CC"] = "gcc"
    modules = cythonize([extension], quiet=True, build_dir=str(directory / "c"))
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(directory), str(directory / "o")
    command.ensure_finalized()
    command.run()
    return {
        **os.environ,
        "LD_PRELOAD": output("gcc", "-print-file-name=libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:malloc_context_size=8",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": f"{directory}:{TESTS}:{TESTS / 'fuzz'}",
        "PYTHONHASHSEED": "0",
    }


def fuzz(seed: int, inputs: int, window: Window) -> None:
    """Make inputs and run them, until one is a finding."""
    maker, runner = Maker(seed), Runner(seed, import_module("scanner").KeyScanner)
    started = time.monotonic()
    for number in range(inputs):
        if number % 1000 == 0:
            signal.setitimer(signal.ITIMER_VIRTUAL, LATEST)
        runner.run(maker.case(number), window)
        if (number + 1) % 100_000 == 0 or number + 1 == inputs:
            rate = (number + 1) / (time.monotonic() - started)
            print(
                f"{number + 1:,} inputs, {rate:,.0f} inputs/s; {runner.keys:,} keys, {runner.refused:,} inputs refused",
                flush=True,
            )


def child(words: Sequence[str]) -> None:
    """What the instrumented process does."""
    path, seed, inputs, replay = Path(words[0]), int(words[1]), int(words[2]), words[3:]
    try:
        if replay:
            seed, case = read(Path(replay[0]))
            Runner(seed, import_module("scanner").KeyScanner).run(case, Window(path))
        else:
            fuzz(seed, inputs, Window(path))
    except Exception:  # noqa: BLE001  # whatever it is, it is a finding
        traceback.print_exc()
        sys.exit(1)


def spawn(directory: Path, environment: dict[str, str], words: Sequence[str], *, quiet: bool = False) -> int:
    output_to = subprocess.DEVNULL if quiet else None
    command = [sys.executable, __file__, "child", str(directory / "window"), *words]
    return subprocess.run(command, env=environment, stdout=output_to, stderr=output_to, check=False).returncode


def prove(seed: int, inputs: int) -> int:
    """Put in one fault after the other; the number of those that were not found, or that are found without one."""
    missed = 0
    for what, fault in {"no fault": None, **FAULTS}.items():
        with tempfile.TemporaryDirectory(prefix="loader-fuzz-") as name:
            environment, started = build(Path(name), fault), time.monotonic()
            found = spawn(Path(name), environment, [str(seed), str(inputs)], quiet=True) != 0
            missed += found is not (fault is not None)
            print(f"{'found' if found else 'not found'} in {time.monotonic() - started:.1f} s: {what}", flush=True)
    return missed


def main() -> None:
    args = arguments("scripts/fuzz.sh binlog", __doc__, 1_000_000)
    if args.prove:
        sys.exit(prove(args.seed, min(args.inputs, PROOF)))
    with tempfile.TemporaryDirectory(prefix="loader-fuzz-") as name:
        directory = Path(name)
        environment = build(directory)
        replay = [str(args.replay.resolve())] if args.replay else []
        code = spawn(directory, environment, [str(args.seed), str(args.inputs), *replay])
        if code and not replay:
            kept = Path(f"fuzz-binlog-{args.seed}-{os.getpid()}.input").resolve()
            save(directory / "window", kept)
            print(f"fuzz: a finding; its input: scripts/fuzz.sh binlog --replay {kept}", file=sys.stderr)
        sys.exit(1 if code else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2:])
    else:
        main()
