"""The daemon, as systemd starts it: jobs at their times, signals, a second daemon, and what it leaves."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from loader.config.load import load_config
from loader.daemon.clocks import Clocks
from loader.daemon.service import FINISH, Daemon
from loader.errors import Kind, LoaderError
from loader.lab.process import wait
from loader.model import ChunkLoaded, Notice, Run
from loader.outcome import Status
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from loader.pipeline.throttle import StopRequest
from loader.report.log import Log
from support.command import HOST, Desk
from support.daemons import daemon
from support.database import Ear

SERVICE = Path(__file__).parents[2] / "deploy" / "systemd" / "loader.service"
EVERY_SECOND = {"table": "stu", "key": "stu_{sid}", "schedule": {"every": "1s"}}


class Told:
    """What systemd is told, read as it comes: a daemon waits for a queue that is full."""

    def __init__(self, door):
        self._door = door
        self._texts = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while not self._texts or not self._texts[-1].startswith("STOPPING=1"):
            self._texts.append(self._door.recv(1000).decode())

    def first(self):
        wait(lambda: self._texts, "systemd to be told")
        return self._texts[0]

    def end(self):
        self._reader.join(10)
        return self._texts


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def slot_of(desk, job="stu"):
    return json.loads(desk.world.redis.get(f"loader:{{{job}}}:slot"))["slot"]


def test_jobs_run_at_their_times_and_a_sleep_is_accounted_for(desk):
    """What changed is in Redis after the next slot; the slots of a sleep are counted; SIGTERM ends with 0, at once."""
    desk.write({"stu": EVERY_SECOND})
    with daemon(desk) as running:
        first = running.until("run")[0]
        assert first["read"] == first["written"] == 5
        desk.world.sql("UPDATE stu SET sname = 'new' WHERE sid = 1")
        running.until("run", len(running.of("run")) + 2)
        assert desk.world.redis.hget("stu_00000001", "sname") == b"new"
        running.send(signal.SIGSTOP)
        began = time.time()
        time.sleep(2.3)
        running.send(signal.SIGCONT)
        (skipped,) = running.until("slot skipped", reason="coalesced")[:1]
        assert 1 <= skipped["count"] <= time.time() - began
        running.until("run", len(running.of("run")) + 1)
        seconds, code = running.end()
    assert (code, seconds < FINISH) == (0, True)
    slots = [line["slot"] for line in running.of("run")]
    assert len(set(slots)) == len(slots)
    assert began < slot_of(desk) <= time.time()


def test_sigterm_lets_chunks_finish_and_the_next_daemon_goes_on(desk):
    """The checkpoint is saved, exit 0 within seconds; the run is taken up for the same slot, and nothing is missing."""
    desk.world.sql(
        "CREATE TABLE slow (id int PRIMARY KEY)",
        f"INSERT INTO slow VALUES {','.join(f'({number})' for number in range(1, 201))}",
    )
    job = {"table": "slow", "key": "slow_{id}", "fields": {"id": "id", "nap": "IF(id > 20, SLEEP(0.05), 0)"}}
    desk.write({"slow": job | {"chunk_rows": 20, "schedule": {"every": "2s"}}})
    with daemon(desk) as running:
        wait(lambda: desk.world.redis.exists("slow_1"), "the first chunk")
        seconds, code = running.end()
    (ended,) = running.of("run")
    assert (code, ended["status"]) == (0, "stopped")
    assert seconds < FINISH
    assert ended["read"] == ended["written"]
    assert ended["read"] % 20 == 0
    assert ended["read"] >= 40  # the first chunk, and one that was under way
    assert len([key for key in desk.contents() if key.startswith(b"slow_")]) == ended["read"] < 200
    desk.write({"slow": job | {"chunk_rows": 20, "schedule": {"every": "1d"}}})  # no other slot comes meanwhile
    with daemon(desk) as running:
        (again,) = running.until("run")[:1]
        assert (again["slot"], again["status"], again["resumed"]) == (ended["slot"], "ok", True)
        assert again["read"] == 200 - ended["read"]
        running.end()
    assert len([key for key in desk.contents() if key.startswith(b"slow_")]) == 200


def test_sighup_and_what_systemd_is_told(desk, tmp_path):
    """A good config takes effect; a broken one, or one without a schedule, is refused, and the old one kept."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"loader-{os.getpid()}-{time.monotonic_ns()}"
    door.bind(f"\0{name}")
    desk.write({"stu": EVERY_SECOND})
    with door, daemon(desk, NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="2000000") as running:
        told = Told(door)
        assert told.first().startswith("READY=1\n")
        running.until("run")
        desk.text("version: 1\njobs: {stu: {tabel: x}}")
        running.send(signal.SIGHUP)
        errors = [line["error"] for line in running.until("config refused, the old one is kept", 2)]
        assert any("unknown key; did you mean table?" in error for error in errors)
        desk.write({"stu": {"table": "stu", "key": "stu_{sid}"}})
        running.send(signal.SIGHUP)
        running.until("config refused, the old one is kept", len(errors) + 1)
        assert "no job has a schedule" in running.of("config refused, the old one is kept")[-1]["error"]
        running.until("run", len(running.of("run")) + 1, job="stu")
        desk.write({"two": EVERY_SECOND | {"key": "two_{sid}"}})
        running.send(signal.SIGHUP)
        running.until("config reloaded")
        running.until("run", job="two")
        assert running.end()[1] == 0
        texts = told.end()
    assert "WATCHDOG=1" in texts
    assert len([text for text in texts if text.startswith("RELOADING=1\nMONOTONIC_USEC=")]) == 3
    assert len([text for text in texts if text.startswith("READY=1")]) == 4


