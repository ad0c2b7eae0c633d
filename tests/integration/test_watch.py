"""What a run leaves to be seen: the history, the status of jobs, log lines, metrics, and the health of both sides."""

import errno
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from loader.config.load import load_config
from loader.errors import LoaderError
from loader.jobs.execute import execute
from loader.jobs.status import OVERDUE, is_late, job_statuses, next_time
from loader.lab.process import wait
from loader.model import SKEW, ChunkLoaded, Notice, Run, RunBegan, RunEnded, Waiting
from loader.outcome import Reason
from loader.pipeline.options import Options
from loader.pipeline.throttle import Throttle
from loader.redis.client import RedisClient
from loader.report import log as log_module
from loader.report.documents import run_document
from loader.report.log import Log
from loader.report.progress import Reporter
from loader.report.status import status_text
from loader.state.history import KEPT, History
from loader.state.lock import Lock
from loader.state.stored_json import LATEST
from loader.web import server as room
from loader.web.app import Serving
from loader.web.health import Health
from loader.web.metrics import Metrics
from loader.web.server import Web, routes
from support.command import HOST, STU, Desk, finish, redis_server
from support.database import Ear, Nobody
from support.promtool import PROMTOOL, promtool


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


def carry_out(world, listener=None, options=None, **job):
    config = world.config(**job)
    return execute(config, config.jobs["job"], options or Options(), listener or Ear())


def sync(desk, job, **options):
    """A run of one of the desk's jobs, as `sync` has it, in this process: a document."""
    config = load_config([desk.directory / "loader.yaml"])
    return run_document(execute(config, config.jobs[job], Options(**options), Ear()))


def history(world):
    with RedisClient(world.config(table="t").target) as target:
        return History(target, "job")


def log_lines(result):
    return [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]


def sample(text, name, **labels):
    """The value of one series; None where there is none."""
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")) == labels:
            return float(match[3])
    return None


def get(port, path, **headers):
    """Status, headers and body of a page."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def test_history(desk):
    """Each run is kept, newest first: how it ended, what it did, since when, and who began it; dry runs are not."""
    world = desk.world
    world.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1,'a'),(2,'b')", "CREATE TABLE u LIKE t"
    )
    desk.write({"t": {"table": "t"}, "u": {"table": "u"}, "gone": {"table": "gone"}})
    before = time.time()
    fine = desk.run("sync", "t", "-o", "json").document
    world.redis.set("t_1", "taken")
    rejects = sync(desk, "t")
    sync(desk, "t", dry_run=True)
    partial = sync(desk, "t", where="id = 2")
    failed = sync(desk, "gone")

    listed = desk.run("runs", "-o", "json")
    runs = listed.documents

    assert (listed.code, listed.err) == (0, "")
    assert [run["run"] for run in runs] == [failed["run"], partial["run"], rejects["run"], fine["run"]]
    assert [run["status"] for run in runs] == ["failed", "ok", "rejects", "ok"]
    assert [(run["exit_code"], run["partial"]) for run in runs] == [(2, False), (0, True), (3, False), (0, False)]
    assert {run["schema"] for run in runs} == {"loader.runs/v1"}
    assert {(run["by"], run["slot"], run["full"]) for run in runs} == {("hand", None, True)}
    for name in ("rows", "bytes", "seconds", "chunks", "error"):
        assert [run[name] for run in runs] == [each[name] for each in (failed, partial, rejects, fine)]
    assert all(before - 1 < _seconds(run["began"]) < time.time() for run in runs)
    assert [run["run"] for run in desk.run("runs", "t", "-n", "1", "-o", "json").documents] == [partial["run"]]

    text = desk.run("runs", "t", "gone").out
    assert [line.split()[4] for line in text.splitlines()[1:] if not line.startswith("  ")] == [
        "failed",
        "ok",
        "rejects",
        "ok",
    ]
    assert ".gone' doesn't exist" in " ".join(text.split())
    assert desk.run("runs", "u").out == "no runs yet\n"


def _seconds(moment):
    return time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone


def test_stopped_and_bounded(world):
    """A run that was stopped is kept as such; of many runs the newest are kept, and the last success however old."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1),(2),(3)")
    carry_out(world, table="t")
    success = history(world).last()[0]
    timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM))
    timer.start()
    stopped = carry_out(world, options=Options(rate=1, workers=1), table="t", chunk_rows=1)
    for _ in range(KEPT):
        world.redis.lpush("loader:{job}:runs", "from another world")
    failed = carry_out(world, table="none")

    assert (stopped.status, stopped.exit_code) == ("stopped", 143)
    with RedisClient(world.config(table="t").target) as target:
        entries = History(target, "job").last(KEPT)
        assert [entry.run for entry in entries] == [failed.id]
        assert History(target, "job").success() == success
    assert world.redis.llen("loader:{job}:runs") == KEPT


