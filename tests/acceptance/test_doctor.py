"""`loader doctor`: what is wrong is found, nothing is written, and the fix that is printed mends it."""

import json
import re
import shlex
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from unittest.mock import Mock

import pytest
import redis

from loader.config.models import JobConfig
from loader.doctor import job as doctor_job
from loader.doctor.findings import fail, finding_text
from loader.doctor.job_plan import PLANNED, PlannedJob
from loader.doctor.mysql import MysqlProbe
from loader.errors import Kind, SourceError
from loader.lab.process import free_ports, wait
from loader.model import Chunk, Column, Reject, Table
from loader.mysql.connection import Connection
from loader.mysql.planner import make_plan
from loader.redis.acl import REDIS_RIGHTS, RESTORE_RIGHT, questions
from loader.redis.client import RedisClient
from loader.report.screen import Screen
from loader.state.checkpoint import Checkpoint, StateStore
from loader.state.lock import Lock
from loader.state.rejects import Rejects
from support.checks import checkup, one
from support.command import HOST, MARK, RIGHTS, STU, Desk, redis_server, shell
from support.terminal import typed


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


def statuses(found, check):
    return [each["status"] for each in found[check]]


@contextmanager
def on_each_node(desk, *words):
    """Send an ACL SETUSER of the account to each node, and undo it at the end."""
    nodes = [redis.Redis(HOST, port) for port in desk.world.lab.redis_ports.values()]
    for node in nodes:
        node.execute_command("ACL", "SETUSER", "marked", *words)
    yield
    for node in nodes:
        node.execute_command("ACL", "SETUSER", "marked", "reset", *RIGHTS)
        node.close()


def test_all_is_well(desk):
    """Nothing fails, each side is looked at, the text fits a terminal; nothing was written, nor asked in vain."""
    before, state = desk.contents(), desk.world.state()
    with ExitStack() as stack:
        nodes = [stack.enter_context(redis.Redis(HOST, port)) for port in desk.world.lab.redis_ports.values()]
        for node in nodes:
            node.acl_log_reset()
        result = desk.run("doctor", "--all")
        assert [node.acl_log() for node in nodes] == [[]] * len(nodes)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert {"config", "MySQL", "Redis", "job stu"} <= set(lines)
    assert lines[-1].endswith("checks, 0 warnings, 0 failed"), result.out
    assert not any("not checked" in line for line in lines)
    assert (desk.contents(), desk.world.state()) == (before, state)


def test_what_is_right_is_counted(desk):
    """Without --all only what is wrong is shown; the count of the rest and of all checks add up."""
    everything = desk.run("doctor", "--all").out
    well = desk.run("doctor").out.splitlines()
    count = everything.count("\n  ok    ")
    assert everything.count("\n  warn") == everything.count("\n  fail") == 0
    assert well == [
        f"{count} checks are right; --all shows them",
        "",
        f"ok: {count} checks, 0 warnings, 0 failed",
    ]
    assert f"\n{well[-1]}\n" in everything
    desk.write({"stu": {"table": "stu", "key": "{{stu}}_{sid}"}})
    lines = desk.run("doctor").out.splitlines()
    assert lines[0] == "job stu"
    assert lines[1].startswith("  warn  prefix: ")
    assert not [line for line in lines if line.startswith("  ok")]
    right = next(line for line in lines if line.endswith("are right; --all shows them"))
    assert lines[-1] == f"warn: {int(right.split()[0]) + 1} checks, 1 warning, 0 failed"


