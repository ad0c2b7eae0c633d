"""The binlog of a real server: what a stream tells of it is what was changed, whatever the server's settings are."""

import os
import signal
import time

import pytest

from loader.errors import Exit, PositionLost, SourceError
from loader.mysql.binlog import Heartbeat, TablesChanged, TransactionEnd
from loader.mysql.dump import Position
from support.binlog import keys_of, numbers

T = (
    "DROP TABLE IF EXISTS t",
    "CREATE TABLE t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(50), b LONGBLOB, j JSON)",
    "INSERT INTO t VALUES (1, 'a', 'x', '{\"a\": 1, \"b\": \"" + "x" * 60 + "\"}'), (40000, 'b', 'y', '{\"a\": 2}')",
)
PARTITIONS = (
    "ALTER TABLE t PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (100), PARTITION b VALUES LESS THAN MAXVALUE)"
)
MANY = (
    "INSERT INTO t WITH RECURSIVE n AS (SELECT 100 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1099)"
    " SELECT i, REPEAT('x', 50), REPEAT('y', 1000), NULL FROM n"
)
ANY, MYSQL, MARIADB = "any", "mysql", "mariadb"
CHANGES = {
    "an insert, an update, a delete": (
        ANY,
        ["INSERT INTO t VALUES (5, 'i', 'z', NULL)", "UPDATE t SET v = 'u' WHERE id = 1",
         "DELETE FROM t WHERE id = 40000"],
        [1, 5, 40000],
    ),
    "a large number": (ANY, ["INSERT INTO t VALUES (4000000000, 'h', NULL, NULL)"], [4000000000]),
    "another key": (ANY, ["UPDATE t SET id = 7 WHERE id = 1"], [1, 7]),
    "REPLACE": (ANY, ["REPLACE INTO t VALUES (1, 'r', NULL, NULL), (2, 'r', NULL, NULL)"], [1, 2]),
    "ON DUPLICATE KEY": (ANY, ["INSERT INTO t VALUES (1, 'q', NULL, NULL) ON DUPLICATE KEY UPDATE v = 'dup'"], [1]),
    "minimal images": (
        ANY,
        ["SET binlog_row_image = MINIMAL", "UPDATE t SET v = 'm' WHERE id = 1", "UPDATE t SET id = 8 WHERE id = 1",
         "DELETE FROM t WHERE id = 40000"],
        [1, 8, 40000],
    ),
    "images without BLOBs": (ANY, ["SET binlog_row_image = NOBLOB", "UPDATE t SET v = 'n' WHERE id = 1"], [1]),
    "a savepoint": (
        ANY,
        ["BEGIN", "UPDATE t SET v = '1' WHERE id = 1", "SAVEPOINT s", "INSERT INTO t VALUES (6, '', '', NULL)",
         "ROLLBACK TO s", "UPDATE t SET v = '2' WHERE id = 40000", "COMMIT"],
        [1, 40000],
    ),
    "a rollback": (ANY, ["BEGIN", "UPDATE t SET v = '1'", "ROLLBACK"], []),
    "a trigger": (
        ANY,
        ["DROP TABLE IF EXISTS other", "CREATE TABLE other (id INT PRIMARY KEY)",
         "CREATE TRIGGER tg AFTER INSERT ON other FOR EACH ROW UPDATE t SET v = 'tg' WHERE id = 1",
         "INSERT INTO other VALUES (1)", "DROP TABLE other"],
        [1],
    ),
    "a statement with its text": (
        ANY, ["SET binlog_annotate_row_events = 1", "UPDATE t SET v = 'an' WHERE id = 1"], [1],
    ),
    "the names of columns": (
        ANY,
        ["SET GLOBAL binlog_row_metadata = FULL", "ALTER TABLE t ADD y INT", "UPDATE t SET v = 'f' WHERE id = 1",
         "SET GLOBAL binlog_row_metadata = DEFAULT"],
        [1],
    ),
    "a table filled as it is made": (
        ANY, ["DROP TABLE t", "CREATE TABLE t (id INT UNSIGNED PRIMARY KEY) SELECT 77 AS id UNION SELECT 78"],
        [77, 78],
    ),
    "MyISAM": (
        ANY, ["ALTER TABLE t DROP j", "ALTER TABLE t ENGINE = MyISAM", "UPDATE t SET v = 'm' WHERE id = 1"], [1],
    ),
    "XA, committed": (
        ANY,
        ["XA START 'a', 'b', 3", "UPDATE t SET v = 'xa' WHERE id = 1", "XA END 'a', 'b', 3", "XA PREPARE 'a', 'b', 3",
         "XA COMMIT 'a', 'b', 3"],
        [1],
    ),
    "XA, rolled back": (
        ANY, ["XA START 'b'", "UPDATE t SET v = 'xb'", "XA END 'b'", "XA PREPARE 'b'", "XA ROLLBACK 'b'"], [],
    ),
    "XA, in one phase": (
        ANY, ["XA START 'c'", "UPDATE t SET v = 'xc' WHERE id = 1", "XA END 'c'", "XA COMMIT 'c' ONE PHASE"], [1],
    ),
    "partitions": (ANY, [PARTITIONS, "UPDATE t SET v = 'p'"], [1, 40000]),
    "an event of three packets": (
        ANY, ["INSERT INTO t VALUES (90, 'l', REPEAT('L', 34000000), NULL), (91, '', '', NULL)"], [90, 91],
    ),
    "many rows": (ANY, [MANY], list(range(100, 1100))),
    "an old checksum": (
        ANY,
        ["SET GLOBAL binlog_checksum = NONE", "UPDATE t SET v = 'cn' WHERE id = 1",
         "SET GLOBAL binlog_checksum = CRC32", "UPDATE t SET v = 'cn' WHERE id = 40000"],
        [1, 40000],
    ),
    "the text of statements (MySQL)": (
        MYSQL, ["SET binlog_rows_query_log_events = 1", "UPDATE t SET v = 'rq' WHERE id = 1"], [1],
    ),
    "a compressed transaction": (
        MYSQL,
        ["SET binlog_transaction_compression = 1", "UPDATE t SET v = CONCAT(v, 'c')",
         "INSERT INTO t VALUES (77, 'c', REPEAT('z', 3000000), NULL)", "BEGIN", "DELETE FROM t WHERE id = 1",
         "DELETE FROM t WHERE id = 77", "COMMIT"],
        [1, 77, 40000],
    ),
    "a compressed XA transaction": (
        MYSQL,
        ["SET binlog_transaction_compression = 1", "XA START 'd'", "UPDATE t SET v = 'xd' WHERE id = 1",
         "XA END 'd'", "XA PREPARE 'd'", "XA COMMIT 'd'"],
        [1],
    ),
    "parts of JSON": (
        MYSQL,
        ["SET binlog_row_value_options = PARTIAL_JSON", "UPDATE t SET j = JSON_SET(j, '$.a', 9) WHERE id = 1",
         "UPDATE t SET id = 3, j = JSON_REPLACE(j, '$.a', 10) WHERE id = 1"],
        [1, 3],
    ),
    "tagged GTIDs": (
        MYSQL, ["SET gtid_next = 'AUTOMATIC:mytag'", "UPDATE t SET v = 't' WHERE id = 1"], [1],
    ),
    "compressed events": (
        MARIADB,
        ["SET GLOBAL log_bin_compress = 1", "SET GLOBAL log_bin_compress_min_len = 10",
         "UPDATE t SET v = CONCAT(v, 'c')", "INSERT INTO t VALUES (77, 'c', REPEAT('z', 300000), NULL)",
         "DELETE FROM t WHERE id = 77", "SET GLOBAL log_bin_compress = DEFAULT",
         "SET GLOBAL log_bin_compress_min_len = DEFAULT"],
        [1, 77, 40000],
    ),
    "a domain": (MARIADB, ["SET gtid_domain_id = 7", "UPDATE t SET v = 'd' WHERE id = 1"], [1]),
    "a sequence": (MARIADB, ["CREATE OR REPLACE SEQUENCE s", "INSERT INTO t (id) VALUES (NEXTVAL(s) + 500)"], [501]),
}  # fmt: skip