def test_a_part_is_no_success(world):
    """A run that left rows of the job out is in its history, and no success of it."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1),(2)")
    done = carry_out(world, options=Options(where="id = 1"), table="t")
    assert (done.status, done.written) == ("ok", 1)
    entry = history(world).last()[0]
    assert (entry.run, entry.partial, entry.is_success) == (done.id, True, False)
    assert history(world).success() is None


def test_history_is_no_condition(world):
    """A run goes well where its history cannot be written, and says so; one that the lock refuses leaves no trace."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    world.redis.set("loader:{job}:runs", "no list")
    ear = Ear()

    run = carry_out(world, ear, table="t")

    (note,) = [event.text for event in ear.events if isinstance(event, Notice)]
    assert (run.status, run.exit_code, "WRONGTYPE" in note) == ("ok", 0, True)
    world.redis.delete("loader:{job}:runs")
    settings = world.config(table="t").target
    with RedisClient(settings) as target:
        lock = Lock(settings, "job", "another")
        lock.take(target)
        assert carry_out(world, table="t").exit_code == 5
        lock.drop(target)
    assert world.redis.exists("loader:{job}:runs") == 0


def test_status(desk):
    """`status` tells how each job is doing, on a line and as JSON, and who runs it now."""
    world = desk.world
    jobs = {
        "stu": {"table": "stu", "key": "stu_{sid}", "schedule": {"every": "1h"}, "max_age": "1d"},
        "a-job-with-quite-a-long-name": {"table": "absent", "key": "a_{id}"},
        "fresh": {"table": "fresh", "key": "f_{id}"},
    }
    desk.write(jobs)
    done = sync(desk, "stu")
    sync(desk, "a-job-with-quite-a-long-name")
    settings = world.config(table="t").target

    stu, long, fresh = desk.run("status", "-o", "json").documents
    with RedisClient(settings) as target:
        lock = Lock(settings, "stu", "run-under-way")
        lock.take(target)
        running = desk.run("status", "stu", "-o", "json").document
        shown = desk.run("status")
        lock.drop(target)

    assert [each["state"] for each in (stu, long, fresh, running)] == ["ok", "failed", "never", "running"]
    assert (stu["schema"], stu["last"]["run"], stu["success"]["run"]) == ("loader.status/v1", done["run"], done["run"])
    assert 0 <= stu["success"]["age"] < 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00Z", stu["next"])
    assert (stu["rejects"], stu["late"], stu["running"], fresh["last"], fresh["next"]) == (0, False, [], None, None)
    assert (running["running"][0]["run"], running["running"][0]["part"]) == ("run-under-way", "1/1")
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^stu +running +\d+s ago +5 +\d\.\d\ds +\d+s ago +in \d+[ms] +- +0$", shown.out, re.MULTILINE)
    assert re.search(r"^  run run-under-way on .+, pid \d+, since ", shown.out, re.MULTILINE)
    assert re.search(r"^a-job-with-quite-a-long-name +failed .*\n  .*absent'", shown.out, re.MULTILINE)
    assert shown.out.splitlines()[-1] == "3 jobs: 1 running, 1 never, 1 failed (a-job-with-quite-a-long-name)"
    assert "jobs:" not in desk.run("status", "stu").out
    assert desk.run("status", "nix").code == 2


def test_status_of_many_jobs(desk, monkeypatch):
    """Hundreds of jobs take a few pipelines, not a round trip for each; the summary names those to look at."""
    jobs = {f"job{number}": {"table": "stu", "key": f"job{number}_{{sid}}"} for number in range(300)}
    desk.write(jobs | {f"bad{number}": {"table": "absent", "key": f"bad{number}_{{id}}"} for number in range(4)})
    config = load_config([desk.directory / "loader.yaml"])
    asked = []
    commands = RedisClient.commands
    monkeypatch.setattr(
        RedisClient,
        "commands",
        lambda self, node, words, **how: asked.append(node) or commands(self, node, words, **how),
    )
    for number in range(4):
        execute(config, config.jobs[f"bad{number}"], Options(), Ear())
    with RedisClient(config.target) as target:
        asked.clear()
        statuses = job_statuses(target, config, list(config.jobs.values()))
    assert len(asked) == len(set(asked)) <= 3
    assert [status.job for status in statuses] == list(config.jobs)
    lines = status_text(statuses).splitlines()
    assert lines[-1] == "304 jobs: 300 never, 4 failed (bad0, bad1, bad2, …)"


