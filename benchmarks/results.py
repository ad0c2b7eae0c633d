"""What was measured, for a reader: RESULTS.md and its plots."""

import os
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import plots
from figures import Figures, Spread, seconds, shown
from plots import WIDTHS
from servers import SAMPLES

from loader.pipeline.options import WORKERS
from loader.wire.codec import COMPILED

VARIANTS = {  # case: what a reader calls it
    "script": "shell script, a process a row, 500 rows",
    "usual": "PyMySQL + redis-py cluster pipeline, as usually written",
    "redis-py": "the same, tuned: values stay bytes",
    "pipe": "`mysql \\| redis-cli --pipe`, one node",
    "one": "**loader**, one node",
    "cluster": "**loader** `sync`, cluster",
    "backfill": "**loader** `backfill`, cluster",
    "verify": "**loader** `verify`, cluster: compared, not loaded",
    "limit": "limit: three `redis-cli --pipe`, cluster, no MySQL",
}
MICRO = 1e6


def machine() -> dict[str, str]:
    """Where it is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "loader": f"{version('mysql-redis-loader')}, {'compiled' if COMPILED else 'plain Python'} encoder",
        "PyMySQL, redis-py": f"{version('PyMySQL')}, {version('redis')}",
    }


def write(document: dict[str, Any], place: Path) -> None:
    """Write the report and its plots."""
    figures = Figures(document)
    texts = {"RESULTS.md": report(document, figures), "results.svg": plots.variants(figures)}
    texts["columns.svg"] = plots.columns(figures)
    for name, lines in texts.items():
        (place / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


# the report


def report(document: dict[str, Any], figures: Figures) -> Iterator[str]:
    """The lines of RESULTS.md."""
    yield INTRO.format(
        rounds=document["rounds"],
        minutes=document["minutes"],
        stu=figures.rows("stu/cluster"),
        orders=figures.rows("orders/cluster"),
        workers=WORKERS,
    )
    yield ""
    yield from table(["", ""], ([name, value] for name, value in document["machine"].items()))
    yield from ["", "![Rows a second and client CPU of each variant](results.svg)", "", "## What it must show", ""]
    yield from table(["figure", "wanted", "measured", "holds"], verdicts(figures))
    for name, title in (("stu", "stu, 3 columns"), ("orders", "orders, 12 columns")):
        yield from ["", f"## Loading {title}", ""]
        yield from table(LOADING, loading(figures, name))
    yield from ["", LOADING_NOTE, "", "## Ready-made hashes", "", READY_MADE, ""]
    yield from ["![CPU of Redis and of the loader by the number of columns](columns.svg)", ""]
    yield from table(*ready_made(figures))
    yield from ["", "## Start-up", ""]
    yield from table(
        ["", "wall, s", "CPU, s", "peak memory, MB"],
        (
            [label, *(shown(v) for v in (figures.of(case, "wall"), seconds(figures, case))), memory(figures, case)]
            for case, label in (
                ("start/help", "`loader --help`"),
                ("start/stu", "`loader sync` of five rows"),
                ("start/stu backfill", "`loader backfill` of five rows"),
            )
        ),
    )
    for title, note, header, rows in scaling(figures):
        yield from ["", f"## {title}", "", note, ""]
        yield from table(header, rows)
    yield from ["", HOW.format(samples=SAMPLES), "", "## What it means", "", *meaning(figures)]


def table(header: list[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def memory(figures: Figures, case: str) -> str:
    return shown(figures.of(case, "memory"), 0)


LOADING = [
    "",
    "rows/s",
    "wall, s",
    "client CPU, µs a row",
    "of it without start-up",
    "MySQL CPU",
    "Redis CPU, all nodes",
    "peak memory, MB",
]


def loading(figures: Figures, name: str) -> Iterator[list[str]]:
    """A line a variant."""
    for variant, label in VARIANTS.items():
        case = f"{name}/{variant}"
        if case not in figures.runs:
            continue
        ours = variant in {"one", "cluster", "backfill", "verify"}
        yield [
            label,
            shown(figures.of(case, "rate"), 0),
            shown(figures.of(case, "wall")),
            shown(figures.of(case, "cpu")),
            shown(figures.of(case, "net cpu")) if ours else "",
            shown(figures.of(case, "mysql")),
            shown(figures.of(case, "redis")),
            memory(figures, case),
        ]


def ready_made(f: Figures) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table that compares HMSET and RESTORE."""
    header = ["", "wall, s", "÷ the limit of HMSET", "client CPU, µs a row, without start-up", "Redis CPU, all nodes"]
    variants = {
        "limit": "limit, HMSET",
        "cluster": "loader, HMSET",
        "over": "loader, HMSET, over the same hashes",
        "one": "loader, HMSET, one node",
        "ready-made limit": "limit, RESTORE",
        "ready-made": "loader, RESTORE",
        "ready-made over": "loader, RESTORE, over the same hashes",
        "ready-made one": "loader, RESTORE, one node",
    }
    return header, [
        [
            f"{columns} columns: {label}",
            shown(f.of(f"{name}/{variant}", "wall")),
            shown(f.ratio((f"{name}/{variant}", "wall"), (f"{name}/limit", "wall"))),
            shown(f.of(f"{name}/{variant}", "cpu" if "limit" in variant else "net cpu")),
            shown(f.of(f"{name}/{variant}", "redis")),
        ]
        for name, columns in WIDTHS.items()
        for variant, label in variants.items()
        if f"{name}/{variant}" in f.runs
    ]