def test_systemd_that_does_not_read(desk):
    """The daemon goes on, and ends when it is stopped, although nobody takes its notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        name = f"loader-{os.getpid()}-{time.monotonic_ns()}"
        door.bind(f"\0{name}")
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other,
            suppress(BlockingIOError),
        ):
            while True:
                other.sendto(b"full", f"\0{name}")
        desk.write({"stu": EVERY_SECOND})
        with daemon(desk, NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="2000000") as running:
            running.until("run", 3)
            assert running.end()[1] == 0


def test_of_two_daemons_one_runs_each_slot_and_the_other_takes_over(desk):
    """Also where a slot is done before the other looks; the one that is left goes on alone."""
    others = ("done elsewhere", "locked, looked at again soon")
    desk.write({"stu": EVERY_SECOND})
    with daemon(desk) as one, daemon(desk) as two:
        wait(lambda: len(one.of("run") + two.of("run")) >= 3, "three runs")
        wait(lambda: any(each.of(event) for each in (one, two) for event in others), "one that the other has")
        one.end(signal.SIGKILL)
        ran = len(two.of("run"))
        two.until("run", ran + 2)
        assert two.end()[1] == 0
    slots = [line["slot"] for running in (one, two) for line in running.of("run")]
    assert len(set(slots)) == len(slots)


def test_what_was_cut_off_is_taken_up(desk):
    """A run that began for a slot and did not end well, whatever its job keeps, is run when a daemon starts."""
    slot = int(time.time()) - 3600
    desk.write({"stu": EVERY_SECOND | {"schedule": {"cron": "0 0 1 1 *"}, "changed_only": True}})
    desk.world.redis.set("loader:{stu}:slot", json.dumps({"slot": slot - 60, "begun": slot}))
    with daemon(desk) as running:
        (run,) = running.until("run")
        assert running.end()[1] == 0
    assert (run["status"], run["late_seconds"] > 3600) == ("ok", True)
    assert slot_of(desk) == slot


def test_a_failed_job_does_not_stop_the_others(desk):
    """A table that is not there fails its job, with one line and no traceback; the daemon and other jobs go on."""
    lost = {"table": "lost", "key": "lost_{id}", "schedule": {"every": "1s"}}
    desk.write({"lost": lost, "stu": EVERY_SECOND})
    with daemon(desk) as running:
        failed = running.until("run", job="lost", status="failed")[0]
        assert failed["exit_code"] == 2
        assert "lost" in failed["error"]
        running.until("run", job="stu", status="ok")
        assert running.end(signal.SIGINT)[1] == 0


def test_a_slot_is_done_once_whatever_the_clocks_say(world):
    """Asked under the lock, by the target's clock: what was done for a time to come does not count, and is told of."""
    world.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu")
    config = world.config(table="stu", key="stu_{sid}")

    def run(slot):
        ear = Ear()
        done = run_job(config, config.jobs["job"], Options(slot=slot, resume=True), ear)
        return done, [event.text for event in ear.events if isinstance(event, Notice)]

    now = int(time.time())
    assert run(now)[0].written == 5
    for slot in (now - 1, now):
        done, _ = run(slot)
        assert (done.outcome.kind, done.exit_code, done.read) == (Kind.DONE, 5, 0)
        assert "was done for" in done.error
    assert run(now + 200)[0].written == 5  # of a daemon that is ahead, and has done no more than what has come
    done, told = run(int(time.time()) + 1)
    assert (done.written, told) == (5, [])
    world.redis.set("loader:{job}:slot", json.dumps({"slot": now + 200, "run": "x", "host": "fast", "pid": 1}))
    done, told = run(int(time.time()))  # the version before has noted it as done
    assert done.written == 5
    assert "(host fast, pid 1), does not count: a clock is or was wrong" in told[0]


def test_what_time_it_is_by_the_target(world, monkeypatch):
    """However this machine's clock is set, and by its own as long as the target has not been asked."""
    now, target = time.time, world.config(table="stu").target
    monkeypatch.setattr(time, "time", lambda: now() + 200)
    clocks = Clocks()
    assert abs(clocks.now("stu") - now() - 200) < 5
    away = target.model_copy(update={"url": replace(target.url, port=1, others=())})
    with pytest.raises(LoaderError):
        clocks.look(away)
    assert clocks.asked.is_set()
    found = clocks.look(target)
    assert len(found) == 3
    assert all(abs(ahead + 200) < 5 for ahead in found.values())
    monkeypatch.setattr(time, "time", lambda: now() - 1000)
    assert abs(clocks.now("stu") - now()) < 5