def test_watch_shows_what_needs_attention_first(desk):
    """A terminal may be too short for all jobs; otherwise they stand as in the config."""
    desk.write(STU | {"bad": {"table": "absent", "key": "a_{id}"}})
    assert desk.run("sync", "--all").code == 2
    assert [line.split()[0] for line in desk.run("status").out.splitlines()[1:3]] == ["stu", "bad"]
    process = desk.start("status", "--watch")
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    finish(process)
    assert (lines[0].split()[0], lines[1].split()[0]) == ("job", "bad")


def test_status_unreachable(desk):
    """Where Redis cannot be reached, nothing can be told: exit code 4."""
    desk.write(target={"url": f"redis://{HOST}:1"})

    assert (desk.run("status").code, desk.run("runs").code) == (4, 4)


def test_watch(desk):
    """`status --watch` looks again and again, and ends by Ctrl-C with 130 and no more words."""
    sync(desk, "stu")
    process = desk.start("status", "--watch", "-o", "json")
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)

    result = finish(process)

    assert [line["state"] for line in lines] == ["ok", "ok"]
    assert (result.code, result.err) == (130, "")


def test_late(world):
    """A job is late by its `max_age`, or where a slot has passed without a success; never before its first run."""
    with_age = world.config(table="t", max_age="1m").jobs["job"]
    hourly = world.config(table="t", schedule={"every": "1h", "jitter": "10s"}).jobs["job"]
    plain = world.config(table="t").jobs["job"]
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    carry_out(world, table="t")
    with RedisClient(world.config(table="t").target) as target:
        entry = History(target, "job").success()
    slot = next_time(hourly.schedule, entry.began)

    assert 0 < slot - entry.began <= 3600
    assert slot % 3600 == 0
    for job, moment, late in (
        (with_age, entry.ended + 59, False),
        (with_age, entry.ended + 61, True),
        (hourly, slot + OVERDUE + 9, False),
        (hourly, slot + OVERDUE + 11, True),
        (plain, entry.ended + 1e6, False),
    ):
        assert is_late(job, entry, entry, moment) is late
    assert not is_late(with_age, None, None, 1e10)
    assert is_late(with_age, entry, None, entry.ended)
    assert not is_late(hourly, entry, replace(entry, began=LATEST), entry.ended)
    for job, late in ((with_age, True), (hourly, True), (plain, False)):
        assert is_late(job, entry, entry, entry.ended - SKEW - 1) is late  # it is in the future
        assert not is_late(job, entry, entry, entry.ended - SKEW + 1)


def test_times_are_told_by_the_clock_of_the_target(desk, monkeypatch):
    """However wrong that of a loader is; a success in the future is said to be one, and its age is not negative."""
    desk.write({"stu": {"table": "stu", "key": "stu_{sid}", "max_age": "1h"}})
    now = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + 200)
        assert sync(desk, "stu")["status"] == "ok"
    document = desk.run("status", "-o", "json").document
    assert (document["state"], document["late"], document["problem"]) == ("ok", False, None)
    assert abs(_seconds(document["success"]["ended"]) - now()) < 20
    key = "loader:{stu}:success"
    success = json.loads(desk.world.redis.get(key))
    desk.world.redis.set(key, json.dumps(success | {"ended": now() + 200}))
    desk.world.redis.set("loader:{stu}:slot", json.dumps({"slot": int(now()) + 300, "run": "x"}))
    document = desk.run("status", "-o", "json").document
    assert (document["state"], document["late"], document["success"]["age"]) == ("late", True, 0.0)
    assert "3m in the future by redis's clock" in document["problem"]
    (found,) = [each for each in desk.run("doctor", "-o", "json").document["checks"] if each["check"] == "job.times"]
    assert found["status"] == "warn"
    assert re.search(r"its last success by (19|20)\d s and the last slot that was done by (29|30)\d s", found["seen"])


