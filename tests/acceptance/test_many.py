"""Many tables: several sources, one of them away, jobs of many tables, and a daemon whose tables come and go."""

import json
import signal
import time

import pytest

from loader.lab.process import HOST, free_ports
from support.checks import checkup
from support.command import MARK, MYSQL_PASSWORD, REDIS_PASSWORD, Desk
from support.daemons import daemon
from support.proxy import Proxy

SHARDS = tuple(f"s{number}" for number in range(1, 17))


@pytest.fixture
def desk(world, tmp_path, request):
    desk = Desk(world, tmp_path)
    names = [f"{world.name}_{number}" for number in range(getattr(request, "param", 2))]
    for name in names:
        world.sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4", f"GRANT SELECT ON {name}.* TO marked@'%'")
    try:
        yield desk
    finally:
        for name in names:
            world.sql(f"DROP DATABASE {name}", f"REVOKE SELECT ON {name}.* FROM marked@'%'")


def write(desk, jobs, *, sources=None, defaults=None, daemon=None):
    """A config of these jobs, of the sources s1 and s2 in two databases, or of one source if that is all there is."""
    sources = sources or {f"s{n + 1}": desk.mysql(database=f"{desk.world.name}_{n}") for n in range(2)}
    servers = {name: {"url": url, "password": MYSQL_PASSWORD} for name, url in sources.items()}
    config = {
        "version": 1,
        **({"source": servers[""]} if "" in servers else {"sources": servers}),
        "target": {"url": f"redis://marked@{HOST}:{desk.redis_port}", "password": REDIS_PASSWORD},
        "daemon": {"listen": None} | (daemon or {}),
        "jobs": jobs,
    }
    desk.text(json.dumps(config | ({"defaults": defaults} if defaults else {}), ensure_ascii=False))


def fill(desk, database, table, rows, key="sid"):
    name = f"`{desk.world.name}_{database}`.`{table}`"
    desk.world.sql(f"CREATE TABLE {name} ({key} INT PRIMARY KEY, sname VARCHAR(20))")
    values = ", ".join(f"({number}, 'n{number}')" for number in rows)
    desk.world.sql(f"INSERT INTO {name} VALUES {values}")


def keys(desk):
    return sorted(key.decode() for key in desk.world.hashes())


def nobody():
    """The url of a server at an address where nothing listens."""
    (port,) = free_ports(1)
    return f"mysql://marked@{HOST}:{port}/gone"


@pytest.mark.parametrize("desk", [len(SHARDS)], indirect=True)
def test_a_shard_that_is_away_fails_alone(desk):
    """Of one table on 16 servers all parts are loaded but that of the server that is away, which is named."""
    urls = {name: desk.mysql(database=f"{desk.world.name}_{number}") for number, name in enumerate(SHARDS)}
    for number in range(len(SHARDS)):
        fill(desk, number, "stu", range(number * 10, number * 10 + 3))
    job = {"source": list(SHARDS), "table": "stu", "key": "{source}:{sid}"}
    write(desk, {"stu": job}, sources=urls | {"s3": nobody()})
    result = desk.run("sync", "stu", "-o", "json")
    document = result.document
    assert (document["job"], document["status"], result.code) == ("stu", "failed", 4)
    assert document["parts"] == {"total": 16, "ok": 15, "failed": 1}
    assert document["failed"] == ["stu/s3"]
    assert document["rows"] == {"read": 45, "written": 45, "unchanged": 0, "deleted": 0, "rejected": 0}
    assert document["error"].startswith("job 'stu/s3': mysql ")
    assert result.err.count('"job": "stu/s3"') == 1
    loaded = {name: 10 * number for number, name in enumerate(SHARDS) if name != "s3"}
    assert keys(desk) == sorted(f"{name}:{first + n}" for name, first in loaded.items() for n in range(3))
    assert desk.run("verify", "stu/s2", "-o", "json").document["rows"] == 3
    verified = desk.run("verify", "stu", "-o", "json")
    assert (verified.code, verified.document["status"], verified.document["rows"]) == (4, "failed", 45)
    assert verified.document["parts"] == {"total": 16, "ok": 15, "failed": 1}