def verdicts(f: Figures) -> Iterator[list[str]]:
    """Each figure that was promised, and whether it holds."""

    def line(
        figure: str, wanted: str, value: Spread | None, holds: Callable[[float], bool], digits: int = 2
    ) -> list[str]:
        held = "cannot tell" if value is None else "yes" if holds(value[0]) else "**no**"
        return [figure, wanted, shown(value, digits), held]

    def below(most: float) -> Callable[[float], bool]:
        return lambda value: value <= most

    def above(least: float) -> Callable[[float], bool]:
        return lambda value: value >= least

    for name, most in (("stu", 0.35), ("orders", 0.9)):
        case, limit = f"{name}/cluster", f.of(f"{name}/limit", "cpu")
        text = f"client CPU a row, `{name}`, cluster, without start-up"
        yield line(text, f"≤ {most} µs", f.of(case, "net cpu"), below(most))
        yield line(
            text,
            f"below the limit's, {shown(limit)} µs",
            f.of(case, "net cpu") if limit else None,
            below(limit[0] if limit else 0),
        )
        yield line(f"the same with start-up, `{name}`", f"≤ {most} µs", f.of(case, "cpu"), below(most))
    for name, most in (("stu", 1.10), ("orders", 1.20)):
        case, limit = f"{name}/cluster", (f"{name}/limit", "wall")
        text = f"wall time ÷ wall time of the limit, `{name}`, without start-up"
        yield line(text, f"≤ {most:.2f}", f.ratio((case, "net wall"), limit), below(most))
        yield line(f"the same with start-up, `{name}`", f"≤ {most:.2f}", f.ratio((case, "wall"), limit), below(most))
    for name in ("stu", "orders"):
        case, rival = f"{name}/cluster", f"{name}/usual"
        text = f"against PyMySQL + redis-py as usually written, `{name}`"
        yield line(f"{text}: rows/s", "≥ 6 times", f.ratio((case, "rate"), (rival, "rate")), above(6), 1)
        less = f"{text}: less client CPU"
        yield line(f"{less}, without start-up", "≥ 60 times", f.ratio((rival, "cpu"), (case, "net cpu")), above(60), 0)
        yield line(f"{less}, with start-up", "≥ 60 times", f.ratio((rival, "cpu"), (case, "cpu")), above(60), 0)
        tuned, limit = f"{name}/redis-py", f.ratio((f"{name}/limit", "rate"), (f"{name}/redis-py", "rate"))
        yield [
            f"against the same, tuned, `{name}`: rows/s",
            f"the limit's own: {shown(limit, 1)} times",
            shown(f.ratio((case, "rate"), (tuned, "rate")), 1),
            "",
        ]
        yield [
            f"against the same, tuned, `{name}`: less client CPU, without start-up",
            "",
            shown(f.ratio((tuned, "cpu"), (case, "net cpu")), 0),
            "",
        ]
    faster = f.ratio(("stu/cluster", "rate"), ("stu/script", "rate"))
    most = f.ratio(("stu/limit", "rate"), ("stu/script", "rate"))
    wanted = f"≥ 1,000 times; the limit's own: {shown(most, 0)}"
    yield line("against the shell script: rows/s", wanted, faster, above(1000), 0)
    sends = f.of("server/drain", "net rate")
    least = min(2e6, sends[0]) if sends else 2e6
    yield line(
        "reading and encoding alone, one worker, without start-up",
        f"≥ 2 M rows/s, or as fast as the server sends ({shown(sends, 0)}), whichever is lower",
        f.of("workers/1", "net rate"),
        above(least),
        0,
    )
    yield line(
        f"peak memory, {f.rows('memory/fivefold'):,} rows, 4 workers",
        "≤ 150 MB",
        f.of("memory/fivefold", "memory"),
        below(150),
        0,
    )
    yield line(
        f"the same ÷ that of {f.rows('memory/half'):,} rows",
        "≤ 1.10",
        f.ratio(("memory/fivefold", "memory"), ("memory/half", "memory")),
        below(1.1),
    )
    for name, most in (("stu", 1.0), ("orders", 0.65), ("wide_30", 0.45)):
        over = f"{name}/{'cluster' if name == 'stu' else 'limit'}"
        against = "HMSET" if name == "stu" else "the limit of HMSET"
        text = f"ready-made hashes, `{name}`: wall time ÷ that of {against}, with start-up"
        yield line(text, f"≤ {most:.2f}", f.ratio((f"{name}/ready-made", "wall"), (over, "wall")), below(most))
    text = "ready-made hashes, `orders`: client CPU ÷ that of HMSET, without start-up"
    ratio = f.ratio(("orders/ready-made", "net cpu"), ("orders/cluster", "net cpu"))
    yield line(text, "≤ 1.20", ratio, below(1.2))
    verified = f.of("stu/verify", "rate")
    yield line("`verify`, `stu`, with start-up: rows/s", "≥ 100,000", verified, above(100_000), 0)
    yield line("`loader --help`, wall", "≤ 0.10 s", f.of("start/help", "wall"), below(0.1))
    yield line("five-row `sync`, wall", "≤ 0.20 s", f.of("start/stu", "wall"), below(0.2))
    text = "one node, `stu`, with start-up: rows/s ÷ those of `mysql \\| redis-cli --pipe`"
    yield line(text, "≥ 1.0", f.ratio(("stu/one", "rate"), ("stu/pipe", "rate")), above(1.0))


