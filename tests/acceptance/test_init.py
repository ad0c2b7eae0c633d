"""`loader init`: what it asks, what it writes, and that what it says to type next works when typed."""

import os
import pty
import re
import select
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from loader.cli.init.command import _write
from loader.cli.init.config_writer import Wanted, draft_config
from loader.cli.init.prompts import without_password
from loader.cli.init.script import read_script
from loader.config.files import read_document
from loader.config.load import load_config
from loader.config.parts import table_of
from loader.lab.process import program
from loader.model import Column, Table, TableSummary
from loader.redis.acl import REDIS_RIGHTS
from support.command import HOST, MARK, MYSQL_PASSWORD, REDIS_PASSWORD, Desk, Result, finish, redis_server, start

PASSWORDS = {"MYSQL_PASSWORD": MYSQL_PASSWORD, "REDIS_PASSWORD": REDIS_PASSWORD}
HINT = re.compile(r"^    # (?=(?:incremental|soft_delete|changed_only|schedule|max_age): )", re.MULTILINE)
ADDRESSES = {"MYSQL_URL": "mysql://u@h/d", "REDIS_URL": "redis://h"}


@pytest.fixture
def desk(world, tmp_path):
    desk = Desk(world, tmp_path)
    (tmp_path / "loader.yaml").unlink()
    return desk


def urls(desk):
    return {"MYSQL_URL": desk.mysql(), "REDIS_URL": f"redis://marked@{HOST}:{desk.redis_port}"}


def init(desk, *words, **changes):
    return desk.run("init", *words, **urls(desk) | PASSWORDS | changes)


def written(desk):
    """The names in the directory that a run left behind."""
    given = {"client.cnf", "old.sh", "old.sql", "gone.sql"}
    return sorted(path.name for path in desk.directory.iterdir() if path.name not in given)


def loaded(monkeypatch, path):
    """A config as the loader reads it."""
    for name, value in ADDRESSES.items():
        monkeypatch.setenv(name, value)
    return load_config([path])


class Terminal:
    """A command on a terminal of its own, answered line by line."""

    def __init__(self, desk, *words, **changes):
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("LOADER_", "MYSQL_", "REDIS_"))
        }
        self.main, side = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "loader", *words],
            cwd=desk.directory,
            env=kept | {"COLUMNS": "80", "TERM": "dumb"} | changes,
            stdin=side,
            stdout=side,
            stderr=side,
        )
        os.close(side)
        self.shown = ""
        self.read = 0

    def answer(self, question, answer):
        """Wait for a question that was not there yet, and type."""
        deadline = time.monotonic() + 60
        while question not in self.shown[self.read :]:
            assert time.monotonic() < deadline, self.shown
            self._take()
        self.read = self.shown.index(question, self.read) + len(question)
        os.write(self.main, answer.encode())

    def finish(self):
        deadline = time.monotonic() + 60
        while self._take():
            assert time.monotonic() < deadline, self.shown
        os.close(self.main)
        text = self.shown.replace("\r\n", "\n")
        assert "Traceback" not in text
        assert MARK not in text
        return Result(self.process.wait(60), text, "")

    def _take(self):
        if not select.select([self.main], [], [], 0.5)[0]:
            return True
        data = b""
        with suppress(OSError):  # the terminal is closed
            data = os.read(self.main, 65536)
        self.shown += data.decode()
        return bool(data)


def test_a_table(desk, monkeypatch):
    """What is written has the table's key, columns and types; nobody else can read it, and no password is in it."""
    result = init(desk, "--table", "stu")

    text = (desk.directory / "loader.yaml").read_text()
    example = (desk.directory / ".env.example").read_text()
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Wrote loader.yaml (1 job: stu) and .env.example.\n\nconfig\n  ok    files:")
    assert re.sub(r"about \d+ rows, \d+ KiB", "about N rows", text.partition("jobs:\n")[2]) == (
        "  stu:  # about N rows\n"
        "    table: stu\n"
        '    key: "stu_{sid}"  # its primary key\n'
        "    fields:\n"
        "      - sid      # smallint(8) unsigned zerofill\n"
        "      - sname    # varchar(20)\n"
        "      - address  # varchar(20)\n"
        "    # changed_only: true      # write only rows that differ, and delete hashes whose row is gone\n"
        '    # schedule: {every: 15m}  # for `loader daemon`; or {cron: "*/15 * * * *"}\n'
        "    # max_age: 1h             # the job is late if its last success is older\n"
    )
    assert example.splitlines()[2:] == [
        f"MYSQL_URL={urls(desk)['MYSQL_URL']}",
        "MYSQL_PASSWORD=",
        f"REDIS_URL={urls(desk)['REDIS_URL']}",
        "REDIS_PASSWORD=",
    ]
    assert MARK not in text + example
    assert written(desk) == [".env.example", "loader.yaml"]
    assert {stat.S_IMODE((desk.directory / name).stat().st_mode) for name in written(desk)} == {0o600}
    assert loaded(monkeypatch, desk.directory / "loader.yaml").jobs["stu"].fields == ("sid", "sname", "address")


