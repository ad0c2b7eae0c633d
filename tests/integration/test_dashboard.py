"""What the status page and the API are told: the same as the command line says, soon, and whatever is broken."""

import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from urllib.parse import quote

import pytest
import redis

from loader.config.load import load_config
from loader.config.models import JobConfig
from loader.jobs.execute import execute
from loader.jobs.status import job_status, questions
from loader.lab.lab import Lab
from loader.lab.process import wait
from loader.model import Run
from loader.pipeline.options import Options
from loader.redis.client import RedisClient
from loader.redis.prefetch import Prefetched
from loader.state.history import History, entry_of
from loader.state.rejects import Rejects
from loader.web.activity import RunTracker
from loader.web.app import Serving
from loader.web.dashboard import Dashboard
from loader.web.health import Health
from loader.web.job_texts import effective
from loader.web.render import Renderer
from loader.web.views import LISTED, Viewer
from loader.wire.slots import slot_of
from support.command import HOST, Desk, redis_server
from support.database import Ear, Nobody
from support.tables import STU_SQL

SOON = 4.0  # seconds within which a page comes, whatever is broken: less than a node has to answer, which is 5


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


@pytest.fixture
def survey_of():
    """A survey of a config, and its record."""
    surveys = []

    def make(config):
        record = RunTracker()
        surveys.append(Dashboard(config, record, Health([config.source], config.target)))
        return surveys[-1], record

    yield make
    for survey in surveys:
        survey.close()


def prepare(desk):
    """Jobs that are as jobs may be, after their runs."""
    world = desk.world
    world.sql(
        "CREATE TABLE score (id int PRIMARY KEY, points int, note varchar(40))",
        "INSERT INTO score VALUES (1, 10, 'secret-note'), (2, 20, NULL)",
    )
    world.redis.set("score_2", "taken")
    desk.write(
        {
            "stu": {"table": "stu", "key": "stu_{sid}", "schedule": {"every": "1h", "jitter": "10s"}, "max_age": "1d"},
            "late": {"table": "stu", "key": "late_{sid}", "max_age": "1s", "schedule": {"cron": "0 3 * * *"}},
            "gone": {"table": "gone", "deadline": "1s"},
            "score": {"table": "score", "ttl": "2h", "ttl_jitter": "10%", "where": "id < 10"},
            "never": {"table": "stu", "key": "never_{sid}", "incremental": {"column": "changed"}},
        }
    )
    assert [desk.run("sync", job).code for job in ("stu", "late", "gone", "score")] == [0, 0, 2, 3]
    time.sleep(1.1)
    return load_config([desk.directory / "loader.yaml"])


def shape(status):
    """A status but for the moment it is of."""
    return asdict(status) | {"now": None}


def test_overview(desk, survey_of):
    """Each job is as `loader status` has it, the target as `loader cluster` has it; rows are those of runs."""
    config = prepare(desk)
    survey, _ = survey_of(config)
    view = survey.overview()
    assert [job.status.job for job in view.jobs] == list(config.jobs)
    with RedisClient(config.target) as target:
        for job in view.jobs:
            assert shape(job.status) == shape(job_status(target, config.source, config.jobs[job.status.job]))
    assert [job.status.state for job in view.jobs] == ["ok", "late", "failed", "rejects", "never"]
    assert [sum(job.rates) > 0 for job in view.jobs] == [True, True, False, True, False]
    assert [job.schedule for job in view.jobs] == ["every 1h, up to 10s later", "0 3 * * * (UTC)", "", "", ""]
    document = desk.run("cluster", "-o", "json").document
    told = [
        {"node": n.node, "slots": sum(b + 1 - a for a, b in n.ranges), "replicas": n.replicas}
        for n in view.cluster.nodes
    ]
    assert sorted(told, key=lambda each: each["node"]) == [
        {name: each[name] for name in ("node", "slots", "replicas")} for each in document["masters"]
    ]
    assert (view.cluster.state, view.cluster.unowned, view.cluster.problems) == ("ok", (), ())
    assert all(node.keys and node.used for node in view.cluster.nodes)
    wait(lambda: survey.overview().seen > view.seen, "a newer look")
    assert survey.overview().problems == ()
    assert config.source.secret not in repr(view)


