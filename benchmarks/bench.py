"""What loading costs: the loader and what it is compared with, on servers of its own, in one go.

A full run writes RESULTS.md, results.svg and results.json beside this file, a quick or partial one into build/bench.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import results
from plots import WIDTHS
from servers import Run, Servers, as_document, started, tables

from loader.lab.process import program

HERE = Path(__file__).parent
ELSEWHERE = HERE.parent / "build" / "bench"
SCRIPT_ROWS = 500
STARTS = 10  # runs at least of what only starts up
QUICK = 0.05

PLAIN = (
    "import sys; sys.modules |= {'loader.wire._codec': None, 'loader.wire._binlog': None};"
    " from loader.cli.main import main; main()"
)
SEED = """
mysql --defaults-extra-file={options} test -e "
    select concat('hmset stu_',sid,' sid ',sid,' sname ',sname,' address ',address) from stu limit {rows};" |
    grep -v '^concat' | awk '{{print "{redis} -c -p {port}",$0}}' > {directory}/db.cmd
cat {directory}/db.cmd | while read line
do
    $line
done
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure: a command that loads a table into a target; `base` is the same with next to no rows."""

    name: str
    table: str
    target: str  # cluster, one (the single node), or nothing is written
    command: Callable[[Servers, "Case"], list[str]]
    base: str = ""
    words: tuple[str, ...] = ()
    most: int = 99  # rounds at most: it is long
    least: int = 1  # runs at least
    loaded: bool = False  # whether the table is in the target when it begins
    write: str = "hmset"  # how the loader writes hashes
    exact: bool = True  # whether its hashes are MySQL's bytes; else they are counted only


# the commands


def help_(_: Servers, __: Case) -> list[str]:
    return [_loader(), "--help"]


def sync(servers: Servers, case: Case) -> list[str]:
    return [_loader(), *_words(servers, case, "sync")]


def backfill(servers: Servers, case: Case) -> list[str]:
    return [_loader(), *_words(servers, case, "backfill")]


def verify(servers: Servers, case: Case) -> list[str]:
    return [_loader(), *_words(servers, case, "verify")]


def plain(servers: Servers, case: Case) -> list[str]:
    """The loader as it is where nothing was compiled."""
    return [sys.executable, "-c", PLAIN, *_words(servers, case, "sync")]


def script(servers: Servers, case: Case) -> list[str]:
    """The shell script that the loader takes the place of."""
    text = SEED.format(
        options=servers.options,
        rows=_rows(servers, case),
        redis=_redis_cli(),
        port=servers.ports["cluster"],
        directory=servers.directory,
    )
    return ["bash", "-c", text]


def usual(servers: Servers, case: Case) -> list[str]:
    prefix, port = servers.tables[case.table].prefix, str(servers.ports["cluster"])
    return [sys.executable, str(HERE / "rivals.py"), "usual", str(servers.options), case.table, prefix, port]


def redis_py(servers: Servers, case: Case) -> list[str]:
    prefix, port = servers.tables[case.table].prefix, str(servers.ports["cluster"])
    return [sys.executable, str(HERE / "rivals.py"), "redis-py", str(servers.options), case.table, prefix, port]


def drain(servers: Servers, case: Case) -> list[str]:
    return [sys.executable, str(HERE / "rivals.py"), "drain", str(servers.options), case.table]


def pipe(servers: Servers, case: Case) -> list[str]:
    """MySQL's client prints commands made by SQL; each lacks the newline at its end, which the client adds."""
    table = servers.tables[case.table]
    key = f"CONCAT('{table.prefix}_', {table.key})"
    count, fields = ["2"], []
    for name, nullable in servers.columns(case.table):
        text = f"'\\r\\n${len(name)}\\r\\n{name}\\r\\n$', LENGTH({name}), '\\r\\n', {name}"
        count.append(f"2 * ({name} IS NOT NULL)" if nullable else "2")
        fields.append(f"IF({name} IS NULL, '', CONCAT({text}))" if nullable else text)
    head = f"'*', {' + '.join(count)}, '\\r\\n$5\\r\\nHMSET\\r\\n$', LENGTH({key}), '\\r\\n', {key}"
    query = f"SELECT CONCAT({head}, {', '.join(fields)}, '\\r') FROM {case.table}"
    mysql = shlex.join([_mysql(), f"--defaults-extra-file={servers.options}", "-N", "-B", "--raw", "--quick", "test"])
    into = shlex.join([_redis_cli(), "-p", str(servers.ports["one"]), "--pipe"])
    return ["bash", "-c", f"set -o pipefail; {mysql} -e {shlex.quote(query)} | {into}"]


