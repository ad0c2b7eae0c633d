"""The contract of the command line: names, streams, exit codes, and the keys of the JSON documents."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loader.cli import main
from support.command import HOST, Desk, finish, start

SCHEMA = Path(__file__).parents[2] / "configs" / "loader.schema.json"
RUN = [
    "schema",
    "job",
    "run",
    "status",
    "resumed",
    "rows",
    "bytes",
    "seconds",
    "chunks",
    "nodes",
    "error",
]


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


def stu(number):
    return f"stu_{number:08}".encode()


def test_help():
    """The help names every command there is, in 80 columns."""
    result = finish(start("--help"))

    commands = re.findall(r"^  ([a-z]+) ", result.out, re.MULTILINE)
    assert (result.code, result.err) == (0, "")
    assert set(commands) >= {"check", "doctor", "schema", "plan", "sync", "backfill", "get", "cluster", "lab"}
    assert "..." not in result.out.partition("Commands:")[2]
    assert max(map(len, result.out.splitlines())) <= 80


def test_schema():
    """The schema that editors read is the one the command prints."""
    result = finish(start("schema"))

    assert (result.code, result.err) == (0, "")
    assert result.out == SCHEMA.read_text(encoding="utf-8")


def test_check(tmp_path):
    """A config can be checked without any server; files named later win."""
    config = {
        "version": 1,
        "source": {"url": "mysql://nobody@192.0.2.1/test"},
        "target": {"url": "redis://192.0.2.1"},
        "jobs": {"stu": {"table": "stu"}},
    }
    more = {"jobs": {"orders": {"table": "orders"}}}
    for name, document in [("one.yaml", config), ("two.yaml", more)]:
        (tmp_path / name).write_text(json.dumps(document))

    one = finish(start("-c", "one.yaml", "check", cwd=tmp_path))
    both = finish(start("-c", "one.yaml", "-c", "two.yaml", "check", cwd=tmp_path))
    by_variable = finish(start("check", cwd=tmp_path, LOADER_CONFIG="one.yaml"))

    assert (one.code, one.out, one.err) == (0, "ok: 1 job: stu\n", "")
    assert (both.code, both.out, both.err) == (0, "ok: 2 jobs: stu, orders\n", "")
    assert by_variable == one


def test_sync_document(desk):
    """The JSON document of a run: its keys, in their order, and its sums."""
    result = desk.run("sync", "stu", "-o", "json")

    document = result.document
    assert (result.code, result.messages) == (0, [])
    assert list(document) == RUN
    assert (document["schema"], document["job"], document["status"]) == ("loader.run/v1", "stu", "ok")
    assert document["rows"] == {"read": 5, "written": 5, "unchanged": 0, "deleted": 0, "rejected": 0}
    assert document["chunks"] == {"total": 1, "done": 1, "retried": 0}
    assert sum(document["nodes"].values()) == 5
    assert set(document["nodes"]) <= {f"{HOST}:{port}" for port in desk.world.lab.redis_ports.values()}
    assert (document["resumed"], document["error"]) == (False, None)
    assert document["bytes"] > 0
    assert document["seconds"] > 0
    assert sorted(desk.world.hashes()) == [stu(number) for number in range(1, 6)]


def test_get_and_cluster_documents(desk):
    """The JSON documents of a hash and of the cluster, as `redis-cli` would have them."""
    desk.run("sync", "stu")

    read = desk.run("get", "stu", "5", "-o", "json")
    shown = desk.run("cluster", "-o", "json")

    assert (read.code, read.err, shown.code, shown.err) == (0, "", 0, "")
    slot = desk.world.redis.cluster_keyslot("stu_00000005")
    assert read.document == {
        "schema": "loader.get/v1",
        "key": "stu_00000005",
        "slot": slot,
        "node": str(desk.world.redis.get_node_from_key("stu_00000005").name),
        "ttl": None,
        "fields": {"sid": "00000005", "sname": "沈浪", "address": "上海市"},
    }
    document = shown.document
    assert list(document) == ["schema", "state", "slots", "masters"]
    assert (document["schema"], document["state"], document["slots"]) == ("loader.cluster/v1", "ok", 16384)
    assert [list(master) for master in document["masters"]] == [["node", "slots", "keys", "replicas"]] * 3
    assert [master["slots"] for master in document["masters"]].count(5461) == 2
    assert [master["replicas"] for master in document["masters"]] == [1, 1, 1]
    expected = desk.world.redis.dbsize(target_nodes=desk.world.redis.PRIMARIES)
    assert sum(master["keys"] for master in document["masters"]) == expected


def test_dry_run(desk):
    """A dry run reads and counts, says so, and writes nothing."""
    before = desk.contents()

    counted = desk.run("sync", "stu", "-n", "-o", "json")
    printed = desk.run("sync", "stu", LOADER_DRY_RUN="1")

    assert (counted.code, printed.code) == (0, 0)
    assert list(counted.document) == [*RUN, "dry_run"]
    assert counted.document["dry_run"] is True
    assert (counted.document["rows"]["read"], sum(counted.document["nodes"].values())) == (5, 5)
    assert printed.out.startswith("stu: ok: 5 rows read, 5 would be written, 0 rejected in ")
    assert desk.contents() == before


def test_several_jobs(desk):
    """Each job gets a document on a line of its own, in the order that was asked for; one that fails stops no other."""
    desk.write(
        {
            "bad": {"table": "nix"},
            "stu": {"table": "stu", "key": "stu_{sid}"},
            "names": {"table": "stu", "key": "name_{sid}", "fields": ["sname"]},
        }
    )

    two = desk.run("sync", "names", "stu", "-o", "json")
    every = desk.run("sync", LOADER_ALL="1", LOADER_OUTPUT="json")

    assert (two.code, [document["job"] for document in two.documents]) == (0, ["names", "stu"])
    assert desk.world.hashes()[b"name_00000003"] == {b"sname": "段誉".encode()}
    assert every.code == 2
    assert [(document["job"], document["status"]) for document in every.documents] == [
        ("bad", "failed"),
        ("stu", "ok"),
        ("names", "ok"),
    ]
    error = every.documents[0]["error"].removeprefix("job 'bad': ")
    assert every.messages == [f"error: {error}"]


def test_several_jobs_end_with_a_tally(desk):
    """Each command over several jobs counts how they ended, on the last line; errors and warnings name their job."""
    desk.write(
        {
            "bad": {"table": "nix"},
            "stu": {"table": "stu", "key": "stu_{sid}"},
            "names": {"table": "stu", "key": "name_{sid}", "fields": ["sname"]},
            "full": {"table": "stu", "key": "full_{sid}"},
        }
    )
    desk.world.redis.set("full_00000003", "taken")

    done = desk.run("sync", "--all", "--progress", "none")
    assert done.code == 2
    assert [line.split(":")[0] for line in done.out.splitlines() if not line.startswith(" ")] == [
        *("stu", "names", "full", "4 jobs")
    ]
    assert done.out.splitlines()[-1] == "4 jobs: 2 ok, 1 rejects, 1 failed"
    assert [line for line in done.messages if line.startswith("error: ")] == done.messages[:1]
    assert done.messages[0].startswith("error: job 'bad': ")

    names = [b"name_%08d" % number for number in range(1, 6)]
    desk.world.redis.delete(*names[:1])
    desk.world.redis.hset("stu_00000009", "sid", "9")
    verified = desk.run("verify", "--all", "--progress", "none")
    assert verified.out.splitlines()[-1] == "4 jobs: 3 different, 1 failed"
    assert verified.messages[0].startswith("error: job 'bad': ")
    pruned = desk.run("prune", "stu", "names")
    assert (pruned.code, pruned.out.splitlines()[-1]) == (1, "2 jobs: 1 ok, 1 refused")
    assert " of job 'stu' " in pruned.messages[0]
    retried = desk.run("rejects", "retry", "--all")
    assert (retried.code, retried.out.splitlines()[-1]) == (2, "4 jobs: 2 ok, 1 rejects, 1 failed")
    alone = desk.run("sync", "stu")
    assert alone.out.splitlines()[0].startswith("stu: ok: ")
    assert "jobs" not in alone.out
    assert len(desk.run("sync", "stu", "names", "-o", "json").out.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "variables", "numbers", "chunks"),
    [
        (["--range", "2:4"], {}, [2, 3, 4], 1),
        (["--range", "4:", "--chunk-rows", "1"], {}, [4, 5], 2),
        (["--where", "sname LIKE '张%' OR sid = 5"], {"LOADER_RANGE": "2:"}, [2, 5], 1),
        ([], {"LOADER_RANGE": ":4", "LOADER_WHERE": "sid <> 1", "LOADER_CHUNK_ROWS": "2"}, [2, 3, 4], 2),
    ],
    ids=["range", "open range in chunks", "where", "variables"],
)
def test_options_and_their_variables(desk, words, variables, numbers, chunks):
    """Ranges include both ends, conditions add up, and an environment variable does what its option does."""
    result = desk.run("sync", "stu", "-o", "json", *words, **variables)

    assert result.code == 0
    assert result.document["rows"]["written"] == len(numbers)
    assert result.document["chunks"]["done"] == chunks
    assert sorted(desk.world.hashes()) == [stu(number) for number in numbers]


def test_streams(desk):
    """stdout is the result and nothing else; logs and progress are on stderr, as JSON lines where no person looks."""
    result = desk.run("--log-level", "debug", "sync", "stu", "--progress", "log", "-o", "json")
    quiet = desk.run("sync", "stu", LOADER_LOG_LEVEL="debug", LOADER_LOG_FORMAT="console", LOADER_PROGRESS="none")

    assert result.document["status"] == "ok"
    _, event, last = map(json.loads, result.err.splitlines())
    assert (event["event"], event["level"], event["job"], event["rows"]) == ("chunk loaded", "debug", "stu", 5)
    assert (last["event"], last["level"], last["run"]) == ("run", "info", result.document["run"])
    assert quiet.out.startswith("stu: ok: 5 rows read, 5 written, 0 rejected in ")
    assert "chunk loaded" in quiet.err
    assert "\x1b" not in quiet.err


def test_keys_as_a_person_types_them(desk):
    """With or without the zeros of ZEROFILL, or the whole key."""
    desk.run("sync", "stu")

    result = desk.run("get", "stu", "5", "00000005", "stu_00000005", "-o", "json")
    printed = desk.run("get", "stu", "5")

    assert (result.code, [document["key"] for document in result.documents]) == (0, ["stu_00000005"] * 3)
    assert printed.out.splitlines()[1:] == ["  sid      00000005", "  sname    沈浪", "  address  上海市"]


def test_composite_keys_and_bytes(desk):
    """The columns of a composite key are typed with commas; what is no text is base64 in JSON and escaped in text."""
    desk.world.sql(
        "CREATE TABLE part (id int, code varchar(9), data varbinary(9), PRIMARY KEY (id, code))",
        "INSERT INTO part VALUES (7, 'x', X'00FF')",
    )
    desk.write({"part": {"table": "part"}})
    assert desk.run("sync", "part").code == 0

    read = desk.run("get", "part", "7,x", "-o", "json")
    printed = desk.run("get", "part", "7,x")
    short = desk.run("get", "part", "7")

    assert read.document["key"] == "part_7_x"
    assert read.document["fields"] == {"id": "7", "code": "x", "data": {"base64": "AP8="}}
    assert printed.out.splitlines()[-1] == r'  data  "\x00\xff"'
    assert (short.code, short.err) == (2, "error: key '7': job 'part' needs 2 values: id,code\n")


def test_an_error_that_says_nothing_of_itself(monkeypatch, capsys):
    """A machine without memory left: the line says so."""

    def fail(**_):
        raise MemoryError

    monkeypatch.setattr(main, "app_of", lambda _: fail)
    monkeypatch.setattr(main, "SIGNALS", ())
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: out of memory\n")


def test_a_signal_at_the_very_end(tmp_path):
    """One that comes when the result is printed and the interpreter ends ends the process, without a traceback."""
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGTERM)"
    command = f"import sys; sys.argv = ['loader', '--version']; from loader.cli.main import main; {late}; main()"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
    assert done.stdout.startswith("loader ")