def test_one_line_a_run(desk):
    """Where logs are lines, a run ends with one that has everything; each of its lines has its job and its run."""
    world = desk.world
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1),(2),(3)")
    desk.write({"t": {"table": "t"}, "gone": {"table": "gone"}})
    world.redis.set("t_2", "taken")

    result = desk.run("--log-level", "debug", "sync", "t", "gone", "-o", "json", "--rate", "20", "--chunk-rows", "1")

    done, failed = result.documents
    lines = log_lines(result)
    first, second = [line for line in lines if line["event"] == "run"]
    assert {(line["job"], line["run"]) for line in lines} == {("t", done["run"]), ("gone", failed["run"])}
    assert any(line["event"] == "chunk loaded" for line in lines)
    assert (lines[0]["event"], lines[-1]["event"]) == ("run begins", "run")
    assert first["waits"].pop("rate") > 0
    assert {name: first[name] for name in ("status", "exit_code", "by", "full", "level")} == {
        "status": "rejects",
        "exit_code": 3,
        "by": "hand",
        "full": True,
        "level": "warning",
    }
    rows = {name: first[name] for name in ("read", "written", "unchanged", "deleted", "rejected")}
    assert rows == done["rows"] | {"rejected": 1}
    assert (first["bytes"], first["seconds"], first["nodes"]) == (done["bytes"], done["seconds"], done["nodes"])
    assert (first["chunks"], first["chunks_done"], first["starts"]) == (3, 3, 1)
    assert first["rows_per_second"] == pytest.approx(3 / done["seconds"], abs=1)
    assert (first["rejects_listed"], "error" in first, "slot" in first) == (1, False, False)
    assert (second["status"], second["level"]) == ("failed", "error")
    assert failed["error"] == f"job 'gone': {second['error']}"
    assert not log_lines(desk.run("sync", "t", "--progress", "none"))
    console = desk.run("--log-format", "console", "sync", "t").err
    assert re.search(r"^\d\d:\d\d:\d\d t rejects \d of \d written, 1 rejected, ", console, re.MULTILINE)


