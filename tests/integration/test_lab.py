"""The lab starts, breaks, mends and ends its own servers, and only those."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pymysql
import pytest
import redis

from loader.errors import Exit, LabError
from loader.lab import process as server_module
from loader.lab import servers as servers_module
from loader.lab.lab import Lab
from loader.lab.mysql import install_command, one_line_each
from loader.lab.process import program
from loader.lab.redis import cli_program
from loader.redis.acl import REDIS_RIGHTS, RESTORE_RIGHT
from support.command import finish, start
from support.tables import STU_SQL


@pytest.fixture
def own_lab(tmp_path):
    """A lab to break, in a directory whose name asks for care."""
    lab = Lab(tmp_path / "a 'lab'")
    lab.up(sql=[STU_SQL])
    yield lab
    lab.down()


def rows_of(lab):
    return {row.name: row for row in lab.status()}


def redis_cli(lab, node, *words):
    done = subprocess.run(
        [cli_program(), "-c", "--raw", "-p", str(lab.redis_ports[node]), *words],
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    return done.stdout.strip()


def query(lab, sql, user="loader", password=None):
    connection = pymysql.connect(
        host="127.0.0.1", port=lab.mysql_port, user=user, password=password or lab.password, database="test"
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def test_status_names_every_server(lab):
    """MySQL, three masters that own all slots, and a replica for each."""
    rows = rows_of(lab)

    assert list(rows) == ["mysql", "n1", "n2", "n3", "n4", "n5", "n6"]
    assert all(row.running for row in rows.values())
    assert [row.slots for row in rows.values() if row.role == "master"] == ["0-5460", "5461-10922", "10923-16383"]
    assert sorted(row.master for row in rows.values() if row.role == "replica") == ["n1", "n2", "n3"]
    assert rows["mysql"].address == f"127.0.0.1:{lab.mysql_port}"


def test_the_table_is_the_one_of_the_story(lab):
    """Five students, their ids with all zeros, their names as written."""
    rows = query(lab, "SELECT CONCAT(sid), sname, address FROM stu ORDER BY sid")

    assert rows == (
        ("00000001", "张三丰", "湖南长沙"),
        ("00000002", "张无忌", "河南洛阳"),
        ("00000003", "段誉", "北京市"),
        ("00000004", "乔峰", "广州市"),
        ("00000005", "沈浪", "上海市"),
    )


def test_the_loader_may_only_read(lab):
    """The account of the config reads `test`; the owner's may write; root is not let in over the network."""
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        query(lab, "DELETE FROM stu")
    query(lab, "CREATE TEMPORARY TABLE scratch (id int)", "owner", lab.owner_password)
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        query(lab, "SELECT 1", "root")
    for name in ("mysql.password", "owner.password", "redis.password"):
        assert (lab.directory / name).stat().st_mode & 0o077 == 0


def as_loader(lab, node):
    return redis.Redis(server_module.HOST, lab.redis_ports[node], username="loader", password=lab.redis_password)


