"""Whatever a person gets wrong: one message (what, where, what to do), the right exit code, nothing written."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import redis

from loader.lab.process import wait
from support.command import HOST, MARK, MYSQL_PASSWORD, REDIS_PASSWORD, STU, Desk, finish, redis_server, start

DEBUG = ("--log-level", "debug")  # where a secret would show first
NOWHERE = {"MYSQL_URL": f"mysql://u@{HOST}:1/d", "REDIS_URL": f"redis://{HOST}:1"}
CONFIG = """\
version: 1
source: {url: "mysql://loader@127.0.0.1/test"}
target: {url: "redis://127.0.0.1"}
jobs:
  stu: {table: stu, key: "stu_{sid}"}
"""


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


@pytest.fixture
def closed_port():
    """A port that nobody listens at, for as long as it is needed."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]


def refused(desk, *words, code=2, **changes):
    """The one message of a command that fails and writes nothing."""
    before = desk.contents()
    result = desk.run(*DEBUG, *words, **changes)
    assert (result.code, result.out) == (code, "")
    assert desk.contents() == before
    (message,) = result.messages
    return message


def job(**changes):
    return {"stu": STU["stu"] | changes}


# the config, offline


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "jobs: [",
            ["loader.yaml:1:8: error: file: while parsing a flow node, expected the node content"],
        ),
        (CONFIG + "jbos: 1\n", ["loader.yaml:6:1: error: jbos: unknown key; did you mean jobs?"]),
        (
            CONFIG.replace("table: stu", "table: 3"),
            ["loader.yaml:5:16: error: jobs.stu.table: must be text, not a number; put it in quotes"],
        ),
        (
            CONFIG.replace("127.0.0.1/", "${NO_SUCH_HOST}/"),
            ["loader.yaml:2:15: error: source.url: ${NO_SUCH_HOST} is not set in the environment"],
        ),
        (
            CONFIG.replace("table: stu", "tabel: stu").replace("version: 1", "version: 2"),
            [
                "loader.yaml:1:10: error: version: must be 1",
                "loader.yaml:5:9: error: jobs.stu.tabel: unknown key; did you mean table?",
                "loader.yaml:5:8: error: jobs.stu.query: a job needs a table or a query",
            ],
        ),
        (
            CONFIG.replace("stu_{sid}", "stu"),
            ["loader.yaml:5:26: error: jobs.stu.key: names no column, so that all rows would share one key; "],
        ),
    ],
    ids=["no YAML", "unknown key", "wrong type", "unset variable", "several", "no column in the key"],
)
def test_config(tmp_path, text, expected):
    """Every fault of a config is named at once, each with its file, line and column."""
    (tmp_path / "loader.yaml").write_text(text)

    result = finish(start(*DEBUG, "sync", "stu", cwd=tmp_path))

    assert (result.code, result.out) == (2, "")
    assert len(result.messages) == len(expected)
    for line, start_of_line in zip(sorted(result.messages), sorted(expected), strict=True):
        assert line.startswith(start_of_line)


def test_no_config(tmp_path):
    """A config that is not there is named; where none was named, all places that were looked at are."""
    named = finish(start("-c", "nix.yaml", "sync", "stu", cwd=tmp_path))
    found = finish(start("check", cwd=tmp_path))

    assert (named.code, named.err) == (2, "nix.yaml:1:1: error: file: it cannot be read: No such file or directory\n")
    assert found.code == 2
    assert "loader.yaml" in found.err
    assert len(found.messages) == 1


# names and statements


def test_unknown_job(desk):
    """A job that is not in the config brings the nearest one to mind."""
    assert refused(desk, "sync", "stuu") == "error: no job 'stuu' in the config: did you mean 'stu'?"