def test_doctor_names_the_source_that_is_away(desk):
    """Of the jobs of that source nothing is known, once for all; those of the other one are checked."""
    jobs = {name: {"table": "plain", "key": f"{name}_{{sid}}", "source": name} for name in ("s1", "s2")}
    fill(desk, 0, "plain", [1])
    write(desk, jobs, sources={"s1": desk.mysql(database=f"{desk.world.name}_0"), "s2": nobody()})
    found = checkup(desk)[1]
    tables = {each["job"]: (each["status"], each["seen"]) for each in found["job.table"]}
    assert tables["s1"][0] == "ok"
    assert tables["s2"] == ("warn", "not checked: there is no connection to source s2")
    first, second = [each["seen"] for each in found["mysql.clock"]]
    assert first.startswith("s1: ")
    assert second == "not checked: there is no connection to source s2"
    lines = [line for line in desk.run("doctor").out.splitlines() if "not made: " in line]
    assert [line.partition(" not made: ")[2] for line in lines] == ["there is no connection to source s2"]


def test_parts_are_told_as_their_job(desk):
    """One document, or some lines, for a job of many tables, whichever command; its parts one by one if asked for."""
    for table, rows in (("student_1", [1, 2]), ("student_2", [3])):
        fill(desk, 0, table, rows)
    fill(desk, 1, "plain", [1])
    jobs = {
        "students": {"source": "s1", "tables": "student_*", "key": "{table}:{pk}"},
        "plain": {"source": "s2", "table": "plain"},
    }
    write(desk, jobs)
    total = {"total": 2, "ok": 2}
    for words in (["sync", "--all"], ["verify", "--all"], ["prune", "--all"], ["rejects", "retry", "--all"]):
        students, plain = desk.run(*words, "-o", "json").documents
        assert (students["job"], students["parts"], students["failed"]) == ("students", total, [])
        assert (plain["job"], "parts" in plain) == ("plain", False)
        apart = desk.run(*words, "--parts", "-o", "json").documents
        assert [each["job"] for each in apart] == ["students/student_1", "students/student_2", "plain"]
        assert not any("parts" in each for each in apart)
    for command, count in (("backfill", ["rows", "read"]), ("verify", ["rows"]), ("prune", ["keys"])):
        document = value = desk.run(command, "students", "-o", "json").document
        for name in count:
            value = value[name]
        assert (document["parts"], value) == (total, 3)
        assert desk.run(command, "students/student_2", "-o", "json").document["job"] == "students/student_2"
        assert desk.run(command, "students").out.splitlines()[1] == "  2 parts: 2 ok"
    assert desk.run("sync", "--all").out.splitlines()[-1] == "2 jobs: 2 ok"
    desk.world.redis.delete("student_2:3")
    verified = desk.run("verify", "--all")
    assert verified.code == 3
    assert verified.out.splitlines()[0] == "students: different: 3 rows compared, 1 missing, 0 different, 0 extra"
    assert "  2 parts: 1 ok, 1 different" in verified.out


def test_tables_by_pattern(desk):
    """A pattern finds tables, also of a source that is away only now; exclusions, {pk}, odd names and misfits."""
    fill(desk, 0, "student_1", [1, 2])
    fill(desk, 1, "student_1", [1])
    fill(desk, 1, "student_{学 生}", [7])
    fill(desk, 0, "student_tmp_1", [9])
    desk.world.sql(f"CREATE TABLE {desk.world.name}_0.student_x (a INT)")
    urls = {f"s{n + 1}": desk.mysql(database=f"{desk.world.name}_{n}") for n in range(2)} | {"s3": nobody()}
    job = {"source": [*urls], "tables": "student_*", "exclude": ["student_tmp_*"], "key": "{source}:{table}:{pk}"}
    write(desk, {"学生": job}, sources=urls)
    result = desk.run("sync", "学生", "--parts", "-o", "json")
    assert {each["job"]: each["status"] for each in result.documents} == {
        "学生/s1/student_1": "ok",
        "学生/s1/student_x": "failed",
        "学生/s2/student_1": "ok",
        "学生/s2/student_%7B学%20生%7D": "ok",
        "学生/s3": "failed",
    }
    assert result.code == 2
    assert "no primary key, which {pk} in its key stands for" in result.err
    assert keys(desk) == ["s1:student_1:1", "s1:student_1:2", "s2:student_1:1", "s2:student_{学 生}:7"]
    folded = desk.run("status", "-o", "json").document
    assert (folded["job"], folded["state"]) == ("学生", "failed")
    assert folded["parts"] == {"total": 5, "failed": 2, "ok": 3}
    assert folded["failed"] == ["学生/s1/student_x", "学生/s3"]
    assert "5 parts: 2 failed, 3 ok" in desk.run("status").out
    assert len(desk.run("status", "--parts", "-o", "json").documents) == 5
    assert desk.run("get", "学生/s2/student_%7B学%20生%7D", "7", "-o", "json").document["fields"]["sname"] == "n7"
    asked = desk.run("get", "学生", "7")
    assert (asked.code, "has 5 parts" in asked.err) == (2, True)
    assert desk.run("verify", "学生/s1/student_1", "学生/s2/student_1").code == 0


