"""Following jobs on a query, and several jobs of one table: what the binlog tells of the table is enough for them."""

import pytest

from loader.doctor.diagnose import diagnose
from loader.errors import Exit, PlanError
from loader.jobs.follow import Following
from loader.jobs.preview import preview
from support.database import Ear
from support.following import caught_up, differences, following, jobs_of

JOINED = (
    "SELECT s.name AS who, s.class, COUNT(m.id) AS marks, SUM(m.mark) AS total FROM stu s"
    " LEFT JOIN marks m ON m.sid = s.sid GROUP BY s.name, s.class"
)
STU = {"table": "stu"}


@pytest.fixture
def tables(server):
    """Students, with a key of text that ignores case, and their marks."""
    server.sql(
        "SET foreign_key_checks = 0",
        "DROP TABLE IF EXISTS stu, marks, parent",
        "CREATE TABLE stu (sid INT PRIMARY KEY, name VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL UNIQUE,"
        " class INT NOT NULL, note VARCHAR(20))",
        "CREATE TABLE marks (id INT PRIMARY KEY AUTO_INCREMENT, sid INT NOT NULL, mark INT, KEY (sid))",
        "INSERT INTO stu WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
        " SELECT i, CONCAT('Name', i), i % 7, 'x' FROM n",
        "INSERT INTO marks (sid, mark) SELECT sid, sid % 5 FROM stu WHERE sid % 3",
    )
    return server


def query_job(query=JOINED, key="q_{who}", follow=STU, **job):
    return {"query": query, "key": key, "follow": follow} | job


def test_a_query_is_followed(tables, world):
    """Rows of the table are read again through the query by their keys; changes of other tables wait for a sync."""
    config = jobs_of(tables, world, job=query_job())
    running = following(config)
    tables.sql(
        "INSERT INTO marks (sid, mark) VALUES (3, 5), (2000, 9)",
        "UPDATE stu SET note = 'new' WHERE sid = 3",
        "INSERT INTO stu VALUES (2000, 'Name2000', 3, '')",
        "DELETE FROM stu WHERE sid = 4",
        "UPDATE stu SET name = 'name5' WHERE sid = 5",
        "UPDATE stu SET name = 'Other ' WHERE sid = 6",
    )
    running.until(lambda: world.redis.exists("q_Other ") and not world.redis.exists("q_Name6"))
    assert world.redis.hget("q_Name3", "marks") == b"1"
    assert world.redis.hget("q_Name2000", "total") == b"9"
    assert differences(config) == (0, 0, 0)

    tables.sql("UPDATE marks SET mark = 77 WHERE sid = 7", "UPDATE stu SET class = 9 WHERE sid = 8")
    running.until(lambda: world.redis.hget("q_Name8", "class") == b"9")
    running.stop()
    assert differences(config) == (0, 1, 0)


def test_a_group_of_rows(tables, world):
    """A key that many rows of the table share is read again when one of them comes, goes or changes."""
    query = "SELECT class, COUNT(*) AS n, MIN(name) AS first FROM stu GROUP BY 1"
    config = jobs_of(tables, world, job=query_job(query, "class_{class}"))
    caught_up(config)
    tables.sql(
        "UPDATE stu SET class = 70 WHERE class = 3", "DELETE FROM stu WHERE class = 4", "DELETE FROM stu LIMIT 1"
    )
    caught_up(config)
    assert world.redis.exists("class_70")
    assert not world.redis.exists("class_3", "class_4")
    assert differences(config) == (0, 0, 0)


UNFIT = {
    "computed": ("SELECT sid + 0 AS id, name FROM stu", "computed"),
    "another table": ("SELECT m.sid AS id FROM stu JOIN marks m ON m.sid = stu.sid", "column sid of test.marks"),
    "not named": ("SELECT sid AS id FROM marks", "has to name table 'stu'"),
    "within": ("SELECT id, n FROM (SELECT sid AS id, 1 AS n FROM stu) d", "outermost SELECT"),
    "twice": ("SELECT a.sid AS id, b.name FROM stu a LEFT JOIN `stu` b ON b.sid = a.class", "2 times"),
    "in a subquery": ("SELECT sid AS id, (SELECT COUNT(*) FROM test.stu) AS n FROM stu", "2 times"),
    "LIMIT": ("SELECT sid AS id FROM stu ORDER BY name LIMIT 50", "LIMIT"),
    "a window": ("SELECT sid AS id, RANK() OVER (ORDER BY name) AS place FROM stu", "window"),
    "UNION": ("SELECT sid AS id FROM stu UNION SELECT id FROM marks", "UNION"),
    "other groups": ("SELECT class AS id, note FROM stu GROUP BY note", "GROUP BY has to name class"),
    "a CTE": ("WITH stu AS (SELECT sid FROM marks) SELECT sid AS id FROM stu", "its WITH"),
    "one row": ("SELECT sid AS id, COUNT(*) AS n FROM stu", "a GROUP BY"),
}