def test_no_job_named(desk):
    """Nothing is run unless it is named, or all are asked for."""
    assert refused(desk, "sync") == "error: name the jobs, or give --all: there is stu"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"table": "stud"}, "error: mysql {mysql}: table 'stud': Table '{database}.stud' doesn't exist (1146)"),
        ({"table": "a`b"}, "error: mysql {mysql}: table 'a`b': Table '{database}.a`b' doesn't exist (1146)"),
        (
            {"fields": ["sid", "snme"]},
            "error: job 'stu': fields: table 'stu' has no column 'snme': did you mean 'sname'?",
        ),
        ({"key": "stu_{idd}"}, "error: job 'stu': key: table 'stu' has no column 'idd': did you mean 'sid'?"),
        ({"fields": {"city": "LEFT(address,"}}, "error: job 'stu': MySQL refuses its SELECT, see its fields and where"),
        ({"where": "sid <"}, "error: job 'stu': MySQL refuses its SELECT, see its fields and where"),
        ({"where": "nix = 1"}, "error: job 'stu': MySQL refuses its SELECT, see its fields and where"),
    ],
    ids=["table", "backquote", "field", "key", "expression", "where", "column in where"],
)
def test_job_does_not_fit(desk, change, expected):
    """What a job names and MySQL does not have, or does not take, is named before anything is read."""
    desk.write(job(**change))

    message = refused(desk, "sync", "stu")

    address = f"{HOST}:{desk.world.lab.mysql_port}"
    assert message.startswith(expected.replace("{mysql}", address).replace("{database}", desk.world.name))


def test_no_primary_key(desk):
    """A table without a primary key needs a key in the config; with one it is read in one pass."""
    desk.world.sql("CREATE TABLE log (id int, text varchar(9))", "INSERT INTO log VALUES (1, 'a'), (2, 'b')")
    desk.write({"log": {"table": "log"}})
    expected = "error: job 'log': table 'log' has no primary key: write a key, like \"log_{column}\""
    assert refused(desk, "sync", "log") == expected

    desk.write({"log": {"table": "log", "key": "log_{id}"}})
    planned, done = desk.run("plan", "log"), desk.run("sync", "log")

    assert (planned.code, done.code) == (0, 0)
    assert planned.messages == [
        "warning: key 'log_{id}' is not unique in table 'log': of rows that share a key the last one read wins",
        "warning: table 'log' has no key to walk along: it is read in one pass, and a failure starts it over",
    ]
    assert desk.world.hashes() == {b"log_1": {b"id": b"1", b"text": b"a"}, b"log_2": {b"id": b"2", b"text": b"b"}}


def test_what_is_no_table(desk):
    """The rows of a procedure cannot be selected from; a database that is not there is no other one."""
    desk.world.sql("CREATE TABLE x (id INT PRIMARY KEY)")  # which `other.x` is not
    own = f"{desk.world.name}.stu"
    desk.write(
        {
            "call": {"query": "(CALL p());", "key": "call_{id}"},
            "show": {"query": "SHOW TABLES", "key": "show_{id}"},
            "other": {"table": "other.x", "key": "other_{id}"},
            "own": {"table": own, "key": "own_{sid}"},
        }
    )
    assert desk.run("plan", "call").code == 2
    checks = desk.run("doctor", "-o", "json").document["checks"]
    call, show, elsewhere, _ = (each["seen"] for each in checks if each["check"] == "job.table")
    assert "query: it is read like a table, and the rows of a CALL cannot be: write the SELECT" in call
    assert "query: it is read like a table, so it has to be a SELECT, and cannot begin with SHOW" in show
    assert "'other'" in elsewhere
    assert "'x'" not in elsewhere
    assert [each["status"] for each in checks if each["check"] == "job.table"] == ["fail", "fail", "fail", "ok"]


def test_key_is_not_unique(desk):
    """`plan` warns of rows that would overwrite one another."""
    desk.write(job(key="stu_{address}"))

    result = desk.run("plan", "stu")

    assert result.code == 0
    assert result.messages == [
        "warning: key 'stu_{address}' is not unique in table 'stu': of rows that share a key the last one read wins"
    ]


def test_backquote_in_a_name(desk):
    """A table may be called anything."""
    desk.world.sql("CREATE TABLE `a``b` (`i``d` int PRIMARY KEY)", "INSERT INTO `a``b` VALUES (7)")
    desk.write({"odd": {"table": "a`b"}})

    assert desk.run("sync", "odd").code == 0
    assert desk.world.hashes() == {b"a`b_7": {b"i`d": b"7"}}


def test_empty_table(desk):
    """No rows are no error."""
    desk.world.sql("DELETE FROM stu")

    result = desk.run("sync", "stu", "-o", "json")

    assert (result.code, result.document["status"]) == (0, "ok")
    assert result.document["rows"] == {"read": 0, "written": 0, "unchanged": 0, "deleted": 0, "rejected": 0}
    assert desk.world.hashes() == {}


