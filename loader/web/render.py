"""Views as HTML; the only module that imports Jinja. No I/O once templates and static files have been read.

All outside data (names, errors, rows) is escaped, and invisible characters are spelled out. Pages have no inline style
or script, so that browsers can be told to run none.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from math import sqrt
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loader.formats import moment, number, size, span, took, utc
from loader.jobs.status import JobState
from loader.records import dataclass
from loader.report.status import problems_of
from loader.state.history import RunRecord
from loader.web.failures import in_a_row
from loader.web.folding import Fold, are_urgent, folded, is_calm, states_of
from loader.web.incidents import incidents, is_incident
from loader.web.listing import Listing
from loader.web.troubles import causes, is_cause, unsaid
from loader.web.views import (
    LISTED,
    MINUTES,
    CellState,
    ClusterView,
    Grid,
    JobPage,
    JobView,
    Notice,
    Overview,
    RejectsPage,
    Viewer,
)
from loader.words import counted, nouns

HERE = Path(__file__).parent
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
SLOTS = 16384
RUNS = 50  # bars of a job's history
NEWEST = 10  # runs of the table that are always visible
RANGES = 12  # ranges of slots listed in words
COLORS = 8  # of nodes: beyond that they repeat, and the number distinguishes them
NUMBERED = 3.0  # percent of the strip that a node's number needs
LINKED = 4  # jobs named of an incident
HEIGHT, WIDTH = 24, 96  # of a sparkline
NEAR = 0.75  # of max_age: from there on a job is nearly late

# Characters that are invisible or change the text around them: C0 and C1, bidi controls and halves of characters.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)

STATES = {
    JobState.OK: "its last run ended well",
    JobState.RUNNING: "a run is in progress",
    JobState.REJECTS: "its last run left rows that could not be written",
    JobState.LATE: "its last success is too long ago",
    JobState.FAILED: "its last run failed",
    JobState.STOPPED: "its last run was stopped",
    JobState.NEVER: "it has not run yet",
    JobState.PAUSED: "its schedule is paused",
    JobState.UNKNOWN: "the target has not been asked yet, or does not answer",
}
CELLS = {
    CellState.LOADED: "loaded",
    CellState.RETRIED: "loaded after retries",
    CellState.REJECTS: "loaded, with rejected rows",
    CellState.WAITING: "waiting",
    CellState.OWED: "still owed",
}
NOTICES = {
    Notice.RUN: ("good", "The run was requested. It begins as soon as a place is free."),
    Notice.PAUSE: ("good", "The schedule is paused. A run in progress continues to its end."),
    Notice.RESUME: ("good", "The schedule was resumed."),
    Notice.RETRY: ("good", "The rejected rows are being retried."),
    Notice.BUSY: ("bad", "Nothing was started: a run of this job is in progress."),
    Notice.AWAY: ("bad", "Nothing was done: the target does not answer."),
    Notice.REFUSED: ("bad", "That is not the token."),
    Notice.WAIT: ("bad", "There were too many wrong tokens: wait half a minute."),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A run in the chart of runs; place and width in percent, height in pixels."""

    x: float
    width: float
    height: float
    entry: RunRecord


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slots of one owner in the strip; place and width in percent. `node` is its index in the list; None: unowned.

    An owner that `is_dead` does not answer.
    """

    x: float
    width: float
    node: int | None
    text: str
    is_dead: bool = False


class Renderer:
    """The daemon's pages, rendered from views; `static` returns the files that they link to."""

    def __init__(self) -> None:
        self._static = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in (HERE / "static").iterdir()}
        jinja = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_visible,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        jinja.filters |= {
            "span": span,
            "took": took,
            "number": number,
            "nouns": nouns,
            "size": size,
            "utc": utc,
            "part": part,
            "commands": commands,
            "owned": owned,
        }
        jinja.globals |= {
            "STATES": STATES,
            "CELLS": CELLS,
            "SLOTS": SLOTS,
            "MINUTES": MINUTES,
            "LISTED": LISTED,
            "COLORS": COLORS,
            "NEWEST": NEWEST,
            "NUMBERED": NUMBERED,
            "LINKED": LINKED,
            "version": version("mysql-redis-loader"),
            "most": max,
            "when": when,
            "stamp": stamp,
            "percent": percent,
            "ranges": ranges,
            "spark": spark,
            "freshness": freshness,
            "problems_of": problems_of,
            "is_fold": lambda row: isinstance(row, Fold),
            "states_of": states_of,
            "are_urgent": are_urgent,
            "in_a_row": in_a_row,
            "is_incident": is_incident,
            "is_calm": is_calm,
            "clock": clock,
            "began": began,
            "is_cause": is_cause,
            "part_lines": part_lines,
            "static": self._link,
        }
        pages = ("overview", "job", "rejects", "sign_in", "missing")
        self._templates = {name: jinja.get_template(f"{name}.html") for name in pages}

    def overview(self, view: Overview, viewer: Viewer, listing: Listing | None = None) -> str:
        """All jobs, or those that are looked for, and the cluster."""
        listing = listing or Listing()
        counts = Counter(each.status.state for each in view.jobs)
        every = folded(view)
        return self._draw(
            "overview",
            viewer,
            f"/?{listing.query}" if listing.query else "/",
            view=view,
            listing=listing,
            every=len(every),
            rows=listing.rows(every),
            parts_count=sum(bool(each.part_of) for each in view.jobs),
            now=view.now,
            counts=counts,
            unsure=sum(not each.is_known for each in view.jobs),
            late=sum(each.status.late for each in view.jobs),
            rejects=sum(each.status.rejects for each in view.jobs),
            causes=causes(view.problems),
            incidents=incidents(view.jobs, view.problems),
            unsaid=unsaid(view.cluster, view.problems) if view.cluster else [],
            strip=strip(view.cluster) if view.cluster else [],
            total=_total(view.cluster) if view.cluster else {},
        )

    def job(self, page: JobPage, viewer: Viewer) -> str:
        """One job in full: its runs, its chunks, its config and its statement."""
        cells = _cells(page.grid) if page.grid else {}
        return self._draw_one("job", page, viewer, bars=chart(page.entries or ()), cells=cells)

    def rejects(self, page: RejectsPage, viewer: Viewer) -> str:
        """The rows of a job that could not be written."""
        return self._draw_one("rejects", page, viewer)

    def sign_in(self, viewer: Viewer, onward: str = "/") -> str:
        """The page that asks for the token; `onward` is the page to go to then."""
        return self._draw("sign_in", viewer, "/sign-in", onward=onward)

    def missing(self, what: str, viewer: Viewer) -> str:
        """The page for an unknown address; `what` names the missing thing, like "job x"."""
        return self._draw("missing", viewer, "/", what=what)

    def static(self, name: str) -> tuple[bytes, str] | None:
        """A file that pages link to, and its media type."""
        return self._static.get(name)

    def _draw_one(self, name: str, page: JobPage | RejectsPage, viewer: Viewer, **facts: Any) -> str:
        status = page.view.status
        here = f"/jobs/{part(status.job)}{'' if name == 'job' else '/rejects'}"
        if isinstance(page, RejectsPage) and not page.masked and viewer.signed_in:
            here += "?keys=shown"
        return self._draw(name, viewer, here, page=page, view=page.view, status=status, now=page.now, **facts)

    def _draw(self, name: str, viewer: Viewer, here: str, **facts: Any) -> str:
        notice = NOTICES.get(viewer.notice) if viewer.notice else None
        return self._templates[name].render(viewer=viewer, here=here, notice=notice, **facts)

    def _link(self, name: str) -> str:
        """The address of a static file, which changes with its content: browsers may cache it for ever."""
        return f"/static/{name}?{sha256(self._static[name][0]).hexdigest()[:8]}"


