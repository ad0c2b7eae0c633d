"""What a person sees at a terminal of 80 or 60 columns, and a program in a pipe."""

import json
import re
import signal

import pytest

from loader.config.load import load_config
from loader.lab.process import free_ports, wait
from loader.redis.client import RedisClient
from loader.state.schedule import ScheduleState
from support.command import HOST, MARK, STU, Desk
from support.terminal import Terminal, typed

LONG = "a_rather_long_name_of_a_job_for_tables"
PAINT = re.compile(r"\x1b\[\d+(?:;\d+)*m")
COMMANDS = [
    *(["check"], ["plan", "stu"], ["sync", "--all"], ["backfill", "stu"], ["sync", "stu"], ["get", LONG, "3"]),
    *(["verify", "--all"], ["prune", "--all"], ["cluster"], ["status"], ["runs"], ["doctor"], ["doctor", "--all"]),
    *(["rejects", "list", "stu"], ["rejects", "retry", "stu"], ["sync", "nix"], ["sync", "--nix"]),
]


@pytest.fixture
def desk(world, tmp_path):
    """Jobs with a long name, with rejects, and without a table."""
    desk = Desk(world, tmp_path)
    gone = {"table": "a_table_that_does_not_exist", "key": "gone_{id}"}
    desk.write(STU | {LONG: {"table": "stu", "key": "long_{sid}"}, "gone": gone})
    world.redis.set("stu_00000003", "taken")
    return desk


def run_all(desk, columns):
    """What each of the commands shows, by its words."""
    return [(words, typed(*words, cwd=desk.directory, columns=columns)) for words in COMMANDS]


@pytest.mark.parametrize("columns", [80, 60])
def test_everything_fits(desk, columns):
    """No line is wider than the terminal, no word is cut, names are whole; nobody reads JSON or a dictionary."""
    for words, shown in run_all(desk, columns):
        assert shown.widest() <= columns, (words, shown.text)
        assert not re.search(r"^\{|[a-z]+=\S|…", shown.text, re.MULTILINE), (words, shown.text)
        if words in (["status"], ["runs"], ["sync", "--all"]):
            assert re.search(rf"^{LONG}\b", shown.text, re.MULTILINE), shown.text
            assert "a_table_that_does_not_exist" in " ".join(shown.text.split())


def test_nothing_is_folded_in_a_pipe(desk):
    """Each job, run and finding has a line of its own, whole."""
    assert desk.run("sync", "--all").code == 2
    for words in (["status"], ["runs"]):
        lines = desk.run(*words).out.splitlines()
        (why,) = [line for line in lines if "a_table_that_does_not_exist" in line]
        assert re.match(r"  run by \S+ on \S+: mysql ", why), why
        assert why.endswith("(1146)")
        assert len([line for line in lines if line.split()[:1] == [LONG] or LONG in line.split()]) == 1
    found = desk.run("doctor").out.splitlines()
    (line,) = [line for line in found if line.startswith("  fail  table: ")]
    assert line.endswith("(1146)")