def test_jobs_with_the_same_fault_are_told_together(desk):
    """Once, with their number and the first three names; so are those whose names and numbers alone differ."""
    desk.write({f"j{number}": {"table": "gone", "key": f"j{number}_{{id}}"} for number in range(5)})
    result = desk.run("doctor")
    assert result.code == 3
    lines = result.out.splitlines()
    assert lines.count("jobs j0, j1, j2 and 2 more") == 1
    assert result.out.count("  fail  table:") == 1
    assert lines[-1].endswith(" 5 failed, 30 not made"), lines[-1]
    assert [each["job"] for each in checkup(desk)[1]["job.table"]] == [f"j{number}" for number in range(5)]
    assert desk.run("doctor", "--all").out.count("  fail  table:") == 5

    desk.write({f"j{number}": {"table": f"gone_{number}", "key": f"j{number}_{{id}}"} for number in range(4)})
    result = desk.run("doctor")
    assert "jobs j0, j1, j2 and 1 more" in result.out
    assert result.out.count("  fail  table:") == 1
    assert "        of the first; the others differ in names or numbers: see --all" in result.out.splitlines()
    result = desk.run("doctor", "j0", "j1")
    assert result.out.count("  fail  table:") == 2


def test_jobs_are_chosen(desk):
    """Those that are named, else all; what is no job, and a broken config, is an error as anywhere."""
    desk.write(STU | {"other": {"table": "stu", "key": "stu_o_{sid}", "schedule": {"every": "30s"}}})
    found = checkup(desk)[1]
    assert {each["job"] for each in found["job.table"]} == {"stu", "other"}
    assert statuses(found, "config.files") == ["ok", "warn"]  # one prefix begins the other
    (shown,) = checkup(desk, "other")[1]["job.schedule"]
    assert shown["job"] == "other"
    assert shown["seen"].startswith("every 30 s: ")
    assert shown["seen"].count(" UTC") == 3
    assert desk.run("doctor", "nobody").code == 2
    desk.text("version: 1")
    assert desk.run("doctor").code == 2


def test_no_server_answers(desk):
    """Both are failed checks, and what needs them is said to be not checked; the config is looked at all the same."""
    port, other = free_ports(2)
    jobs = {"stu": STU["stu"] | {"schedule": {"every": "30s"}}}
    desk.write(jobs, source={"url": desk.mysql(port=port)}, target={"url": f"redis://marked@{HOST}:{other}"})
    code, found = checkup(desk)
    assert code == 3
    assert one(found, "mysql.login")[0] == one(found, "redis.login")[0] == "fail"
    assert one(found, "redis.login")[2] == f"redis-cli -h {HOST} -p {other} PING"
    for check in ("mysql.clock", "redis.rights", "job.table", "job.size", "job.rejects"):
        assert one(found, check)[:2] == ("warn", f"not checked: there is no connection to {_missing(check)}")
    assert one(found, "job.schedule")[0] == "ok"


def _missing(check):
    return "Redis" if check in {"redis.rights", "job.rejects"} else "MySQL"


def test_one_server_answers(desk):
    """What needs the other one alone is looked at."""
    (port,) = free_ports(1)
    desk.write(source={"url": desk.mysql(port=port)})
    found = checkup(desk)[1]
    assert (one(found, "job.table")[0], one(found, "job.rejects")[0]) == ("warn", "ok")
    desk.write(target={"url": f"redis://marked@{HOST}:{port}"})
    found = checkup(desk)[1]
    assert (one(found, "job.table")[0], one(found, "job.rejects")[0]) == ("ok", "warn")


def test_a_source_that_does_not_answer_is_no_other_config(desk):
    """Its address may be wrong: whose the job's name is is not known then, unless its table or its keys are others."""
    desk.run("sync", "stu")
    assert one(checkup(desk)[1], "job.name")[0] == "ok"
    server, (port,) = f"{HOST}:{desk.world.lab.mysql_port}", free_ports(1)
    here = f"{server}/{desk.world.name}"
    wrong = {f"{HOST}:{port}/{desk.world.name}": {"port": port}, f"{server}/gone": {"database": "gone"}}
    for where, place in wrong.items():
        desk.write(source={"url": desk.mysql(**place)})
        found = checkup(desk)[1]
        seen = f"not known: its runs so far read from '{here}', and '{where}' cannot be read: is that address right?"
        assert one(found, "job.name") == ("warn", seen, None)
        assert one(found, "job.table")[1] == "not checked: there is no connection to MySQL"
    desk.write({"stu": {"table": "stu", "key": "old_{sid}"}}, source={"url": desk.mysql(port=port)})
    level, seen, _ = one(checkup(desk)[1], "job.name")
    assert level == "fail"
    assert "belongs to another config: it reads from" in seen
    assert "its keys begin with 'stu_', and 'old_' here" in seen


