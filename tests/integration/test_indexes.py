"""Which indexes and keys of a table are gone along: those that MySQL reads along too, as its EXPLAIN says."""

import pytest

from loader.jobs import recheck
from loader.jobs.execute import execute
from loader.jobs.prune import Pruned, prune
from loader.jobs.verify import verify
from loader.mysql import catalog
from loader.mysql.chunk_key import walk_fix
from loader.mysql.connection import Connection
from loader.mysql.plan import changed_since
from loader.mysql.planner import make_plan
from loader.pipeline import incremental
from loader.pipeline.options import Options
from support.command import Desk
from support.database import Ear

BOTH = {  # what stands in CREATE TABLE behind the columns `id`, `u` and `at`, and why it is not read along
    "PRIMARY KEY (id), INDEX i (at)": "",
    "PRIMARY KEY (id), INDEX i (at DESC, u)": "",
    "PRIMARY KEY (id), INDEX i (u, at)": "none",
    "PRIMARY KEY (id), INDEX i (at)) ENGINE=MyISAM": "disabled",
    "PRIMARY KEY USING BTREE (id), INDEX i (at)) ENGINE=MEMORY": "hash",
    "PRIMARY KEY USING BTREE (id), INDEX i USING BTREE (at)) ENGINE=MEMORY": "",
}
MARIADB = {
    "PRIMARY KEY (id), INDEX i (at) IGNORED": "ignored",
    "PRIMARY KEY (id), INDEX i (at) IGNORED, INDEX j (at)": "",
    "PRIMARY KEY (id), UNIQUE i (at) USING HASH": "hash",
}
MYSQL = {
    "PRIMARY KEY (id), INDEX i (at) INVISIBLE": "invisible",
    "PRIMARY KEY (id), INDEX i ((DATE(at)))": "none",
}
WALKS = {  # and of a walk along `u`, or along the primary key
    "UNIQUE w (u)": "",
    "PRIMARY KEY (s(5)), UNIQUE w (u)": "",
    "PRIMARY KEY (s(5))": "beginning of each value",
    "PRIMARY KEY (d)": "column 'd' is a double",
    "PRIMARY KEY (t)": "column 't' is a timestamp",
    "UNIQUE w (u)) ENGINE=MEMORY": "hash",
    "PRIMARY KEY (u)) ENGINE=MEMORY": "hash",
}
WALKS_MARIADB = {"PRIMARY KEY (d), UNIQUE w (u) IGNORED": "ignored", "UNIQUE w (x)": "hash"}
WALKS_MYSQL = {"PRIMARY KEY (d), UNIQUE w (u) INVISIBLE": "invisible"}


def make(world, columns, definition):
    closing = "" if "ENGINE" in definition else ")"
    world.sql("DROP TABLE IF EXISTS t", f"CREATE TABLE t ({columns}, {definition}{closing}")


def planned(world, **job):
    """The table as it is now, and the plan of a job of it."""
    config = world.config(table="t", **job)
    with Connection(config.source) as source:
        table = catalog.table(source, "t")
    return table, make_plan(config.jobs["job"], table)


def reads_along(world, statement):
    """Whether MySQL goes along an index, and sorts nothing."""
    with world.mysql.cursor() as cursor:
        cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {statement}")
        told = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    return bool(told["key"]) and "filesort" not in (told["Extra"] or "")


def test_changed_rows_are_found_by_an_index_that_mysql_reads_along(world):
    """Else it is said which is not, and why; what is printed to mend it does."""
    for definition, bar in (BOTH | (MARIADB if world.is_mariadb else MYSQL)).items():
        make(world, "id int NOT NULL, u int, at datetime", definition)
        world.sql("INSERT INTO t SELECT 1 + 10 * a.n + b.n, 0, FROM_UNIXTIME(10000 * (10 * a.n + b.n)) FROM (" + DIGITS)
        world.sql(*["ALTER TABLE t DISABLE KEYS"] * (bar == "disabled"), "ANALYZE TABLE t")

        def served():
            table, plan = planned(world, key="{id}", incremental={"column": "at"})
            changed = changed_since(plan, table.column("at"), "'1970-01-12 00:00:00'")
            statement = f"SELECT at FROM t WHERE {changed.conditions[-1]} ORDER BY at LIMIT 2"
            return table, incremental.index_of(table, "at"), reads_along(world, statement)

        table, index, is_used = served()
        assert (bool(index), is_used) == (not bar, not bar), definition
        if bar:
            why, mends = incremental.unserved(table, "at", "t")
            assert ("no index begins with" if bar == "none" else bar) in why
            world.sql(mends)
            assert served()[1:] == (mends.split("`")[1] if "`" in mends else "i", True), mends