def test_foreign_key(desk):
    """A key that holds something else is left alone, counted and named; the other rows are written."""
    desk.world.redis.set("stu_00000003", "foreign")

    printed = desk.run("sync", "stu")
    counted = desk.run("sync", "stu", "-o", "json")
    read = desk.run("get", "stu", "3")

    assert (printed.code, counted.code, read.code) == (3, 3, 1)
    reason = "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert f"  rejected stu_00000003: {reason}" in printed.out.splitlines()
    assert counted.document["status"] == "rejects"
    assert counted.document["rows"] == {"read": 5, "written": 4, "unchanged": 0, "deleted": 0, "rejected": 1}
    assert read.err.strip().endswith(reason)
    assert desk.world.redis.get("stu_00000003") == b"foreign"
    desk.world.redis.delete("stu_00000003")
    assert len(desk.world.hashes()) == 4


# servers


def test_mysql_is_down(desk, closed_port):
    """Nobody listening is exit code 4; the JSON document says the same as stderr."""
    desk.write(source={"url": desk.mysql(closed_port)})

    result = desk.run(*DEBUG, "sync", "stu", "-o", "json")

    assert (result.code, result.document["status"]) == (4, "failed")
    assert result.messages == [f"error: {result.document['error']}"]
    assert result.document["error"].startswith(f"mysql {HOST}:{closed_port}: cannot connect: ")
    assert result.document["error"].endswith(": Connection refused (2003): see whether the server runs, and source.url")
    assert desk.world.hashes() == {}


def test_mysql_refuses(desk):
    """A wrong password, an unknown database and a missing right are named, with exit code 2."""
    address = f"error: mysql {HOST}:{desk.world.lab.mysql_port}: "

    desk.write(source={"password": f"{MARK}-wrong"})
    message = refused(desk, "sync", "stu")
    assert message.startswith(f"{address}cannot connect: Access denied for user 'marked'@")
    assert ": see the user in source.url, and source.password; or the account " in message  # needs TLS, or REQUIREs it

    desk.write(source={"url": desk.mysql(database="nix")})
    message = refused(desk, "sync", "stu")
    assert message.startswith(f"{address}cannot connect: ")
    assert "'nix'" in message

    desk.world.sql(f"REVOKE SELECT ON {desk.world.name}.* FROM marked@'%'", "CREATE TABLE other (id int PRIMARY KEY)")
    desk.world.sql(f"GRANT SELECT ON {desk.world.name}.other TO marked@'%'")
    desk.write()
    assert refused(desk, "sync", "stu") == (
        f"{address}no right to read table 'stu' (or there is no such table): "
        f"GRANT SELECT ON {desk.world.name}.`stu` TO the loader's account"
    )


def test_redis_is_down(desk, closed_port):
    """Nobody listening is exit code 4, and the address is named."""
    desk.write(target={"url": f"redis://{HOST}:{closed_port}"})

    message = refused(desk, "sync", "stu", code=4)
    assert message.startswith(f"error: redis {HOST}:{closed_port}: ")
    assert message.endswith(": see whether the server runs, and target.url (rediss:// for TLS)")


def test_redis_refuses(desk):
    """A wrong password and a database that is not there are named, with exit code 2."""
    desk.write(target={"password": f"{MARK}-wrong"})
    message = refused(desk, "sync", "stu")
    assert message.startswith(f"error: redis {HOST}:{desk.redis_port}: WRONGPASS ")
    assert message.endswith(": see the user in target.url, and target.password")

    desk.write(target={"url": f"redis://marked@{HOST}:{desk.redis_port}/3"})
    message = refused(desk, "sync", "stu")  # Valkey 9 says it otherwise: a cluster may have several databases there
    assert message.startswith(f"error: redis {HOST}:{desk.redis_port}: ERR ")
    assert message.endswith(": see the database in target.url")


def test_slots_without_an_owner(desk, tmp_path):
    """A cluster that is not whole is not written to, and the slots are named."""
    with redis_server(tmp_path, "--cluster-enabled", "yes") as port:
        with redis.Redis(HOST, port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 9000, 9002, 15999)
        desk.write(target={"url": f"redis://{HOST}:{port}", "password": ""})

        assert refused(desk, "sync", "stu", code=4) == (
            "error: the cluster has no owner for 385 of 16384 slots (9001, 16000-16383): "
            "bring their masters back, or see `redis-cli --cluster check`"
        )


# signals, pipes, locales


