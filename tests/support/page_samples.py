"""Made-up views for the tests of the pages; `python tests/support/page_samples.py DIRECTORY` writes them as files."""

import math
import sys
from dataclasses import replace
from pathlib import Path

from loader.jobs.status import FollowState, JobState, JobStatus
from loader.outcome import Status
from loader.state.history import RunRecord
from loader.state.holders import Holder
from loader.state.position import FollowedPosition, Reach
from loader.web.failures import Failures
from loader.web.render import Renderer
from loader.web.views import (
    Cell,
    ClusterView,
    Grid,
    JobPage,
    JobView,
    NodeView,
    Overview,
    Progress,
    RejectsPage,
    RejectView,
    Viewer,
)

NOW = 1_800_000_000.0
LINK_DOWN = "MySQL db.example:3306 does not answer: connection refused. Is it up, and is the port right?"
NO_ROOM = "OOM command not allowed when used memory > 'maxmemory'; tried again for 120 s at cache-3.example:6379"
STATEMENT = "SELECT /*+ MAX_EXECUTION_TIME(0) */ `sid`, `sname`, `address`\n"
STATEMENT += "FROM `shop`.`orders`\nWHERE `sid` > ? AND `sid` <= ?"
CONFIG = """\
table: orders
key: orders_{sid}
fields: [sid, sname, address]
incremental:
  column: updated_at
  lag: 10s
full_every: 1d
schedule:
  every: 30s
  jitter: 5s
max_age: 10m
"""


def entry(job="orders", ago=190.0, seconds=1.2, status="ok", read=182_340, **facts):
    rows = {"read": read, "written": 1_204, "unchanged": read - 1_204 - 0, "deleted": 3, "rejected": 0}
    codes = {"ok": 0, "failed": 1, "rejects": 3, "stopped": 143}
    made = RunRecord(
        job=job,
        run=f"{int(ago * 7919) & 0xFFFFFFFF:08x}",
        began=NOW - ago - seconds,
        ended=NOW - ago,
        seconds=seconds,
        status=Status(status),
        exit_code=codes[status],
        full=True,
        partial=False,
        resumed=False,
        slot=int(NOW - ago),
        rows=rows,
        bytes=23_400_000,
        chunks={"total": 4, "done": 4, "retried": 0},
        error=None,
        host="loader-1",
    )
    return replace(made, **facts)


def job(name="orders", state="ok", **facts):
    """A job's view: `facts` are of its status, or of the view."""
    last = facts.pop("last", entry(name, status=state if state in {"ok", "failed", "rejects", "stopped"} else "ok"))
    status = JobStatus(
        job=name,
        now=NOW,
        state=JobState(state),
        late=facts.pop("late", state == "late"),
        holders=facts.pop("holders", ()),
        last=last,
        success=facts.pop("success", last),
        due=facts.pop("slot", NOW + 12),
        watermark=facts.pop("watermark", None),
        rejects=facts.pop("rejects", 0),
        paused=NOW - 600 if state == "paused" else None,
        follow=facts.pop("follow", None),
    )
    view = JobView(
        status=status,
        schedule="every 30s",
        due=NOW + 12,
        max_age=600,
        rates=wave(12_000, 0.3),
        progress=None,
        is_known=state != "unknown",
    )
    return replace(view, **facts)


def followed(name="prices_now", behind=0.0, waiting="", *, is_running=True, owed="", **facts):
    """A job that is followed, `behind` by seconds, or `waiting`."""
    reach = Reach(lag_bytes=70_000 if behind else 0, changes=812, keys=640, waiting=waiting)
    place = FollowedPosition(
        "server", "binlog.000004", 7_120, None, {}, "5a5a", seen=NOW, lag=behind, reach=reach, owed=owed
    )
    holder = Holder("1/1", "5a5a", "loader-1", 812, "2027-01-15T06:30:00Z", yields=True)
    facts = {"schedule": "", "due": None, "slot": None, "last": entry(name, 5_400), "watermark": None} | facts
    return job(
        name,
        is_followed=True,
        follow=FollowState(place, is_running),
        holders=(holder,) if is_running else (),
        **facts,
    )


def wave(height, pace, count=60):
    return tuple(max(0.0, height * (0.55 + 0.45 * math.sin(at * pace) * math.cos(at * 1.7))) for at in range(count))