def test_a_job(desk, survey_of):
    """Its runs, a config that means the same job, the statement, and a command, masked unless values may be shown."""
    config = prepare(desk)
    survey, _ = survey_of(config)
    page = survey.job("score")
    wait(lambda: survey.job("score").sample, "the sample")
    page = survey.job("score")
    (said,) = desk.run("runs", "score", "-o", "json").documents
    assert [entry.run for entry in page.entries] == [said["run"]]
    assert page.sample[1] == "HMSET score_••• id ••• points ••• note •••"
    assert "FROM `score`" in page.statement
    again = desk.directory / "again.yaml"
    again.write_text("jobs:\n" + "\n".join(f"  {line}" for line in page.config.splitlines()), encoding="utf-8")
    assert load_config([desk.directory / "loader.yaml", again]).jobs["score"] == config.jobs["score"]
    wait(lambda: "gone" in survey.job("gone").why, "why there is no sample")
    assert survey.job("gone").sample is None
    assert survey.job("nobody") is None
    shows = config.model_copy(update={"daemon": config.daemon.model_copy(update={"show_values": True})})
    survey.configure(shows)
    wait(lambda: survey.job("score").sample, "the sample")
    assert survey.job("score").sample[1] == "HMSET score_1 id 1 points 10 note secret-note"
    assert all("secret-note" not in str(effective(job)) for job in config.jobs.values())


def test_rejects(desk, survey_of):
    """Key, slot, node and reason; keys are masked unless they may be shown; of many the latest."""
    config = prepare(desk)
    survey, _ = survey_of(config)
    page = survey.rejects("score")
    (reject,) = page.rejects
    assert (page.count, page.masked, reject.key, reject.slot) == (1, True, "score_•••", None)
    assert reject.node.endswith(str(desk.world.redis.get_node_from_key("score_2").port))
    assert "WRONGTYPE" in reject.reason
    assert reject.attempts == 1
    survey.configure(config.model_copy(update={"daemon": config.daemon.model_copy(update={"show_values": True})}))
    assert [(each.key, each.slot) for each in survey.rejects("score").rejects] == [("score_2", slot_of(b"score_2"))]
    with RedisClient(config.target) as target:
        listed = Rejects(target, "score")
        listed.add([type("R", (), {"key": b"k%d" % n, "reason": "why"})() for n in range(LISTED + 5)], "x")
    wait(lambda: survey.rejects("score").count == LISTED + 6, "the list")
    assert len(survey.rejects("score").rejects) == LISTED
    assert survey.rejects("nobody") is None


def test_a_run_under_way(desk, survey_of):
    """How far it is, of how many, and its chunks; once it is over, its rows count once, though the history has them."""
    world = desk.world
    world.sql(
        "CREATE TABLE slow (id int PRIMARY KEY)",
        f"INSERT INTO slow VALUES {','.join(f'({n})' for n in range(1, 101))}",
        "ANALYZE TABLE slow",
    )
    desk.write({"slow": {"table": "slow", "fields": {"id": "id", "nap": "SLEEP(0.02)"}, "chunk_rows": 10}})
    config = load_config([desk.directory / "loader.yaml"])
    survey, record = survey_of(config)
    thread = threading.Thread(
        target=execute, args=(config, config.jobs["slow"], Options(workers=1), record.listen("slow"))
    )
    thread.start()
    wait(lambda: (going := survey.overview().jobs[0].progress) and going.chunks >= 2, "two chunks")
    view = survey.overview().jobs[0]
    assert (view.status.state, view.progress.expected) == ("running", 100)
    assert 20 <= view.progress.rows < 100
    assert view.progress.rate > 0
    assert view.progress.eta > 0
    grid = survey.job("slow").grid
    assert {cell.state for cell in grid.cells} <= {"loaded", "owed"}
    thread.join(30)
    wait(lambda: survey.overview().jobs[0].status.state == "ok", "its end")
    page = survey.job("slow")
    assert page.view.progress is None
    assert [cell.rows for cell in page.grid.cells] == [10] * 10
    assert (page.grid.ended, page.grid.of) == (True, 10)
    minute = page.view.rates[-2:]
    assert sum(minute) <= 100 / 10