def test_a_checkpoint_of_another_slot_is_forgotten(world):
    """What was read for an earlier slot is old; and a checkpoint of another plan does not fail a schedule for ever."""
    world.sql("CREATE TABLE stu LIKE test.stu", "INSERT INTO stu SELECT * FROM test.stu")
    config = world.config(table="stu", key="stu_{sid}", chunk_rows=1)

    def run(slot, halt_after=None, fields=None, **more):
        job = config.jobs["job"].model_copy(update={"fields": fields})
        job.take_name("job")
        halt, ear = StopRequest(), Ear()
        ear.notify = lambda event: setattr(halt, "asked", halt_after is not None and isinstance(event, ChunkLoaded))
        return run_job(config, job, Options(slot=slot, halt=halt, workers=1, **{"resume": True} | more), ear)

    stopped = run(1000, halt_after=1)
    assert (stopped.status, stopped.exit_code) == (Status.STOPPED, 143)
    assert 1 <= stopped.read < 5
    again = run(1000)
    assert (again.status, again.resumed, again.read) == (Status.OK, True, 5 - stopped.read)
    assert run(1010, halt_after=1).status is Status.STOPPED
    other = run(1020)
    assert (other.resumed, other.read) == (False, 5)
    assert run(1030, halt_after=1).status is Status.STOPPED
    changed = run(1030, fields=("sid",))
    assert (changed.status, changed.resumed, changed.read) == (Status.OK, False, 5)
    assert run(1040, halt_after=1).status is Status.STOPPED
    assert run(None).resumed  # a person's backfill goes on with it


def test_a_run_that_begins_while_its_job_is_taken_out(desk, monkeypatch):
    """A reload that takes a job out meets a run of it that begins: it has the config that it was begun with."""
    desk.write({"stu": EVERY_SECOND, "other": EVERY_SECOND | {"key": "other_{sid}"}})
    file = desk.directory / "loader.yaml"
    began = Daemon([file], Log("json", "error", color=False), load_config([file]))
    monkeypatch.setattr("loader.daemon.service.execute", lambda config, job, *_: Run(job.name, str(len(config.jobs))))
    ran = []
    monkeypatch.setattr(began.serving, "configure", lambda _: None)
    monkeypatch.setattr(began.schedule, "set", lambda _: ran.extend(began._work(job, 1) for job in ("stu", "other")))
    desk.write({"stu": EVERY_SECOND})
    began._reload()
    assert [(run.job, run.id) for run in ran] == [("stu", "1"), ("other", "2")]


def test_without_a_schedule_there_is_nothing_to_stay_for(desk):
    """Exit 2, which systemd does not try again, with what to write."""
    done = desk.run("daemon")
    (message,) = done.messages
    assert (done.code, message.count("`schedule: {every: 30s}`"), message.count("`follow: true`")) == (2, 1, 1)


def test_the_unit_is_one_that_systemd_understands(tmp_path):
    """No unknown directive, and hardened: systemd's own score is that of a service that is safe."""
    verify = shutil.which("systemd-analyze")
    if not verify:
        pytest.skip("systemd is not here")
    text = SERVICE.read_text(encoding="utf-8").replace("/opt/loader/bin/loader", "/bin/true")
    unit = tmp_path / "loader.service"
    unit.write_text(text, encoding="utf-8")
    done = subprocess.run([verify, "verify", "--man=no", str(unit)], capture_output=True, encoding="utf-8", check=False)
    assert [line for line in done.stderr.splitlines() if "loader.service" in line] == []
    score = [verify, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]  # in tenths, of 96
    done = subprocess.run(score, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0 or "offline" in done.stderr, done.stdout


def test_pages_of_the_daemon(desk):
    """What the daemon serves is what it does: its runs, the next one, and none of a job that a reload took away."""
    desk.write({"stu": EVERY_SECOND}, listen=f"{HOST}:0")
    with daemon(desk) as running:
        port = running.until("daemon started")[0]["port"]
        wait(lambda: 'loader_runs_total{job="stu",status="ok"} 2.0' in page(port, "/metrics")[1], "two runs")
        text = page(port, "/metrics")[1]
        ready, alive = page(port, "/readyz"), page(port, "/livez")
        (line,) = running.of("run")[:1]
        desk.write({"two": EVERY_SECOND}, listen=f"{HOST}:0")
        running.send(signal.SIGHUP)
        running.until("config reloaded")
        running.until("run", job="two")
        later = page(port, "/metrics")[1]
        assert running.end()[1] == 0

    assert (ready[0], alive[0]) == (200, 200)
    assert 'loader_last_run_duration_seconds{job="stu"}' in text
    assert 'loader_next_run_timestamp_seconds{job="stu"}' in text
    assert 'loader_last_success_timestamp_seconds{job="stu"}' in text
    assert (line["by"], line["status"], line["read"]) == ("schedule", "ok", 5)
    assert ('job="stu"' in later, 'job="two"' in later) == (False, True)
    assert [run["by"] for run in desk.run("runs", "two", "-n", "1", "-o", "json").documents] == ["schedule"]
