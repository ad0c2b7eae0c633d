"""What may be done with jobs over HTTP, and by whom; run, pause and retry as the daemon carries them out."""

import http.client
import json
import signal
import time
from urllib.parse import urlencode

import pytest

from loader.daemon.schedule import Schedule
from loader.daemon.service import FINISH
from loader.lab.process import free_ports, wait
from loader.model import Run
from loader.outcome import Reason
from support.command import HOST, Desk, finish
from support.daemons import daemon

TOKEN = "a-token-of-the-tests-0123"
GUARDS = ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy")


@pytest.fixture
def desk(world, tmp_path):
    desk = Desk(world, tmp_path)
    world.sql(
        "CREATE TABLE slow (id int PRIMARY KEY)",
        f"INSERT INTO slow VALUES {','.join(f'({number})' for number in range(1, 201))}",
        "CREATE TABLE score (id int PRIMARY KEY, points int)",
        "INSERT INTO score VALUES (1, 10), (2, 20)",
    )
    desk.port = free_ports(1)[0]
    write(desk)
    return desk


def write(desk, token=TOKEN, port=None):
    nap = {"id": "id", "nap": "SLEEP(0.02)"}
    desk.write(
        {
            "stu": {"table": "stu", "key": "stu_{sid}", "schedule": {"every": "1s"}},
            "slow": {"table": "slow", "key": "slow_{id}", "fields": nap, "chunk_rows": 10},
            "score": {"table": "score"},
        },
        listen=f"{HOST}:{port or desk.port}",
        daemon={"token": token} if token else {},
    )


class Caller:
    """Calls a daemon as a program, or as a browser that keeps its cookie."""

    def __init__(self, port):
        self.port = port
        self.cookie = ""
        self.bodies = []

    def __call__(self, method, path, form=None, **headers):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        if self.cookie:
            headers["Cookie"] = self.cookie
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        body = None
        if form is not None:
            body, headers["Content-Type"] = urlencode(form), "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        for name in GUARDS:
            assert answer.headers[name], (path, name)
        self.bodies.append(text)
        if answer.headers["Set-Cookie"]:
            self.cookie, *more = answer.headers["Set-Cookie"].split("; ")
            assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(more)
        return answer.status, answer.headers, text

    def act(self, job, action, token=TOKEN):
        """As a program: the status, and the document."""
        status, _, text = self("POST", f"/jobs/{job}/{action}", Authorization=f"Bearer {token}")
        return status, json.loads(text)

    def own(self):
        return {"Origin": f"http://{HOST}:{self.port}", "Sec_Fetch_Site": "same-origin"}

    def post(self, path, **form):
        """As a form of a page: the status, and where it leads."""
        status, headers, _ = self("POST", path, form, **self.own())
        return status, headers["Location"]


def state(desk, job="stu"):
    return desk.run("status", job, "-o", "json").document


def test_a_program(desk):
    """With the token it runs jobs, with a schedule or without, not twice at once; it is logged, the token is not."""
    with daemon(desk) as running:
        running.until("daemon started")
        call = Caller(desk.port)
        assert call.act("score", "run") == (202, {"job": "score", "done": "run"})
        wait(lambda: desk.world.redis.exists("score_2"), "the run")
        wait(lambda: state(desk, "score")["last"], "its end")
        assert (state(desk, "score")["last"]["by"], state(desk, "score")["last"]["slot"]) == ("hand", None)
        assert call.act("slow", "run")[0] == 202
        assert call.act("slow", "run")[0] == 409
        assert call.act("slow", "retry")[0] == 409
        desk.world.sql("INSERT INTO score SELECT 1000 + id, 1 FROM slow")
        sync = desk.start("sync", "score", "--rate", "1", "--chunk-rows", "1")  # three minutes
        wait(lambda: state(desk, "score")["state"] == "running", "a run of another process")
        assert call.act("score", "run")[0] == 409
        sync.terminate()
        assert finish(sync).code == 143
        assert call.act("nobody", "run") == (404, {"error": "no job 'nobody' in the config"})
        assert call.act("slow", "run", "wrong")[0] == 401
        assert call("GET", "/jobs/slow/run")[0] == 405
        assert call("POST", "/jobs/slow/erase", Authorization=f"Bearer {TOKEN}")[0] == 404
        assert running.until("action", action="run", by="bearer", done=True, job="slow")
        assert running.until("run", job="slow", status="ok", by="hand")[0]["read"] == 200
        _, code = running.end()
        assert (code, TOKEN in str(running.lines), TOKEN in str(call.bodies)) == (0, False, False)