def _visible(value: Any) -> Any:
    """A value's text in a page, with invisible characters spelled out."""
    if type(value) is str and UNSEEN.search(value):
        return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    return value


def part(name: str) -> str:
    """A name as a part of an address."""
    return quote(name, safe="", errors="replace")


def when(seconds: float, now: float) -> Markup:
    """A moment relative to now, with the exact one in its title: 3 min ago, in 12 s."""
    away = seconds - now
    return stamp(seconds, "now" if abs(away) < 0.5 else f"in {span(away)}" if away > 0 else f"{span(-away)} ago")


def stamp(seconds: float, words: str) -> Markup:
    """Words for a moment, with the exact one in the title; words that need no escaping."""
    return Markup(f'<time datetime="{moment(seconds)}" title="{utc(seconds)}">{words}</time>')  # noqa: S704  # see above


def clock(seconds: float, now: float) -> Markup:
    """A moment as the time of its day, with the day unless it is that of now: 16:39, 02-03 16:39."""
    day, time = utc(seconds).split()[:2]
    return stamp(seconds, f"{time[:5]}" if utc(now).startswith(day) else f"{day[5:]} {time[:5]}")


def began(text: str, now: float) -> Markup:
    """When the holder of a lock took it, as `clock` tells it."""
    try:
        return clock(datetime.fromisoformat(text).timestamp(), now)
    except (ValueError, OverflowError):  # another program's
        return escape(_visible(text))


def commands(text: str) -> Markup:
    """A sentence whose commands stand between backticks."""
    pieces = [escape(_visible(each)) for each in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(each) if at % 2 else each for at, each in enumerate(pieces))


