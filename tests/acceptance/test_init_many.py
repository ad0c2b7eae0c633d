"""`loader init` of a database with many tables, and of one that has got more of them."""

import stat
import time

import pytest

from loader.cli.init.config_writer import Style, Wanted
from loader.cli.init.hints import is_secret
from loader.cli.init.many_tables import draft_many
from loader.cli.init.update import with_jobs
from loader.config.files import read_document
from loader.config.nodes import compose
from loader.config.servers import SourceConfig
from loader.errors import ConfigError, LoaderError
from loader.model import Column, Table, TableSummary
from loader.mysql import catalog, schema
from loader.mysql.connection import Connection
from support.command import HOST, MARK, MYSQL_PASSWORD, REDIS_PASSWORD, Desk

COUNT = 345


@pytest.fixture
def desk(world, tmp_path):
    desk = Desk(world, tmp_path)
    (tmp_path / "loader.yaml").unlink()
    return desk


def init(desk, *words):
    urls = {"MYSQL_URL": desk.mysql(), "REDIS_URL": f"redis://marked@{HOST}:{desk.redis_port}"}
    return desk.run("init", *words, **urls, MYSQL_PASSWORD=MYSQL_PASSWORD, REDIS_PASSWORD=REDIS_PASSWORD)


def table(name, *columns, key=("id",), **more):
    columns = columns or ("id", "name")
    return Wanted(
        TableSummary(name, rows=10, bytes=1 << 20, primary_key=key, **more),
        Table(name, tuple(Column(each, "int", "int(11)", None, nullable=False) for each in columns), key),
    )


def drafted(tmp_path, wanted, *, patterns=("*",), key="", taken=()):
    """The draft of these tables, and the jobs that its text has."""
    draft = draft_many("here", wanted, patterns, Style(key, "shop"), taken)
    file = tmp_path / "draft.yaml"
    file.write_text(draft.text, encoding="utf-8")
    return draft, read_document([file], {"MYSQL_URL": "", "REDIS_URL": ""}).values["jobs"]


def test_many_tables_take_few_statements(desk):
    """A whole schema is looked at by a few statements, which say of each table what looking at it alone says."""
    desk.world.sql(
        *(f"CREATE TABLE t{n} (id int PRIMARY KEY, a varchar(9), KEY (a))" for n in range(40)),
        "CREATE TABLE odd (a int NOT NULL, b text, UNIQUE (a), KEY (b(3)))",
        "CREATE TABLE `we``ird.x` (`i{d` int, made int AS (1) VIRTUAL, PRIMARY KEY (`i{d`))",
        "CREATE VIEW seen AS SELECT * FROM stu",
    )
    settings = SourceConfig.model_validate({"url": desk.mysql(), "password": MYSQL_PASSWORD})
    with Connection(settings) as source:
        names = [listed.name for listed in catalog.listing(source)]
        before = asked(source)
        found = schema.tables(source, names)
        assert asked(source) - before < 6
        assert found == {name: catalog.table(source, name) for name in names}


def asked(source):
    """How many statements a session has sent."""
    ((_, count),) = source.fetch("SHOW SESSION STATUS LIKE 'Com_select'")
    return int(count)


def test_tables_that_may_not_be_read(desk):
    """They are told one by one, with what the account lacks, and the others are looked at all the same."""
    desk.world.sql(
        "CREATE TABLE closed (id int PRIMARY KEY)",
        "CREATE TABLE half (id int PRIMARY KEY, a int)",
        f"CREATE USER IF NOT EXISTS some@'%' IDENTIFIED BY '{MYSQL_PASSWORD}'",
        f"GRANT SELECT ON {desk.world.name}.stu TO some@'%'",
        f"GRANT INSERT ON {desk.world.name}.closed TO some@'%'",
        f"GRANT SELECT (id) ON {desk.world.name}.half TO some@'%'",
    )
    url = desk.mysql().replace("marked@", "some@")
    with Connection(SourceConfig.model_validate({"url": url, "password": MYSQL_PASSWORD})) as source:
        found = schema.tables(source, ["closed", "half", "stu"])
        assert found["stu"] == catalog.table(source, "stu")
        assert found["half"] == catalog.table(source, "half")
    assert isinstance(found["closed"], LoaderError)
    assert "GRANT SELECT ON" in str(found["closed"])
    assert found["half"].withheld


def test_hundreds_of_tables(desk):
    """It takes about two seconds; the limit here is generous, for machines that do other things too."""
    desk.world.sql(*(f"CREATE TABLE t{n} (id int PRIMARY KEY, a int, b int)" for n in range(COUNT)))
    begun = time.monotonic()
    result = init(desk)
    took = time.monotonic() - begun
    assert result.code == 0, result.err
    assert result.out.startswith("Wrote loader.yaml (")
    assert took < 10