def test_what_status_asks_is_foreseen(desk, monkeypatch):
    """One pipeline has all that the state of a job takes; what is left over answers nobody later."""
    config = prepare(desk)
    with RedisClient(config.target) as target:
        asked = []
        commands = RedisClient.commands
        monkeypatch.setattr(
            RedisClient,
            "commands",
            lambda self, node, words, **how: asked.append(1) or commands(self, node, words, **how),
        )
        for job in config.jobs.values():
            replies = Prefetched(target, questions(job))
            asked.clear()
            job_status(replies, config.source, job)
            assert asked == []
        key = "loader:{stu}:runs"
        replies = Prefetched(target, [(key.encode(), ("LRANGE", key, 0, -1))])
        before = len(replies.ask(key.encode(), "LRANGE", key, 0, -1)[1])
        History(target, "stu").add(entry_of(Run(job="stu", id="x")))
        assert len(replies.ask(key.encode(), "LRANGE", key, 0, -1)[1]) == before
        assert len(target.ask(key.encode(), "LRANGE", key, 0, -1)[1]) == before + 1


def test_nobody_looks_nothing_is_asked(desk, survey_of, monkeypatch):
    """Only who looks has servers asked, once a second however often; soon after the last look it ends."""
    monkeypatch.setattr("loader.web.poller.LOOKED", 1.0)
    config = prepare(desk)
    survey, _ = survey_of(config)
    with redis.Redis(HOST, desk.redis_port) as node:

        def calls():
            return node.info("commandstats").get("cmdstat_dbsize", {"calls": 0})["calls"]

        def is_quiet():
            before = calls()
            time.sleep(1.5)
            return calls() == before

        time.sleep(1.2)
        before, began = calls(), time.monotonic()
        for _ in range(20):
            survey.overview()
        assert 1 <= calls() - before <= 2 + time.monotonic() - began
        wait(is_quiet, "the end of looking")
        wait(lambda: (view := survey.overview()).now - view.seen < 1, "a new look")


def standalone(desk, port, **job):
    config = desk.world.config(table="stu", key="stu_{sid}", **job)
    target = type(config.target).model_validate({"url": f"redis://{HOST}:{port}"})
    return config.model_copy(update={"target": target})


def took(action):
    started = time.monotonic()
    result = action()
    return time.monotonic() - started, result


def test_a_target_that_is_away_or_hangs(desk, survey_of, tmp_path, monkeypatch):
    """A page comes all the same, with what was known last, and says what is wrong; then all is well again."""
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as port:
        config = standalone(desk, port)
        assert execute(config, config.jobs["job"], Options(), Ear()).written == 5
        survey, _ = survey_of(config)
        assert survey.overview().jobs[0].status.state == "ok"
        assert survey.overview().cluster.nodes[0].keys >= 5
        with redis.Redis(HOST, port) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(1.1)
            for _ in range(3):
                seconds, view = took(survey.overview)
                assert seconds < SOON
                assert view.jobs[0].status.state == "ok"
            wait(lambda: survey.overview().problems, "what is wrong")
            assert f"redis {HOST}:{port}" in survey.overview().problems[0]
            assert took(lambda: survey.job("job"))[0] < SOON
            assert took(lambda: survey.rejects("job"))[0] < SOON
            monkeypatch.setattr("loader.web.job_states.STALE", 0.5)
            view = survey.overview()
            assert view.jobs[0].status.state == "unknown"
            assert view.cluster.state in {"fail", "unknown"}  # by a look that met the silence, or by none since
            monkeypatch.undo()
        finally:
            os.kill(pid, signal.SIGCONT)
        wait(lambda: not survey.overview().problems, "all to be well")
    fresh, _ = survey_of(config)
    seconds, view = took(fresh.overview)
    assert seconds < SOON
    assert view.jobs[0].status.state == "unknown"
    wait(lambda: fresh.overview().problems, "what is wrong")
    assert view.cluster is None
    assert "unknown" in Renderer().overview(fresh.overview(), Viewer())
    with pytest.raises(Exception, match=f"redis {HOST}:{port}"):
        fresh.statuses(["job"])