def test_a_source_that_goes_away_is_told_once(desk, monkeypatch):
    """A server that ends the connection between two checks says nothing of a job's table: neither does doctor."""
    config = desk.world.config(**STU["stu"])
    away = SourceError("mysql does not answer", kind=Kind.UNAVAILABLE)
    monkeypatch.setattr(doctor_job, "read_plan", Mock(side_effect=away))
    with Connection(config.source) as source:
        probe = MysqlProbe(config, source, "'marked'@'%'", config.source, "")
        found = {each.check: each for each in doctor_job.checked(config, config.jobs["job"], probe, None)}
    assert {found[f"job.{check}"].lacking for check in ("table", *PLANNED)} == {"mysql does not answer"}
    assert found["job.table"].level == "fail"


def test_passwords_are_wrong(desk, tmp_path):
    """Each is doubted before its account is: no fix changes one; no password is shown, nor in a file for everybody."""
    secret = tmp_path / "secret"
    secret.write_text(f"{MARK}-wrong")
    secret.chmod(0o644)
    desk.write(source={"password": None, "password_file": str(secret)}, target={"password": f"{MARK}-wrong"})
    found = checkup(desk)[1]
    level, seen, fix = one(found, "mysql.login")
    assert (level, fix) == ("fail", f"mysql -h {HOST} -P {desk.world.lab.mysql_port} -u marked -p -e 'SELECT 1'")
    assert seen.startswith(f"is the password in {secret} right? mysql ")
    level, seen, fix = one(found, "redis.login")
    assert (level, fix) == ("fail", f"redis-cli --user marked --askpass -h {HOST} -p {desk.redis_port} PING")
    assert seen.startswith("is target.password right? redis ")
    status, _, fix = one(found, "config.passwords")
    assert status == "warn"
    subprocess.run(shlex.split(fix), check=True)
    assert one(checkup(desk)[1], "config.passwords")[0] == "ok"


def test_the_variable_of_a_wrong_password_is_named(desk):
    """The first question names the variable that the password is from; one that is empty is no password."""
    variables = {"source": {"password": "${THEIRS}"}, "target": {"password": "${OURS:-}"}}
    desk.write(**variables)
    wrong = desk.run("doctor", "-o", "json", THEIRS=f"{MARK}-wrong", OURS=f"{MARK}-wrong").document["checks"]
    none = desk.run("doctor", "-o", "json", THEIRS="", OURS="").document["checks"]
    seen = [[check["seen"] for check in found if check["check"].endswith(".login")] for found in (wrong, none)]
    assert [text[: text.index("? ")] for text in seen[0]] == ["is $THEIRS right", "is $OURS right"]
    assert [text[: text.index("; ")] for text in seen[1]] == [
        "no password is given (see source.password)",
        "no password is given (see target.password)",
    ]


def test_checks_that_a_server_keeps_from_being_made_are_one_line(desk):
    """A server that is away is one failure and one line with the count of what needs it, also with --all."""
    (port,) = free_ports(1)
    desk.write(target={"url": f"redis://marked@{HOST}:{port}"})
    for more in ([], ["--all"]):
        printed = desk.run("doctor", *more)
        lines = [line for line in printed.out.splitlines() if "not made" in line or "connection to Redis" in line]
        assert printed.code == 3
        assert lines == [
            "19 checks not made: there is no connection to Redis",
            "fail: 33 checks, 0 warnings, 1 failed, 19 not made",
        ]