@pytest.mark.parametrize("output", ["loader.yaml", "a dir's/c.yaml"])
def test_what_to_type_next(desk, output):
    """The lines it ends with, typed into a shell as they are, load the table and find it right."""
    (desk.directory / "a dir's").mkdir()
    result = init(desk, "--table", "stu", "--output", output)
    copy, *rest = [line.strip() for line in result.out.partition("\nNext:\n")[2].splitlines()]

    def typed(*lines):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MYSQL_", "REDIS_"))}
        return subprocess.run(
            ["bash", "-ec", "\n".join(lines)], cwd=desk.directory, env=kept, capture_output=True, check=True, text=True
        )

    typed(copy)
    (filled,) = desk.directory.rglob(".env")
    assert stat.S_IMODE(filled.stat().st_mode) == 0o600
    text = filled.read_text()
    for name, value in PASSWORDS.items():
        text = text.replace(f"{name}=\n", f"{name}='{value}'\n")
    filled.write_text(text)
    done = typed(*rest)

    assert len(rest) == 4
    assert "stu: ok: 5 rows read, 5 written" in done.stdout
    assert done.stdout.endswith("stu: ok: 5 rows compared, 0 missing, 0 different, 0 extra\n")
    assert len(desk.world.hashes()) == 5


def test_asked_on_a_terminal(desk):
    """Addresses, passwords and tables are asked for, again where the answer is no good; passwords are not shown."""
    desk.world.sql("CREATE TABLE dep (id int PRIMARY KEY)", "CREATE VIEW seen AS SELECT * FROM stu")
    terminal = Terminal(desk, "init")

    terminal.answer("Where is MySQL? mysql://user@host:3306/database: ", "nonsense\n")
    terminal.answer("beginning with one of", "")
    terminal.answer("Where is MySQL? mysql://user@host:3306/database: ", f"{desk.mysql()}\n")
    terminal.answer("Where is Redis? redis://host:6379: ", f"redis://marked@{HOST}:{desk.redis_port}\n")
    terminal.answer("Password for MySQL (not shown): ", "wrong\n")
    terminal.answer("Password for MySQL (not shown): ", f"{MYSQL_PASSWORD}\n")
    terminal.answer("Password for Redis (not shown): ", f"{REDIS_PASSWORD}\n")
    terminal.answer("all if empty: ", "stx\n")
    terminal.answer("all if empty: ", "1,stu\n")
    result = terminal.finish()

    assert result.code == 0, result.out
    assert "no table 'stx': did you mean 'stu'?" in result.out
    assert re.search(r"^   1  dep   about 0 rows, \d+ KiB +key id$", result.out, re.MULTILINE)
    assert re.search(r"^   2  seen  a view$", result.out, re.MULTILINE)
    assert "Wrote loader.yaml (2 jobs: dep, stu) and .env.example." in result.out
    assert max(map(len, result.out.partition("Tables of")[2].splitlines())) <= 80


def test_a_password_that_stays_wrong(desk):
    """After three tries the server's words are the last ones; nothing is said of variables, which are not set."""
    terminal = Terminal(desk, "init", "--source", desk.mysql(), "--target", f"redis://{HOST}:{desk.redis_port}")
    for _ in range(3):
        terminal.answer("Password for MySQL (not shown): ", "wrong\n")
    result = terminal.finish()

    assert result.code == 2
    assert "Access denied" in result.out
    assert "is taken from" not in result.out
    assert written(desk) == []


def without_answer(desk, question):
    """All that is known but what the question asks for."""
    asked = {"Where is Redis?": "REDIS_URL", "Password for MySQL": "MYSQL_PASSWORD"}.get(question)
    return {name: value for name, value in (urls(desk) | PASSWORDS).items() if name != asked}


@pytest.mark.parametrize("at", ["Where is Redis?", "Password for MySQL", "all if empty: "])
def test_interrupted(desk, at):
    """Ctrl-C at any question ends it with 130, and nothing is left behind."""
    terminal = Terminal(desk, "init", **without_answer(desk, at))

    terminal.answer(at, "\x03")
    result = terminal.finish()

    assert result.code == 130
    assert result.out.endswith("error: stopped by SIGINT\n")
    assert written(desk) == []


@pytest.mark.parametrize("at", ["Where is Redis?", "Password for MySQL", "all if empty: "])
def test_end_of_input(desk, at):
    """Nor is anything where a person answers with the end of input."""
    terminal = Terminal(desk, "init", **without_answer(desk, at))

    terminal.answer(at, "\x04")
    result = terminal.finish()

    assert result.code == 2
    assert result.out.endswith("error: the input ended; nothing was written\n")
    assert written(desk) == []


def test_the_config_that_is_found(desk):
    """The lines to type next name the file where another one would be read without."""
    result = init(desk, "--table", "stu", LOADER_CONFIG="/etc/other.yaml")

    assert re.search(r" -c loader\.yaml plan stu\n", result.out)


def test_nothing_half_written(tmp_path):
    """Where the second of two files cannot be written, the first is not there either."""
    with pytest.raises(UnicodeEncodeError):
        _write({tmp_path / "loader.yaml": "fine", tmp_path / ".env.example": "\ud800"}, check=False)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["loader.yaml", ".env.example"])