def scaling(f: Figures) -> Iterator[tuple[str, str, list[str], list[list[str]]]]:
    """Title, note, header and lines of each table about how cost grows."""
    cases = [case for case in ("rows/tenth", "stu/cluster", "rows/fivefold") if case in f.runs]
    yield (
        "More rows",
        f"`stu` into the cluster, {WORKERS} workers.",
        ["rows", "rows/s", "without start-up", "client CPU, µs a row", "without start-up", "peak memory, MB"],
        [
            [
                f"{f.rows(case):,}",
                shown(f.of(case, "rate"), 0),
                shown(f.of(case, "net rate"), 0),
                shown(f.of(case, "cpu")),
                shown(f.of(case, "net cpu")),
                memory(f, case),
            ]
            for case in cases
        ],
    )
    yield (
        "More memory?",
        "`stu` into the cluster, 4 workers.",
        ["rows", "peak memory, MB"],
        [[f"{f.rows(case):,}", memory(f, case)] for case in ("memory/half", "memory/fivefold") if case in f.runs],
    )
    header = ["", "rows/s without start-up", "client CPU, µs a row, without start-up", "MySQL CPU, µs a row"]

    def lines(*pairs: tuple[str, str]) -> list[list[str]]:
        return [
            [label, shown(f.of(case, "net rate"), 0), shown(f.of(case, "net cpu")), shown(f.of(case, "mysql"))]
            for case, label in pairs
            if case in f.runs
        ]

    yield (
        "Reading and encoding alone",
        READING.format(rows=f.rows("workers/1")),
        header,
        lines(
            ("server/drain", "read only, nothing encoded"),
            *((f"workers/{n}", f"{n} worker{'s' if n > 1 else ''}") for n in (1, 2, 4)),
        ),
    )
    yield (
        "More columns",
        f"`sync --dry-run`, one worker, {f.rows('columns/4'):,} rows of short texts.",
        header,
        lines(*((f"columns/{n}", f"{n} columns") for n in (4, 12, 40))),
    )
    yield (
        "Compiled and plain",
        "`sync --dry-run`, one worker. The plain Python encoder serves where nothing could be compiled.",
        header,
        lines(
            *(
                (f"encoder/{name} {kind}", f"`{name}`, {kind}")
                for name in ("stu", "orders")
                for kind in ("compiled", "plain")
            )
        ),
    )