def test_tables_of_several_databases(desk):
    """A pattern with a dot is about databases too; one server, one `source`; a table of another database has a name."""
    for database in range(2):
        fill(desk, database, "shop_a", [database])
    fill(desk, 1, "plain", [5])
    name = desk.world.name
    jobs = {
        "shop": {"tables": f"{name}_*.shop_*", "key": "{database}:{table}:{pk}"},
        "other": {"table": f"{name}_1.plain"},
    }
    write(desk, jobs, sources={"": desk.mysql()})
    assert desk.run("check").out == "ok: 2 jobs: shop, other\n"
    result = desk.run("sync", "--all", "--parts", "-o", "json")
    assert [each["job"] for each in result.documents] == [f"shop/{name}_0/shop_a", f"shop/{name}_1/shop_a", "other"]
    assert (result.code, keys(desk)) == (0, sorted([f"{name}_0:shop_a:0", f"{name}_1:shop_a:1", "plain_5"]))
    assert desk.run("verify", "--all").code == 0
    assert desk.run("doctor", "-o", "json").code == 0


def test_keys_that_clash_are_refused(desk):
    """Two tables that would write the same keys are refused before anything is written, with what is missing."""
    for table in ("student_1", "student_2"):
        fill(desk, 0, table, [1])
    write(desk, {"students": {"source": "s1", "tables": "student_*", "key": "student:{sid}"}})
    assert desk.run("check").code == 0
    result = desk.run("sync", "--all")
    assert result.code == 2
    assert "keys of part students/student_2 begin with 'student:' like those of part students/student_1" in result.err
    assert "put {table} into the key" in result.err
    write(desk, {"stu": {"source": ["s1", "s2"], "table": "stu", "key": "stu:{sid}"}})
    result = desk.run("check")
    assert (result.code, "put {source} into the key" in result.err) == (2, True)
    assert keys(desk) == []


def test_no_table_fits(desk):
    """A job whose patterns fit no table fails with the patterns; a job beside it is done."""
    fill(desk, 0, "stu", [1])
    jobs = {"none": {"source": "s1", "tables": ["x_*", "/y[0-9]+/"]}, "stu": {"source": "s1", "table": "stu"}}
    write(desk, jobs)
    result = desk.run("sync", "--all", "-o", "json")
    assert (result.code, [each["status"] for each in result.documents]) == (2, ["failed", "ok"])
    assert "was found that matches x_*, /y[0-9]+/" in result.err


def test_a_check_of_many_tables_is_quick(desk):
    """`check` asks no server, so what a pattern stands for costs it nothing; all is found with one statement."""
    desk.world.sql(f"USE {desk.world.name}_0")
    for number in range(345):
        desk.world.sql(f"CREATE TABLE many_{number} (id INT PRIMARY KEY)")
    desk.world.sql(f"USE {desk.world.name}")
    write(desk, {"many": {"source": "s1", "tables": "many_*"}}, defaults={"changed_only": True})
    started = time.monotonic()
    assert desk.run("check").out == "ok: 1 job: many\n"
    assert time.monotonic() - started < 5  # 0.3 s on a machine that does nothing else
    result = desk.run("status", "--parts", "-o", "json")
    assert len(result.documents) == 345


def test_the_daemon_takes_tables_that_come_and_lets_go_those_that_vanish(desk):
    """A new table is loaded without a restart; one that is gone is told of once, and its hashes stay."""
    fill(desk, 0, "student_1", [1])
    job = {"source": "s1", "tables": "student_*", "key": "{table}:{pk}", "schedule": {"every": "1s"}}
    write(desk, {"students": job}, daemon={"refresh": "1s"})
    with daemon(desk) as running:
        running.until("run", job="students/student_1")
        fill(desk, 0, "student_2", [5])
        running.until("tables joined", jobs="students/student_2")
        running.until("run", job="students/student_2")
        desk.world.sql(f"DROP TABLE {desk.world.name}_0.student_1")
        running.until("tables vanished, their jobs stop and their hashes stay", jobs="students/student_1")
        ended = len(running.of("run", job="students/student_2"))
        running.until("run", job="students/student_2", count=ended + 2)
        assert len(running.of("tables joined")) == 1
        assert running.end(signal.SIGTERM)[1] == 0
    assert keys(desk) == ["student_1:1", "student_2:5"]