def test_rights_in_mysql(desk):
    """A database, a table or transactions that the account may not see: the GRANT that is printed is enough."""
    world = desk.world
    world.sql("CREATE TABLE seen (id INT PRIMARY KEY)", f"REVOKE SELECT ON {world.name}.* FROM marked@'%'")
    status, _, fix = one(checkup(desk)[1], "mysql.login")
    assert (status, fix) == ("fail", f"GRANT SELECT ON `{world.name}`.* TO 'marked'@'%';")
    world.sql(fix)
    assert one(checkup(desk)[1], "mysql.login")[0] == "ok"
    world.sql(f"REVOKE SELECT ON {world.name}.* FROM marked@'%'", "GRANT SELECT ON seen TO marked@'%'")
    status, _, fix = one(checkup(desk)[1], "job.table")
    assert (status, fix) == ("fail", f"GRANT SELECT ON `{world.name}`.`stu` TO 'marked'@'%';")
    world.sql(fix)
    assert one(checkup(desk)[1], "job.table")[0] == "ok"


def test_the_replica(desk):
    """Its lag needs a right, which is named; a server that replicates nothing is no replica."""
    desk.write(source={"replica": desk.mysql()})
    status, _, fix = one(checkup(desk)[1], "mysql.replica")
    assert status == "fail"
    try:
        desk.world.sql(fix)
        status, seen, fix = one(checkup(desk)[1], "mysql.replica")
        assert (status, fix) == ("fail", "see source.replica")
        assert "is not a replica" in seen
    finally:
        desk.world.sql("REVOKE ALL PRIVILEGES ON *.* FROM marked@'%'")


def test_the_column_of_an_incremental_job(desk):
    """It needs an index, and has to be set anew on each update: the SQL that is printed sees to it."""
    world = desk.world
    world.sql(
        "CREATE TABLE moving (id INT, at DATETIME(6) NULL, name TEXT)",
        "CREATE TABLE MOVING (id INT PRIMARY KEY, at DATETIME(6), INDEX other (at))",
    )
    job = {"table": "moving", "incremental": {"column": "at"}, "full_every": "1d"}
    desk.write({"moving": job | {"key": "moving_{id}"}})
    keyless = checkup(desk)[1]["job.incremental"][0]
    assert keyless["status"] == "fail"
    world.sql(keyless["fix"])
    desk.write({"moving": job})
    code, found = checkup(desk)
    assert (code, statuses(found, "job.incremental")) == (3, ["fail", "warn", "warn"])
    assert found["job.incremental"][0]["fix"] == f"CREATE INDEX `by_at` ON `{world.name}`.`moving` (`at`);"
    world.sql(*(each["fix"] for each in found["job.incremental"]))
    found = checkup(desk)[1]
    assert statuses(found, "job.incremental") == ["ok"]
    status, _, fix = one(found, "mysql.transactions")
    assert (status, fix) == ("warn", "GRANT PROCESS ON *.* TO 'marked'@'%';")
    try:
        world.sql(fix)
        assert one(checkup(desk)[1], "mysql.transactions")[0] == "ok"
        world.sql("SET GLOBAL read_only = 1")
        assert statuses(checkup(desk)[1], "mysql.transactions") == ["ok", "warn"]
    finally:
        world.sql("SET GLOBAL read_only = 0")
        world.sql("REVOKE PROCESS ON *.* FROM marked@'%'")
    desk.write({"moving": job | {"incremental": {"column": "name"}}})
    status, seen, _ = one(checkup(desk)[1], "job.incremental")
    assert (status, seen) == ("fail", "column name: it is a text, not a DATETIME or TIMESTAMP")