@pytest.fixture
def slow(desk):
    """A sync of 125 rows that takes 20 s; it has begun to write."""
    desk.world.sql(
        "CREATE TABLE many (id int PRIMARY KEY)",
        "INSERT INTO many SELECT 100 * a.sid + 10 * b.sid + c.sid FROM stu a, stu b, stu c",
    )
    desk.write({"many": {"table": "many", "where": "NOT SLEEP(0.04)", "chunk_rows": 5}})
    process = desk.start("sync", "many", "-o", "json")
    wait(desk.world.hashes, "the first rows")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal(slow, desk, number, code):
    """A run that is stopped says how far it came, and no more than that was written."""
    slow.send_signal(number)
    result = finish(slow)

    assert (result.code, result.messages) == (code, [])
    assert (result.document["status"], result.document["error"]) == ("stopped", f"stopped by {number.name}")
    assert 5 <= result.document["rows"]["written"] <= len(desk.world.hashes()) < 125


def test_second_signal(slow):
    """A second signal ends at once, whatever is still under way."""
    slow.send_signal(signal.SIGINT)
    slow.send_signal(signal.SIGINT)
    result = finish(slow)

    assert result.code in {130, -signal.SIGINT}


@pytest.mark.parametrize("words", [("schema",), ("sync", "stu", "-o", "json")])
def test_nobody_reads_the_result(desk, words):
    """A pipe that was closed early, as by `| head -0`, ends the command quietly."""
    process = desk.start(*words)
    process.stdout.close()
    process.stdout = None
    result = finish(process)

    assert (result.code, result.messages) == (0, [])


def test_locale_without_our_letters(desk):
    """Values are shown in UTF-8 whatever the locale."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    desk.run("sync", "stu")

    for words in [("plan", "stu"), ("get", "stu", "1"), ("get", "stu", "1", "-o", "json")]:
        result = desk.run(*words, **ascii_only)
        assert (result.code, result.err) == (0, "")
        assert "张三丰" in result.out


def test_words_that_are_no_text(desk):
    """Bytes that are no UTF-8 on the command line are looked for as they are."""
    result = desk.run("get", "stu", b"\xff", "-o", "json")

    assert (result.code, result.document["key"]) == (1, {"base64": "c3R1X/8="})


@pytest.mark.parametrize(
    ("words", "changes", "expected"),
    [
        (["snyc"], {}, "no such command 'snyc'. Did you mean 'sync'? See `loader --help`"),
        (["sync", "--nix"], {}, "no such option: --nix; see `loader sync --help`"),
        (["sync", "stu", "--password", f"{MARK}-typed"], {}, "no such option: --password; see `loader sync --help`"),
        (["sync", "stu", "--chunk-rows", "0"], {}, "--chunk-rows: write a number of at least 1, not 0"),
        (["sync", "stu"], {"LOADER_CHUNK_ROWS": "many"}, "--chunk-rows: write a whole number, not many"),
        (["sync", "stu", "--progress", "nix"], {}, "--progress: write one of auto, bar, log, none, not nix"),
        (["runs", "--last", "1001"], {}, "--last: write a number of at most 1,000, not 1001; see `loader runs --help`"),
        (["get", "stu"], {}, "missing argument 'KEY'; see `loader get --help`"),
        (["backfill", "stu", "x", "y"], {}, "unexpected: x y; see `loader backfill --help`"),
    ],
)
def test_usage(tmp_path, words, changes, expected):
    """What the command line does not know is exit code 2, named on a line in our own words, and a document if asked."""
    (tmp_path / "loader.yaml").write_text(CONFIG)

    result = finish(start(*words, cwd=tmp_path, **changes))
    told = finish(start(*words, cwd=tmp_path, LOADER_OUTPUT="json", **changes))

    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {expected}")
    assert result.err.count("\n") == 1
    assert (told.code, told.err) == (2, result.err)
    assert f"error: {told.document['error']}\n" == result.err
    assert (told.document["schema"], told.document["exit_code"]) == ("loader.error/v1", 2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--range", "2"], "error: --range '2': write LO:HI, both included; either may be left out"),
        (["--range", "a:"], "error: --range: 'a' is not a number like those in column 'sid'"),
        (["--range", "10:9"], "error: --range '10:9': 10 comes after 9, so that no row is in it: write LO:HI"),
        (["--where", "sid in (1"], "error: --where: MySQL refuses it: You have an error in your SQL syntax"),
        (["--where", "nix = 1"], "error: --where: MySQL refuses it: Unknown column 'nix'"),
        (["--where", " "], "error: --where: must not be empty"),
        (["--where", ""], "error: --where: must not be empty"),
    ],
)
def test_options_that_make_no_sense(desk, words, expected):
    """An option's value that does not fit is named before anything is written."""
    assert refused(desk, "sync", "stu", *words).startswith(expected)