def worked(action):
    """The seconds that this thread works, whatever else the machine does."""
    started = time.thread_time()
    action()
    return time.thread_time() - started


def get(port, path):
    """Status, headers, and the JSON of an answer."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def status_of(port, path):
    """The status of an answer."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def served(config):
    listening = config.model_copy(update={"daemon": config.daemon.model_copy(update={"listen": f"{HOST}:0"})})
    serving = Serving(listening, Nobody())
    serving.start()
    return serving


def steady(document):
    """A document of a status but for what grows by itself."""
    return document | {"lag": None, "success": document["success"] and document["success"] | {"age": None}}


def test_the_api_says_what_the_command_line_says(desk):
    """The same documents, one of a job, a list of all; keys of rejects masked; errors as JSON with a fitting code."""
    config = prepare(desk)
    serving = served(config)
    port = serving.port
    try:
        code, headers, statuses = get(port, "/api/v1/status")
        assert (code, headers["Cache-Control"]) == (200, "no-store")
        assert [steady(each) for each in statuses] == [
            steady(each) for each in desk.run("status", "-o", "json").documents
        ]
        assert steady(get(port, "/api/v1/status/stu")[2]) == steady(desk.run("status", "stu", "-o", "json").document)
        assert get(port, "/api/v1/runs")[2] == desk.run("runs", "-o", "json").documents
        assert get(port, "/api/v1/runs?last=2")[2] == desk.run("runs", "-n", "2", "-o", "json").documents
        assert get(port, "/api/v1/runs/stu")[2] == desk.run("runs", "stu", "-o", "json").documents
        ours, theirs = get(port, "/api/v1/cluster")[2], desk.run("cluster", "-o", "json").document
        assert [ours[name] for name in ("schema", "state", "slots")] == [
            theirs[name] for name in ("schema", "state", "slots")
        ]
        rejects = get(port, "/api/v1/rejects/score")[2]
        whole = desk.run("rejects", "list", "score", "-o", "json").document
        assert rejects.pop("masked") is True
        assert [each.pop("key") for each in rejects["rejects"]] == ["score_•••"]
        assert [each.pop("key") for each in whole["rejects"]] == ["score_2"]
        assert rejects == whole
        for path, code, said in (
            ("status/nobody", 404, "no job 'nobody' in the config"),
            ("runs/nobody", 404, "no job"),
            ("rejects/nobody", 404, "no job"),
            ("runs?last=0", 400, "a number from 1 to 1000"),
            ("runs?last=1001", 400, "a number from 1 to 1000"),
            ("runs?last=x", 400, "a number from 1 to 1000"),
            ("else", 404, "see /api/v1/status"),
        ):
            answer = get(port, f"/api/v1/{path}")
            assert (answer[0], said in answer[2]["error"]) == (code, True), path
        for path, code in (
            ("/static/style.css", 200),
            ("/static/x.css", 404),
            ("/jobs/nobody", 404),
            ("/jobs/stu", 200),
        ):
            assert status_of(port, path) == code
    finally:
        serving.stop()