def test_one_job_for_tables_that_are_alike(tmp_path):
    """What does not fit has a job of its own, or none yet; hints stand once, and keys have one separator."""
    wanted = [
        *(table(f"t{n}") for n in range(300)),
        table("grid", "x", "y", key=("x", "y")),
        table("a*b"),
        table("c.d"),
        table("loader"),
        table("loose", key=()),
        table("brace", "i{d", key=("i{d",)),
        Wanted(TableSummary("closed"), None, "no right to read it"),
    ]
    draft, jobs = drafted(tmp_path, wanted)

    assert jobs["shop"] == {
        "tables": "*",
        "exclude": ["a[*]b", "/c[.]d/", "loader", "loose", "brace", "closed"],
        "key": "{table}:{pk}",
    }
    assert {name: (job["table"], job["key"]) for name, job in jobs.items() if name != "shop"} == {
        "a_b": ("a*b", "a_b:{id}"),
        "c.d": ("`c.d`", "c.d:{id}"),
        "loader": ("loader", "loader_{id}"),
    }
    assert draft.jobs == tuple(jobs)
    assert [name for name, _ in draft.refused] == ["loose", "brace", "closed"]
    assert draft.text.count("schedule: {every: 15m}") == 1
    assert draft.text.index("schedule:") < draft.text.index("  shop:  # 301 tables, about 3,010 rows, 301 MiB")
    assert "      - loose  # no primary key\n" in draft.text


@pytest.mark.parametrize(("count", "jobs"), [(1, ["t0"]), (2, ["t0", "t1"]), (3, ["shop"])])
def test_few_tables_have_a_job_each(tmp_path, count, jobs):
    """One job for many tables is worth it from three on."""
    draft, written = drafted(tmp_path, [table(f"t{n}") for n in range(count)])
    assert (list(written), draft.jobs) == (jobs, tuple(jobs))


def test_the_job_of_a_name_that_is_taken(tmp_path):
    """It has another one, and the patterns of whoever chose the tables; or their names, if they were chosen by hand."""
    wanted = [table(name) for name in ("a1", "a2", "b1")]
    _, jobs = drafted(tmp_path, [*wanted, table("x y")], patterns=())
    assert jobs["shop"] == {"tables": ["a1", "a2", "b1"], "key": "{table}:{pk}"}
    _, jobs = drafted(tmp_path, wanted, patterns=("a*", "b*"), taken=["shop"])
    assert jobs == {"shop-2": {"tables": ["a*", "b*"], "key": "{table}:{pk}"}}


@pytest.mark.parametrize(
    ("key", "grid", "stu"),
    [
        ("{table}:{pk}", "grid:{x}:{y}", "stu:{sid}"),
        ("{database}/{table}/{pk}", "shop/grid/{x}/{y}", "shop/stu/{sid}"),
        ("v1:{table}_{pk}:end", "v1:grid_{x}_{y}:end", "v1:stu_{sid}:end"),
        ("x{pk}{table}", "x{x}_{y}grid", "x{sid}stu"),
    ],
)
def test_a_template_of_keys(tmp_path, key, grid, stu):
    """{pk} is the columns of the primary key, joined by the separator before it."""
    wanted = [table("grid", "x", "y", key=("x", "y")), table("stu", "sid", key=("sid",))]
    _, jobs = drafted(tmp_path, wanted, key=key)
    assert (jobs["grid"]["key"], jobs["stu"]["key"]) == (grid, stu)
    _, jobs = drafted(tmp_path, [*wanted, table("more")], key=key)
    assert jobs["shop"]["key"] == key


def test_the_template_that_is_given(desk):
    """--key writes the keys of all jobs; what is no template is refused before anything is looked at."""
    assert init(desk, "--table", "stu", "--key", "{table}:{pk}").code == 0
    assert '    key: "stu:{sid}"  # its primary key\n' in (desk.directory / "loader.yaml").read_text()
    refused = init(desk, "--force", "--key", "{table")
    assert (refused.code, refused.err) == (
        2,
        "error: --key: unmatched brace; write {{ or }} for a literal one\n",
    )


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "passwd",
        "user_pwd",
        "pass",
        "secret",
        "client_secret",
        "access_token",
        "token",
        "apiKey",
        "api_key",
        "PasswordHash",
        "salt",
        "ssn",
        "iban",
        "card",
        "card_no",
        "cardNumber",
        "cvv",
        "pin",
    ],
)
def test_names_of_secrets(name):
    """They are told in whatever way they are spelt."""
    assert is_secret(name)


@pytest.mark.parametrize("name", ["passenger", "compass", "discard", "cardinality", "spin", "hashtag", "salty", "name"])
def test_names_of_other_things(name):
    """A word that only holds such a name is none."""
    assert not is_secret(name)