def test_tables_and_keys(desk):
    """A table that is not there, one without a key, a column that is none, a prefix that pins all to one slot."""
    world = desk.world
    world.sql("CREATE TABLE keyless (id INT NOT NULL, name TEXT)")
    desk.write(
        {
            "gone": {"table": "gone"},
            "keyless": {"table": "keyless", "key": "{{k}}_{id}"},
            "wrong": {"table": "stu", "key": "wrong_{sidd}"},
        }
    )
    found = checkup(desk)[1]
    assert {each["job"]: each["status"] for each in found["job.table"]} == {
        "gone": "fail",
        "keyless": "ok",
        "wrong": "fail",
    }
    assert [each["fix"] for each in found["job.table"]] == [f"SHOW TABLES FROM `{world.name}`;", None, "see jobs.wrong"]
    warned = [each["fix"] for each in found["job.key"] if each["job"] == "keyless"]
    assert warned == [f"ALTER TABLE `{world.name}`.`keyless` ADD PRIMARY KEY (`id`);"] * 2
    (pinned,) = [each for each in found["job.prefix"] if each["job"] == "keyless"]
    assert "all keys are in slot" in pinned["seen"]
    world.sql(warned[0])
    assert one(checkup(desk, "keyless")[1], "job.key")[0] == "ok"


@pytest.mark.parametrize(
    ("taken", "lacking"),
    [
        (["-hmset", "-client|id"], "+hmset +client|id"),
        (["resetkeys", "~loader:*", "-wait"], "~stu_* +wait"),
        (["resetkeys", "%R~stu_*", "~loader:*"], "~stu_*"),
        (["-eval", "-scan"], "+hmset +hset"),
    ],
)
def test_rights_in_redis(desk, taken, lacking):
    """What the account lacks on any node is named, commands and keys apart; the shell command, as shown, grants it."""
    with on_each_node(desk, *taken):
        result = typed("doctor", cwd=desk.directory, columns=60)
        assert result.code == 3
        assert result.widest() <= 60
        lines = result.lines
        (at,) = [place for place, line in enumerate(lines) if line.startswith("  fail")]
        text = " ".join(line.strip() for line in lines[at : at + 3])
        assert f"rights: 'marked' lacks {lacking}" in text
        fix = re.split(r"\n(?=\n|  \w)", result.text.partition("        fix: ")[2])[0]
        shell(fix)
        status, seen, _ = one(checkup(desk)[1], "redis.rights")
        assert (status, seen) == ("ok", "'marked' has all it needs, for keys like ~stu_*, ~loader:*")


def test_rights_are_asked_for_with_whole_commands(world):
    """Newer servers check the right to a command only if it has as many words as it needs."""
    asked = questions({"stu_": "~stu_*"}, f"{REDIS_RIGHTS} {RESTORE_RIGHT}")
    with redis.Redis(HOST, world.lab.redis_ports["n1"]) as node:
        for (right, _), words in asked.items():
            node.set_response_callback("COMMAND", list)
            ((_, arity, *_),) = node.execute_command("COMMAND INFO", right[1:])
            assert len(words) == arity if arity > 0 else len(words) >= -arity, (words, arity)


def test_a_node_with_other_rights(desk):
    """Rights are each node's own: the one that differs is named."""
    port = desk.world.lab.redis_ports["n5"]
    with on_each_node(desk), redis.Redis(HOST, port) as node:
        node.execute_command("ACL", "SETUSER", "marked", "-scan")
        status, seen, _ = one(checkup(desk)[1], "redis.rights")
        assert (status, seen) == ("fail", f"'marked' lacks +scan on {HOST}:{port}")