DIGITS = (
    " UNION ALL ".join(f"SELECT {n} n" for n in range(10))
    + ") a CROSS JOIN ("
    + " UNION ALL ".join(f"SELECT {n} n" for n in range(10))
    + ") b"
)


def test_a_walk_goes_along_an_index_that_mysql_reads_along(world):
    """Else the table is read in one pass, and it is said what keeps it from a walk; a key that there is is no news."""
    columns = (
        "u int NOT NULL, s varchar(20) NOT NULL, d double NOT NULL, t timestamp NOT NULL, x varchar(3000) NOT NULL"
    )
    for definition, bar in (WALKS | (WALKS_MARIADB if world.is_mariadb else WALKS_MYSQL)).items():
        make(world, columns.replace("x varchar(3000)", "x int") if "MEMORY" in definition else columns, definition)
        world.sql(
            "INSERT INTO t SELECT v, v, v, FROM_UNIXTIME(90000 + v), v FROM"
            f" (SELECT 10 * a.n + b.n v FROM ({DIGITS}) q",
            "ANALYZE TABLE t",
        )

        def walked():
            table, plan = planned(world, key="{u}")
            own = plan.bound(None, 2) if plan.walk else "SELECT u FROM t ORDER BY u LIMIT 2"
            return table, plan, reads_along(world, own)

        table, plan, is_used = walked()
        assert (bool(plan.walk), is_used) == (not bar, not bar), definition
        assert bar in "".join(plan.warnings)
        change = walk_fix(table, plan.key_columns)
        if bar and change:
            world.sql(f"ALTER TABLE t {change}")
            assert walked()[2], change
        else:
            assert not bar or (table.primary_key and bar not in {"hash", "ignored", "invisible"})


@pytest.fixture
def desk(world, tmp_path):
    return Desk(world, tmp_path)


def test_what_doctor_says_of_keys_and_indexes(desk):
    """A primary key that cannot be walked is not to be added; an index that is not read along is to be let in."""
    world = desk.world
    hides, shows = ("IGNORED", "NOT IGNORED") if world.is_mariadb else ("INVISIBLE", "VISIBLE")
    world.sql(
        "CREATE TABLE moving (id int PRIMARY KEY, at datetime NOT NULL DEFAULT NOW() ON UPDATE NOW(),"
        f" INDEX i (at) {hides})",
        "CREATE TABLE double_ (d double PRIMARY KEY)",
        "CREATE TABLE prefix (b blob NOT NULL, PRIMARY KEY (b(20)))",
        f"CREATE TABLE barred (d double PRIMARY KEY, u int NOT NULL, UNIQUE w (u) {hides})",
    )
    moving = {"table": "moving", "incremental": {"column": "at"}, "full_every": "1d"}
    barred = {"table": "barred", "key": "barred_{u}"}
    desk.write({"moving": moving, "double_": {"table": "double_"}, "prefix": {"table": "prefix"}, "barred": barred})

    checked = desk.run("doctor", "-o", "json")

    found = {(each["check"], each["job"]): each for each in checked.document["checks"] if each["status"] != "ok"}
    told = {place: (each["status"], each["fix"]) for place, each in found.items()}
    alter = f"ALTER TABLE `{world.name}`."
    assert told["job.incremental", "moving"] == ("fail", f"{alter}`moving` ALTER INDEX `i` {shows};")
    assert told["job.key", "double_"] == told["job.key", "prefix"] == ("warn", None)
    assert told["job.key", "barred"] == ("warn", f"{alter}`barred` ALTER INDEX `w` {shows};")
    assert "primary key of table 'prefix' cannot be walked along" in found["job.key", "prefix"]["seen"]
    refused = desk.run("sync", "moving")
    assert refused.code == 2
    assert f"index 'i' begins with column 'at', but is {hides.lower()}: ALTER TABLE `moving`" in refused.messages[-1]