def meaning(f: Figures) -> Iterator[str]:
    """Sentences that the figures bear out, whatever they are."""
    for name in ("stu", "orders"):
        ours, limit = f.of(f"{name}/cluster", "net cpu"), f.of(f"{name}/limit", "cpu")
        mysql, redis = f.of(f"{name}/cluster", "mysql"), f.of(f"{name}/cluster", "redis")
        if ours and limit and mysql and redis:
            share = ours[0] / (ours[0] + mysql[0] + redis[0])
            yield MEANS_SHARE.format(name=name, share=share, mysql=mysql[0], redis=redis[0], more=limit[0] / ours[0])
    start, row = seconds(f, "start/stu"), f.of("stu/cluster", "net cpu")
    if start and row:
        yield MEANS_START.format(start=start[0], rows=start[0] / row[0] * MICRO)
    one, two, four = (f.of(f"workers/{n}", "net rate") for n in (1, 2, 4))
    if one and two and four:
        yield MEANS_WORKERS.format(two=two[0] / one[0], four=four[0] / one[0])
    yield MEANS_SHARED


MEANS_SHARE = """\
- `{name}`: of the CPU that a row takes on this machine once the loader has started, {share:.0%} is the
  loader's. The rest is MySQL's ({mysql:.1f} µs) and that of the six Redis nodes ({redis:.1f} µs). `redis-cli
  --pipe` takes {more:.1f} times the loader's CPU, to send bytes that are ready."""
MEANS_START = """\
- Starting takes {start:.2f} s of CPU, as much as {rows:,.0f} rows of `stu`. What a small table costs is the
  start; the lines with and without it differ by that."""
MEANS_WORKERS = """\
- Against a sink that discards, 2 workers are {two:.2f} times and 4 workers {four:.2f} times as fast as one.
  MySQL runs on the same cores, so this is the machine's limit as much as the loader's."""
MEANS_SHARED = """\
- Servers and client share the cores here: what the client saves, the servers get. With servers elsewhere, wall
  time is theirs and the network's; the client's CPU a row is what this report says."""

READING = """\
`sync --dry-run`: the bytes are thrown away. {rows:,} rows of `stu`. The first line takes the rows off the
socket and does not look at them: it shows what MySQL can send on one connection."""

INTRO = """\
# What loading costs

Written by `scripts/bench.sh`: one run of {minutes} minutes, {rounds} rounds, every variant in every round.
Figures are medians; where runs differ, the least and the greatest stand in parentheses. `stu` has {stu:,} rows
of 3 columns (a number with ZEROFILL and two short Chinese texts), `orders` {orders:,} rows of 12 (numbers, a
DECIMAL, dates, texts, JSON; three may be NULL). The database, a Redis Cluster of three masters and three
replicas, a single Redis node and the client all run on this machine. The loader ran with {workers} workers, its
default, where nothing else is said."""

READY_MADE = (
    "The loader writes hashes that are made already (`write: restore`), into the cluster; the limits are three"
    " `redis-cli --pipe` with the same commands, without MySQL. [Performance](../docs/performance.md) says what it"
    " means."
)
LOADING_NOTE = """\
The script loads 500 rows, all others the whole table. "Client" is every process that is not a server: of
a pipe, both programs; its peak memory is that of the largest of them. The start-up of the loader is what the
same command takes for a table of five rows. Both have a replica acknowledge each chunk;
`backfill` keeps a checkpoint too. The limit sends from files what the loader would send. `mysql | redis-cli` and
PyMySQL + redis-py leave NULL columns out; the loader and the limit send an HDEL for them too."""

HOW = """\
## How it was measured

- Before each run all Redis nodes are emptied and their append-only logs rewritten; the run begins when all
  servers are idle. Every second round goes from the last variant to the first. Runs of the largest table are
  done twice.
- After each run the keys of all masters are counted, and {samples} hashes are compared with MySQL's rows, byte
  for byte. A run that has not loaded every row, and nothing else, ends the benchmark. A dry run has to say that
  it read every row.
- Client CPU and memory are what `wait4` says of the command: user and system time of it and of all processes it
  started; no program is seen to have less than about 10 MB. Server CPU is utime and stime of `/proc/PID/stat`,
  from before the command until the replicas have everything.
- Nodes keep an append-only log (`everysec`), as the lab's do, without automatic rewrites. InnoDB's buffer pool
  holds all tables.
- PyMySQL + redis-py sends 1,000 rows a pipeline, with hiredis. As usually written, a row is a dictionary of Python's
  values and each is made text again, which loses ZEROFILL: its hashes are counted, and not compared. Tuned, values stay
  bytes. `mysql` runs with `--quick`.
- A figure without start-up is the run's less the median of the runs with five rows; "-" where that is less than
  those runs differ. Ratios are taken within a round.
- The raw figures are in [results.json](results.json). That a killed backfill resumes exactly is a test,
  `tests/acceptance/test_backfill.py`."""