def test_memory(desk, tmp_path):
    """Rows that do not fit, and a policy that throws keys away; what is printed lets them in, and keeps them."""
    numbers = " UNION ALL ".join(f"SELECT {number}" for number in range(100))
    desk.world.sql(
        "CREATE TABLE big (id INT PRIMARY KEY AUTO_INCREMENT, text CHAR(200) DEFAULT 'x')",
        f"INSERT INTO big (text) SELECT REPEAT('x', 200) FROM ({numbers}) a, ({numbers}) b",
        "ANALYZE TABLE big",
    )
    limits = ["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]
    with redis_server(tmp_path, *limits) as port:
        desk.write({"big": {"table": "big"}}, target={"url": f"redis://{HOST}:{port}", "password": ""})
        code, found = checkup(desk)
        assert (code, statuses(found, "redis.memory"), statuses(found, "job.size")) == (0, ["warn"], ["warn"])
        shell(one(found, "redis.memory")[2])
        code, found = checkup(desk)
        assert (code, statuses(found, "redis.memory"), statuses(found, "job.size")) == (3, ["ok"], ["fail"])
        shell(one(found, "job.size")[2])
        code, found = checkup(desk)
        assert (code, statuses(found, "job.size")) == (0, ["ok"])
        assert "has no replica" in one(found, "redis.replicas")[1]
        assert desk.run("backfill", "big").code == 0


def test_slots_without_an_owner(desk, tmp_path):
    """A cluster that is not whole: how many slots have an owner, and what gives the others one."""
    with redis_server(tmp_path, "--cluster-enabled", "yes") as port, redis.Redis(HOST, port) as client:
        desk.write(target={"url": f"redis://{HOST}:{port}", "password": ""})
        _, found = checkup(desk)
        assert one(found, "redis.cluster")[:2] == (
            "fail",
            "fail, 0 of 16384 slots in 0 masters: no node has slots",
        )
        client.execute_command("CLUSTER", "ADDSLOTS", *range(100))
        code, found = checkup(desk)
        assert (code, one(found, "redis.cluster")[2]) == (3, f"redis-cli --cluster fix {HOST}:{port}")
        assert "100 of 16384 slots in 1 master" in one(found, "redis.cluster")[1]


def test_a_node_cannot_save(desk, tmp_path):
    """A snapshot that failed means that writes are refused."""
    with redis_server(tmp_path) as port, redis.Redis(HOST, port) as client:
        desk.write(target={"url": f"redis://{HOST}:{port}", "password": ""})
        assert one(checkup(desk)[1], "redis.persistence")[0] == "ok"
        (tmp_path / "dump.rdb").mkdir()
        with suppress(redis.ResponseError):
            client.save()
        client.bgsave()
        wait(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the snapshot")
        status, seen, _ = one(checkup(desk)[1], "redis.persistence")
        assert status == "fail"
        assert "rdb_last_bgsave_status is err" in seen


def test_keys_of_another_type(desk):
    """A key of the job that holds no hash is found, of a row or not; without it all is well."""
    for number, check in ((2, "of a row"), (77, "of none")):
        key = f"stu_{number:08}"
        desk.world.redis.set(key, "x")
        status, seen, fix = one(checkup(desk)[1], "job.types")
        assert status == "fail", check
        assert seen.startswith(f"{key} holds a string")
        shell(fix)
        assert one(checkup(desk)[1], "job.types")[0] == "ok"


def test_hashes_that_expire(desk):
    """Those of a job without a ttl are found, and what it says takes it away; with a ttl, those that live too long."""
    world = desk.world
    assert desk.run("sync", "stu").code == 0
    assert one(checkup(desk)[1], "job.ttl")[:2] == ("ok", "no hash of 5 looked at expires")
    world.redis.expire("stu_00000003", 3600)
    status, seen, fix = one(checkup(desk)[1], "job.ttl")
    assert (status, seen) == ("warn", "1 of 5 hashes looked at will expire, though the job has no ttl")
    desk.run(*shlex.split(fix)[1:])
    assert one(checkup(desk)[1], "job.ttl")[0] == "ok"
    desk.write({"stu": STU["stu"] | {"ttl": "1h"}})
    status, seen, fix = one(checkup(desk)[1], "job.ttl")
    assert (status, seen.partition(" hashes")[0]) == ("warn", "5 of 5")
    desk.run(*shlex.split(fix)[1:])
    assert one(checkup(desk)[1], "job.ttl")[:2] == ("ok", "no hash of 5 looked at lives for longer than the ttl")
    world.redis.expire("stu_00000003", 7200)
    assert one(checkup(desk)[1], "job.ttl")[1].startswith("1 of 5 hashes looked at never expire, or later")


def test_what_runs_left(desk):
    """A backfill that is unfinished, a checkpoint that is none, rows that were rejected."""
    with RedisClient(desk.world.config(**STU["stu"]).target) as target:
        state = StateStore(target, "stu")
        Rejects(target, "stu").add([Reject(b"stu_1", "too large")], "x")
        state.save(Checkpoint("abc", {}, (), (Chunk(1),), None, ended=True))
        found = checkup(desk)[1]
        seen = "run abc is unfinished and owes 1 chunk"
        assert one(found, "job.checkpoint") == ("warn", seen, "loader backfill stu")
        assert one(found, "job.rejects") == ("warn", "1 row could not be written", "loader rejects list stu")
        lock = Lock(desk.world.config(**STU["stu"]).target, "stu", "def")
        lock.take(target)
        found = checkup(desk)[1]
        assert one(found, "job.lock")[1].startswith("held by run def (host ")
        assert one(found, "job.checkpoint") == ("ok", "run abc is in progress", None)
        lock.drop(target)
        assert one(found, "job.times")[0] == "ok"
        target.ask(b"loader:{stu}:success", "SET", "loader:{stu}:success", "odd")
        assert one(checkup(desk)[1], "job.times")[:2] == ("warn", "not checked: its last success cannot be read")
        target.ask(b"loader:{stu}:success", "DEL", "loader:{stu}:success")
        target.ask(b"loader:{stu}:checkpoint", "SET", "loader:{stu}:checkpoint", json.dumps({"version": 0}))
        code, found = checkup(desk)
        assert (code, one(found, "job.checkpoint")[2]) == (3, "loader backfill stu --restart")


def test_a_shell_command_is_folded_behind_backslashes():
    """What is too long for a line is still one command when it is pasted."""
    words = ["redis-cli", "ACL", "SETUSER", "someone", "~a b*", *(f"+command{number}" for number in range(20))]
    for width in (80, 60):
        text = finding_text(fail("seen", shlex.join(words)), None, Screen(width))
        assert 40 < max(map(len, text.splitlines())) <= width
        assert shlex.split(text.partition("fix:")[2].replace("\\\n", "")) == words
    assert finding_text(fail("seen", shlex.join(words)), None).endswith(shlex.join(words))


@pytest.mark.parametrize(
    ("columns", "primary", "key", "fix", "advice"),
    [
        ("a varchar(9), b varchar(9)", "ab", "t_{a}_{b}", None, "a query that selects HEX(`a`) for the key does not"),
        ("a uuid, b varchar(9), c varchar(9)", "abc", "t_{a}{b}_{c}", None, "selects HEX(`b`) for the key does not"),
        ("a int, b varchar(9)", "ab", "t_{a}{b}", 'key: "t_{a}_{b}"', "could make the same key"),
        ("a enum('x_y'), b enum('y_x','x')", "ab", "t_{a}{b}", 'key: "t_{a}_{b}"', "could make the same key"),
        ("a set('x_y'), b varchar(9)", "ab", "t_{a}_{b}", 'key: "t_{a}:{b}"', "could make the same key"),
        ("a int, b int", "ab", "t_{a}", 'key: "t_{a}_{b}"', "is not unique"),
        ("a set('x_y'), b varchar(9)", "ab", "t_{b}", 'key: "t_{a}:{b}"', "is not unique"),
    ],
)
def test_a_key_that_tells_rows_apart_is_named(columns, primary, key, fix, advice):
    """The columns of the key with a sign that keeps them apart, or the column that has to be hexadecimal."""
    pairs = [text.split(" ") for text in columns.split(", ")]
    table = Table("t", tuple(Column(name, kind.partition("(")[0], kind, None) for name, kind in pairs), tuple(primary))
    job = JobConfig(table="t", key=key)
    job.take_name("t")
    found = [*PLANNED["key"](PlannedJob(None, job, None, table, make_plan(job, table)))]
    assert [(each.fix, advice in each.seen) for each in found] == [(fix, True)]