PERIODS = {
    "implicit": "",
    "shown": ", rs timestamp(6) GENERATED ALWAYS AS ROW START, re timestamp(6) GENERATED ALWAYS AS ROW END"
    ", PERIOD FOR SYSTEM_TIME (rs, re), INDEX (rs)",
    "invisible": ", rs timestamp(6) GENERATED ALWAYS AS ROW START INVISIBLE"
    ", re timestamp(6) GENERATED ALWAYS AS ROW END INVISIBLE, PERIOD FOR SYSTEM_TIME (rs, re)",
    "transactions": ", rs bigint unsigned GENERATED ALWAYS AS ROW START"
    ", re bigint unsigned GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (rs, re)",
}


@pytest.mark.parametrize("kind", PERIODS)
def test_tables_with_a_history(world, monkeypatch, kind):
    """The end of a row's period is no part of its key: chunks, increments and prunes are as without it."""
    if not world.is_mariadb:
        return
    monkeypatch.setattr(recheck, "PAUSE", 0.02)
    world.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int, at datetime(6) NOT NULL DEFAULT NOW(6) ON UPDATE NOW(6), INDEX (at)"
        f"{PERIODS[kind]}) WITH SYSTEM VERSIONING",
        "INSERT INTO t (id, v) VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)",
        "UPDATE t SET v = v + 10",
        "DELETE FROM t WHERE id = 5",
    )
    fields = {"id", "v", "at"} | ({"rs", "re"} if kind in {"shown", "transactions"} else set())

    def state():
        hashes = world.hashes()
        assert all({name.decode() for name in each} == fields for each in hashes.values())
        return {int(key.removeprefix(b"t_")): int(each[b"v"]) for key, each in hashes.items()}

    def rows():
        return dict(world.sql("SELECT id, v FROM t"))

    with Connection(world.config(table="t").source) as source:
        (listed,) = catalog.listing(source)
        assert (listed.primary_key, listed.rows is None) == (("id",), False)
        assert catalog.table(source, "t").rows_estimate is None
    run = world.sync(table="t", chunk_rows=2)
    assert (run.status, run.read, run.chunks, state()) == ("ok", 4, 3, rows())
    stamp = "rs" if kind == "shown" else "at"
    for more in ({"changed_only": True}, {"incremental": {"column": stamp, "lag": "1s"}, "full_every": "1d"}):
        config = world.config(table="t", chunk_rows=2, **more)
        job = config.jobs["job"]
        assert execute(config, job, Options(full=True), Ear()).status == "ok"
        world.sql("UPDATE t SET v = v + 1 WHERE id = 3", "INSERT INTO t (id, v) SELECT MAX(id) + 1, 0 FROM t")
        run = execute(config, job, Options(), Ear())
        assert (run.status, run.full) == ("ok", "changed_only" in more)
        assert state() == rows()
        world.sql("DELETE FROM t WHERE id = 2 OR id > 5")
        done = Pruned("job")
        prune(config, job, done, max_delete=100)
        assert (done.extra > 0, state()) == (True, rows())
        assert verify(config, job).is_equal
        world.sql("INSERT INTO t (id, v) VALUES (2, 0)")


def test_keys_of_other_periods(world):
    """An application's period is of columns like others; versions of a row are told apart by no key of its rows."""
    if not world.is_mariadb:
        return
    world.sql(
        "CREATE TABLE t (id int, s date, e date, PERIOD FOR p (s, e), PRIMARY KEY (id, p WITHOUT OVERLAPS))",
        "INSERT INTO t VALUES (1, '2024-01-01', '2024-02-01'), (1, '2024-02-01', '2024-03-01'),"
        " (2, '2024-01-01', '2025-01-01')",
        "CREATE TABLE versions (id int NOT NULL, rs timestamp(6) GENERATED ALWAYS AS ROW START,"
        " re timestamp(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (rs, re), UNIQUE (id, rs), UNIQUE (re))"
        " WITH SYSTEM VERSIONING",
    )
    run = world.sync(table="t", chunk_rows=2)
    assert (run.status, run.written, run.chunks) == ("ok", 3, 2)
    assert set(world.hashes()) == {
        b"t_1_2024-02-01_2024-01-01",
        b"t_1_2024-03-01_2024-02-01",
        b"t_2_2025-01-01_2024-01-01",
    }
    with Connection(world.config(table="t").source) as source:
        versions = catalog.table(source, "versions")
    assert (versions.primary_key, versions.unique_keys) == ((), ())
