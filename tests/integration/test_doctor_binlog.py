"""`loader doctor` for jobs that follow the binlog: what is wrong is found, and the SQL that is printed fixes it."""

import struct
from contextlib import contextmanager

import pytest

from loader.config.servers import SourceConfig
from loader.doctor.diagnose import diagnose


@pytest.fixture
def config(server, world):
    """A config with one job, `job`, that follows the table `f`."""
    server.sql(
        "DROP TABLE IF EXISTS f, parent",
        "CREATE TABLE parent (id INT PRIMARY KEY)",
        "CREATE TABLE f (id INT PRIMARY KEY, name VARCHAR(30), up INT)",
    )
    source = {"url": f"mysql://loader@127.0.0.1:{server.port}/test", "password": server.passwords["loader"]}

    def made(**job):
        config = world.config(**{"table": "f", "key": "f_{id}", "follow": True} | job)
        return config.model_copy(update={"source": SourceConfig.model_validate(source)})

    return made


def found(config):
    """Level and fix of each finding, by its check."""
    seen = {}
    for each in diagnose(config, [], list(config.jobs.values())):
        seen.setdefault(each.check, []).append((each.level.value, each.fix, each.seen))
    return seen


def fix_of(config, check, level="fail"):
    """The fix of the only finding of a check."""
    ((told, fix, seen),) = found(config)[check]
    assert told == level, seen
    return fix


def is_well(config, check):
    return [level for level, *_ in found(config)[check]] == ["ok"]


CHECKS = ("mysql.binlog", "mysql.binlog-rights", "mysql.binlog-retention", "job.binlog-key")


def test_all_is_well(server, config):
    """A server that can be followed has no finding but good ones; a job that follows nothing has none."""
    seen = found(config())
    ours = {check: seen[check] for check in CHECKS}
    assert {level for findings in ours.values() for level, *_ in findings} == {"ok"}, ours
    assert not {check for check in found(config(follow=False)) if "binlog" in check or "cascades" in check}


def test_settings(server, config):
    """Statements in the binlog, a short retention, no server id: what is printed fixes each."""
    first, second, third = server.sql("SELECT @@GLOBAL.binlog_format, @@GLOBAL.binlog_expire_logs_seconds, 1")[0]
    try:
        for check, level, statement in (
            ("mysql.binlog", "fail", "SET GLOBAL binlog_format = 'MIXED'"),
            ("mysql.binlog", "fail", "SET GLOBAL server_id = 0") if not server.is_mariadb else (None, None, None),
            ("mysql.binlog-retention", "warn", "SET GLOBAL binlog_expire_logs_seconds = 3600"),
        ):
            if check:
                server.sql(statement)
                server.sql(fix_of(config(), check, level))
                assert is_well(config(), check)
    finally:
        server.sql(
            f"SET GLOBAL binlog_format = '{first}'",
            f"SET GLOBAL binlog_expire_logs_seconds = {second}",
            f"SET GLOBAL server_id = {third}",
        )


def test_the_right(server, config):
    """Without REPLICATION SLAVE nobody reads the binlog: the GRANT that is printed is enough."""
    server.sql("REVOKE REPLICATION SLAVE ON *.* FROM loader@'%'")
    fix = fix_of(config(), "mysql.binlog-rights")
    assert fix == "GRANT REPLICATION SLAVE ON *.* TO 'loader'@'%';"
    server.sql(fix)
    assert is_well(config(), "mysql.binlog-rights")


def test_the_key(server, config):
    """With small row images the key has to be of the primary key alone, and its text has to be known."""
    server.sql("SET GLOBAL binlog_row_image = 'MINIMAL'")
    try:
        assert is_well(config(), "job.binlog-key")
        job = config(key="f_{id}_{up}")
        server.sql(fix_of(job, "job.binlog-key"))
        assert is_well(job, "job.binlog-key")
    finally:
        server.sql("SET GLOBAL binlog_row_image = 'FULL'")
    server.sql("ALTER TABLE f ADD at TIMESTAMP NOT NULL, ADD some SET('a', 'b') NOT NULL")
    assert fix_of(config(key="f_{some}_{id}"), "job.binlog-key") == 'key: "f_{id}"'
    assert found(config(key="f_{id}_{at}"))["job.binlog-key"][0][2].endswith("name a time zone in source.time_zone")
    server.sql("CREATE OR REPLACE VIEW v AS SELECT * FROM f")
    assert fix_of(config(table="v"), "job.binlog-key") == "follow: false"
    server.sql("DROP VIEW v")