def test_secrets_are_pointed_out(desk, tmp_path):
    """A person is told which columns look like secrets, at their place in the config and after it is written."""
    desk.world.sql("CREATE TABLE member (id int PRIMARY KEY, password_hash char(60), iban varchar(34))")
    result = init(desk, "--table", "member")
    assert " ".join(result.err.split()) == (
        "warning: member.password_hash, member.iban look like secrets: whoever reads Redis will see the values; leave"
        " out what nobody needs"
    )
    text = (desk.directory / "loader.yaml").read_text()
    assert text.count("looks like a secret: copy it only if readers need it") == 2
    draft, _ = drafted(tmp_path, [table("a"), table("b", "id", "token"), table("c", "id", "salt")])
    assert draft.secrets == ("b.token", "c.salt")
    assert "Columns that look like secrets, and are copied like all others: b.token, c.salt." in " ".join(
        draft.text.replace("    # ", "").split()
    )


EDITED = """\
# Ours. Do not touch!
version: 1
source: {url: "${MYSQL_URL}", password: "${MYSQL_PASSWORD}"}   # the replica
target: {url: "${REDIS_URL}", password: "${REDIS_PASSWORD}"}

jobs:
    # Pupils, since 2019.
    pupils:
        table:   stu     # do not rename
        key: 'stu_{sid}'
        fields:
        - sid
        - sname

    # Not a job yet: nobody needs it
    # old:
    #     table: old

# The page.
daemon:
    listen: null
"""


def test_update(desk):
    """What is new is added behind the other jobs; all that people wrote stays as they wrote it, and who may read it."""
    file = desk.directory / "loader.yaml"
    file.write_text(EDITED, encoding="utf-8")
    file.chmod(0o640)
    desk.world.sql("CREATE TABLE old (id int PRIMARY KEY)", "CREATE TABLE dep (id int PRIMARY KEY, token int)")

    result = init(desk, "--update")
    again = init(desk, "--update")

    assert result.code == 0, result.err
    assert result.out == "Added 1 job to loader.yaml: dep.\n"
    assert result.err.startswith("warning: dep.token looks like a secret: ")
    assert again.out == "loader.yaml knows all of 3 tables; there is nothing to add.\n"
    text = file.read_text(encoding="utf-8")
    before, added, after = text.partition("    dep:  # about 0 rows")
    assert added
    rest = after[after.index("\n\n# The page.") :]
    assert before.rstrip() + "\n" + rest[1:] == EDITED
    assert "    dep:" in text
    assert '      key: "dep_{id}"' in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert MARK not in text
    assert [path.name for path in desk.directory.iterdir() if path.name.startswith(".loader")] == []


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("jobs:\n  a: {table: a}", "jobs:\n  a: {table: a}\n\n  b: 1\n"),
        ("jobs:\n a: |\n  x\n\n\n", "jobs:\n a: |\n  x\n\n b: 1\n\n\n"),
        ("jobs:\n  a: 1\n\n# c\nd: 2\n", "jobs:\n  a: 1\n\n  b: 1\n\n# c\nd: 2\n"),
        ("jobs:\n  a: 1\n  # c\nd: 2\n", "jobs:\n  a: 1\n  # c\n\n  b: 1\nd: 2\n"),
    ],
)
def test_a_job_behind_the_last_one(text, whole):
    """It is indented as the others are, and stands before what belongs to the next part of the file."""
    assert with_jobs("x.yaml", text, "  b: 1\n") == whole
    assert compose(whole) is not None


def test_jobs_in_braces_are_left_alone(desk):
    """Nothing can be added between braces without changing what is there: it is said, and the file stays."""
    with pytest.raises(ConfigError, match=r"x.yaml: jobs are written in \{ \}, which --update cannot add to"):
        with_jobs("x.yaml", "jobs: {a: 1}\n", "  b: 1\n")
    missing = init(desk, "--update")
    assert (missing.code, "loader.yaml:1:1: error: file: it cannot be read" in missing.err) == (2, True)


def test_the_job_of_many_tables_loads_them(desk):
    """What is written for tables that are alike loads all of them, and a table that comes later belongs to it."""
    desk.world.sql(
        "CREATE TABLE grid (x int, y int, PRIMARY KEY (x, y))",
        "CREATE TABLE dep (id int PRIMARY KEY)",
        "CREATE TABLE loose (t datetime)",
        "CREATE VIEW seen AS SELECT * FROM stu",
        "INSERT INTO grid VALUES (1, 2)",
        "INSERT INTO dep VALUES (7)",
    )
    result = init(desk)
    desk.world.sql("CREATE TABLE late (id int PRIMARY KEY)", "INSERT INTO late VALUES (8)")
    secrets = {"MYSQL_PASSWORD": MYSQL_PASSWORD, "REDIS_PASSWORD": REDIS_PASSWORD}
    urls = {"MYSQL_URL": desk.mysql(), "REDIS_URL": f"redis://marked@{HOST}:{desk.redis_port}"}
    synced = desk.run("sync", "--all", **urls, **secrets)
    again = init(desk, "--update")

    assert result.code == 0, result.err
    assert synced.code == 0, synced.err
    keys = set(desk.world.hashes())
    assert {b"grid:1:2", b"dep:7", b"late:8"} < keys
    assert len(keys) == 8
    assert again.out == "loader.yaml knows all of 6 tables; there is nothing to add.\n"