def test_library_lines():
    """What a library logs takes the same form as our own lines, with its traceback."""
    program = (
        "import logging\n"
        "from loader.report.log import Log\n"
        "Log('json', 'info', False).take_over()\n"
        "logging.getLogger('some.library').info('quiet')\n"
        "try:\n  1 / 0\n"
        "except ZeroDivisionError:\n  logging.getLogger('some.library').exception('it %s', 'broke')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert (line["event"], line["logger"], line["level"]) == ("it broke", "some.library", "error")
    assert "ZeroDivisionError" in line["exception"]


def test_lines_that_nobody_takes(monkeypatch):
    """A log on a full disk, or into a pipe without a reader, ends neither a run nor the daemon."""

    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = isatty = lambda *_: False

    monkeypatch.setattr(sys, "stderr", Full())
    log = Log("json", "debug", color=False)
    log.logger("stu", "r1").info("run")
    Reporter("stu", "log", log).notify(RunBegan("stu", "r1"))
    record = logging.LogRecord("uvicorn", logging.ERROR, "x.py", 1, "broken", None, None)
    log_module._Handover(log.logger()).handle(record)


def test_events_of_a_run(world):
    """A run tells its listener of its begin first and of its end last, with the slot that it was scheduled for."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    config, ear = world.config(table="t"), Ear()

    run = execute(config, config.jobs["job"], Options(slot=120), ear)

    assert ear.events[0] == RunBegan("job", run.id, 120)
    assert ear.events[-1] == RunEnded(run)
    assert (run.by, run.slot) == ("schedule", 120)
    with RedisClient(config.target) as target:
        (entry,) = History(target, "job").last()
    assert (entry.run, entry.by, entry.slot, entry.rows["written"]) == (run.id, "schedule", 120, 1)


def test_fault_of_ours(world, monkeypatch):
    """A run that breaks by a fault of this program is failed, and its end is told, before the fault is raised."""

    def broken(*_):
        raise ZeroDivisionError("a row's value")

    monkeypatch.setattr("loader.jobs.execute.run_job", broken)
    ear = Ear()

    with pytest.raises(ZeroDivisionError):
        carry_out(world, ear, table="t")

    assert (ear.events[-1].run.status, ear.events[-1].run.error) == ("failed", "unexpected ZeroDivisionError")
    with RedisClient(world.config(table="t").target) as target:
        assert History(target, "job").last()[0].error == "unexpected ZeroDivisionError"


def test_metrics(world):
    """Metrics say what the runs did, to the row; those of a job that is no more are gone; promtool likes them."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1),(2),(3)")
    world.redis.set("t_2", "taken")
    metrics = Metrics()
    metrics.keep({"job": 60, "other": None})
    begin = time.time()

    runs = [carry_out(world, metrics.listen("job"), table="t", chunk_rows=1) for _ in range(2)]
    failed = carry_out(world, metrics.listen("job"), table="gone")
    metrics.started("job", int(begin), 2.0)
    metrics.skipped("job", int(begin), Reason.RUNNING, 3)
    metrics.rescheduled("job", begin + 60)
    metrics.recall({"other": begin - 90})
    metrics.skipped("other", int(begin) - 60, Reason.ELSEWHERE, 1)
    metrics.recall({"other": begin - 80})
    text = metrics.render().decode()

    assert (failed.status, [run.status for run in runs]) == ("failed", ["rejects", "rejects"])
    assert sample(text, "loader_runs_total", job="job", status="rejects") == 2
    assert sample(text, "loader_runs_total", job="job", status="failed") == 1
    assert sample(text, "loader_runs_total", job="other", status="ok") == 0
    assert sample(text, "loader_read_rows_total", job="job") == 6
    for outcome, rows in (("written", 4), ("rejected", 2), ("unchanged", 0)):
        assert sample(text, "loader_rows_total", job="job", outcome=outcome) == rows
    assert sample(text, "loader_written_bytes_total", job="job") == sum(run.bytes for run in runs)
    for node, rows in runs[0].nodes.items():
        assert sample(text, "loader_node_rows_total", job="job", node=node) == 2 * rows
    assert sample(text, "loader_run_duration_seconds_count") == 3
    assert sample(text, "loader_run_duration_seconds_sum") == pytest.approx(sum(run.seconds for run in (*runs, failed)))
    assert sample(text, "loader_last_run_duration_seconds", job="job") == pytest.approx(failed.seconds)
    assert begin < sample(text, "loader_last_success_timestamp_seconds", job="job") < time.time()
    assert sample(text, "loader_last_success_timestamp_seconds", job="other") == int(begin) - 60
    assert sample(text, "loader_next_run_timestamp_seconds", job="job") == pytest.approx(begin + 60)
    assert sample(text, "loader_skipped_runs_total", job="job", reason="running") == 3
    assert sample(text, "loader_run_delay_seconds_sum") == 2
    assert (sample(text, "loader_running", job="job"), sample(text, "loader_rejects", job="job")) == (0, 1)
    assert [sample(text, "loader_max_age_seconds", job=job) for job in ("job", "other")] == [60, None]
    if PROMTOOL:
        assert promtool("check", "metrics", text=text) == ""

    metrics.keep({"job": None, "other": 30})
    text = metrics.render().decode()
    assert [sample(text, "loader_max_age_seconds", job=job) for job in ("job", "other")] == [None, 30]

    metrics.keep({"other": None})
    carry_out(world, metrics.listen("job"), table="t")
    metrics.skipped("job", int(begin), Reason.RUNNING, 1)
    metrics.rescheduled("job", None)
    assert 'job="job"' not in metrics.render().decode()
    assert 'job="other"' in metrics.render().decode()


def test_metrics_of_waiting():
    """Failures are counted by the node that caused them, waiting by its reason, a run under way as such."""
    metrics = Metrics()
    listener = metrics.listen("job")
    listener.notify(RunBegan("job", "r"))
    listener.notify(Waiting(None, 1, 0.1, "redis n:1: gone", "n:1"))
    listener.notify(Waiting(None, 1, 0.1, "mysql is gone"))
    throttle = Throttle()
    listener.expect(None, throttle)
    throttle.sleep(0.01, "retry")
    listener.notify(None)
    under_way = metrics.render().decode()
    metrics.keep({})
    metrics.keep({"job": None})  # a reload took the job away amid its run, and another one brought it back
    listener.notify(RunEnded(Run("job", "r", waits={"retry": 5.0})))
    over = metrics.render().decode()

    assert sample(under_way, "loader_node_errors_total", node="n:1") == 1
    assert (sample(under_way, "loader_running", job="job"), sample(over, "loader_running", job="job")) == (1, 0)
    assert 0.01 <= sample(under_way, "loader_throttled_seconds_total", job="job", reason="retry") < 1
    assert sample(over, "loader_throttled_seconds_total", job="job", reason="retry") == pytest.approx(5, abs=0.5)