def test_existing_files(desk, name):
    """A file that exists is refused before anything is asked or any server touched; --force writes over it."""
    (desk.directory / name).write_text("precious")

    refused = desk.run("init", "--source", "mysql://u@192.0.2.1/d", "--target", "redis://192.0.2.1")
    kept = (desk.directory / name).read_text()
    forced = init(desk, "--force", "--table", "stu")

    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"error: {name} exists; --force overwrites it, --output FILE writes elsewhere\n"
    assert (kept, forced.code) == ("precious", 0)
    assert "precious" not in (desk.directory / name).read_text()


def test_no_one_to_ask(tmp_path):
    """Without a terminal one message says all that is missing."""
    nothing = finish(start("init", cwd=tmp_path))
    half = finish(start("init", cwd=tmp_path, LOADER_SOURCE="mysql://u@192.0.2.1/d"))

    assert (nothing.code, half.code) == (2, 2)
    assert nothing.err == (
        "error: there is no terminal to ask on; give --source mysql://user@host:3306/database (or $MYSQL_URL)"
        " and --target redis://host:6379 (or $REDIS_URL)\n"
    )
    assert half.err == "error: there is no terminal to ask on; give --target redis://host:6379 (or $REDIS_URL)\n"


def test_refusals(desk):
    """What is wrong with what was given is said, with the exit code of the contract, and nothing is written."""
    nobody = {"MYSQL_PASSWORD": "", "REDIS_PASSWORD": ""}
    cases = [
        (4, ["--source", f"mysql://u@{HOST}:1/d"], "cannot connect"),
        (4, ["--target", f"redis://{HOST}:1"], "whether the server runs"),
        (2, ["--source", "mysql://u@h"], "--source: the url ends in the name of one database"),
        (2, ["--target", "http://h"], "--target: must be a url like redis://host:6379"),
        (2, ["--table", "sut"], "no table 'sut': did you mean 'stu'?"),
        (2, ["--output", "nix/loader.yaml"], "no such directory"),
        (2, ["--from-script", "nix.sh"], "nix.sh: cannot be read: No such file or directory"),
    ]
    for code, words, message in cases:
        result = init(desk, *words)
        assert (result.code, result.out) == (code, ""), words
        assert message in result.err
        assert result.err.count("\n") == 1
    for side in nobody:
        refused = init(desk, **{side: ""})
        assert refused.code == 2
        assert f"the password is taken from ${side}" in refused.err
    assert finish(start("-c", "x.yaml", "init", cwd=desk.directory)).code == 2
    assert written(desk) == []


def test_doctor_has_a_word(desk):
    """What doctor finds wrong is told, before what to type next; the config is right all the same."""
    rights = ["on", f">{REDIS_PASSWORD}", "~loader:*", *REDIS_RIGHTS.split()]
    for port in desk.world.lab.redis_ports.values():
        with redis.Redis(HOST, port) as node:
            node.execute_command("ACL", "SETUSER", "narrow", *rights)

    result = init(desk, "--table", "stu", "--target", f"redis://narrow@{HOST}:{desk.redis_port}")

    assert (result.code, result.err) == (0, "")
    assert "  fail  rights: 'narrow' lacks ~stu_*\n" in result.out
    assert "\nNext, once the failures above are fixed:\n  cp .env.example .env " in result.out


def test_a_table_that_may_not_be_read(desk):
    """It is commented out, with the right that lacks; the others become jobs."""
    world = desk.world
    world.sql(
        "CREATE TABLE closed (id int PRIMARY KEY)",
        f"CREATE USER IF NOT EXISTS half@'%' IDENTIFIED BY '{MYSQL_PASSWORD}'",
        f"GRANT SELECT ON {world.name}.stu TO half@'%'",
        f"GRANT INSERT ON {world.name}.closed TO half@'%'",
    )

    result = init(desk, "--source", desk.mysql().replace("marked@", "half@"))

    assert result.code == 0
    assert result.out.startswith("Wrote loader.yaml (1 job: stu)")
    told = " ".join(result.err.split())
    assert told.startswith("warning: closed: no job yet, commented out: ")
    assert f"GRANT SELECT ON {world.name}.`closed` TO the loader's account" in told
    assert "  #   table: closed\n" in (desk.directory / "loader.yaml").read_text()


def test_password_in_a_url(desk):
    """A password in a url is used, and told to belong elsewhere, but never written or shown."""
    secret = urls(desk)["MYSQL_URL"].replace("marked@", f"marked:{MYSQL_PASSWORD}@")

    result = desk.run(
        "init", "--source", secret, "--table", "stu", REDIS_URL=urls(desk)["REDIS_URL"], REDIS_PASSWORD=REDIS_PASSWORD
    )

    assert result.code == 0
    assert result.err == "The password in the url of MySQL is used now, but not written: put it into .env.\n"
    assert all(MARK not in (desk.directory / name).read_text() for name in written(desk))


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("mysql://u:p@h:1/d", "mysql://u@h:1/d"),
        ("mysql://u:p@ss:w@h/d?unix_socket=/a@b", "mysql://u@h/d?unix_socket=/a@b"),
        ("redis://:p@h:1,g:2/3", "redis://h:1,g:2/3"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("unix:///a@b:c", "unix:///a@b:c"),
    ],
)
def test_urls_without_passwords(url, bare):
    """Whatever signs a password holds, nothing of it stays."""
    assert without_password(url) == bare