@pytest.mark.parametrize(("query", "words"), UNFIT.values(), ids=UNFIT)
def test_queries_that_cannot_be_followed(tables, world, query, words):
    """If rows of the table do not say which rows of the query change, follow, plan and doctor say why."""
    config = jobs_of(tables, world, job=query_job(query, "q_{id}"))
    job = config.jobs["job"]
    with pytest.raises(PlanError, match=words) as refused:
        Following(config, [job], lambda _: Ear()).run(until_caught_up=True)
    assert refused.value.exit_code == Exit.CONFIG
    with pytest.raises(PlanError, match=words):
        preview(config, job)
    found = [each for each in diagnose(config, [], [job]) if each.level.value == "fail"]
    assert any(words in each.seen for each in found), found
    assert not world.redis.exists("loader:{job}:position")


@pytest.mark.parametrize(
    "change", ["MODIFY note CHAR(1)", "MODIFY name VARCHAR(60) NOT NULL", "ADD extra INT NOT NULL DEFAULT 5 FIRST"]
)
def test_the_table_is_altered(tables, world, change):
    """All rows are read again if columns of the followed table change, whether the result shows it or not."""
    config = jobs_of(tables, world, job=query_job("SELECT *, LENGTH(note) AS long_note FROM stu", "q_{sid}"))
    caught_up(config)
    tables.sql("UPDATE stu SET class = 100 WHERE sid = 8")
    tables.sql(f"ALTER TABLE stu {change}", "UPDATE stu SET class = 101 WHERE sid = 9")
    caught_up(config)
    assert world.redis.hget("q_9", "class") == b"101"
    assert differences(config) == (0, 0, 0)

    running = following(config)
    tables.sql("ALTER TABLE stu MODIFY class VARCHAR(9) NOT NULL, DROP note, ADD note INT DEFAULT 4")
    running.until(lambda: world.redis.hget("q_10", "note") == b"4")
    running.stop()
    assert differences(config) == (0, 0, 0)


def test_an_enum_is_renamed_while_nobody_follows(tables, world):
    """A change of the table that the result of the query does not show is noticed by the definition."""
    tables.sql("ALTER TABLE stu ADD kind ENUM('aa', 'bb') NOT NULL")
    config = jobs_of(tables, world, job=query_job("SELECT sid, kind FROM stu", "q_{sid}"))
    caught_up(config)
    tables.sql("SET sql_mode = ''", "ALTER TABLE stu MODIFY kind ENUM('cc', 'bb') NOT NULL")
    caught_up(config)
    assert differences(config) == (0, 0, 0)


def test_many_jobs_of_one_table(tables, world):
    """Jobs with other keys, rows and fields, one of them a query, follow the same changes over one stream."""
    config = jobs_of(
        tables,
        world,
        plain={"table": "stu", "key": "p_{sid}"},
        some={"table": "stu", "key": "s_{name}", "where": "class < 5", "fields": {"n": "UPPER(name)", "sid": "sid"}},
        both={"table": "stu", "key": "b_{class}_{sid}", "fields": ["note"], "soft_delete": "note = 'gone'"},
        query=query_job(),
    )
    running = following(config)
    tables.sql(
        "UPDATE stu SET class = 6 WHERE class = 1",
        "UPDATE stu SET note = 'gone' WHERE sid < 20",
        "UPDATE stu SET name = LOWER(name), sid = sid + 5000 WHERE class = 2",
        "DELETE FROM stu WHERE sid BETWEEN 500 AND 520",
        "INSERT INTO stu VALUES (9000, 'last', 4, 'new')",
    )
    running.until(lambda: all(world.redis.exists(key) for key in ("p_9000", "s_last", "b_4_9000", "q_last")))
    assert len(running.stop()) == 4
    assert {name: differences(config, name) for name in config.jobs} == dict.fromkeys(config.jobs, (0, 0, 0))