def jobs():
    running = Progress("9b2e77a1", NOW - 95, 3_412_000, 12_400_000, 38_240.0, 235.0, 342, "")
    waits = Progress(
        "51c0ffee", NOW - 1_900, 820_000, None, 0.0, None, 82, "MySQL has Threads_running=41, more than 25"
    )
    return (
        job("orders", watermark=NOW - 200),
        job(
            "order_items",
            "running",
            progress=running,
            rates=wave(38_000, 0.12),
            last=entry(ago=1810, seconds=312.0),
            max_age=3600,
        ),
        job(
            "prices",
            "failed",
            last=entry("prices", 42, 121.4, "failed", 84_000, error=NO_ROOM),
            success=entry("prices", 4_400),
            late=True,
            max_age=3600,
            rates=(*wave(9_000, 0.4, 44), *[0.0] * 16),
            failures=Failures(7, NOW - 4_260, NOW - 42, NO_ROOM),
        ),
        job(
            "stock-levels", "rejects", rejects=1_204, rates=wave(800, 0.9), schedule="cron */15 * * * * (Europe/Berlin)"
        ),
        job(
            "customers",
            "late",
            success=entry("customers", 9_000),
            last=entry("customers", 9_000),
            max_age=3600,
            rates=(),
        ),
        job("catalogue.full_text_search_documents_v2", "running", progress=waits, max_age=None, schedule=""),
        job("sessions", "paused", rates=(0.0,) * 60, success=entry("sessions", 460), last=entry("sessions", 460)),
        job(
            "suppliers",
            "stopped",
            last=entry("suppliers", 7_300, 14, "stopped"),
            success=entry(ago=90_000),
            max_age=None,
        ),
        job("stu", "never", last=None, success=None, rates=(), due=None, slot=None, schedule="", max_age=None),
        job("regions", "unknown", last=None, success=None, rates=(), due=NOW + 3_720, schedule="cron 0 * * * * (UTC)"),
        job(
            "warehouse",
            "running",
            holders=(Holder("2/4", "77aa01bc", "loader-2.example", 4711, "2027-01-15T07:58:03Z"),),
            success=entry("warehouse", 500),
        ),
    )


def nodes():
    share = 16384 / 6
    made = []
    for at in range(6):
        first, last = round(at * share), round((at + 1) * share) - 1
        ranges = ((first, last),)
        if at == 1:
            ranges = ((first, 4_000), (4_200, last))
        if at == 4:
            ranges = ((first, last - 180),)
        used = int((0.3 + 0.13 * at) * 2**32)
        made.append(
            NodeView(
                f"cache-{at + 1}.example:6379", ranges, 4_120_330 + 17 * at, used, 2**32, 1, 9_812_441 * (at + 1), ""
            )
        )
    made[4] = replace(
        made[4],
        keys=None,
        used=None,
        limit=None,
        replicas=None,
        problem="cache-5.example:6379 does not answer: timed out after 5 s",
    )
    made[5] = replace(made[5], replicas=0, limit=None)
    return tuple(made)


def overview(**facts):
    problems = (
        "200 slots, 4,001 to 4,199 among them, belong to nobody: redis-cli --cluster fix cache-1.example:6379",
        "cache-5.example:6379 does not answer: timed out after 5 s",
        "cache-6.example:6379 has no replica",
    )
    view = Overview(
        now=NOW,
        seen=NOW - 1.4,
        started=NOW - 266_400,
        host="loader-1",
        source="db.example:3306/shop",
        target="cache-1.example:6379",
        jobs=jobs(),
        cluster=ClusterView(
            "fail", cluster=True, nodes=nodes(), unowned=((4_001, 4_199), (13_473, 13_652)), problems=problems
        ),
        problems=(LINK_DOWN,),
    )
    return replace(view, **facts)


def calm():
    good = tuple(job(name, max_age=600) for name in ("orders", "order_items", "prices", "customers"))
    share = 16384 / 3
    masters = tuple(
        NodeView(
            f"cache-{at + 1}.example:6379",
            ((round(at * share), round((at + 1) * share) - 1),),
            1_204_331,
            2**30,
            2**32,
            1,
            52_000,
            "",
        )
        for at in range(3)
    )
    return overview(
        jobs=good, problems=(), cluster=ClusterView("ok", cluster=True, nodes=masters, unowned=(), problems=())
    )