NASTY = [
    'say "hi"',
    "it's",
    "a: b",
    "# no",
    "new\nline",
    "back\\slash",
    "- x",
    "null",
    "${HOME}",
    "$${x",
    "学生表",
    "n" * 64,
    "{brace}",
    "*a",
    "tab\t`tick`",
    "\u2028\u0085",
    "%d",
    "-all",
]


ALIKE = {"stu", "null", "学生表", "n" * 64, "-all"}  # of these, what means itself in patterns and keys


def test_hostile_names(desk, monkeypatch):
    """Whatever tables and columns are called, what is written reads back as exactly these names, and loads the rows."""
    quoted = ["`" + name.replace("`", "``") + "`" for name in NASTY]
    columns = ", ".join(f"{name} int" for name in quoted)
    values = ", ".join(map(str, range(len(NASTY))))
    for number, name in enumerate(quoted):
        comment = "'evil\n  jobs: x\n# \\'y\\''"
        desk.world.sql(
            f"CREATE TABLE {name} (id int PRIMARY KEY, {columns}) COMMENT {comment}".replace("%", "%%"),
            f"INSERT INTO {name} VALUES ({number}, {values})".replace("%", "%%"),
            args=(),
        )

    result = init(desk)
    config = loaded(monkeypatch, desk.directory / "loader.yaml")
    synced = desk.run("sync", "--all", "-o", "json", **urls(desk) | PASSWORDS)

    assert (result.code, result.err) == (0, "")
    (many,) = (job for job in config.jobs.values() if job.tables)
    alone = [job for job in config.jobs.values() if not job.tables]
    assert {job.table for job in alone} == {*NASTY, "stu"} - ALIKE
    assert (many.tables, len(many.exclude)) == (("*",), len(alone))
    assert all(job.fields == ("id", *NASTY) for job in alone)
    assert synced.code == 0
    assert sum(each.get("parts", {"total": 1})["total"] for each in synced.documents) == len(NASTY) + 1
    wanted = {name.encode(): str(number).encode() for number, name in enumerate(NASTY)}
    hashes = [fields for key, fields in desk.world.hashes().items() if not key.startswith(b"stu:")]
    assert sorted(int(fields[b"id"]) for fields in hashes) == list(range(len(NASTY)))
    assert all(fields == wanted | {b"id": fields[b"id"]} for fields in hashes)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=64)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower), NAMES)
def test_any_names(table, names, comment):
    """A config for any names reads back as exactly these, or the job is commented out; comments stay comments."""
    columns = tuple(Column(name, "int", f"int {comment}", None, nullable=False) for name in names)
    wanted = [
        Wanted(TableSummary(table, comment=comment), Table(table, columns, (names[0],))),
        Wanted(TableSummary("last"), Table("last", columns[:1], (names[0],))),
        Wanted(TableSummary("stu"), Table("stu", (Column("sid", "int", "int", None),), ("sid",))),
    ]
    draft = draft_config(comment, wanted)
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(draft.text)
        file.flush()
        values = read_document([Path(file.name)], ADDRESSES).values

    assert set(values) == {"version", "source", "target", "jobs"}
    assert list(values["jobs"]) == list(draft.jobs)
    if len(draft.jobs) > 1:
        job = next(iter(values["jobs"].values()))
        assert (table_of(job["table"]), job["fields"]) == (("", table), names)
        assert job["key"].endswith(f"{{{names[0]}}}")


@given(st.text("mysql -e'\"\\`$(){};|&<>#\n=ab", max_size=60), st.text("'\"`\\,.;()# abcselectfrom\n", max_size=60))
def test_any_script(before, sql):
    """Whatever a script looks like, reading it ends, and says of each call of mysql what came of it."""
    script = read_script({"x.sh": f"mysql shop -e 'select 1'\n{before}\nmysql -e \"{sql}\"\n", "x.sql": sql})

    assert "x.sh:1: reads no table" in script.faults