def test_small_images(tables, world):
    """With MINIMAL images a primary key is enough; a job with another key is refused, with the setting to change."""
    tables.sql("SET GLOBAL binlog_row_image = MINIMAL")
    try:
        plain = {"table": "stu", "key": "p_{sid}"}
        config = jobs_of(tables, world, plain=plain, query=query_job("SELECT sid, note FROM stu", "q_{sid}"))
        caught_up(config)
        tables.sql("UPDATE stu SET note = 'small' WHERE sid < 10", "DELETE FROM stu WHERE sid = 20")
        caught_up(config)
        assert [differences(config, name) for name in config.jobs] == [(0, 0, 0)] * 2

        for name, other in (("unique", {"table": "stu", "key": "n_{name}"}), ("second", query_job())):
            config = jobs_of(tables, world, plain=plain, **{name: other})
            running = following(config)
            tables.sql("UPDATE stu SET note = CONCAT(note, '!') WHERE sid = 1")
            with pytest.raises(AssertionError, match="binlog_row_image"):
                running.until(lambda: False)
    finally:
        tables.sql("SET GLOBAL binlog_row_image = FULL")


@pytest.mark.parametrize("job", [{"table": "stu", "key": "r_{sid}"}, query_job("SELECT sid, note FROM stu", "r_{sid}")])
def test_rejects(tables, world, job):
    """A row that cannot be written is listed, stays so while it cannot, and is struck off once it can, or is gone."""
    listed = "loader:{job}:rejects"
    config = jobs_of(tables, world, job=job)
    running = following(config)
    for key in ("r_7", "r_8"):
        world.redis.delete(key)
        world.redis.set(key, "not a hash")
    tables.sql("UPDATE stu SET note = 'a' WHERE sid IN (7, 8)")
    running.until(lambda: world.redis.hlen(listed) == 2)
    tables.sql("UPDATE stu SET note = 'b' WHERE sid IN (7, 9)")
    running.until(lambda: world.redis.hget("r_9", "note") == b"b")
    assert sorted(world.redis.hkeys(listed)) == [b"r_7", b"r_8"]

    world.redis.delete("r_7")
    tables.sql("UPDATE stu SET note = 'c' WHERE sid = 7", "DELETE FROM stu WHERE sid = 8")
    running.until(lambda: not world.redis.hlen(listed))
    running.stop()
    assert world.redis.hget("r_7", "note") == b"c"
    assert world.redis.get("r_8") == b"not a hash"
    world.redis.delete("r_8")
    assert differences(config) == (0, 0, 0)


def test_letters_change_their_case(tables, world):
    """Keys that MySQL holds equal are two keys in Redis: the old one goes, however many change at once."""
    config = jobs_of(tables, world, job={"table": "stu", "key": "c_{name}"}, query=query_job())
    caught_up(config)
    tables.sql("UPDATE stu SET name = LOWER(name)")
    caught_up(config)
    assert [differences(config, name) for name in config.jobs] == [(0, 0, 0)] * 2


def test_rows_that_share_a_key(tables, world):
    """A key goes with its last row, although rows with another key that is looked up at once are more than one."""
    tables.sql("UPDATE stu SET class = 1000 + sid")
    config = jobs_of(tables, world, job={"table": "stu", "key": "c_{class}"})
    caught_up(config)
    tables.sql("UPDATE stu SET class = 1 WHERE sid IN (3, 4, 5)")
    caught_up(config)
    assert world.redis.exists("c_1")
    assert not world.redis.exists("c_1003", "c_1004", "c_1005")
    tables.sql(
        "UPDATE stu SET class = 2 WHERE sid = 3",
        "UPDATE stu SET class = 1 WHERE sid = 6",
        "DELETE FROM stu WHERE sid = 7",
    )
    caught_up(config)
    assert not world.redis.exists("c_1006", "c_1007")
    assert differences(config)[2] == 0


@pytest.mark.parametrize(
    "job", [{"table": "of_stu", "key": "v_{sid}"}, query_job("SELECT sid FROM of_stu", "v_{sid}", {"table": "of_stu"})]
)
def test_views(tables, world, job):
    """The binlog names no view: to follow one is refused, for a table and for a query."""
    tables.sql("CREATE OR REPLACE VIEW of_stu AS SELECT sid FROM stu")
    config = jobs_of(tables, world, job=job)
    with pytest.raises(PlanError, match="of_stu is a view"):
        caught_up(config)
    tables.sql("DROP VIEW of_stu")