@pytest.fixture
def mariadb(server):
    """Whether the server is MariaDB."""
    return server.is_mariadb


def starts(server):
    """The position where the binlog ends now, in both ways."""
    return [server.position(), server.gtids()]


def needs(server, kind):
    if kind != ANY and server.is_mariadb is not (kind == MARIADB):
        pytest.skip(f"only {kind}")


@pytest.mark.parametrize(("kind", "statements", "keys"), CHANGES.values(), ids=CHANGES)
def test_what_is_told_of_changes(server, kind, statements, keys):
    """The keys are those of the rows that were changed, by file and by GTID alike."""
    needs(server, kind)
    server.sql(*T)
    before = starts(server)
    server.sql(*[each for each in statements if "annotate" not in each or server.is_mariadb])

    mark = server.mark()
    told = [server.told(start, "t", mark=mark) for start in before]
    if keys is not None:
        assert [numbers(keys_of(each)) for each in told] == [keys, keys]
    by_file, by_gtid = [[value for value in each if isinstance(value, TransactionEnd)][-1].resume for each in told]
    file, offset = server.end()
    assert by_gtid == Position(file, by_file.offset, server.gtids().gtids)
    assert by_file.offset <= offset  # after a rotation MariaDB writes on


def test_a_position_in_a_transaction_stands_still(server):
    """While a transaction is read, or not committed, neither its keys nor its end are told."""
    server.sql(*T)
    start = server.gtids()
    connection = server.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE t SET v = 'open' WHERE id = 1")
        assert keys_of(server.told(start, "t")) == set()
        cursor.execute("COMMIT")
    assert numbers(keys_of(server.told(start, "t"))) == [1]