def complaint(view: JobView) -> str:
    """What is wrong with a part, in a few words."""
    status = view.status
    problems = problems_of(status)
    if not problems and status.last and status.last.error:
        problems = [status.last.error]
    rejects = [f"{counted(status.rejects, 'row')} could not be written"] if status.rejects else []
    return "; ".join([*problems, *rejects])


def part_lines(fold: Fold, parts: Sequence[JobView], now: float) -> Markup:
    """Parts as items of a list; there may be thousands, each in a few microseconds."""
    lines = []
    for each in parts:
        status = each.status
        last, name = status.last, escape(_visible(fold.label(each)))
        said = _visible(complaint(each)) if status.rejects or status.late or last is None or last.error else ""
        ago = f" <small>{span(now - last.ended)} ago</small>" if last else ""
        why = f" <bdi>{escape(said)}</bdi>" if said else ""
        lines.append(f'<li><a href="/jobs/{part(status.job)}">{name}</a>{ago}{why}</li>')
    return Markup("\n".join(lines))  # noqa: S704  # names and complaints are escaped, the rest is ours


def percent(part: float, whole: float) -> float:
    """The percentage of a whole, between 0 and 100."""
    return round(min(100.0, max(0.0, 100 * part / whole)), 2) if whole > 0 else 0.0


def ranges(slots: Sequence[tuple[int, int]]) -> str:
    """Slots for people: 0-5460, 16383."""
    words = [f"{first}-{last}" if first < last else f"{first}" for first, last in slots[:RANGES]]
    return ", ".join([*words, *([f"and {counted(len(slots) - RANGES, 'more range')}"] if len(slots) > RANGES else [])])


def owned(slots: Sequence[tuple[int, int]]) -> int:
    """How many slots there are."""
    return sum(last - first + 1 for first, last in slots)


def freshness(view: JobView) -> str:
    """The age of what is in Redis relative to `max_age`: fresh, near or late; empty if unknown."""
    if view.max_age is None or view.age is None:
        return "late" if view.status.late else ""
    share = view.age / view.max_age
    return "late" if share > 1 or view.status.late else "near" if share > NEAR else "fresh"


def spark(rates: Sequence[float]) -> str:
    """The path of a line through rates, as wide as WIDTH and as high as HEIGHT; it begins and ends at the bottom."""
    most = max(rates, default=0)
    if most <= 0:
        return ""
    step, scale = WIDTH / max(1, len(rates) - 1), (HEIGHT - 3) / most
    points = [f"L{at * step:.0f} {HEIGHT - 1 - rate * scale:.1f}" for at, rate in enumerate(rates)]
    return f"M0 {HEIGHT}{''.join(points)}L{WIDTH} {HEIGHT}"


def chart(entries: Sequence[RunRecord]) -> list[Bar]:
    """Runs as bars, the oldest first and the newest at the right; the longest run is the highest."""
    width = 100 / RUNS
    shown = entries[:RUNS]
    longest = max((entry.seconds for entry in shown), default=0) or 1  # roots: one long run hides no other
    return [
        Bar(
            round(100 - width * (at + 0.9), 2),
            round(width * 0.8, 2),
            max(3.0, round(72 * sqrt(entry.seconds / longest), 1)),
            entry,
        )
        for at, entry in reversed(list(enumerate(shown)))
    ]


def strip(cluster: ClusterView) -> list[Stretch]:
    """The slots from first to last, one stretch for each range of an owner."""
    stretches: list[tuple[int, int, int | None, str]] = [
        (
            first,
            last,
            at,
            f"{node.node}{', which does not answer' if node.keys is None else ''}: slots {first} to {last}",
        )
        for at, node in enumerate(cluster.nodes)
        for first, last in node.ranges
    ]
    stretches += [(first, last, None, f"nobody: slots {first} to {last}") for first, last in cluster.unowned]
    share = 100 / SLOTS
    return [
        Stretch(
            round(first * share, 3),
            round((last - first + 1) * share, 3),
            at,
            text,
            is_dead=at is not None and cluster.nodes[at].keys is None,
        )
        for first, last, at, text in sorted(stretches, key=lambda stretch: stretch[:2])
    ]


def _total(cluster: ClusterView) -> dict[str, int]:
    """The totals of all masters that answered."""
    nodes = cluster.nodes
    return {
        "slots": sum(owned(node.ranges) for node in nodes),
        "keys": sum(node.keys or 0 for node in nodes),
        "used": sum(node.used or 0 for node in nodes),
        "replicas": sum(node.replicas or 0 for node in nodes),
        "written": sum(node.written for node in nodes),
        "silent": sum(node.keys is None for node in nodes),
        "dead": sum(owned(node.ranges) for node in nodes if node.keys is None),
    }


def _cells(grid: Grid) -> dict[CellState, int]:
    """The number of chunks in each state."""
    counts = dict.fromkeys(CELLS, 0)
    for cell in grid.cells:
        counts[cell.state] += cell.last - cell.first + 1
    return counts