def test_keys(desk, monkeypatch):
    """Composite and unique keys are used; what has none, or one that no template names, is commented out, with why."""
    desk.world.sql(
        "CREATE TABLE grid (x int, y int, v int, PRIMARY KEY (x, y))",
        "CREATE TABLE uniq (a int NOT NULL, b int NOT NULL, c int NOT NULL, UNIQUE (a, b), UNIQUE (c))",
        "CREATE TABLE two (a varchar(9), b varchar(9), PRIMARY KEY (a, b))",
        "CREATE TABLE loose (t datetime, line text)",
        "CREATE TABLE brace (`i{d` int PRIMARY KEY)",
        "CREATE TABLE made (id int PRIMARY KEY, twice int AS (id * 2) VIRTUAL, sex ENUM('M','f'))",
        "CREATE VIEW seen AS SELECT * FROM stu",
    )

    chosen = ["grid", "uniq", "two", "loose", "brace", "made", "seen"]
    result = init(desk, *(word for name in chosen for word in ("--table", name)))
    text = (desk.directory / "loader.yaml").read_text()
    config = loaded(monkeypatch, desk.directory / "loader.yaml")

    assert result.code == 0
    assert {name: job.key for name, job in config.jobs.items()} == {
        "grid": "grid_{x}_{y}",
        "made": "made_{id}",
        "two": "two_{a}_{b}",
        "uniq": "uniq_{c}",
    }
    assert "grid_1_2 is the row whose x is 1 and y is 2" in text
    assert "# key 'two_{a}_{b}' joins columns so that two rows could make the same key" in text
    assert re.search(r"- twice +# int.*, generated", text)
    assert re.search(r"- sex +# enum\('M','f'\)", text)
    brace = (
        "a key cannot name the column 'i{d': give the table a key of another name, or write"
        ' a query: "SELECT … AS id, …" with key and fields in place of the table'
    )
    start, key = (
        "no job yet, commented out: ",
        "choose columns for `key` that tell its rows apart, then uncomment it",
    )
    assert re.sub(r"\n  ", " ", result.err).splitlines() == [
        f"warning: brace: {start}{brace}",
        f"warning: loose: {start}the table has no primary key and no unique key without NULLs; {key}",
        f"warning: seen: {start}a view has no key; {key}",
    ]
    before, seen, after = re.split(r"(  # seen:[^\0]*?\n\n)", text)
    more = desk.directory / "more.yaml"
    more.write_text(before + re.sub("^  # ", "  ", seen, flags=re.MULTILINE) + after)
    assert loaded(monkeypatch, more).jobs["seen"].key == "seen_{sid}"


def test_no_job_at_all(desk):
    """Where no table can be a job, the file says what to choose, and the exit code that it is not done."""
    desk.world.sql("CREATE TABLE loose (t datetime)")

    result = init(desk, "--table", "loose")

    assert result.code == 2
    assert result.err.endswith("error: loader.yaml has no job yet: choose a key for one of them and uncomment it\n")
    assert "  # loose:" in (desk.directory / "loader.yaml").read_text()


def test_hints(desk, monkeypatch):
    """Each line behind a # works once the # is gone, and is there only where it fits."""
    desk.world.sql(
        "CREATE TABLE user (id int PRIMARY KEY, deleted_at datetime, changed timestamp NOT NULL"
        " DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, KEY (changed))",
        "CREATE TABLE user_log (id int PRIMARY KEY, at datetime DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"
        " deleted tinyint)",
    )
    assert init(desk, "--table", "user*").code == 0
    text = (desk.directory / "loader.yaml").read_text()

    more = desk.directory / "more.yaml"
    hints = list(HINT.finditer(text))
    for hint in hints:
        more.write_text(text[: hint.start()] + "    " + text[hint.end() :])
        planned = desk.run("-c", "more.yaml", "plan", "--all", **urls(desk) | PASSWORDS)
        no_index = "column: at" in text[hint.end() :].partition("\n")[0]
        assert planned.code == (2 if no_index else 0), planned.err

    assert [text[hint.end() :].partition("  ")[0].partition("\n")[0] for hint in hints] == [
        "incremental: {column: changed, lag: 10s}",
        'soft_delete: "deleted_at IS NOT NULL"',
        "changed_only: true",
        "schedule: {every: 15m}",
        "max_age: 1h",
        "incremental: {column: at, lag: 10s}",
        'soft_delete: "deleted <> 0"',
        "changed_only: true",
        "schedule: {every: 15m}",
        "max_age: 1h",
    ]
    assert "It needs an index first: ADD INDEX (at)." in " ".join(text.replace("    #", "").split())
    assert loaded(monkeypatch, desk.directory / "loader.yaml").warnings == ()


@pytest.mark.parametrize(
    ("names", "prefixes"),
    [
        (["user", "user_role"], ["user:", "user_role_"]),
        (["loader", "loader_x"], ["loader.", "loader_x_"]),
        (["a b", "a-b", "a*b"], ["a_b_", "a-b_", "a_b:"]),
        (["a", "a_", "a__"], ["a:", "a_:", "a___"]),
        (["x{y}z", "[]"], ["x_y_z_", "__"]),
    ],
)
def test_prefixes(names, prefixes, tmp_path, monkeypatch):
    """No job's keys begin as another's do, nor as the loader's own; nothing in them is a pattern."""
    column = Column("id", "int", "int(11)", None, nullable=False)
    wanted = [Wanted(TableSummary(name, rows=1, bytes=1), Table(name, (column,), ("id",))) for name in names]

    (tmp_path / "c.yaml").write_text(draft_config("here", wanted).text)
    config = loaded(monkeypatch, tmp_path / "c.yaml")

    assert [job.prefix for job in config.jobs.values()] == prefixes
    assert config.warnings == ()