STATEMENTS = {
    "TRUNCATE": (["TRUNCATE TABLE t"], "TRUNCATE TABLE", True),
    "DROP": (["DROP TABLE t"], "DROP TABLE", True),
    "RENAME": (["DROP TABLE IF EXISTS u", "RENAME TABLE t TO u"], "RENAME TABLE", True),
    "ALTER, a column": (["ALTER TABLE t ADD COLUMN n INT FIRST"], "ALTER TABLE", False),
    "ALTER, another name": (["DROP TABLE IF EXISTS u", "/* so */ ALTER TABLE `test`.t RENAME u"], "ALTER TABLE", True),
    "a partition less": ([PARTITIONS, "ALTER TABLE t DROP PARTITION a"], "ALTER TABLE", True),
    "an index": (["CREATE INDEX i ON t (v)"], "CREATE INDEX", False),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "words", "moves_rows"), STATEMENTS.values(), ids=STATEMENTS)
def test_what_is_told_of_statements(server, statements, words, moves_rows):
    """A statement about a followed table is told between its transactions, with whether it moves rows."""
    server.sql(*T)
    for start in starts(server):
        server.sql(*T, "UPDATE t SET v = 'before' WHERE id = 1", *statements)
        told = server.told(start, "t")

    place = max(place for place, value in enumerate(told) if isinstance(value, TablesChanged))
    assert told[place] == TablesChanged((("test", "t"),), words, moves_rows)
    assert isinstance(told[place - 1], TransactionEnd)
    assert isinstance(told[place + 1], TransactionEnd)


def test_statements_about_others(server):
    """Neither a temporary table, nor another, nor one of another database, is a followed table's."""
    server.sql(*T, "CREATE DATABASE IF NOT EXISTS other")
    start = server.position()
    server.sql(
        "CREATE TEMPORARY TABLE t (id INT)",
        "DROP TEMPORARY TABLE t",
        "CREATE TABLE t2 (id INT)",
        "DROP TABLE t2",
        "CREATE TABLE other.t (id INT)",
        "DROP DATABASE other",
        "USE mysql",
        "CREATE TABLE t (id INT)",
        "DROP TABLE t",
    )
    told = server.told(start, "t")
    named = [value for value in told if isinstance(value, TablesChanged) and value.statement != "CREATE TABLE"]
    assert named == []  # but that of other.t, in whose statement the names of both stand