def test_a_stop_amid_a_run_by_hand(desk):
    """The daemon ends soon, and the run with it."""
    with daemon(desk) as running:
        running.until("daemon started")
        assert Caller(desk.port).act("slow", "run")[0] == 202
        wait(lambda: desk.world.redis.exists("slow_5"), "its first chunk")
        seconds, code = running.end()
        assert (code, seconds < FINISH) == (0, True)
        assert running.of("run", job="slow")[0]["status"] == "stopped"


def test_pause(desk):
    """No daemon runs a paused job by its schedule, after a restart neither; by hand it runs; then it goes on."""
    other = free_ports(1)[0]
    with daemon(desk) as one:
        one.until("run", job="stu")
        write(desk, port=other)
        with daemon(desk) as two:
            two.until("daemon started")
            call = Caller(desk.port)
            assert call.act("stu", "pause")[0] == 202
            assert call.act("stu", "pause")[0] == 202
            one.until("paused", job="stu")
            two.until("paused", job="stu")
            document = state(desk)
            assert (document["state"], abs(time.time() - _seconds(document["paused"])) < 20) == ("paused", True)
            assert "paused since" in desk.run("status", "stu").out
            before = document["last"]["run"]
            one.until("paused", len(one.of("paused", job="stu")) + 2, job="stu")
            assert state(desk)["last"]["run"] == before
            assert call("GET", "/metrics")[2].count('loader_skipped_runs_total{job="stu",reason="paused"}') == 1
            assert not one.of("slot skipped", reason="paused")
            assert desk.run("sync", "stu").code == 0
            assert state(desk)["last"]["run"] != before
            two.end()
        one.end()
    away = f"mysql://marked@{HOST}:1/{desk.world.name}"
    desk.write({"stu": {"table": "stu", "schedule": {"every": "1s"}}}, source={"url": away})
    with daemon(desk) as none:  # MySQL is away: it may have been paused for that
        none.until("paused", 2, job="stu")
        assert not none.of("run")
        none.end()
    write(desk)
    with daemon(desk) as three:
        three.until("paused", job="stu")
        call = Caller(desk.port)
        assert call.act("stu", "resume")[0] == 202
        three.until("run", job="stu", status="ok")
        assert state(desk)["paused"] is None
        three.end()


def _seconds(moment):
    return time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone


def test_a_browser(desk):
    """It signs in, acts and signs out; where it came from is seen to, and what a form is."""
    desk.world.redis.set("score_2", "taken")
    assert desk.run("sync", "score").code == 3
    desk.world.redis.delete("score_2")
    with daemon(desk) as running:
        running.until("daemon started")
        call = Caller(desk.port)
        assert call.post("/jobs/score/retry") == (303, "/sign-in?next=%2Fjobs%2Fscore")
        assert call("GET", "/sign-in?next=%2Fjobs%2Fscore")[0] == 200
        assert 'value="/jobs/score"' in call.bodies[-1]
        assert 'value="/"' in call("GET", "/sign-in?next=//evil.example")[2]
        status, _ = call.post("/sign-in", token="wrong", next="/jobs/score")
        assert (status, "That is not the token" in call.bodies[-1], call.cookie) == (403, True, "")
        foreign = {"Origin": "http://evil.example", "Sec_Fetch_Site": "cross-site"}
        assert call("POST", "/sign-in", {"token": TOKEN}, **foreign)[0] == 403
        assert call.post("/sign-in", token=TOKEN, next="//evil.example") == (303, "/")
        assert call.post("/sign-in", token=TOKEN, next="/jobs/score") == (303, "/jobs/score")
        assert call("POST", "/jobs/score/run", {}, **foreign)[0] == 403
        assert call("POST", "/jobs/score/run", {})[0] == 403
        assert call("POST", "/jobs/score/run", {"a": "x" * 5000}, **call.own())[0] == 413
        assert not running.of("action")
        assert call.post("/jobs/score/retry") == (303, "/jobs/score?done=retry")
        wait(lambda: desk.world.redis.exists("score_2"), "the reject's row")
        assert running.until("rejects were tried again", job="score")[0]["written"] == 1
        assert call.post("/jobs/slow/run") == (303, "/jobs/slow?done=run")
        assert call.post("/jobs/slow/run") == (303, "/jobs/slow?done=busy")
        assert "a run of this job is in progress" in call("GET", "/jobs/slow?done=busy")[2]
        assert call.post("/jobs/nobody/run") == (303, "/jobs/nobody")
        kept = call.cookie
        assert call.post("/sign-out") == (303, "/")
        call.cookie = kept
        assert call.post("/jobs/slow/run")[1].startswith("/sign-in")
        for _ in range(6):
            status, _, text = call("POST", "/sign-in", {"token": "wrong"}, **call.own())
        assert (status, "too many" in text) == (429, True)
        assert call.act("score", "run")[0] == 429
        running.end()
        assert TOKEN not in str(running.lines) + str(call.bodies)