@pytest.mark.parametrize(
    ("words", "painted"),
    [
        (["status"], "\x1b[31mfailed\x1b[0m"),
        (["doctor"], "\x1b[31mfail\x1b[0m"),
        (["sync", "stu"], "\x1b[33mrejects\x1b[0m"),
        (["verify", LONG], "\x1b[32mok\x1b[0m"),
        (["cluster"], "\x1b[32mok\x1b[0m"),
    ],
)
def test_colours(desk, words, painted):
    """States have a colour at a terminal, without NO_COLOR, --no-color and TERM=dumb; in a pipe they have none."""
    desk.run("sync", "--all")
    assert painted in typed(*words, cwd=desk.directory).raw
    for how in ({"NO_COLOR": "1"}, {"LOADER_NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert not PAINT.search(typed(*words, cwd=desk.directory, **how).raw), how
    piped = desk.run(*words)
    assert "\x1b" not in piped.out + piped.err


def test_an_error_is_told_once(desk):
    """At a terminal, in a pipe, and for programs: one line says why a job failed."""
    why = "a_table_that_does_not_exist' doesn't exist"
    for words in (["sync", "gone"], ["sync", "gone", "stu"], ["verify", "gone"], ["prune", "gone"]):
        shown = " ".join(typed(*words, cwd=desk.directory).text.split())
        piped, document = desk.run(*words), desk.run(*words, "-o", "json")
        assert (shown.count(why), (piped.out + piped.err).count(why)) == (1, 1), (words, shown, piped)
        assert (document.err.count(why), document.out.count(why)) == (1, 1), words


def test_a_log_for_people(desk):
    """Log lines at a terminal are short: the time, the job, how many of how many."""
    shown = typed("sync", "--all", "--progress", "log", cwd=desk.directory)
    assert "error: job 'gone': mysql" in shown.text
    piped = desk.run("--log-format", "console", "sync", "stu", "-o", "json")
    assert re.fullmatch(r"\d\d:\d\d:\d\d stu rejects 4 of 5 written, 1 rejected, \d\.\d\d s\n", piped.err)


def failing(port):
    """Command lines that fail, and how."""
    away = {"target": {"url": f"redis://marked@{HOST}:{port}"}}
    refused = {"target": {"password": f"{MARK}-wrong"}}
    commands = [
        *(["plan", "stu"], ["get", "stu", "1"], ["cluster"], ["status"], ["runs"], ["rejects", "list", "stu"]),
        *(["rejects", "purge", "stu"], ["sync", "stu"], ["verify", "stu"], ["prune", "stu"], ["backfill", "stu"]),
        *(["rejects", "retry", "stu"], ["follow", "stu", "--until-caught-up"], ["doctor"]),
    ]
    return [(how, words) for how in (refused, away) for words in commands]


def test_failures_have_a_document(desk):
    """With -o json each command that has a result prints a document on stdout, also if it fails: why, and its state."""
    (port,) = free_ports(1)
    for how, words in failing(port):
        desk.write(STU | {"stu": STU["stu"] | {"deadline": "1s", "follow": True}}, **how)
        done = desk.run(*words, "-o", "json")
        assert done.code in {2, 3, 4}, (words, done)
        document = done.document
        assert document["status"] in {"failed", "fail"}, (words, document)
        assert document["schema"].startswith("loader.")
        if words != ["doctor"]:
            assert "redis" in document["error"], (words, document)
    nix = desk.run("get", "nix", "1", "-o", "json")
    assert (nix.document["schema"], nix.document["exit_code"]) == ("loader.error/v1", nix.code)
    desk.text("version: 1")
    assert desk.run("check", "-o", "json").document["error"].count("error: ") > 1


def test_documents_of_a_plan_and_a_check(desk):
    """What `plan` and `check` found, for programs."""
    checked = desk.run("check", "-o", "json")
    planned = desk.run("plan", "stu", "-o", "json")
    assert (checked.code, planned.code, planned.err) == (0, 0, "")
    assert checked.document == {
        "schema": "loader.check/v1",
        "status": "ok",
        "jobs": ["stu", LONG, "gone"],
        "warnings": [],
    }
    document = planned.document
    first = document["commands"][0]["command"]
    assert (document["schema"], document["job"], document["walk"]) == ("loader.plan/v1", "stu", ["sid"])
    assert document["statement"].startswith("SELECT `sid`, ")
    assert first[:4] == ["HMSET", "stu_00000001", "sid", "00000001"]
    assert (document["increment"], document["warnings"], len(document["commands"])) == (None, [], 5)


def test_a_backfill_is_stopped_and_resumed(desk):
    """The bar has percent and rate; the end says how to go on, as typed; the next one says that it resumed."""
    desk.world.sql(
        "CREATE TABLE big (id INT PRIMARY KEY)",
        "INSERT INTO big SELECT a.sid * 100 + b.sid FROM stu a, stu b",
        *["INSERT INTO big SELECT id + (SELECT MAX(id) FROM big) FROM big"] * 7,
        "ANALYZE TABLE big",
    )
    desk.write({"big": {"table": "big"}})
    words = ["backfill", "big", "--chunk-rows", "100", "--rate", "400", "--workers", "1"]
    one = Terminal(*words, "--restart", cwd=desk.directory, columns=60)
    while not re.search(r"[2-9]\d%, ", one.raw.decode(errors="replace")):
        assert one.read()
    one.process.send_signal(signal.SIGINT)
    stopped = one.finish()
    assert (stopped.code, stopped.widest() >= 60) == (130, True)
    assert stopped.lines[-1] == f"to resume: loader {' '.join(words)}"
    assert re.search(r"\d+%, [\d,]+ of about [\d,]+ rows", " ".join(stopped.raw.split()))
    assert "waits:" in stopped.raw
    resumed = typed(*words[:4], cwd=desk.directory)
    assert resumed.code == 0
    assert re.search(r"^big: ok: resumed, [\d,]+ rows read", resumed.text, re.MULTILINE)


def test_a_paused_job_is_paused(desk):
    """It is not late, and has no next run, while its schedule is paused."""
    desk.write({"stu": STU["stu"] | {"schedule": {"every": "1s"}, "max_age": "1s"}})
    desk.world.redis.delete("stu_00000003")
    assert desk.run("sync", "stu").code == 0
    wait(lambda: desk.run("status", "-o", "json").document["late"], "the job to be late")
    config = load_config([desk.directory / "loader.yaml"])
    with RedisClient(config.target) as target:
        ScheduleState(target, "stu").pause()
    document = desk.run("status", "-o", "json").document
    assert (document["state"], document["late"], document["next"]) == ("paused", False, None)
    text = desk.run("status").out
    assert "paused since" in text
    assert "late" not in text


def test_a_run_by_hand_fails_for_itself(desk):
    """A job that runs by itself is not failed for all because one person's run was; it says who ran it, and where."""
    scheduled = {"stu": STU["stu"] | {"schedule": {"every": "1h"}}}
    desk.world.redis.delete("stu_00000003")
    desk.write(scheduled)
    assert desk.run("sync", "stu").code == 0
    assert desk.run("sync", "stu", "--where", "nix = 1", LOGNAME="anna").code == 2
    status = desk.run("status", "-o", "json").document
    assert (status["state"], status["last"]["status"], status["last"]["user"]) == ("ok", "failed", "anna")
    assert f"  run by anna on {status['last']['host']}: --where: MySQL refuses it" in desk.run("status").out
    assert f"  run by anna on {status['last']['host']}: --where" in desk.run("runs").out
    desk.write()  # without a schedule
    assert json.loads(desk.run("status", "-o", "json").out)["state"] == "failed"