def limit(servers: Servers, case: Case) -> list[str]:
    """A `redis-cli --pipe` a master, at the same time, with what the loader would send."""
    lines = [
        f"{_redis_cli()} -p {port} --pipe < {shlex.quote(str(path))} & pids+=($!)"
        for port, path in servers.commands(case.table, case.write).items()
    ]
    return ["bash", "-c", "\n".join([*lines, 'for pid in "${pids[@]}"; do wait "$pid" || exit 1; done'])]


def _words(servers: Servers, case: Case, command: str) -> list[str]:
    config = str(servers.config(case.table, case.target, case.write))
    return ["-c", config, command, case.table, "-o", "json", *case.words]


def _rows(servers: Servers, case: Case) -> int:
    rows = servers.tables[case.table].rows
    return min(SCRIPT_ROWS, rows) if case.command is script else rows


def _loader() -> str:
    return str(Path(sys.executable).parent / "loader")


def _redis_cli() -> str:
    return program("redis-cli", "valkey-cli")


def _mysql() -> str:
    return shutil.which("mariadb") or shutil.which("mysql") or "mysql"


DRY = ("--dry-run", "--workers", "1")
FOUR = ("--workers", "4")


def ready_made(table: str) -> list[Case]:
    """Ready-made hashes, new and over what is there; and HMSET over what is there."""
    start = f"start/{'stu' if table == 'stu' else 'orders'}"
    return [
        Case(f"{table}/over", table, "cluster", sync, start, loaded=True),
        Case(f"{table}/ready-made limit", table, "cluster", limit, write="restore"),
        Case(f"{table}/ready-made", table, "cluster", sync, start, write="restore"),
        Case(f"{table}/ready-made over", table, "cluster", sync, start, write="restore", loaded=True),
        Case(f"{table}/ready-made one", table, "one", sync, f"{start} one", write="restore"),
    ]


CASES = (
    Case("start/help", "stu_five", "", help_, least=STARTS),
    Case("start/stu", "stu_five", "cluster", sync, least=STARTS),
    Case("start/stu backfill", "stu_five", "cluster", backfill),
    Case("start/stu one", "stu_five", "one", sync),
    Case("start/orders", "orders_five", "cluster", sync, least=6),
    Case("start/orders backfill", "orders_five", "cluster", backfill),
    Case("start/orders one", "orders_five", "one", sync),
    Case("start/dry", "stu_five", "", sync, words=DRY, least=6),
    Case("start/plain", "stu_five", "", plain, words=DRY),
    Case("start/drain", "stu_five", "", drain),
    Case("stu/script", "stu", "cluster", script),
    Case("stu/usual", "stu", "cluster", usual, exact=False),
    Case("stu/redis-py", "stu", "cluster", redis_py),
    Case("stu/pipe", "stu", "one", pipe),
    Case("stu/one", "stu", "one", sync, "start/stu one"),
    Case("stu/limit", "stu", "cluster", limit),
    Case("stu/cluster", "stu", "cluster", sync, "start/stu"),
    Case("stu/backfill", "stu", "cluster", backfill, "start/stu backfill"),
    Case("start/verify", "stu_five", "cluster", verify, loaded=True, least=3),
    Case("stu/verify", "stu", "cluster", verify, "start/verify", loaded=True),
    Case("orders/usual", "orders", "cluster", usual, exact=False),
    Case("orders/redis-py", "orders", "cluster", redis_py),
    Case("orders/pipe", "orders", "one", pipe),
    Case("orders/one", "orders", "one", sync, "start/orders one"),
    Case("orders/limit", "orders", "cluster", limit),
    Case("orders/cluster", "orders", "cluster", sync, "start/orders"),
    Case("orders/backfill", "orders", "cluster", backfill, "start/orders backfill"),
    Case("orders/verify", "orders", "cluster", verify, "start/verify", loaded=True),
    Case("wide_30/limit", "wide_30", "cluster", limit),
    Case("wide_30/cluster", "wide_30", "cluster", sync, "start/orders"),
    Case("wide_30/one", "wide_30", "one", sync, "start/orders one"),
    Case("wide_100/limit", "wide_100", "cluster", limit),
    Case("wide_100/cluster", "wide_100", "cluster", sync, "start/orders"),
    Case("wide_100/one", "wide_100", "one", sync, "start/orders one"),
    *(case for table in WIDTHS for case in ready_made(table)),
    Case("rows/tenth", "stu_tenth", "cluster", sync, "start/stu"),
    Case("rows/fivefold", "stu_fivefold", "cluster", sync, "start/stu", most=2),
    Case("memory/half", "stu_half", "cluster", sync, "start/stu", words=FOUR, most=2),
    Case("memory/fivefold", "stu_fivefold", "cluster", sync, "start/stu", words=FOUR, most=2),
    Case("server/drain", "stu_fivefold", "", drain, "start/drain"),
    Case("workers/1", "stu_fivefold", "", sync, "start/dry", words=("--dry-run", "--workers", "1")),
    Case("workers/2", "stu_fivefold", "", sync, "start/dry", words=("--dry-run", "--workers", "2")),
    Case("workers/4", "stu_fivefold", "", sync, "start/dry", words=("--dry-run", "--workers", "4")),
    Case("columns/4", "wide_4", "", sync, "start/dry", words=DRY),
    Case("columns/12", "wide_12", "", sync, "start/dry", words=DRY),
    Case("columns/40", "wide_40", "", sync, "start/dry", words=DRY),
    Case("encoder/stu compiled", "stu", "", sync, "start/dry", words=DRY),
    Case("encoder/stu plain", "stu", "", plain, "start/plain", words=DRY, most=2),
    Case("encoder/orders compiled", "orders", "", sync, "start/dry", words=DRY),
    Case("encoder/orders plain", "orders", "", plain, "start/plain", words=DRY, most=2),
)