def test_no_token_no_actions(desk):
    """Without a token the routes are not there, and a page has no form; a reload brings and takes them."""
    write(desk, token=None)
    with daemon(desk) as running:
        running.until("daemon started")
        call = Caller(desk.port)

        def answers():
            return {
                call("POST", "/jobs/score/run", Authorization=f"Bearer {TOKEN}")[0],
                call("POST", "/sign-in", {"token": TOKEN}, **call.own())[0],
                call("GET", "/sign-in")[0],
            }

        assert answers() == {404}
        assert "<form" not in call("GET", "/jobs/score")[2]
        assert call("GET", "/sign-in")[0] == 404
        write(desk)
        running.send(signal.SIGHUP)
        running.until("config reloaded")
        assert call.post("/sign-in", token=TOKEN) == (303, "/")
        assert 'action="/jobs/score/run"' in call("GET", "/jobs/score")[2]
        write(desk, token="another-token-0123456789")
        running.send(signal.SIGHUP)
        running.until("config reloaded", 2)
        assert "<form" not in call("GET", "/jobs/score")[2]
        assert call.act("score", "run")[0] == 401
        write(desk, token=None)
        running.send(signal.SIGHUP)
        running.until("config reloaded", 3)
        assert answers() == {404}
        assert call("GET", "/livez")[0] == 200
        running.end()


class Heard:
    def __init__(self):
        self.skips = []

    def skipped(self, job, slot, reason, count):
        self.skips.append((job, reason))

    def __getattr__(self, name):
        return lambda *facts: None


class Every:
    cron, timezone, jitter = None, "UTC", None

    def __init__(self, every):
        self.every = every


def test_hands_take_turns_with_the_schedule():
    """One run of a job at a time, whoever asks; a slot that comes meanwhile is settled; a free place is waited for."""
    began, going, heard = [], [], Heard()
    release = []

    def work(name, slot):
        began.append(name)
        return Run(job=name, id="r")

    def hand(name):
        def act():
            going.append(name)
            wait(lambda: name in release, "the release")
            going.remove(name)

        return act

    schedule = Schedule(work, [heard], 2)
    schedule.set({"a": Every(1)})
    schedule.start()
    assert schedule.by_hand("a", hand("a"))
    assert not schedule.by_hand("a", hand("a"))
    wait(lambda: ("a", Reason.RUNNING) in heard.skips, "a slot that finds it busy")
    assert began == []
    assert schedule.by_hand("b", hand("b"))
    assert schedule.by_hand("c", hand("c"))
    wait(lambda: set(going) == {"a", "b"}, "two places")
    time.sleep(0.2)
    assert "c" not in going
    release.append("b")
    wait(lambda: "c" in going, "the place of another")
    release.extend("ac")
    wait(lambda: began, "the schedule to go on")
    assert schedule.by_hand("b", lambda: 1 / 0)
    assert schedule.wait(5)
    assert schedule.by_hand("b", hand("b"))
    assert schedule.wait(5)
    schedule.stop()
    assert not schedule.by_hand("b", hand("b"))
    tally = schedule.counts()["a"]
    assert tally.due == tally.run + tally.running + tally.coalesced + tally.stopping