# As people wrote them: with the SQL in either quotes, in a here-document, and on another machine.
SCRIPT = r"""#!/bin/bash
# the old way
IP=127.0.0.1
PORT=@PORT@
mkdir -p /tmp && \
mysql -h$IP -P "$PORT" -umarked -ptop-secret -Ne 'select concat("hmset stu_",sid," sid ",sid," sname ",sname,
  " address ",address) from @DB@.stu;' | grep -v '^concat' | awk '{print "redis-cli -c -h 127.0.0.1 -p @RPORT@",$0}'
ssh $IP "mysql -h$IP --port=$PORT -u marked -p'x' -N -e 'select Concat(\"hset dep:\", \`no\`,
  \":d name \\\"\", ifnull(d.name, \"\"), \"\\\" size \", d.size+1, \" kind x-\", LEFT(IFNULL(d.name, \"zz\"), 2))
  from dep d where d.size > 1 order by d.no'" | redis-cli
mysql -h $IP -P $PORT -umarked -p @DB@ <<'EOF' | redis-cli
SET NAMES utf8mb4;
SELECT CONCAT_WS(' ', 'HMSET', CONCAT('low_', no), 'size', size) FROM `dep`
WHERE name = 'It''s' OR size < 2;
EOF
"""


def test_from_script(desk, tmp_path):
    """The jobs made of a script write the hashes that the script's own SELECTs write when redis-cli takes them."""
    world = desk.world
    world.sql(
        "CREATE TABLE dep (no int PRIMARY KEY, name varchar(20), size int NOT NULL)",
        "INSERT INTO dep VALUES (1, 'sales', 1), (2, 'It''s', 7), (3, NULL, 9), (4, '人事', 30)",
        f"GRANT SELECT ON {world.name}.* TO marked@'%'",
    )
    text = SCRIPT.replace("@PORT@", str(world.lab.mysql_port)).replace("@DB@", world.name)
    text = text.replace("@RPORT@", str(desk.redis_port))
    (tmp_path / "old.sh").write_text(text)

    target = f"redis://marked@{HOST}:{desk.redis_port}"
    result = desk.run("init", "--from-script", "old.sh", "--target", target, **PASSWORDS)

    assert result.code == 0, result.err
    assert "The password in the script is not copied" in result.err
    assert "top-secret" not in result.err + result.out + (tmp_path / "loader.yaml").read_text()
    assert f"From mysql://marked@{HOST}:{world.lab.mysql_port}/{world.name} to {target}." in result.err
    synced = desk.run("sync", "--all", "-o", "json", **urls(desk) | PASSWORDS)
    assert synced.code == 0

    dep = (
        'select concat("hset dep:", no, ":d name \\"", ifnull(name, ""), "\\" size ", size+1, " kind x-",'
        ' left(ifnull(name, "zz"), 2)) from dep where size > 1'
    )
    selects = [
        'select concat("hmset stu_",sid," sid ",sid," sname ",sname," address ",address) from stu',
        dep,
        "select concat_ws(' ', 'HMSET', concat('low_', no), 'size', size) from dep where name = 'It''s' or size < 2",
    ]
    lines = [row[0] for select in selects for row in world.sql(select)]
    with redis_server(tmp_path) as port, redis.Redis(HOST, port) as alone:
        cli = [program("redis-cli", "valkey-cli"), "-h", HOST, "-p", str(port)]
        fed = subprocess.run(cli, input="\n".join(lines) + "\n", capture_output=True, check=True, text=True)
        assert "ERR" not in fed.stdout
        expected = {key: alone.hgetall(key) for key in alone.scan_iter()}
    assert len(expected) == 5 + 3 + 2
    assert world.hashes() == expected


def test_what_no_job_can_be_made_of(desk):
    """All that cannot be read is named by file and line, and nothing is written, lest anything is lost in silence."""
    (desk.directory / "old.sh").write_text(
        "mysql -uroot -e \"select concat('hmset a_',id,' b ',b) from t\"\n"
        "mysql -uroot -e 'select count(*) from t; delete from t'\n"
        "for t in a b; do\n  mysql -uroot -e \"select concat('hmset x_',id,' b ',b) from $t\"\ndone\n"
        "mysql -h other -uroot -e 'select 1'\n"
        "mysql -uroot < load.sql\n"
        'mysql -uroot -e \'select concat("hmset a_",id," b ",b) from t join u\'\n'
        'mysql -uroot -e \'select concat("hmset a_",id," b ",b)\n from t limit 3\'\n'
        'mysql -uroot -e \'select concat("hmset a_",id," b") from t\'\n'
        'mysql -uroot -e \'select concat("hmset ",lower(id)," b ",b) from t\'\n'
        'mysql -uroot -e \'select concat("hmset a ",f," ",b) from t\'\n'
        'mysql -uroot -e \'select concat("hmset a_",f," b ",b) from t where exists(select 1 from u where u.x=t.x)\'\n'
    )

    result = init(desk, "--from-script", "old.sh")

    assert (result.code, result.out) == (2, "")
    assert [line.split(": ", 2)[0::2] for line in result.err.splitlines()[:-1]] == [
        ["old.sh:2", "makes no HMSET or HSET"],
        ["old.sh:2", "is not a SELECT but DELETE"],
        ["old.sh:4", "has parts that are only known when the script runs, such as a variable"],
        ["old.sh:6", "uses another server or account than old.sh:1; a config has one source"],
        ["old.sh:7", "takes its SQL from a file; name that file, called …sql, in place of this one"],
        ["old.sh:8", "JOIN does not fit a job of a table; write a job with a query instead"],
        ["old.sh:9", "LIMIT does not fit a job of a table; write a job with a query instead"],
        ["old.sh:11", "HMSET needs a key and pairs of field and value; this makes 2 words"],
        ["old.sh:12", "the key is computed by lower(id); write a job with a query instead"],
        ["old.sh:13", "all rows share the key 'a'"],
        ["old.sh:14", "a subquery names columns of the SELECT around it; write a job with a query instead"],
    ]
    assert written(desk) == []