@pytest.mark.parametrize("words", ["sync stu", "status", "schema", "get stu 5", "doctor"])
def test_a_full_disk(desk, words):
    """A result that cannot be written is an error that says so, and of which stream."""
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m loader {words} > /dev/full', sys.executable],
        cwd=desk.directory,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]

    assert done.returncode == 1
    assert errors == ["error: stdout: the result cannot be written: No space left on device"]


@pytest.mark.parametrize(
    ("words", "file"), [("init --table stu -o new.yaml", "new.yaml"), ("lab up", "{}/.lab/lab.new")]
)
def test_files_that_cannot_be_written(desk, words, file):
    """The file is named, as on a full disk; nothing is left that is in the way of another try."""
    before = sorted(desk.directory.rglob("*"))
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f 0; "$0" -m loader {words}', sys.executable],
        cwd=desk.directory,
        env=os.environ
        | {"MYSQL_URL": desk.mysql(), "MYSQL_PASSWORD": MYSQL_PASSWORD}
        | {"REDIS_URL": f"redis://marked@{HOST}:{desk.redis_port}", "REDIS_PASSWORD": REDIS_PASSWORD},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    named = file.format(desk.directory)
    assert (done.returncode, done.stderr) == (1, f"error: {named}: it cannot be written: File too large\n")
    assert [path for path in sorted(desk.directory.rglob("*")) if not path.is_dir()] == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "no.yaml", "check"], "no.yaml:1:1: error: file: it cannot be read: Permission denied"),
        (["init", "--from-script", "no.yaml"], "error: no.yaml: cannot be read: Permission denied"),
        (["lab", "up", "--sql", "no.yaml"], "error: no.yaml: Permission denied"),
        (["lab", "up", "--sql", "binary"], "error: binary: it cannot be read: not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, words, message):
    """The file is named, and why; in our words, not in those of a library."""
    (tmp_path / "no.yaml").write_text("version: 1\n")
    (tmp_path / "no.yaml").chmod(0)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    unprivileged = ["setpriv", *(f"--{caps}=-dac_override,-dac_read_search" for caps in ("inh-caps", "bounding-set"))]
    result = finish(start(*words, cwd=tmp_path, within=() if os.geteuid() else unprivileged, **NOWHERE))

    assert result.err.splitlines()[-1:] == [message]


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_are_closed(desk, closed):
    """Who closes a stream gets nothing there; a command ends as otherwise, and what is closed is no server's socket."""
    codes = []
    for job in ("stu", "nix"):
        words = ["-c", f'"$0" -m loader sync {job} {closed}', sys.executable]
        done = subprocess.run(["bash", *words], cwd=desk.directory, capture_output=True, check=False, timeout=60)
        codes.append(done.returncode)

    assert codes == [0, 2]
    assert len(desk.world.hashes()) == 5


def test_s11_a_table_that_is_gone(desk):
    """A table that was never there is a fault of the config, one that was is none; of several jobs it is named."""
    desk.world.sql("CREATE TABLE other (id int PRIMARY KEY)")
    desk.write(STU | {"other": {"table": "other"}, "never": {"table": "never"}})
    assert desk.run("sync", "other").code == 0
    desk.world.sql("DROP TABLE other")

    for words, code in ((["other"], 1), (["never"], 2), (["other", "stu"], 1), (["stu", "never"], 2)):
        result = desk.run("sync", *words)
        assert result.code == code
        (message,) = result.messages
        (line,) = [log for log in map(json.loads, result.err.splitlines()) if log["level"] == "error"]
        assert line["job"] == (words[0] if words[1:] == ["stu"] else words[-1])
        assert message == f"error: {line['error']}"
        assert message.startswith("error: mysql ")
    assert "error: job 'never': mysql " in desk.run("verify", "stu", "never").err
    assert "error: job 'never': mysql " in desk.run("plan", "stu", "never").err


def test_p7_too_many_open_files(desk):
    """What this machine refuses ends the run with one message."""
    words = ["-c", 'ulimit -n 7; exec "$0" -m loader sync stu', sys.executable]
    done = subprocess.run(["bash", *words], cwd=desk.directory, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode in {1, 4}
    assert "Too many open files" in done.stderr
    assert "Traceback" not in done.stderr