@pytest.mark.parametrize("action", ["ON DELETE CASCADE", "ON DELETE SET NULL ON UPDATE CASCADE"])
def test_cascades(server, config, action):
    """A foreign key that changes rows is found if the binlog lacks them; what is printed keeps the foreign key."""
    server.sql(f"ALTER TABLE f ADD CONSTRAINT fk FOREIGN KEY (up) REFERENCES parent (id) {action}")
    if not server.is_mariadb:
        assert "job.cascades" not in found(config())  # 9.6 and newer log them
        return
    server.sql(fix_of(config(), "job.cascades"))
    assert is_well(config(), "job.cascades")
    assert "FOREIGN KEY (`up`) REFERENCES `parent` (`id`)" in server.sql("SHOW CREATE TABLE f")[0][1]


def test_a_query(server, config):
    """For a query the followed table is looked at: its foreign keys, its columns in the binlog, and the key."""
    server.sql("ALTER TABLE f ADD CONSTRAINT fk FOREIGN KEY (up) REFERENCES parent (id) ON DELETE CASCADE")

    def query(key):
        return config(
            table=None,
            query="SELECT f.id AS k, f.name, f.id + 1 AS n FROM f",
            key=f"q_{{{key}}}",
            follow={"table": "f"},
        )

    assert is_well(query("k"), "job.binlog-key")
    assert "has to be a plain column of table 'f'" in found(query("n"))["job.binlog-key"][0][2]
    if server.is_mariadb:
        server.sql(fix_of(query("k"), "job.cascades"))
    assert [level for level, *_ in found(query("k")).get("job.cascades", [("ok",)])] == ["ok"]
    server.sql("SET GLOBAL binlog_row_image = 'MINIMAL'")
    try:
        assert is_well(query("k"), "job.binlog-key")
        assert "the binlog may lack name" in found(query("name"))["job.binlog-key"][0][2]
    finally:
        server.sql("SET GLOBAL binlog_row_image = 'FULL'")


def test_hashes_expire(server, config):
    """With a TTL and no schedule the hash of a row that does not change is lost."""
    assert fix_of(config(ttl="1h"), "job.expiry", "warn") == "schedule: {every: 1800s}"


def test_gtids(server, config):
    """MySQL without GTIDs needs them, or reads that lock, which need one more right."""
    if server.is_mariadb:
        pytest.skip("MariaDB always has GTIDs")
    server.sql("SET GLOBAL gtid_mode = ON_PERMISSIVE")
    try:
        assert "gtid_mode" in fix_of(config(), "mysql.gtids")
        locking = config(follow={"lock_reads": True})
        assert is_well(locking, "mysql.gtids")
        server.sql(fix_of(locking, "mysql.binlog-rights"))
        assert is_well(locking, "mysql.binlog-rights")
    finally:
        server.sql("SET GLOBAL gtid_mode = ON", "REVOKE REPLICATION CLIENT ON *.* FROM loader@'%'")


def test_the_database_is_left_out(server, config):
    """A filter of the binlog is seen if the account may ask for it."""
    server.stop()
    server.start("--binlog-ignore-db=other", "--binlog-ignore-db=test")
    right = "BINLOG MONITOR" if server.is_mariadb else "REPLICATION CLIENT"
    try:
        assert is_well(config(), "mysql.binlog")
        server.sql(f"GRANT {right} ON *.* TO loader@'%'")
        assert "binlog_ignore_db" in found(config())["mysql.binlog"][0][2]
    finally:
        server.stop()
        server.start()
    assert is_well(config(), "mysql.binlog")
    server.sql(f"REVOKE {right} ON *.* FROM loader@'%'")