def test_a_source_that_is_away_keeps_its_parts_in_the_daemon(desk):
    """It is told once; a refresh and SIGHUP let nothing vanish; the tables of the source are found when it is back."""
    for database in range(2):
        fill(desk, database, "student_1", [database])
    away = "tables of a source are not known for now, its jobs stay as they are"
    job = {"source": ["s1", "s2"], "tables": "student_*", "key": "{source}:{table}:{pk}", "schedule": {"every": "1s"}}
    port = desk.world.lab.mysql_port
    with Proxy(port) as proxy:
        urls = {"s1": desk.mysql(database=f"{desk.world.name}_0")}
        urls["s2"] = desk.mysql(proxy.port, f"{desk.world.name}_1")
        write(desk, {"students": job}, sources=urls, daemon={"refresh": "1s"})
        with daemon(desk) as running:
            running.until("run", job="students/s2/student_1", status="ok")
            (proxy.server_port,) = free_ports(1)
            proxy.reset()
            running.until(away)
            fill(desk, 0, "student_2", [5])
            running.until("tables joined", jobs="students/s1/student_2")
            running.send(signal.SIGHUP)
            assert [line["jobs"] for line in running.until("config reloaded")] == [3]
            fill(desk, 1, "student_3", [7])
            fill(desk, 0, "student_4", [8])
            running.until("tables joined", jobs="students/s1/student_4")
            assert len(running.of(away)) == 1
            proxy.server_port = port
            running.until("tables joined", jobs="students/s2/student_3")
            running.until("run", job="students/s2/student_3", status="ok")
            ended = len(running.of("run", job="students/s2/student_1", status="ok"))
            running.until("run", job="students/s2/student_1", status="ok", count=ended + 1)
            assert not running.of("tables vanished, their jobs stop and their hashes stay")
            assert running.end(signal.SIGTERM)[1] == 0
    assert {"s2:student_1:1", "s2:student_3:7", "s1:student_4:8"} < set(keys(desk))


def test_passwords_of_all_sources_stay_secret(desk):
    """No password is shown, whichever source fails."""
    job = {"source": list(SHARDS[:2]), "tables": "x*"}
    urls = {"s1": desk.mysql(), "s2": nobody()}
    write(desk, {"x": job}, sources=urls)
    result = desk.run("sync", "--all")
    assert result.code != 0
    assert MARK not in result.out + result.err


@pytest.mark.parametrize("desk", [3], indirect=True)
def test_new_tables_of_each_source_are_added(desk):
    """`init --update` looks at each source; shards that one job reads get one job, and keys name the source."""
    for number in range(2):
        fill(desk, number, "stu", [number])
        fill(desk, number, "log", [number])
    fill(desk, 2, "log", [9])
    desk.world.sql(f"CREATE TABLE `{desk.world.name}_2`.loose (a int)")
    urls = [desk.mysql(database=f"{desk.world.name}_{number}") for number in range(3)]
    before = "".join(
        [
            "version: 1  # by hand\nsources:\n",
            *(f"  {name}: {{url: {url}, password: {MYSQL_PASSWORD}}}\n" for name, url in zip("abc", urls, strict=True)),
            f"target: {{url: 'redis://marked@{HOST}:{desk.redis_port}', password: {REDIS_PASSWORD}}}\njobs:\n",
            "  stu:  # of both\n    source: [a, b]\n    table: stu\n    key: '{source}:stu:{sid}'\n",
        ]
    )
    desk.text(before)

    result = desk.run("init", "--update")
    again = desk.run("init", "--update")

    assert result.code == 0, result.err
    assert result.out == "Added 2 jobs to loader.yaml: log, log-2.\n"
    assert again.out == "loader.yaml knows all of 4 tables; there is nothing to add.\n"
    assert (desk.directory / "loader.yaml").read_text(encoding="utf-8").startswith(before)
    assert desk.run("sync", "--all").code == 0
    assert keys(desk) == ["a:log:0", "a:stu:0", "b:log:1", "b:stu:1", "c:log:9"]