def test_every_node_knows_the_loader_and_little_else_of_it(lab):
    """The nodes' account has the rights of the one list, and its password stands in its own file alone."""
    for name, port in lab.redis_ports.items():
        with as_loader(lab, name) as node, redis.Redis(server_module.HOST, port) as open_node:
            assert node.ping()
            for words in (["CONFIG", "GET", "*"], ["FLUSHALL"], ["KEYS", "*"], ["ACL", "WHOAMI"], ["SHUTDOWN"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    node.execute_command(*words)
            assert set(open_node.acl_getuser("loader")["commands"]) == {*REDIS_RIGHTS.split(), RESTORE_RIGHT}
        assert lab.redis_password not in (lab.directory / name / "redis.conf").read_text()


def test_up_twice_changes_nothing(lab):
    """A second `up` starts nothing, also from another process."""
    before = lab.status()

    assert Lab(lab.directory).up() == []
    assert lab.status() == before


def test_too_few_nodes(tmp_path):
    """Three masters is the least, and the error counts what it takes."""
    with pytest.raises(LabError) as caught:
        Lab(tmp_path / "lab").up(nodes=4, replicas=1)

    assert str(caught.value) == (
        "a cluster needs at least 3 masters: 4 nodes with 1 replica each make 2; at least 6 nodes are required"
    )
    assert caught.value.exit_code == Exit.CONFIG
    assert not (tmp_path / "lab").exists()


def test_unknown_names(lab):
    """An error lists what there is."""
    with pytest.raises(LabError, match=r"no server n9 in this lab: it has mysql, n1, n2, n3, n4, n5, n6"):
        lab.kill("n9")
    with pytest.raises(LabError, match=r"no node mysql in this lab: it has n1"):
        lab.add_replica("mysql")


def test_not_up(tmp_path):
    """Without a lab there is nothing to see, and nothing to end."""
    lab = Lab(tmp_path / "lab")

    assert lab.down() is False
    with pytest.raises(LabError, match="no lab is up"):
        lab.status()


def test_foreign_directories_are_left_alone(tmp_path):
    """Neither `up` nor `down` touches a directory with other files in it."""
    kept = tmp_path / "kept"
    kept.touch()
    with pytest.raises(LabError, match="empty or a new directory"):
        Lab(tmp_path).up()
    with pytest.raises(LabError, match="no lab"):
        Lab(tmp_path).down()

    assert kept.exists()


def test_a_missing_program_is_named(tmp_path, monkeypatch):
    """The error says which package holds the program, before anything is made."""
    monkeypatch.setattr(server_module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(LabError, match=r"mariadbd or mysqld not found: .* mariadb-server-core"):
        Lab(tmp_path / "lab").up()

    assert not (tmp_path / "lab").exists()


def test_a_server_that_fails_shows_its_log(tmp_path):
    """SQL that the server refuses ends `up` with the log's last lines, and leaves nothing running."""
    bad = tmp_path / "bad.sql"
    bad.write_text("CREATE TABEL oops (id int);")
    lab = Lab(tmp_path / "lab")
    try:
        with pytest.raises(LabError, match=r"mysql refused its SQL; its log .*mysql\.log ends with(.|\n)*TABEL"):
            lab.up(sql=[bad])

        assert not any(row.running for row in lab.status())
    finally:
        assert lab.down() is True


def test_a_taken_port_is_replaced(tmp_path, monkeypatch, lab):
    """A port that someone else got first is not an error: another is tried."""
    real, offers = servers_module.free_ports, [lab.redis_ports["n1"]]
    monkeypatch.setattr(servers_module, "free_ports", lambda n: [offers.pop() if offers else p for p in real(n)])
    own = Lab(tmp_path / "lab")
    try:
        own.up()

        assert not set(own.redis_ports.values()) & set(lab.redis_ports.values())
        assert rows_of(own)["n1"].running
    finally:
        own.down()


def test_down_ends_only_its_own_processes(own_lab):
    """A process that got the number of one that died is left alone; the directory is gone."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        before = [row.pid for row in own_lab.status()]
        own_lab.kill("n6")
        wait_for(lambda: not rows_of(own_lab)["n6"].running)
        state = own_lab.directory / "lab.json"
        state.write_text(re.sub(rf'"pid": {before[-1]}\b', f'"pid": {stranger.pid}', state.read_text()))

        assert own_lab.down() is True
        assert stranger.poll() is None
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)
        assert not own_lab.directory.exists()
        assert own_lab.up(sql=[STU_SQL]) == ["mysql", "n1", "n2", "n3", "n4", "n5", "n6"]
        assert len(query(own_lab, "SELECT * FROM stu")) == 5
    finally:
        stranger.kill()
        stranger.wait()


def test_the_story_of_a_master_that_dies(own_lab):
    """A replica takes over, the old master comes back as its replica, and is added anew only when it is empty."""
    redis_cli(own_lab, "n1", "hmset", "stu_00000005", "sid", "00000005", "sname", "沈浪")
    assert rows_of(own_lab)["n1"].slots == "0-5460"
    heir = next(row.name for row in own_lab.status() if row.master == "n1")

    own_lab.kill("n1")
    wait_for(lambda: rows_of(own_lab)[heir].slots == "0-5460")
    assert rows_of(own_lab)["n1"].running is False
    assert redis_cli(own_lab, "n2", "hget", "stu_00000005", "sname") == "沈浪"
    with pytest.raises(LabError, match="n1 does not run"):
        own_lab.kill("n1")
    with pytest.raises(LabError, match="n1 is not empty"):
        own_lab.add_replica("n1")

    port = own_lab.redis_ports["n1"]
    assert own_lab.start("n1") is True
    assert own_lab.start("n1") is False
    assert own_lab.redis_ports["n1"] == port
    wait_for(lambda: rows_of(own_lab)["n1"].master == heir)
    with pytest.raises(LabError, match="n1 is not empty: it knows 5 other nodes and holds 1 key"):
        own_lab.add_replica("n1")
    with pytest.raises(LabError, match="owns the slots 0-5460"):
        own_lab.add_replica(heir, wipe=True)
    with pytest.raises(LabError, match=r"n[45] is not a master that n1 could replicate; the masters are n2, n3"):
        own_lab.add_replica("n1", "n4" if heir != "n4" else "n5", wipe=True)

    assert own_lab.add_replica("n1", heir, wipe=True) == "n1"
    assert rows_of(own_lab)["n1"].master == heir
    assert redis_cli(own_lab, "n1", "dbsize") == "1"

    assert own_lab.add_replica() == "n7"
    assert rows_of(own_lab)["n7"].role == "replica"
    for name in ("n1", "n7"):  # wiped; new
        with as_loader(own_lab, name) as node:
            assert node.ping()
    own_lab.kill("mysql")
    own_lab.kill("n7")
    wait_for(lambda: not any(rows_of(own_lab)[name].running for name in ("mysql", "n7")))
    assert own_lab.up() == ["mysql", "n7"]
    assert len(query(own_lab, "SELECT * FROM stu")) == 5


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1;\nSELECT 2", "SELECT 1;\nSELECT 2;\n"),
        ("-- a; b\nSELECT /* c;\n */ 1 # d\n;;\n", "SELECT 1 ;\n"),
        (
            "INSERT INTO t VALUES\n  ('a;\nb--', \"it's\\\"\"),\n  ('#''');",
            "INSERT INTO t VALUES ('a;\\nb--', \"it's\\\"\"), ('#''');\n",
        ),
        ("", ""),
    ],
)
def test_one_line_each(sql, expected):
    """A statement becomes one line; text in quotes keeps its meaning."""
    assert one_line_each(sql) == expected


def test_a_machine_that_knows_no_name(tmp_path):
    """Neither its own nor localhost: it has a lab all the same."""
    own = ["unshare", "--uts", "--mount", "--net"]
    named = ["sh", "-c", 'hostname no-such.invalid && mount --bind /dev/null /etc/hosts && exec "$@"', "sh"]
    if os.geteuid() or subprocess.run([*own, *named, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to take names away")
    done = subprocess.run([*own, *named, *install_command()], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "mysql" / "mysql").is_dir()


def test_clients_find_the_lab(lab):
    """`env` has the addresses and the loader's passwords; with `my.cnf`, mysql logs in as the owner of the database."""
    files = [lab.directory / "env", lab.directory / "my.cnf"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 2
    told = dict(line.split("=", 1) for line in files[0].read_text().splitlines())
    assert told == {
        "MYSQL_URL": f"mysql://loader@127.0.0.1:{lab.mysql_port}/test",
        "MYSQL_PASSWORD": lab.password,
        "REDIS_URL": "redis://loader@" + ",".join(f"127.0.0.1:{port}" for port in lab.redis_ports.values()),
        "REDIS_PASSWORD": lab.redis_password,
    }
    asked = [
        program("mysql", "mariadb"),
        f"--defaults-file={files[1]}",
        "-N",
        "-e",
        "SELECT CURRENT_USER(), DATABASE(), '张'",
    ]
    assert subprocess.run(asked, capture_output=True, check=True, encoding="utf-8").stdout == "owner@%\ttest\t张\n"


def test_up_says_where_its_files_are_and_how_to_end_it(own_lab):
    """What is printed ends this lab, not the one of the current directory."""
    told = finish(start("lab", "up", "--dir", own_lab.directory.name, cwd=own_lab.directory.parent))
    _, config, variables, end = told.out.splitlines()
    assert (config, variables) == (
        f"config: {own_lab.directory / 'loader.yaml'}",
        f"variables: {own_lab.directory / 'env'}",
    )
    words = shlex.split(end.removeprefix("stop it with: loader "))
    assert finish(start(*words, cwd=own_lab.directory.parent)).out == "the lab is gone\n"
    assert not own_lab.directory.exists()