def test_a_database_that_is_dropped(server):
    """With its database, a table goes."""
    server.sql("CREATE DATABASE IF NOT EXISTS gone", "CREATE TABLE gone.t (id INT PRIMARY KEY)")
    start = server.position()
    server.sql("DROP DATABASE gone")
    with server.stream(start, ("gone", "t")) as stream:
        told = [value for value in stream.read() + stream.read() if isinstance(value, TablesChanged)]
    assert [(each.statement, each.moves_rows) for each in told] == [("DROP DATABASE", True)]


@pytest.mark.parametrize(
    "statement", ["UPDATE t SET v = 'st' WHERE id = 1", "INSERT INTO t (id) VALUES (9)", "DELETE FROM t"]
)
def test_a_statement_instead_of_rows(server, statement):
    """Of a change that stands in the binlog as a statement no key is known: the stream stops, before it."""
    server.sql(*T)
    start = server.gtids()
    server.sql("UPDATE t SET v = 'r'", "SET binlog_format = STATEMENT", statement)

    with server.stream(start, "t") as stream, pytest.raises(PositionLost) as error:
        drain(stream)
    assert f"it has a statement instead of rows ({' '.join(statement.split()[:2])})".upper() in str(error.value).upper()
    assert "SET GLOBAL binlog_format = 'ROW'" in str(error.value)
    assert (error.value.exit_code, error.value.transient) == (Exit.CONFIG, False)