def many(count):
    made = jobs()
    return overview(jobs=tuple(renamed(made[at % len(made)], f"job_{at:03}") for at in range(count)))


def renamed(view, name):
    return replace(view, status=replace(view.status, job=name))


def parts(count, name="students"):
    """Parts of a job of many tables: most are well, a few failed, are late or have rejects."""
    ok, failed, rejects, late = (jobs()[at] for at in (0, 2, 3, 4))
    odd = {5: failed, 7: rejects, 9: late, 105: failed, 205: failed}
    return tuple(
        replace(renamed(odd.get(at, ok), f"{name}/s{at % 3}/student_{at}"), part_of=name, rates=())
        for at in range(count)
    )


def many_parts(count):
    """A job of many tables among others."""
    return overview(jobs=(*jobs()[:3], *parts(count)), rates={"students": wave(12_000, 0.3)})


def history(name="orders"):
    made = []
    for at in range(50):
        status = {3: "failed", 11: "rejects", 12: "rejects", 20: "stopped", 31: "failed"}.get(at, "ok")
        seconds = 84.0 if at in {17, 44} else 1.1 + 9 * abs(math.sin(at))
        error = NO_ROOM if status == "failed" else "2 rows were rejected" if status == "rejects" else None
        rows = {"read": 182_340 - at, "written": 1_204, "unchanged": 181_136 - at, "deleted": at % 4, "rejected": 0}
        if status == "rejects":
            rows["rejected"] = 2
        made.append(
            entry(
                name,
                30.0 + at * 61,
                seconds,
                status,
                error=error,
                rows=rows,
                full=at in {17, 44},
                slot=None if at == 5 else 1,
            )
        )
    return tuple(made)


def grid(count=342):
    odd = {20: "retried", 21: "retried", 57: "rejects", 58: "rejects", 60: "rejects"}
    cells = []
    for at in range(count):
        state = odd.get(at, "loaded" if at < 230 else "waiting" if at < 234 else "owed")
        done = state in {"loaded", "retried", "rejects"}
        cells.append(Cell(at + 1, at + 1, state, 10_000 * done, 2 * (state == "rejects"), 0.31 * done))
    return Grid("9b2e77a1", ended=False, of=count, cells=tuple(cells))


def page(view=None, **facts):
    sample = ("cache-2.example:6379", 'HMSET orders_•••• sid •••• sname "••••" address "••••"')
    made = JobPage(NOW, view or jobs()[1], history("order_items"), grid(), CONFIG, STATEMENT, sample, "")
    return replace(made, **facts)


def rejects(**facts):
    reasons = (
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "sid is NULL: no key can be made of it",
    )
    listed = tuple(
        RejectView(
            f"orders_•••{at:02}",
            811 * at % 16384,
            f"cache-{at % 6 + 1}.example:6379",
            reasons[at % 5 == 4],
            NOW - 90_000,
            NOW - 60 * at - 9,
            at + 1,
        )
        for at in range(24)
    )
    return replace(RejectsPage(NOW, jobs()[3], 1_204, listed, masked=True), **facts)


def written():
    """Every page that there is to look at, by the name of its file."""
    pages = Renderer()
    someone, guest, clerk = Viewer(), Viewer(actions=True), Viewer(actions=True, signed_in=True)
    return {
        "overview": pages.overview(overview(), guest),
        "calm": pages.overview(calm(), someone),
        "many": pages.overview(many(200), someone),
        "parts": pages.overview(many_parts(345), someone),
        "unasked": pages.overview(overview(cluster=None), someone),
        "job": pages.job(page(), clerk),
        "failed": pages.job(page(jobs()[2], grid=replace(grid(4), ended=True)), replace(clerk, notice="busy")),
        "empty": pages.job(page(jobs()[8], entries=(), grid=None, statement="", sample=None, why=LINK_DOWN), guest),
        "rejects": pages.rejects(rejects(), replace(clerk, notice="retry")),
        "sign-in": pages.sign_in(Viewer(actions=True, notice="refused"), "/jobs/orders"),
        "missing": pages.missing("job nothing", someone),
    }


if __name__ == "__main__":
    for name, text in written().items():
        (Path(sys.argv[1]) / f"{name}.html").write_text(text)