def test_the_api_while_the_target_is_away(desk):
    """It says so with 503."""
    serving = served(standalone(desk, 1))
    try:
        for path in ("status", "runs", "cluster", "rejects/job"):
            code, _, document = get(serving.port, f"/api/v1/{path}")
            assert (code, f"redis {HOST}:1" in document["error"]) == (503, True)
    finally:
        serving.stop()


def test_one_broken_job_hides_no_other(desk, survey_of):
    """State of one job that no loader wrote is told of as its problem; all others, and the target, are shown."""
    config = prepare(desk)
    desk.world.redis.delete("loader:{late}:runs")
    desk.world.redis.set("loader:{late}:runs", "no list")
    survey, _ = survey_of(config)
    view = survey.overview()
    assert [job.status.state for job in view.jobs] == ["ok", "unknown", "failed", "rejects", "never"]
    assert view.cluster.state == "ok"
    assert ["WRONGTYPE" in text for text in view.problems if text.startswith("job late: loader:{late}:runs ")] == [True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_node_of_a_cluster_is_lost(tmp_path, survey_of, number):
    """Pages come as soon as ever, say which node it is, and show the others and what was known last."""
    lab = Lab(tmp_path / "lab")
    lab.up(nodes=3, replicas=0, sql=[STU_SQL])
    try:
        more = tmp_path / "more.yaml"
        more.write_text("jobs: {a: {table: stu, key: 'a_{sid}'}, b: {table: stu, key: 'b_{sid}'}}", encoding="utf-8")
        config = load_config([lab.config, more])
        assert [execute(config, job, Options(), Ear()).exit_code for job in config.jobs.values()] == [0] * 3
        survey, _ = survey_of(config)
        assert [job.status.state for job in survey.overview().jobs] == ["ok"] * 3
        lost = f"{HOST}:{lab.redis_ports['n2']}"
        lab.kill("n2", number)
        end = time.monotonic() + 60
        while not any(lost in text for text in (survey.overview().cluster.problems)) and time.monotonic() < end:
            assert max(took(survey.overview)[0], took(lambda: survey.job("a"))[0]) < SOON
            time.sleep(0.2)
        view = survey.overview()
        shown = {node.node: node for node in view.cluster.nodes}
        assert (len(shown), shown[lost].keys, view.cluster.state) == (3, None, "fail")
        assert lost in shown[lost].problem
        assert all(node.keys for name, node in shown.items() if name != lost)
        assert [job.status.state for job in view.jobs] == ["ok"] * 3
    finally:
        lab.down()


@pytest.fixture
def hanging(desk, tmp_path):
    """A config whose Redis, which has run the job, hangs; and how to have it go on."""
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as port:
        config = standalone(desk, port)
        assert execute(config, config.jobs["job"], Options(), Ear()).written == 5
        with redis.Redis(HOST, port) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield config, lambda: os.kill(pid, signal.SIGCONT)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_the_first_page_while_the_target_hangs(hanging, survey_of):
    """Each page comes within a second or little more, though nothing is known yet, and so do a reload and the end."""
    config, go_on = hanging
    for name, path in (("job", lambda s: s.job("job")), ("rejects", lambda s: s.rejects("job"))):
        survey, _ = survey_of(config)
        seconds, page = took(lambda path=path, survey=survey: path(survey))
        assert seconds < SOON, name
        assert page.view.status.state == "unknown"
        assert took(lambda survey=survey: survey.configure(config))[0] < SOON
        assert took(survey.close)[0] < SOON
    survey.configure(config)
    go_on()
    wait(lambda: survey.job("job").view.status.state == "ok", "an answer")
    assert [entry.rows["read"] for entry in survey.job("job").entries] == [5]


def test_the_api_does_not_queue_for_a_target_that_hangs(hanging):
    """Of many who ask at the same time none waits for all the others."""
    config, _ = hanging
    serving = served(config)
    answers = []

    def ask():
        seconds, (code, _, document) = took(lambda: get(serving.port, "/api/v1/status"))
        answers.append((seconds < 20, code, "error" in document))  # one after the other they would take a minute

    try:
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [(True, 503, True)] * 12
        assert took(lambda: status_of(serving.port, "/"))[0] < SOON
    finally:
        assert took(serving.stop)[0] < SOON


def test_a_sample_that_failed_is_tried_again(desk, survey_of, monkeypatch):
    """Soon, whereas one that is there stands for minutes."""
    monkeypatch.setattr("loader.web.poller.AGAIN", 0.2)
    desk.write({"job": {"table": "later", "key": "later_{id}", "deadline": "1s"}})
    survey, _ = survey_of(load_config([desk.directory / "loader.yaml"]))
    wait(lambda: "later" in survey.job("job").why, "why there is no sample")
    desk.world.sql("CREATE TABLE later (id int PRIMARY KEY)", "INSERT INTO later VALUES (1)")
    wait(lambda: survey.job("job").sample, "the sample")
    assert (survey.job("job").why, survey.job("job").sample[1]) == ("", "HMSET later_••• id •••")
    desk.world.sql("DROP TABLE later")
    time.sleep(0.5)
    assert survey.job("job").sample


def test_runs_elsewhere_are_learned(desk, survey_of):
    """However many another process has made since the last look, and whatever of them was known."""
    config = prepare(desk)
    survey, record = survey_of(config)
    survey.overview()
    before = record.rates("stu", time.time())
    run = entry_of(Run(job="stu", id="x", read=60, began=time.time() - 1))
    with RedisClient(config.target) as target:
        for number in range(50):
            History(target, "stu").add(replace(run, run=f"x{number}"))

    def more():
        survey.overview()
        now = record.rates("stu", time.time())
        return sum(now) - sum(before)

    wait(lambda: more() >= 49, "3000 rows: 50 a second of a minute")
    time.sleep(1.1)
    assert more() <= 50 * 6  # of a minute that has just begun


def test_why_a_run_waits(desk, survey_of):
    """While MySQL has too much to do the progress says so, and `--rate` where that is what holds it up."""
    world = desk.world
    world.sql("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3), (4), (5), (6)")
    desk.write({"t": {"table": "t", "chunk_rows": 1}})
    config = load_config([desk.directory / "loader.yaml"])
    survey, record = survey_of(config)
    for options, said in (
        (Options(workers=1, rate=2), "--rate 2"),
        (Options(workers=1, max_load=("Threads_running", 0)), "Threads_running"),
    ):
        halt = options.halt
        arguments = config, config.jobs["t"], options, record.listen("t")
        thread = threading.Thread(target=execute, args=arguments)
        thread.start()
        wait(lambda said=said: (p := survey.overview().jobs[0].progress) and said in p.waits, said)
        assert survey.job("t").view.progress.run
        halt.asked = halt.now = True
        thread.join(20)
        assert survey.overview().jobs[0].progress is None
        wait(lambda: survey.overview().jobs[0].status.state == "stopped", "its end")


def test_two_hundred_jobs(desk, survey_of):
    """With fifty runs each, the pages come soon enough that nobody waits; `scripts/page.sh` measures it."""
    jobs = {f"job{n}": {"table": "stu", "key": f"job{n}_{{sid}}", "schedule": {"every": "1h"}} for n in range(200)}
    desk.write(jobs)
    config = load_config([desk.directory / "loader.yaml"])
    entry = entry_of(Run(job="job", id="r", read=5, written=5))
    with RedisClient(config.target) as target:
        for name in jobs:
            text = json.dumps({"version": 1, **asdict(replace(entry, job=name))})
            key = f"loader:{{{name}}}:runs"
            target.ask(key.encode(), "LPUSH", key, *[text] * 50)
    survey, _ = survey_of(config)
    pages = Renderer()
    survey.overview()
    assert len(survey.job("job7").entries) == 50
    seconds, views, details = [], [], []
    for _ in range(10):
        seconds.append(took(lambda: pages.overview(survey.overview(), Viewer()))[0])
        views.append(took(survey.overview)[0])
        details.append(took(lambda: survey.job("job7"))[0])
        time.sleep(0.2)
    assert min(seconds) < 0.15, seconds  # on a machine that does other work beside, some take longer
    assert min(views) < 0.05, views
    assert min(details) < 0.05, details
    assert min(took(survey._look)[0] for _ in range(10)) < 0.3  # a second's answer


class Part(JobConfig):
    """A part of a job of many tables."""

    @property
    def part_of(self):
        return "students"


def with_parts(config, names):
    """The config with parts of a job beside its jobs."""
    parts = {}
    for name in names:
        parts[name] = Part.model_validate({"table": "stu", "key": f"{name}_{{sid}}", "schedule": {"every": "1h"}})
        parts[name].take_name(name)
    return config.model_copy(update={"jobs": {**config.jobs, **parts}})


def test_two_thousand_parts(desk, survey_of):
    """A job of so many tables comes as soon as a small one, and is looked at less often than it takes long."""
    names = [f"students/s{at % 4}/student_{at}" for at in range(2000)]
    config = with_parts(load_config([desk.directory / "loader.yaml"]), names)
    entry = entry_of(Run(job="job", id="r", read=5, written=5, seconds=0.1))
    with RedisClient(config.target) as target:
        for name in names[:50]:
            key = f"loader:{{{name}}}:runs"
            target.ask(key.encode(), "LPUSH", key, json.dumps({"version": 1, **asdict(replace(entry, job=name))}))
    survey, _ = survey_of(config)
    pages = Renderer()
    wait(lambda: survey.overview().jobs[-1].status.state == "never", "the first look")
    html = pages.overview(survey.overview(), Viewer())
    assert "50 ok" in html
    assert "1,950 never" in html
    assert sum(survey.overview().rates["students"]) > 0
    seconds = [worked(lambda: pages.overview(survey.overview(), Viewer())) for _ in range(10)]
    assert min(seconds) < 0.1, seconds


def test_pages_of_parts(desk):
    """A part's name has slashes: its pages and its documents are found all the same, also if it ends like a page."""
    names = ["students/s1/student_1", "students/rejects", "学生/s1"]
    serving = served(with_parts(load_config([desk.directory / "loader.yaml"]), names))
    try:
        for name in names:
            path = quote(name, safe="")
            assert get(serving.port, f"/api/v1/status/{path}")[2]["job"] == name
            assert get(serving.port, f"/api/v1/runs/{path}")[2] == []
            assert get(serving.port, f"/api/v1/rejects/{path}")[2]["job"] == name
            for page in ("", "/rejects"):
                with urllib.request.urlopen(f"http://{HOST}:{serving.port}/jobs/{path}{page}", timeout=10) as answer:
                    title = re.search("<title>(.*)</title>", answer.read().decode())[1]
                assert name in title
                assert title.startswith("Rejects" if page else name), title
        assert status_of(serving.port, "/jobs/students%2Fs1%2Fnone") == 404
        assert status_of(serving.port, "/jobs/students%2Fs1%2Fnone/rejects") == 404
    finally:
        serving.stop()


def test_a_name_of_dots_is_none(desk):
    """In the path of a url, `.` and `..` mean other places; any other name of a job has a page, dots and all."""
    names = ["..a", "a.", ".-", "_", "0", "a..b"]
    desk.write({name: {"table": "stu", "key": f"{name}/{{sid}}"} for name in names})
    assert list(load_config([desk.directory / "loader.yaml"]).jobs) == names
    for name in (".", "..", "..."):
        desk.write({name: {"table": "stu", "key": "stu_{sid}"}})
        assert [line.partition("error: ")[2] for line in desk.run("check").messages] == [
            f"jobs.{name}: a name cannot consist of dots only"
        ]