def test_waits_are_counted():
    """A throttle counts the seconds that workers wait, by reason; what does not wait costs nothing."""
    throttle = Throttle(rate=100)
    throttle.pace(10)
    throttle.pace(1)
    throttle.spare("n:1", 0.05)
    throttle.pace(0)
    throttle.sleep(0.01, "retry")
    throttle.sleep(0.01)

    waited = throttle.waited()

    assert waited.keys() == {"rate", "slow node", "retry"} or waited.keys() == {"rate", "retry"}
    assert waited["rate"] == pytest.approx(0.1, abs=0.08)


@pytest.fixture
def served(world):
    """The pages of a server whose MySQL is the lab's and whose Redis can be stopped."""
    started = []

    def serve(target=None, listen=f"{HOST}:0"):
        config = world.config(table="t")
        health = Health([config.source], config.target.model_copy(update=target or {}))
        web = Web(listen, routes(Metrics(), health))
        web.start()
        started.append(web)
        return web, health

    yield serve
    for web in started:
        web.stop()


def test_pages(world, served):
    """`/metrics` is what Prometheus reads; both sides answer, so the daemon is ready, until it stops."""
    web, health = served()

    status, headers, body = get(web.port, "/metrics")
    ready = get(web.port, "/readyz")
    health.stop()
    stopping = get(web.port, "/readyz")

    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert "loader_build_info{" in body
    assert (ready[0], json.loads(ready[2])) == (200, {"status": "ok", "reasons": []})
    assert (stopping[0], json.loads(stopping[2])["reasons"]) == (503, ["the daemon is stopping"])
    assert get(web.port, "/livez")[0] == 200
    assert get(web.port, "/")[0] == 404
    assert "server" not in headers


def test_called_by_another_name(served):
    """A name that others could have stand for this machine is refused; addresses, its own, the configured are not."""
    web, _ = served()
    web.hosts = ("loader", "Cache.Example")

    for own in (
        HOST,
        "10.1.2.3:80",
        "[::1]:9462",
        "localhost",
        "LOCALHOST.:1",
        socket.gethostname(),
        "loader:9462",
        "cache.example",
    ):
        assert get(web.port, "/livez", Host=own)[0] == 200
    for path in ("/metrics", "/livez", "/readyz", "/nowhere"):
        refused = get(web.port, path, Host="evil.example:9462")
        assert refused[0] == 400
        assert refused[2] == "this daemon does not go by the name 'evil.example': add it to daemon.hosts\n"
    for foreign in ("localhost.evil.example", "127.0.0.1.evil.example", "loader.evil.example", "[evil]", "1", "@"):
        assert get(web.port, "/metrics", Host=foreign)[0] == 400


def test_requests_without_sense_are_no_warnings(served, caplog):
    """Who asks for a WebSocket, or for nothing that is HTTP, is answered, and does not fill the log."""
    web, _ = served()
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    for asked in (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % upgrade, b"\0nothing\r\n\r\n"):
        with socket.create_connection((HOST, web.port)) as connection:
            connection.settimeout(30)
            connection.sendall(asked)
            assert connection.recv(9) == b"HTTP/1.1 "

    assert caplog.records == []


def test_idle_connections(served, monkeypatch):
    """Who connects and says nothing is left soon, and takes no more than so many places: the rest is served."""
    monkeypatch.setattr(room, "SILENT", 1.0)
    monkeypatch.setattr(room, "CONNECTIONS", 20)
    web, _ = served()
    idle = [socket.create_connection((HOST, web.port)) for _ in range(40)]
    try:
        for each in idle:
            each.settimeout(30)
        for each in idle[25:]:
            assert each.recv(1) == b""  # closed at once
        for each in idle[:15]:
            assert each.recv(1) == b""  # closed a second later
        assert get(web.port, "/livez")[0] == 200
    finally:
        for each in idle:
            each.close()


def test_a_reload_waits_for_no_server(world, monkeypatch):
    """Other servers are asked from now on, though the ones before are being waited for."""
    config = world.config(table="t")
    health = Health([config.source], config.target)
    waiting, release = threading.Event(), threading.Event()

    def ask(source, target):
        waiting.set()
        release.wait(60)
        return ["of the servers before"]

    monkeypatch.setattr(health, "_ask", ask)
    thread = threading.Thread(target=health.reasons)
    thread.start()
    assert waiting.wait(30)
    health.configure([config.source], config.target)
    assert thread.is_alive()  # it is still waited for
    release.set()
    thread.join(30)
    monkeypatch.setattr(health, "_ask", lambda source, target: [])
    assert health.reasons() == []