def test_a_script_of_another_database(desk):
    """A statement is not quietly read from a table of the same name elsewhere."""
    (desk.directory / "old.sql").write_text("SELECT CONCAT('hmset stu_', sid, ' s ', sname) FROM test.stu;")
    (desk.directory / "gone.sql").write_text("SELECT CONCAT('hmset stu_', sid, ' s ', sname) FROM nix;")

    other = init(desk, "--from-script", "old.sql")
    gone = init(desk, "--from-script", "gone.sql")

    assert other.err.endswith(f"\nold.sql:1: error: reads database 'test', but the url names {desk.world.name!r}\n")
    assert (other.code, gone.code) == (2, 2)
    assert "gone.sql:1: error: " in gone.err
    assert written(desk) == []


@pytest.mark.parametrize(
    ("sql", "key", "fields", "where"),
    [
        ("select concat('hmset s_',a,' a ',a) from t", (("s_", "a"),), {"a": "a"}, None),
        (
            "SELECT CONCAT('HSET s:', `a b`, ':', c, ':x a ', t.c) x FROM d.t AS t",
            (("s:", "a b"), (":", "c"), (":x", None)),
            {"a": "c"},
            None,
        ),
        (
            "select concat('hmset s_',a,' \"f g\" ', upper(d.t.b)) as c from d.t where d.t.b > 1 and t.c = 'x\ny'",
            (("s_", "a"),),
            {"f g": "upper(b)"},
            "b > 1 and c = 'x\ny'",
        ),
        ("select concat('hmset s_',a,' f ',b,'-',c,' g \"\" h it''s') from t", None, None, None),
        (
            "select concat('hmset s_',a,' f ',b,'-',c,' g \"\" h 12') from t",
            (("s_", "a"),),
            {"f": "CONCAT(b, '-', c)", "g": "''", "h": "'12'"},
            None,
        ),
        ("select concat('redis-cli -c -p 7001 hmset s_',a,' f \"',b,'\"') from t", (("s_", "a"),), {"f": "b"}, None),
        (
            "select concat(concat('hmset ','s_'),a,' f ',if(b, concat(b,'x'), 'o')) from t",
            (("s_", "a"),),
            {"f": "if(b, concat(b,'x'), 'o')"},
            None,
        ),
    ],
)
def test_statements(sql, key, fields, where):
    """How a SELECT's words become key, fields and condition."""
    script = read_script({"x.sql": sql})

    if key is None:
        assert (script.statements, script.faults) == ([], ["x.sql:1: a ' in the command is never closed"])
    else:
        (statement,) = script.statements
        assert script.faults == []
        assert (statement.key, dict(statement.fields), statement.where) == (key, fields, where)