def measured(servers: Servers, case: Case) -> Run:
    """One run of a case; the loader's own account of it has to be right too."""
    rows = _rows(servers, case)
    before = sync(servers, case) if case.loaded else None
    command = case.command(servers, case)
    run = servers.measure(command, case.table, rows, case.target, exact=case.exact, before=before)
    if case.command is verify:
        document = json.loads(servers.output())
        if (document["status"], document["rows"]) != ("ok", rows):
            raise RuntimeError(f"{case.name}: {document}")
    if case.command in {sync, backfill, plain}:
        document = json.loads(servers.output())
        if document["rows"]["read"] != rows or document["rows"]["written"] != rows:
            raise RuntimeError(f"{case.name}: {document['rows']} of {rows}")
    return run


def measure_all(servers: Servers, cases: list[Case], rounds: int) -> dict[str, list[Run]]:
    """Every case in every round, each second round from the last case to the first."""
    runs: dict[str, list[Run]] = {case.name: [] for case in cases}
    for number in range(rounds):
        for case in cases[:: -1 if number % 2 else 1]:
            if number >= case.most:
                continue
            for _ in range(-(-case.least // rounds)):
                run = measured(servers, case)
                runs[case.name].append(run)
            say(f"{number + 1}/{rounds} {case.name:24} {run.wall:8.2f} s {run.cpu / run.rows * 1e6:10.2f} µs CPU a row")
    return runs


def chosen(words: list[str] | None) -> list[Case]:
    """The cases whose names hold one of the words, and what is subtracted from them."""
    if not words:
        return list(CASES)
    named = [case for case in CASES if any(word in case.name for word in words)]
    if not named:
        sys.exit(f"bench: no such case; there are {', '.join(case.name for case in CASES)}")
    wanted = {case.name for case in named} | {case.base for case in named}
    return [case for case in CASES if case.name in wanted]


def arguments() -> argparse.Namespace:
    """What a person typed."""
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each case is run; default 3")
    parser.add_argument("--rows-scale", type=float, default=1.0, metavar="F", help="so many times the usual rows")
    parser.add_argument("--quick", action="store_true", help=f"one round with --rows-scale {QUICK}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose names hold one of these words")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.rows_scale = 1, QUICK
    if given.rounds < 1 or not 0 < given.rows_scale <= 20:
        parser.error("--rounds is 1 or more, --rows-scale above 0 and at most 20")
    return given


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def stop(number: int, _: object) -> None:
    """End by an exception, so that the servers end too."""
    sys.exit(128 + number)


def main() -> None:
    """Measure, and write what was found."""
    given = arguments()
    signal.signal(signal.SIGTERM, stop)
    began, load = time.monotonic(), os.getloadavg()[0]
    cases = chosen(given.only)
    described = tables(given.rows_scale)
    used = {case.table for case in cases}
    with (
        tempfile.TemporaryDirectory(prefix="loader-bench-", ignore_cleanup_errors=True) as directory,
        started(Path(directory), {name: table for name, table in described.items() if name in used}) as servers,
    ):
        servers.fill(say)
        machine = results.machine() | servers.versions() | {"load before": f"{load:.2f}"}
        runs = measure_all(servers, cases, given.rounds)
    full = not given.only and given.rounds >= 3 and given.rows_scale == 1
    place = HERE if full else ELSEWHERE
    place.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": "loader.bench/v1",
        "machine": machine,
        "rounds": given.rounds,
        "rows_scale": given.rows_scale,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "base": {case.name: case.base for case in cases if case.base},
        "runs": {name: [as_document(run) for run in each] for name, each in runs.items()},
    }
    (place / "results.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    results.write(document, place)
    say(f"see {place / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