def test_serving(world):
    """What the daemon shows: jobs of the config alone, successes of before its start, and nothing where it must not."""
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    carry_out(world, table="t")
    config = world.config(table="t", schedule={"every": "1h"})
    config = config.model_copy(update={"daemon": config.daemon.model_copy(update={"listen": f"{HOST}:0"})})
    serving = Serving(config, Nobody())
    serving.start()
    try:
        wait(lambda: "loader_last_success_timestamp_seconds{" in get(serving.port, "/metrics")[2], "the last success")
        ear = Ear()
        execute(config, config.jobs["job"], Options(slot=60), serving.listen("job", ear))
        text = get(serving.port, "/metrics")[2]
        assert sample(text, "loader_runs_total", job="job", status="ok") == 1
        assert isinstance(ear.events[-1], RunEnded)
        assert get(serving.port, "/livez", Host="loader")[0] == 400
        known = config.daemon.model_copy(update={"hosts": ("loader",)})
        serving.configure(world.config(table="t").model_copy(update={"daemon": known}))
        assert get(serving.port, "/livez", Host="loader")[0] == 200
        assert 'job="job"' not in get(serving.port, "/metrics")[2]
        serving.leave()
        assert get(serving.port, "/readyz")[0] == 503
    finally:
        serving.stop()
    silent = config.model_copy(update={"daemon": config.daemon.model_copy(update={"listen": None})})
    assert Serving(silent, Nobody()).port is None


def test_readiness(world, tmp_path):
    """While a side is away, `/readyz` says 503 and why, without a secret; `/livez` says 200; then all is well again."""
    config = world.config(table="t")
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as port:
        target = type(config.target).model_validate({"url": f"redis://{HOST}:{port}", "password": None})
        broken = type(config.source).model_validate(
            {"url": f"mysql://loader@{HOST}:1/{world.name}", "password": "S3CR3T"}
        )
        health = Health([config.source], target)
        web = Web(f"{HOST}:0", routes(Metrics(), health))
        web.start()
        try:
            assert get(web.port, "/readyz")[0] == 200
            health.configure([broken], target)
            code, _, body = get(web.port, "/readyz")
            (reason,) = json.loads(body)["reasons"]
            assert (code, reason.startswith(f"mysql {HOST}:1"), "S3CR3T" in body) == (503, True, False)
            health.configure([config.source], target)
            with redis.Redis(HOST, port) as client:
                client.shutdown(nosave=True)
            code, _, body = get(web.port, "/readyz")
            assert (code, json.loads(body)["reasons"][0].startswith(f"redis {HOST}:{port}")) == (503, True)
            assert get(web.port, "/livez")[0] == 200
        finally:
            web.stop()


def test_listening(world, served):
    """A port in use is one clear error; without a host, all addresses are meant."""
    web, _ = served(listen=":0")

    assert get(web.port, "/livez")[0] == 200
    with pytest.raises(LoaderError, match=f"cannot listen at {HOST}:{web.port}: Address already in use"):
        served(listen=f"{HOST}:{web.port}")
    with pytest.raises(LoaderError, match=r"cannot listen at 192\.0\.2\.1:0"):
        served(listen="192.0.2.1:0")


def test_chunks_are_counted_as_they_come():
    """A long run is seen while it goes: its chunks count as they are loaded, and once only."""
    metrics = Metrics()
    listener = metrics.listen("job")
    listener.notify(ChunkLoaded(None, 5, 5, (), {"n:1": 5}, 100, 0.1, 0.0))

    text = metrics.render().decode()

    assert sample(text, "loader_rows_total", job="job", outcome="written") == 5
    assert sample(text, "loader_node_rows_total", job="job", node="n:1") == 5


def test_the_docs_name_metrics_that_there_are():
    """An alert copied from docs/daemon.md can fire."""
    page = (Path(__file__).parents[2] / "docs" / "daemon.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bloader_[a-z_]+[a-z]\b", page))
    there = set(re.findall(r"^# TYPE (\S+)", Metrics().render().decode(), re.MULTILINE))
    assert named
    assert named - there == set()