SELECT = "select concat('hmset s_',a,' a ',a) from t"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            f'mysql -hdb -P 3307 -uroot -psecret -Ne "{SELECT}" shop | redis-cli -h r -p 7001 -n 2',
            "mysql://root@db:3307/shop redis://r:7001/2",
        ),
        (
            f'/usr/bin/mysql --host=db --user "$(id -un)" --database shop --execute="{SELECT}"',
            "mysql://db:3306/shop None",
        ),
        (f'sudo ssh -t x true; ssh root@far "mysql -uu shop -e \\"{SELECT}\\""', "mysql://u@far:3306/shop None"),
        (
            f'M="mysql -h db -uroot"\nR="redis-cli -h r"\n$M shop -Ne "{SELECT}" | $R',
            "mysql://root@db:3306/shop redis://r:6379",
        ),
        (f'Q="{SELECT}"\nmysql -D shop -e "$Q" # -h x\n', "mysql://localhost:3306/shop None"),
        (
            f'x=`mysql shop -e "{SELECT}"`; y=$(echo "$x" | redis-cli -p 7)',
            "mysql://localhost:3306/shop redis://127.0.0.1:7",
        ),
        ("mysql shop -e $'" + SELECT.replace("'", "\\'") + "'", "mysql://localhost:3306/shop None"),
        (
            f"cat <<-END | mysql shop 2>&1\n\tuse other;\n\t{SELECT}\n\tEND\necho done",
            "mysql://localhost:3306/other None",
        ),
        (
            f'mysql shop -e "{SELECT}" | redis-cli -u redis://me:secret@r:7000/1',
            "mysql://localhost:3306/shop redis://me@r:7000/1",
        ),
        (f'echo "{SELECT}" | mysql -S /run/m.sock shop', "mysql://localhost:3306/shop?unix_socket=/run/m.sock None"),
        (f'if true; then DB=shop; fi; mysql "$DB" -e "{SELECT}"', "None None"),
        (f'mysql -h "$H" shop -e "{SELECT}" | redis-cli -h "$R"', "None None"),
        (f'mysql "${{OPTIONS[@]}}" shop -e "{SELECT}"', "None None"),
        (f'mysql --login-path=prod shop -e "{SELECT}"', "None None"),
        (
            f'redis-cli -h x flushall; mysql shop -e "{SELECT}" | redis-cli --tls -h r',
            "mysql://localhost:3306/shop rediss://r:6379",
        ),
        (f'mysql shop -e "{SELECT}" | tail -n +2 | redis-cli', "mysql://localhost:3306/shop redis://127.0.0.1:6379"),
    ],
)
def test_scripts(text, url):
    """Where scripts keep their SQL, and what they say of servers."""
    script = read_script({"x.sh": text})

    assert script.faults == []
    assert [dict(statement.fields) for statement in script.statements] == [{"a": "a"}]
    assert f"{script.source_url(script.statements[0].database)} {script.target_url()}" == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'mysql shop -e "{SELECT}" | grep -v x | redis-cli', "goes through 'grep'"),
        (f'mysql shop -e "{SELECT}" | cat | tr a-z A-Z | redis-cli', "goes through 'tr'"),
        (
            f'mysql shop -e "{SELECT}" | while read l; do redis-cli $l; redis-cli expire $k 60; done',
            "sets a time to live",
        ),
        (f'S="{SELECT}"; S+=" where a > 2"; mysql shop -e "$S"', "only known when the script runs"),
        (f'W="a"; [ "$1" ] && W="b"; mysql shop -e "{SELECT} where $W"', "only known when the script runs"),
        (f'W=a; printf -v W b; mysql shop -e "{SELECT} where $W"', "only known when the script runs"),
        (
            f'W=a; load() {{ mysql shop -e "{SELECT} where $W"; }}; W=b; load',
            "only known when the script runs",
        ),
        (
            f'mysql shop -e "{SELECT}" | redis-cli -h a; mysql shop -e "{SELECT}" | redis-cli -h b',
            "uses another Redis than x.sh:1",
        ),
        (
            """mysql shop -e 'select concat("hmset t_",a," a ",a,ifnull(concat(" b ",b),"")) from t'""",
            "may begin words of its own",
        ),
    ],
)
def test_what_would_be_lost_is_refused(text, words):
    """What a script does beside the statement is no job's: it is told, not left out."""
    faults = read_script({"x.sh": text}).faults

    assert [words in fault for fault in faults] == [True], faults


def test_two_statements_of_one_prefix(desk):
    """Whose a hash is could not be told: both are named, and nothing is written."""
    one = """mysql {db} -e 'select concat("hmset stu_",sid," {field} ",{field}) from stu' | redis-cli"""
    lines = [one.format(db=desk.world.name, field=field) for field in ("sname", "address")]
    (desk.directory / "old.sh").write_text("\n".join(lines))
    (desk.directory / "loader.yaml").unlink(missing_ok=True)

    result = init(desk, "--from-script", "old.sh")

    assert (result.code, result.out) == (2, "")
    assert "old.sh:2: error: makes keys stu_… like old.sh:1" in result.err
    assert not (desk.directory / "loader.yaml").exists()


def test_a_job_that_no_config_may_have(desk):
    """The keys of the loader's own state are refused before anything is written."""
    select = 'select concat("hmset loader:",sid," sid ",sid) from stu'
    (desk.directory / "old.sh").write_text(f"mysql {desk.world.name} -e '{select}' | redis-cli")
    (desk.directory / "loader.yaml").unlink(missing_ok=True)

    result = init(desk, "--from-script", "old.sh")

    assert (result.code, result.out) == (2, "")
    assert "nothing was written" in result.err
    assert written(desk) == []


def test_an_environment_that_is_there_is_left_alone(desk):
    """The lines to type next copy nothing over it."""
    (desk.directory / ".env").write_text("APP=keep\n")

    result = init(desk, "--table", "stu", "--force")

    assert "cp " not in result.out
    assert "copy the lines of .env.example into .env" in result.out


def test_an_exact_name_comes_first(desk, monkeypatch):
    """The job of a table that may be called so is called so, whatever comes before it."""
    desk.world.sql("CREATE TABLE `a b` (id int PRIMARY KEY)", "CREATE TABLE a_b (id int PRIMARY KEY)")

    init(desk, "--table", "a*", "--force")

    jobs = loaded(monkeypatch, desk.directory / "loader.yaml").jobs
    assert jobs["a_b"].table == "a_b"
    assert {job.table for job in jobs.values()} == {"a b", "a_b"}