def test_load_data(server, tmp_path):
    """Rows that are loaded from a file are told as others."""
    server.sql(*T)
    start = server.position()
    path = tmp_path / "rows"
    path.write_text("501,aa\n502,bb\n")
    server.sql(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE t FIELDS TERMINATED BY ',' (id, v)")

    assert numbers(keys_of(server.told(start, "t"))) == [501, 502]


def until(stream, key):
    """What a stream tells up to the end of the transaction that has a key."""
    told = []
    while True:
        told += stream.read()
        if key in keys_of(told) and isinstance(told[-1], TransactionEnd):
            return told


def raw(number):
    return number.to_bytes(4, "little")


def test_from_every_end(server):
    """A stream that is read again from any end tells all that follows, and nothing that was before, in both ways."""
    server.sql(*T)
    settings = [["SET SESSION sql_notes = 1"]]
    if not server.is_mariadb:
        settings += [["SET gtid_next = 'AUTOMATIC:tag'"], ["SET binlog_transaction_compression = 1"]]
    resumes = []
    with server.stream(server.gtids(), "t") as stream:
        for number in range(6):
            server.sql(*settings[number % len(settings)], f"INSERT INTO t (id) VALUES ({100 + number})")
            resumes.append(until(stream, raw(100 + number))[-1].resume)

    mark = server.mark()
    for number, resume in enumerate(resumes):
        for start in (resume, Position(resume.file, resume.offset)):
            assert numbers(keys_of(server.told(start, "t", mark=mark))) == list(range(101 + number, 106))


def test_the_end_of_a_transaction(server):
    """An end has the GTIDs of its transactions alone, and how many they are; what it resumes from has all."""
    server.sql(*T)
    with server.stream(server.gtids(), "t") as stream:
        server.sql("INSERT INTO t (id) VALUES (5)")
        until(stream, raw(5))
        before = server.gtids()
        server.sql("INSERT INTO t (id) VALUES (6)")
        (changes, end) = until(stream, raw(6))

    assert list(changes.keys) == [raw(6)]
    assert (end.end.file, end.end.offset) == server.end()
    assert (end.transactions, end.resume) == (1, Position(*server.end(), server.gtids().gtids))
    assert abs(end.time - time.time()) < 60
    if server.is_mariadb:
        assert end.end.gtids in end.resume.gtids.split(",")  # that of one domain
    else:
        query = f"SELECT GTID_SUBTRACT('{server.gtids().gtids}', '{before.gtids}')"
        assert end.end.gtids == server.sql(query)[0][0]


def test_a_prepared_transaction(server):
    """Keys of an XA transaction are told when it is committed; until then the position to resume from is before it."""
    server.sql(*T)
    connection = server.connect()
    with connection, connection.cursor() as cursor, server.stream(server.gtids(), "t") as stream:
        server.sql("INSERT INTO t (id) VALUES (4)")
        until(stream, raw(4))
        for statement in ("XA START 'p'", "UPDATE t SET v = 'p' WHERE id = 1", "XA END 'p'", "XA PREPARE 'p'"):
            cursor.execute(statement)
        before = server.gtids()
        server.sql("INSERT INTO t (id) VALUES (5)")
        told = until(stream, raw(5))
        assert numbers(keys_of(told)) == [5]
        held = told[-1].resume
        assert held.gtids != server.gtids().gtids

        cursor.execute("XA COMMIT 'p'")
        told = until(stream, raw(1))
        assert numbers(keys_of(told)) == [1]
        assert told[-1].resume == Position(*server.end(), server.gtids().gtids)

    mark = server.mark()
    for start in (held, Position(held.file, held.offset)):
        assert numbers(keys_of(server.told(start, "t", mark=mark))) == [1, 5]

    # Of one that was prepared before, the rows are not known.
    told = server.told(before, "t", mark=mark)
    assert [value for value in told if isinstance(value, TablesChanged)] == [
        TablesChanged((("test", "t"), ("test", "mark")), "XA COMMIT", moves_rows=True)
    ]


def drain(stream, times=10**6):
    for _ in range(times):
        stream.read()


def test_heartbeats(server):
    """While nothing is changed there is a sign of life, which says so."""
    with server.stream(server.gtids(), "t", read_timeout="1s") as stream:
        began = time.monotonic()
        while not (told := stream.read()):
            pass
        assert (told, time.monotonic() - began < 1) == ([Heartbeat()], True)


def test_a_silent_server(server):
    """A server that is silent for longer than the read timeout is given up, for a while."""
    with server.stream(server.gtids(), "t", read_timeout="1s") as stream:
        stream.read()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(SourceError, match="lost while reading the binlog") as error:
                drain(stream)
        finally:
            os.kill(server.pid, signal.SIGCONT)
    assert (error.value.transient, time.monotonic() - began < 5) == (True, True)


def test_a_server_that_is_killed(server):
    """A stream ends with its server, and goes on from its last end when that is back; the file is another then."""
    server.sql(*T)
    with server.stream(server.gtids(), "t", read_timeout="5s") as stream:
        server.sql("INSERT INTO t (id) VALUES (5)")
        resume = until(stream, raw(5))[-1].resume
        server.kill()
        with pytest.raises(SourceError) as error:
            drain(stream)
    assert error.value.transient
    server.start()
    server.sql("INSERT INTO t (id) VALUES (6)")
    for start in (resume, Position(resume.file, resume.offset)):
        assert numbers(keys_of(server.told(start, "t"))) == [6]


def refusal(server, start, **options):
    """The error that a start has, at once or with what comes first."""
    with pytest.raises(SourceError) as error, server.stream(start, "t", **options) as stream:
        drain(stream, 20)
    return error.value


def positions(server):
    """Positions of this server and others that no stream can be read from, with what is said of them."""
    server.sql(*T)
    file, offset = server.end()
    server.sql("BEGIN", "UPDATE t SET v = 'p'", "INSERT INTO t (id) VALUES (5)", "COMMIT")
    events = server.sql(f"SHOW BINLOG EVENTS IN '{file}' FROM {offset}")
    rows = next(
        event[1] for event in events if "rows_v" in event[2].lower() or event[2] in {"Write_rows", "Update_rows"}
    )
    yield Position(file, offset + 10), "an event does not begin there" if server.is_mariadb else "1236"
    yield Position(file, server.end()[1] + 1000), "1236"
    yield Position("binlog.999999"), "1236"
    yield Position(file, rows), "the middle of a transaction"
    yield Position(file, events[-1][1]), "the middle of a transaction"
    yield Position(file, 1 << 32), "behind 4 GiB"
    done = server.gtids().gtids
    if server.is_mariadb:
        yield Position(gtids="0-1-99999999"), "it never had 0-1-99999999"
        yield Position(gtids=f"{done},99-1-1"), "it never had 99-1-1"
        yield Position(gtids="0-77-5"), "1236"
    else:
        uuid = done.partition(":")[0]
        yield Position(gtids=f"{uuid}:1-99999999"), "does not have all transactions"
        yield Position(gtids="00000000-0000-0000-0000-000000000009:1-5"), "does not have all transactions"


def test_positions_of_no_server(server):
    """A position that is not one of the server is refused: never does a stream begin somewhere else instead."""
    for start, why in positions(server):
        error = refusal(server, start)
        assert isinstance(error, PositionLost), (start, error)
        assert why in str(error), start
        assert not error.transient


def test_a_purged_position(server):
    """A position whose file is gone is refused, by file and by GTID."""
    server.sql(*T)
    starts_at = starts(server)
    server.sql(
        "INSERT INTO t (id) VALUES (5)", "FLUSH BINARY LOGS", "INSERT INTO t (id) VALUES (6)", "FLUSH BINARY LOGS"
    )
    while server.sql(f"PURGE BINARY LOGS TO '{server.end()[0]}'", "SHOW BINARY LOGS")[0][0] != server.end()[0]:
        time.sleep(0.1)  # until the server sees that streams of before are over
    for start in starts_at:
        assert isinstance(refusal(server, start), PositionLost)


def test_two_as_one_replica(server):
    """Of two that follow as the same replica, the first is told of the other; with another name, both stay."""
    server.sql(*T)
    with server.stream(server.gtids(), "t") as one, server.stream(server.gtids(), "t", name="other") as another:
        while Heartbeat() not in one.read():
            pass
        with server.stream(server.gtids(), "t") as same:
            with pytest.raises(SourceError, match="as the same replica") as error:
                drain(one)
            assert not isinstance(error.value, PositionLost)
            server.sql("INSERT INTO t (id) VALUES (5)")
            assert numbers(keys_of(until(same, raw(5)))) == [5]
            assert numbers(keys_of(until(another, raw(5)))) == [5]


def test_an_account_without_the_right(server):
    """An account that may not read the binlog is told what to grant."""
    server.sql("REVOKE REPLICATION SLAVE ON *.* FROM loader@'%'")
    try:
        error = refusal(server, server.position())
    finally:
        server.sql("GRANT REPLICATION SLAVE ON *.* TO loader@'%'")
    assert error.fix == "GRANT REPLICATION SLAVE ON *.* TO 'loader'@'%'"
    assert (error.exit_code, error.transient, error.fix in str(error)) == (Exit.CONFIG, False, True)


def test_a_table_that_is_not_the_one_of_the_plan(server):
    """What says which columns are the key may stop the stream."""
    server.sql(*T)
    start = server.gtids()
    server.sql("UPDATE t SET v = 'x'")

    def refuse(table):
        raise PositionLost(f"{table.table} is another table")

    with pytest.raises(PositionLost, match="t is another table"), server.stream(start, t=refuse) as stream:
        drain(stream)


def test_a_file_that_ends(server):
    """A stream goes on in the next file, where a table may have another number."""
    server.sql(*T)
    start = server.position()
    server.sql("INSERT INTO t (id) VALUES (5)", "FLUSH BINARY LOGS", "INSERT INTO t (id) VALUES (6)")
    told = server.told(start, "t")

    assert numbers(keys_of(told)) == [5, 6]
    assert told[-1].resume.file == server.end()[0] != start.file


def test_a_stream_under_tls(server, pki):
    """A stream is read under TLS as without it, also of events that are longer than what TLS sends at once."""
    server.stop()
    server.start(f"--ssl-ca={pki / 'ca.crt'}", f"--ssl-cert={pki / 'server.crt'}", f"--ssl-key={pki / 'server.key'}")
    try:
        server.sql(*T)
        start = server.gtids()
        server.sql(MANY, "INSERT INTO t VALUES (5, '', REPEAT('x', 20000000), NULL)", "DELETE FROM t WHERE id = 1")
        told = server.told(start, "t", tls=True, tls_ca=str(pki / "ca.crt"))
    finally:
        server.stop()
        server.start()
    assert numbers(keys_of(told)) == [1, 5, *range(100, 1100)]