def test_there_is_no_binlog(server, config):
    """The server has to be started with one."""
    server.stop()
    server.start("--skip-log-bin")
    try:
        assert "log_bin = binlog" in fix_of(config(), "mysql.binlog")
    finally:
        server.stop()
        server.start()


@contextmanager
def registered(server, server_id):
    """A replica that has registered with the server."""
    connection = server.connect()
    texts = b"".join(bytes((len(text),)) + text for text in (b"elsewhere", b"", b""))
    connection._execute_command(0x15, struct.pack("<I", server_id) + texts + struct.pack("<HII", 3306, 0, 0))
    connection._read_ok_packet()
    with connection:
        yield


def test_the_server_id(server, config):
    """The server id of a job is neither the server's nor a replica's, as far as one may ask; the fix names another."""
    assert "mysql.binlog-server-id" not in found(config())
    own = server.sql("SELECT @@GLOBAL.server_id")[0][0]
    fix = fix_of(config(follow={"server_id": own}), "mysql.binlog-server-id")
    assert fix == f"follow: {{server_id: {own + 1}}}"
    job = config(follow={"server_id": 9001})
    right = "REPLICATION MASTER ADMIN" if server.is_mariadb else "REPLICATION SLAVE"
    assert is_well(job, "mysql.binlog-server-id")
    server.sql(f"GRANT {right} ON *.* TO loader@'%'")
    try:
        with registered(server, 9001):
            assert fix_of(job, "mysql.binlog-server-id") == "follow: {server_id: 9002}"
            assert "its replica elsewhere" in found(job)["mysql.binlog-server-id"][0][2]
            assert is_well(config(follow={"server_id": 9002}), "mysql.binlog-server-id")
    finally:
        if server.is_mariadb:
            server.sql(f"REVOKE {right} ON *.* FROM loader@'%'")


def test_the_right_to_know_the_lag(server, config):
    """Without it the lag in bytes is not known: the GRANT that is printed is enough."""
    fix = fix_of(config(), "mysql.binlog-lag", "warn")
    server.sql(fix)
    try:
        assert is_well(config(), "mysql.binlog-lag")
    finally:
        server.sql(fix.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))


def test_a_managed_server(server, config):
    """RDS says in a table of its own how long it keeps the binlog."""
    assert "mysql.binlog-managed" not in found(config())
    server.sql(
        "CREATE TABLE mysql.rds_configuration (name VARCHAR(100), value VARCHAR(100))",
        "INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', NULL)",
        "GRANT SELECT ON mysql.rds_configuration TO loader@'%'",
    )
    try:
        for hours in ("NULL", "5"):
            server.sql(f"UPDATE mysql.rds_configuration SET value = {hours}")
            fix = fix_of(config(), "mysql.binlog-managed", "warn")
            assert fix == "CALL mysql.rds_set_configuration('binlog retention hours', 72);"
        server.sql("UPDATE mysql.rds_configuration SET value = 72")
        assert is_well(config(), "mysql.binlog-managed")
    finally:
        server.sql("DROP TABLE mysql.rds_configuration")


def test_a_replica(server, config):
    """A replica whose binlog lacks what it replicates cannot be followed, if one may see that it is a replica."""
    mariadb = server.is_mariadb
    name, right = ("log_slave_updates", "REPLICA MONITOR") if mariadb else ("log_replica_updates", "REPLICATION CLIENT")
    words = "MASTER TO MASTER" if mariadb else "REPLICATION SOURCE TO SOURCE"
    server.stop()
    server.start(f"--{name.replace('_', '-')}=OFF", "--skip-slave-start")
    try:
        server.sql(f"CHANGE {words}_HOST = '127.0.0.1'")
        assert "not checked" in found(config())["mysql.binlog-replica"][0][2]
        server.sql(f"GRANT {right} ON *.* TO loader@'%'")
        assert f"add {name} = ON under [mysqld]" in fix_of(config(), "mysql.binlog-replica")
        server.sql(f"RESET {'SLAVE' if mariadb else 'REPLICA'} ALL")
        assert "mysql.binlog-replica" not in found(config())
        server.sql(f"REVOKE {right} ON *.* FROM loader@'%'")
    finally:
        server.stop()
        server.start()
