"""A config is read whole, or refused with every fault and its place."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.config import fields
from loader.config import files as document_module
from loader.config.files import MAX_BYTES, MAX_VALUES
from loader.config.load import CHUNK_ROWS, Config, json_schema, load_config
from loader.config.models import JobConfig
from loader.config.parsers import key_parts, redis_address, seconds
from loader.errors import ConfigError, Exit

CONFIGS = Path(__file__).parents[3] / "configs"
HEAD = """\
version: 1
source: {url: "mysql://loader@127.0.0.1/test"}
target: {url: "redis://127.0.0.1"}
"""

KNOWN = (
    "unknown key; the keys here are source, tables, exclude, table, query, key, fields, where, nulls, write, ttl,"
    " ttl_jitter, chunk_rows, deadline, incremental, soft_delete, full_every, changed_only, follow, schedule, max_age"
)
NO_COLUMN = "names no column, so that all rows would share one key; write one in braces, like {sid}"
NO_FIELD = "out of range, not in order, or never in its month"
NO_ZONE = "is not a time zone that this machine knows: write UTC, or one like Europe/Berlin"
TWO_PASSWORDS = "given more than once; keep one of password, password_file and the one in the url"
REDIS_SCHEMES = "redis://host:6379, beginning with one of redis, valkey, rediss, valkeys, unix"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads texts as a.yaml, b.yaml, … from an empty directory, with no environment but PATH."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - {"PATH"}:
        monkeypatch.delenv(name)

    def load(*texts: str | bytes) -> Config:
        files = [Path(f"{letter}.yaml") for letter, _ in zip("abc", texts, strict=False)]
        for file, text in zip(files, texts, strict=True):
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(files)

    return load


@pytest.fixture
def errors(load):
    """The lines of the error that the texts raise."""

    def errors(*texts: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*texts)
        assert caught.value.exit_code is Exit.CONFIG
        return str(caught.value).split("\n")

    return errors


def job(text: str) -> str:
    """A config whose job stu is this flow mapping; it begins at 5:8."""
    return f"{HEAD}jobs:\n  stu: {text}\n"


def source(text: str) -> str:
    """A config with this source, which begins at 2:9."""
    return HEAD.replace('{url: "mysql://loader@127.0.0.1/test"}', text) + "jobs: {stu: {table: stu}}\n"


def target(text: str) -> str:
    """A config with this target, which begins at 3:9."""
    return HEAD.replace('{url: "redis://127.0.0.1"}', text) + "jobs: {stu: {table: stu}}\n"


def test_the_least_config(load):
    """Only version, url, url and one job with its table are required; everything else has a default."""
    config = load(job("{table: stu}"))
    source, target, stu = config.source, config.target, config.jobs["stu"]
    assert (source.host, source.port, source.user, source.database) == ("127.0.0.1", 3306, "loader", "test")
    assert (source.unix_socket, source.password, source.tls, source.tls_verify) == (None, None, False, True)
    assert (source.time_zone, source.connect_timeout, source.read_timeout) == (None, 10, 60)
    assert (target.host, target.port, target.user, target.db) == ("127.0.0.1", 6379, None, 0)
    assert (target.unix_socket, target.tls, target.cluster, target.timeout) == (None, False, "auto", 10)
    assert (stu.name, stu.table, stu.query, stu.key, stu.fields) == ("stu", "stu", None, None, None)
    assert (stu.where, stu.nulls, stu.ttl, stu.ttl_jitter, stu.chunk_rows) == (None, "omit", None, 0, CHUNK_ROWS)
    assert (stu.deadline, stu.key_parts, stu.prefix, config.warnings) == (120, (), "stu_", ())


def test_a_full_job(load):
    """Every key of a job arrives in the unit it is used in."""
    stu = load(
        job(
            '{table: stu, key: "s:{a}:{b c}", fields: [a, b], where: a > 1, nulls: empty, ttl: 1d, ttl_jitter: 10%,'
            " deadline: 5m}"
        )
    ).jobs["stu"]
    assert stu.key_parts == (("s:", "a"), (":", "b c"))
    assert (stu.prefix, stu.fields, stu.where, stu.nulls) == ("s:", ("a", "b"), "a > 1", "empty")
    assert (stu.ttl, stu.ttl_jitter, stu.deadline) == (86_400, 10, 300)


def test_fields_may_be_a_map(load):
    """A map names each field and says what it holds, in the order written."""
    assert load(job('{table: stu, fields: {name: sname, city: "LEFT(address,2)"}}')).jobs["stu"].fields == {
        "name": "sname",
        "city": "LEFT(address,2)",
    }


def test_the_example(load, monkeypatch):
    """configs/stu.yaml is valid; its urls and passwords come from the environment, an empty password is none."""
    monkeypatch.setenv("MYSQL_URL", "mysql://loader@db:3307/test")
    monkeypatch.setenv("MYSQL_PASSWORD", "secret")
    monkeypatch.setenv("REDIS_URL", "redis://cache:7001")
    config = load((CONFIGS / "stu.yaml").read_text(encoding="utf-8"))
    assert (config.source.host, config.source.port, config.target.host, config.target.port) == (
        "db",
        3307,
        "cache",
        7001,
    )
    assert config.source.password.get_secret_value() == "secret"
    assert config.target.password is None
    assert config.jobs["stu"].key_parts == (("stu_", "sid"),)


def test_the_schema_is_committed():
    """configs/loader.schema.json is what `loader schema` prints, and the example points at it."""
    assert json.loads((CONFIGS / "loader.schema.json").read_text(encoding="utf-8")) == json_schema()
    first = (CONFIGS / "stu.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=./loader.schema.json"


def test_the_schema_describes_every_key():
    """Each key has a description, and no object takes other keys."""
    schema = json_schema()
    objects = {"Config": schema, **schema["$defs"]}
    assert {name for name, model in objects.items() if model["additionalProperties"] is not False} == set()
    described = {**schema["$defs"], "Config": {"properties": {"version": schema["properties"]["version"]}}}
    silent = [
        f"{name}.{key}"
        for name, model in described.items()
        for key, value in model["properties"].items()
        if "description" not in value
    ]
    assert silent == []


UNCLOSED = "has a ' that is not closed; if YAML took the rest for a comment, put it all in quotes"
BAD_JOBS = [
    ("{}", "5:8: error: jobs.stu.query: a job needs a table or a query"),
    ("", "5:3: error: jobs.stu: must be a mapping of keys to values, not empty"),
    ("[a]", "5:8: error: jobs.stu: must be a mapping of keys to values, not a list"),
    (
        '{table: a, query: b, key: "{c}"}',
        "5:26: error: jobs.stu.query: table and query exclude each other; keep one",
    ),
    ("{query: SELECT 1}", "5:8: error: jobs.stu.key: a query needs a key, like stu_{sid}"),
    (
        '{query: a, key: "{b}", where: c}',
        "5:38: error: jobs.stu.where: belongs to a table; put it into the query",
    ),
    (
        "{query: SELECT 1 AS a, key: 's_{a}', follow: true}",
        "5:53: error: jobs.stu.follow: needs the table whose rows make the keys of the query: write follow: {table: …}",
    ),
    (
        "{query: SELECT 1 AS a, key: 's_{a}', follow: {table: a, lock_reads: true}}",
        "5:53: error: jobs.stu.follow: lock_reads belongs to a table: MySQL locks no rows within a query",
    ),
    (
        "{table: a, follow: {table: b}}",
        "5:27: error: jobs.stu.follow: a job follows its own table, a: leave out follow.table, b",
    ),
    ("{tabel: stu, table: a}", "5:9: error: jobs.stu.tabel: unknown key; did you mean table?"),
    (
        "{table: a, runs: {}}",
        f"5:19: error: jobs.stu.runs: {KNOWN}",
    ),
    ('{table: ""}', "5:16: error: jobs.stu.table: must not be empty"),
    ("{table: 012}", "5:16: error: jobs.stu.table: must be text, not a number; put it in quotes"),
    ("{table: true}", "5:16: error: jobs.stu.table: must be text, not true or false; put it in quotes"),
    ("{table: [a]}", "5:16: error: jobs.stu.table: must be text, not a list"),
    (
        "{table: a, key: {b}}",
        "5:24: error: jobs.stu.key: must be text, not a mapping; put text that begins with { in quotes",
    ),
    (
        '{table: a, where: "b = \'c"}',
        f"5:26: error: jobs.stu.where: {UNCLOSED}",
    ),
    ('{table: a, soft_delete: "; -- b"}', "5:32: error: jobs.stu.soft_delete: must not be empty"),
    (
        '{query: "SELECT 1 AS b; SELECT 2", key: "{b}"}',
        "5:16: error: jobs.stu.query: has a semicolon within, which ends a statement; keep one statement",
    ),
    ("{table: a, fields: []}", "5:27: error: jobs.stu.fields: must not be empty"),
    ("{table: a, fields: {}}", "5:27: error: jobs.stu.fields: must not be empty"),
    ("{table: a, fields: a}", "5:27: error: jobs.stu.fields: must be a list or a mapping, not text"),
    ("{table: a, fields: [b, b]}", "5:27: error: jobs.stu.fields: named twice: 'b'"),
    (
        "{table: a, fields: [b, 1]}",
        "5:31: error: jobs.stu.fields.1: must be text, not a number; put it in quotes",
    ),
    (
        "{table: a, fields: {b: 1}}",
        "5:31: error: jobs.stu.fields.b: must be text, not a number; put it in quotes",
    ),
    ("{table: a, nulls: no}", "5:26: error: jobs.stu.nulls: must be 'omit' or 'empty'"),
    ("{table: a, ttl: 30}", "5:24: error: jobs.stu.ttl: must be a number and its unit: 30s, 90m, 12h, 1d or 2w"),
    ("{table: a, ttl: 22:22}", "5:24: error: jobs.stu.ttl: must be a number and its unit: 30s, 90m, 12h, 1d or 2w"),
    ("{table: a, ttl: 0s}", "5:24: error: jobs.stu.ttl: must be from 1s to 5200w"),
    ("{table: a, ttl: 5201w}", "5:24: error: jobs.stu.ttl: must be from 1s to 5200w"),
    ("{table: a, ttl_jitter: 5%}", "5:31: error: jobs.stu.ttl_jitter: needs a ttl"),
    (
        "{table: a, ttl: 1d, ttl_jitter: 91%}",
        "5:40: error: jobs.stu.ttl_jitter: must be a percentage from 0% to 90%",
    ),
    (
        "{table: a, ttl: 1d, ttl_jitter: 5}",
        "5:40: error: jobs.stu.ttl_jitter: must be a percentage from 0% to 90%",
    ),
    ("{table: a, chunk_rows: 0}", "5:31: error: jobs.stu.chunk_rows: must be 1 or more"),
    ("{table: a, chunk_rows: 10000001}", "5:31: error: jobs.stu.chunk_rows: must be 10000000 or less"),
    ("{table: a, chunk_rows: 1.5}", "5:31: error: jobs.stu.chunk_rows: must be a whole number, not a number"),
    ("{table: a, chunk_rows: many}", "5:31: error: jobs.stu.chunk_rows: must be a whole number, not text"),
    (
        '{table: a, key: "a_{b"}',
        "5:24: error: jobs.stu.key: unmatched brace; write {{ or }} for a literal one",
    ),
    (
        '{table: a, key: "a_"}',
        f"5:24: error: jobs.stu.key: {NO_COLUMN}",
    ),
    *(
        (
            f'{{table: a, key: "{key}"}}',
            "5:24: error: jobs.stu.key: braces must contain the name of a column, like {sid}",
        )
        for key in ("{}", "{ }", "{0}", "{a!r}", "{a:>8}", "{a:{b}}")
    ),
    (
        '{table: a, schedule: {cron: "0 25 * * *"}}',
        f"5:36: error: jobs.stu.schedule.cron: '0 25 * * *' has a wrong hour: {NO_FIELD}",
    ),
    (
        "{table: a, schedule: {every: 30s, timezone: Bonn}}",
        f"5:52: error: jobs.stu.schedule.timezone: 'Bonn' {NO_ZONE}",
    ),
    (
        "{table: a, schedule: {timezone: UTC}}",
        "5:29: error: jobs.stu.schedule.every: a schedule needs a cron or an every",
    ),
]


@pytest.mark.parametrize(("text", "line"), BAD_JOBS)
def test_bad_job(errors, text, line):
    """A fault in a job is one line: place, path, what is wrong, what to write."""
    assert errors(job(text)) == [f"a.yaml:{line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{listen: ":99999"}', "5:10: error: daemon.listen: ends in a port, from 0 to 65535"),
        ("{listen: nowhere}", "5:10: error: daemon.listen: has characters that are not allowed here"),
        ("{jobs_at_once: 0}", "5:16: error: daemon.jobs_at_once: must be 1 or more"),
        ('{hosts: ["*"]}', "5:10: error: daemon.hosts.0: has characters that are not allowed here"),
        (
            "{token: 0123456789abcde}",
            "5:9: error: daemon.token: is too easy to guess: give 16 characters or more, from `openssl rand -hex 16`",
        ),
        (
            "{token_file: /dev/null, token: 0123456789abcdef}",
            "5:14: error: daemon.token_file: the file is empty, or too large for a password",
        ),
        ("{lisen: null}", "5:2: error: daemon.lisen: unknown key; did you mean listen?"),
    ],
)
def test_bad_daemon(errors, text, line):
    """The same of the daemon's part."""
    (fault,) = errors(job("{table: a}") + f"\ndaemon: {text}\n")
    assert fault.partition(": ")[2] == line.partition(": ")[2]


MYSQL_URL = "mysql://user@host:3306/database"
NO_MYSQL_URL = f"is not a url like {MYSQL_URL}; in a user or a password, percent-encode : / ? # @ and %"
BAD_SOURCES = [
    ("{}", "2:9: error: source.url: this key is required"),
    ("{url: 1}", f"2:15: error: source.url: must be a url like {MYSQL_URL}"),
    (
        '{url: "redis://h/d"}',
        f"2:15: error: source.url: must be a url like {MYSQL_URL}, beginning with one of mysql, mariadb",
    ),
    ('{url: "mysql:///d"}', f"2:15: error: source.url: the url names no host: {MYSQL_URL}"),
    (
        '{url: "mysql://h"}',
        f"2:15: error: source.url: the url ends in the name of one database: {MYSQL_URL}",
    ),
    *(
        (f'{{url: "mysql://{url}"}}', f"2:15: error: source.url: {NO_MYSQL_URL}")
        for url in (
            "u:hidden/x@h/d",
            "u:hid#den@h/d",
            "h:0/d",
            "h:65536/d",
            "[::1/d",
            "h/d?unix_socket",
            "%ff:hidden@h/d",
        )
    ),
    (
        '{url: "mysql://u:hid den@h/d"}',
        "2:15: error: source.url: a url holds no spaces and no control characters; percent-encode them",
    ),
    (
        '{url: "mysql://h/d?charset=x"}',
        "2:15: error: source.url: unknown url parameter 'charset'; the only one is unix_socket",
    ),
    (
        '{url: "mysql:///d?unix_socket=x"}',
        "2:15: error: source.url: unix_socket is a path that begins with /",
    ),
    (
        '{url: "mysql://h/d", password: 007}',
        "2:40: error: source.password: must be text, not a number; put it in quotes",
    ),
    (
        '{url: "mysql://u:hidden@h/d", password: hidden}',
        f"2:49: error: source.password: {TWO_PASSWORDS}",
    ),
    (
        '{url: "mysql://h/d", password: hidden, password_file: a.yaml}',
        f"2:40: error: source.password: {TWO_PASSWORDS}",
    ),
    (
        '{url: "mysql://h/d", password_file: none}',
        "2:45: error: source.password_file: cannot be read: No such file or directory",
    ),
    (
        '{url: "mysql://h/d", password_file: .}',
        "2:45: error: source.password_file: cannot be read: Is a directory",
    ),
    (
        '{url: "mysql://h/d", password_file: /dev/null}',
        "2:45: error: source.password_file: the file is empty, or too large for a password",
    ),
    (
        '{url: "mysql://h/d", password_file: /dev/zero}',
        "2:45: error: source.password_file: the file is empty, or too large for a password",
    ),
    ('{url: "mysql://h/d", tls_ca: none}', "2:38: error: source.tls_ca: must name a file that exists"),
    ('{url: "mysql://h/d", tls_ca: 1}', "2:38: error: source.tls_ca: must name a file that exists"),
    ('{url: "mysql://h/d", tls_key: a.yaml}', "2:39: error: source.tls_key: needs a tls_cert"),
    ('{url: "mysql://h/d", tls: no}', "2:35: error: source.tls: must be true or false, not text"),
    (
        '{url: "mysql://h/d", tls: false, tls_ca: a.yaml}',
        "2:35: error: source.tls: is false, but a tls_ file is given; drop one of them",
    ),
    (
        '{url: "mysql://h/d", time_zone: "UTC\'"}',
        "2:41: error: source.time_zone: has characters that are not allowed here",
    ),
]
NO_REDIS_URL = "is not a url like redis://host:6379; in a user or a password, percent-encode : / ? # @ and %"
NO_ADDRESS = "must be a host and its port: 10.0.0.11:6379, or [::1]:6379"
BAD_TARGETS = [
    (
        '{url: "http://h"}',
        f"3:15: error: target.url: must be a url like {REDIS_SCHEMES}",
    ),
    (
        '{url: "redis://"}',
        "3:15: error: target.url: the url names no host: redis://host:6379, or unix:///path for a socket",
    ),
    (
        '{url: "unix://h/path"}',
        "3:15: error: target.url: the url names no host: redis://host:6379, or unix:///path for a socket",
    ),
    ('{url: "unix://"}', "3:15: error: target.url: the url names no socket: unix:///path"),
    (
        '{url: "redis://h/x"}',
        "3:15: error: target.url: the database of Redis is a number: redis://host:6379/0",
    ),
    ('{url: "redis://u:hidden/@h"}', f"3:15: error: target.url: {NO_REDIS_URL}"),
    (
        '{url: "redis://h/1", cluster: true}',
        "3:39: error: target.cluster: a cluster has database 0 only; drop the number from the url",
    ),
    *(
        (
            f'{{url: "redis://h", addresses: {{"{announced}": "{reached}"}}}}',
            f"3:{44 + len(announced)}: error: target.addresses.{announced}: {NO_ADDRESS}",
        )
        for announced, reached in (
            ("10.0.0.11:6379", "localhost"),
            ("10.0.0.11:6379", "localhost:0"),
            ("10.0.0.11", "localhost:6379"),
            ("::1:6379", "localhost:6379"),
        )
    ),
    ('{url: "redis://h", cluster: 1}', "3:37: error: target.cluster: must be auto, true or false"),
    (
        '{url: "redis://h", tls_ca: a.yaml}',
        "3:36: error: target.tls_ca: needs TLS: write rediss:// in the url",
    ),
]


@pytest.mark.parametrize(
    ("text", "line"),
    [(source(text), line) for text, line in BAD_SOURCES] + [(target(text), line) for text, line in BAD_TARGETS],
)
def test_bad_server(errors, text, line):
    """A fault in a server is one line, which never repeats a url or a password."""
    assert errors(text) == [f"a.yaml:{line}"]


QUOTED = "put text that contains a colon and a space in quotes, all of it"
WHOLE = "text that begins with a quote must end with it: put all of it in other quotes"
BAD_FILES = [
    ("", "1:1: error: file: it is empty; a config begins with `version: 1`"),
    ("# nothing\n", "1:1: error: file: it is empty; a config begins with `version: 1`"),
    ("---\n", "1:1: error: file: it is empty; a config begins with `version: 1`"),
    ("- a\n", "1:1: error: file: it must be a mapping of keys to values"),
    ("a: 1\nb: 'x\n", "3:1: error: file: while scanning a quoted scalar, found unexpected end of stream"),
    ("a: 1\n---\nb: 1\n", "2:1: error: file: expected a single document in the stream, but found another document"),
    ("cron: */15 * * * *", '1:13: error: file: put text that begins with * in quotes, like cron: "*/15 * * * *"'),
    ("where: `a` > 1", "1:8: error: file: put text that begins with ` in quotes"),
    (
        "where: name = 'a: b'",
        f"1:17: error: file: mapping values are not allowed here; {QUOTED}",
    ),
    (
        "where: 'a' = name",
        f"1:12: error: file: while parsing a block mapping, expected <block end>, but found '<scalar>'; {WHOLE}",
    ),
    ("a: *hidden\n", "1:4: error: file: undefined alias; put text that begins with * in quotes"),
    (b"a: 1\nb: \xff\n", "2:4: error: file: it is not UTF-8 text"),
    ("a: 1\nb: x\x01\n", "2:5: error: file: there is a control character here"),
    (f"a: {'[' * 17}{']' * 17}", "1:20: error: file: its values are more than 16 levels deep"),
    ("[" * 1000, "1:1: error: file: its values are more than 16 levels deep"),
    ("a: &x [*x]\n", "1:4: error: file: its values are more than 16 levels deep"),
    ("#" * (MAX_BYTES + 1), f"1:1: error: file: it is larger than {MAX_BYTES} bytes, too large for a config"),
    ('a: "\\U00110000"\n', "1:1: error: file: it is not YAML"),
]


@pytest.mark.parametrize(("text", "line"), BAD_FILES)
def test_bad_file(errors, text, line):
    """A file that gives no mapping is refused with its reason, in a moment."""
    assert errors(text) == [f"a.yaml:{line}"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("SELECT ';' AS a;", "SELECT ';' AS a"),
        ("SELECT a -- b;\n ;; # c", "SELECT a -- b;"),
        ("SELECT a /* ; */", "SELECT a /* ; */"),
    ],
)
def test_a_semicolon_at_the_end(load, text, kept):
    """It ends a statement in a client, and is left out here; elsewhere it is text."""
    config = load(job(json.dumps({"query": text, "key": "{a}"})) + '  t: {table: t, where: "a > 1 ;"}')
    assert (config.jobs["stu"].query, config.jobs["t"].where) == (kept, "a > 1")


def test_alias_bomb(errors):
    """Values are counted with aliases followed, so nested aliases cannot fill the memory."""
    rows = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [
        f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]"
        for before, name in zip("abcdef", "bcdefg", strict=True)
    ]
    (line,) = errors("\n".join(rows))
    assert (
        re.sub(r":\d+:\d+:", ":", line)
        == f"a.yaml: error: file: it has more than {MAX_VALUES} values once its aliases are expanded"
    )


def test_aliases_are_followed(load):
    """An alias stands for the value of its anchor."""
    assert load(f"{HEAD}jobs: {{a: {{table: a, fields: &f [x, y]}}, b: {{table: b, fields: *f}}}}").jobs[
        "b"
    ].fields == ("x", "y")


def test_all_faults_at_once(errors):
    """Unset variables, duplicate and unknown keys, tags, wrong types and missing keys come together, in order."""
    text = """\
verison: 1
source: {url: "${MYSQL_URL}", password: "${MYSQL_PASSWORD:?see the vault}", tls: true, tls: false}
target:
  url: "${REDIS_URL:-redis://h}"
  pass: "${A} ${B}"
  timeout: "${"
jobs:
  bad name: {table: a}
  a: {table: !!python/object:os.system x, ? [b] : c}
  b: {table: 1, "x\\ny": 1}
"""
    assert errors(text) == [
        "a.yaml:1:1: error: verison: unknown key; did you mean version?",
        "a.yaml:1:1: error: version: this key is required",
        "a.yaml:2:15: error: source.url: ${MYSQL_URL} is not set in the environment",
        "a.yaml:2:41: error: source.password: ${MYSQL_PASSWORD}: see the vault",
        "a.yaml:2:88: error: source.tls: duplicate key, first written in line 2",
        "a.yaml:5:3: error: target.pass: unknown key; did you mean password?",
        "a.yaml:5:9: error: target.pass: ${A} is not set in the environment",
        "a.yaml:5:9: error: target.pass: ${B} is not set in the environment",
        "a.yaml:6:12: error: target.timeout: write ${NAME}, ${NAME:-default} or ${NAME:?message}; $${ is a literal ${",
        "a.yaml:8:3: error: jobs.bad name: a name consists of letters, digits and _ . -",
        "a.yaml:9:14: error: jobs.a.table: tags are not allowed; put text that begins with ! in quotes",
        "a.yaml:9:45: error: jobs.a: a key must be plain text",
        "a.yaml:10:14: error: jobs.b.table: must be text, not a number; put it in quotes",
        f"a.yaml:10:17: error: jobs.b.'x\\ny': {KNOWN}",
    ]


def test_placeholders(load, monkeypatch):
    """`:-` and `:?` take empty for unset, as in a shell; `$${` is a literal `${`; a lone `$` is a dollar."""
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("SET", "${EMPTY}")
    text = "$${SET} $SET ${SET} ${SET:-x} ${SET:?x} <${EMPTY}> ${EMPTY:-a b} ${UNSET:-} $"
    where = load(job(f"{{table: stu, where: '{text}'}}")).jobs["stu"].where
    assert where == "${SET} $SET ${EMPTY} ${EMPTY} ${EMPTY} <> a b  $"


def test_placeholders_are_not_yaml(load, monkeypatch):
    """A variable changes one value: it cannot bring in keys, comments or types."""
    monkeypatch.setenv("TABLE", "x, key: {y} # 1")
    monkeypatch.setenv("NUMBER", "7")
    stu = load(job('{table: "${TABLE}", where: "${NUMBER}", chunk_rows: "${NUMBER}"}')).jobs["stu"]
    assert (stu.table, stu.where, stu.chunk_rows) == ("x, key: {y} # 1", "7", 7)


def test_addresses_of_nodes(load):
    """What a node announces is dialled as the config says; other addresses as they are."""
    addresses = '{"10.0.0.11:6379": "localhost:7001", "[::1]:6379": "[fe80::2]:1", "Node.A:1": "b:2"}'
    servers = load(target(f'{{url: "redis://h", addresses: {addresses}}}')).target
    assert servers.reached_at("10.0.0.11", 6379) == ("localhost", 7001)
    assert servers.reached_at("::1", 6379) == ("fe80::2", 1)
    assert servers.reached_at("node.a", 1) == ("b", 2)
    assert servers.within(1).reached_at("10.0.0.11", 6380) == ("10.0.0.11", 6380)


def test_flags_from_the_environment(load, monkeypatch):
    """A variable can also say true or false."""
    monkeypatch.setenv("CLUSTER", "false")
    assert load(target('{url: "redis://h", cluster: "${CLUSTER}"}')).target.cluster is False


@pytest.mark.parametrize("word", ["no", "on", "22:22", "2024-01-01", "1e", "0x", ".", "no # comment", "'012'", "~a"])
def test_yaml_traps(load, word):
    """Words that older YAML takes for something else are the text they look like."""
    assert load(job(f"{{table: {word} \n }}")).jobs["stu"].table == word.removesuffix(" # comment").strip("'")


def test_job_names_are_text(load):
    """A key is the text it looks like, whatever YAML takes it for."""
    assert list(load(f"{HEAD}jobs: {{no: {{table: a}}, 012: {{table: b}}, null: {{table: c}}}}").jobs) == [
        "no",
        "012",
        "null",
    ]


def test_names_of_all_kinds(errors):
    """A name that looks like a step of the validator's own is placed as any other."""
    text = f"{HEAD}jobs:\n  '[map]': {{'[key]': 1, table: a, fields: {{'[key]': 1}}}}\n  a: {{table: a, '[list]': 1}}\n"
    assert errors(text) == [
        "a.yaml:5:3: error: jobs.[map]: a name consists of letters, digits and _ . -",
        "a.yaml:5:13: error: jobs.[map].[key]: unknown key; did you mean key?",
        "a.yaml:5:43: error: jobs.[map].fields: must be text, not a number; put it in quotes",
        f"a.yaml:6:17: error: jobs.a.[list]: {KNOWN}",
    ]


def test_later_files_win(load):
    """Mappings are merged key by key, anything else is replaced; variables of what was replaced are not asked for."""
    config = load(
        job('{table: "${UNSET}", fields: [a, b], nulls: empty}'),
        "source: {time_zone: '+00:00'}\njobs: {stu: {table: t, fields: [c]}, other: {table: o}}",
    )
    stu = config.jobs["stu"]
    assert (config.source.host, config.source.time_zone) == ("127.0.0.1", "+00:00")
    assert (stu.table, stu.fields, stu.nulls, config.jobs["other"].table) == ("t", ("c",), "empty", "o")


def test_faults_of_several_files(errors):
    """A fault is placed in the file that brought the value in."""
    assert errors(job("{table: 1, key: a}"), "jobs: {stu: {table: 2}}") == [
        f"a.yaml:5:24: error: jobs.stu.key: {NO_COLUMN}",
        "b.yaml:1:21: error: jobs.stu.table: must be text, not a number; put it in quotes",
    ]


def test_unreadable_files(load, tmp_path):
    """All files that cannot be read are named."""
    Path("dir").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_config([Path("none.yaml"), Path("dir")])
    assert str(caught.value).split("\n") == [
        "dir:1:1: error: file: it cannot be read: Is a directory",
        "none.yaml:1:1: error: file: it cannot be read: No such file or directory",
    ]


def test_where_a_config_is_found(load, monkeypatch, tmp_path):
    """$LOADER_CONFIG comes before ./loader.yaml, which comes before /etc; with none of them, all are named."""
    etc = tmp_path / "etc.yaml"
    monkeypatch.setattr(document_module, "DEFAULT_FILES", (Path("loader.yaml"), etc))
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert str(caught.value) == (
        f"no config found: $LOADER_CONFIG is not set, and there is no loader.yaml, {etc}; name one with -c FILE,"
        " or let `loader init` write one"
    )
    found = []
    for name in ("etc.yaml", "loader.yaml", "named.yaml"):
        Path(name).write_text(job(f"{{table: {Path(name).stem}}}"), encoding="utf-8")
        if name == "named.yaml":
            Path("more.yaml").write_text("jobs: {more: {table: m}}", encoding="utf-8")
            monkeypatch.setenv("LOADER_CONFIG", os.pathsep.join(["named.yaml", "more.yaml"]))
        found.append([job.table for job in load_config().jobs.values()])
    assert found == [["etc"], ["loader"], ["named", "m"]]


def test_secrets_stay_secret(load):
    """A password, wherever it was given, is in `password` alone and in no repr."""
    Path("secret").write_text("hidden\n\n", encoding="utf-8")
    config = load(
        HEAD.replace("loader@", "lo%40der:hid%2Fden@").replace(
            '"redis://127.0.0.1"', '"rediss://[::1]:7000", password_file: secret'
        )
        + "jobs: {stu: {table: stu}}"
    )
    assert (config.source.user, config.source.password.get_secret_value()) == ("lo@der", "hid/den")
    assert (config.target.host, config.target.port, config.target.tls) == ("::1", 7000, True)
    assert config.target.password.get_secret_value() == "hidden\n"
    assert "hid" not in repr(config) + str(config)


def test_sockets(load):
    """Both servers can be reached through a unix socket."""
    text = HEAD.replace("127.0.0.1/test", "/test?unix_socket=/run/my%20sql.sock")
    config = load(text.replace("redis://127.0.0.1", "unix:///run/redis.sock?db=2") + "jobs: {stu: {table: stu}}")
    assert (config.source.unix_socket, config.source.database) == ("/run/my sql.sock", "test")
    assert (config.target.unix_socket, config.target.port, config.target.db) == ("/run/redis.sock", 0, 2)
    assert (config.source.endpoint, config.target.endpoint) == ("/run/my sql.sock", "/run/redis.sock")


@pytest.mark.parametrize(("timeout", "within"), [("30s", 2), ("1s", 1)])
def test_a_server_that_has_little_time(load, timeout, within):
    """A server has no more time to answer than the config gives it."""
    target = load(HEAD.replace('.1"}', f'.1", timeout: {timeout}}}') + "jobs: {a: {table: a}}").target
    assert (target.within().timeout, target.endpoint) == (within, "127.0.0.1:6379")


def test_tls_files_turn_tls_on(load):
    """A tls_ file of the source is reason enough for TLS."""
    assert load(source('{url: "mysql://h/d", tls_ca: a.yaml}')).source.tls is True


def test_config_is_frozen(load):
    """Nothing changes a config once it is read."""
    with pytest.raises(ValueError, match="frozen"):
        load(job("{table: stu}")).jobs["stu"].table = "x"


def test_one_prefix_for_two_tables(errors):
    """Two tables under one prefix are refused: their keys could collide, and one's are extra to the other."""
    assert errors(
        f'{HEAD}jobs:\n  a: {{table: stu}}\n  b: {{table: t, key: "stu_{{x}}"}}\n  c: {{query: q, key: "stu_{{y}}"}}'
    ) == [
        "a.yaml:6:22: error: jobs.b.key: keys begin with 'stu_' like those of job a; change one of them",
        "a.yaml:7:22: error: jobs.c.key: keys begin with 'stu_' like those of job a; change one of them",
    ]


@pytest.mark.parametrize(
    "deletes",
    ["incremental: {column: x}, full_every: 1d", "incremental: {column: x}, soft_delete: y", "changed_only: true"],
)
def test_a_prefix_that_two_jobs_share_and_one_deletes(errors, load, deletes):
    """Two jobs of one table may share their hashes only where none deletes them by itself."""
    both = "{{table: stu, fields: [a]}}, b: {{table: stu, fields: [b]{}}}".format
    assert load(f"{HEAD}jobs: {{a: {both('')}}}").warnings
    (error,) = errors(f"{HEAD}jobs: {{a: {both(', ' + deletes)}}}")
    assert "jobs.b.key: keys begin with 'stu_' like those of job a, and a hash that a sync deletes" in error


def test_prefix_within_a_prefix(load):
    """A prefix that begins another is a warning."""
    config = load(f'{HEAD}jobs: {{a: {{table: stu}}, b: {{table: t, key: "stu_x_{{id}}"}}, c: {{table: u}}}}')
    assert config.warnings == ("jobs.a.key: all keys of job b begin with its prefix 'stu_' too",)


def test_many_jobs_under_one_prefix_are_named_briefly(load):
    """A warning names three of them, and counts the others."""
    jobs = ", ".join(f'j{n}: {{table: stu, key: "stu_{n}_{{id}}"}}' for n in range(5))
    (warning,) = load(f"{HEAD}jobs: {{all: {{table: stu}}, {jobs}}}").warnings
    assert warning == "jobs.all.key: all keys of jobs j0, j1, j2 and 2 more begin with its prefix 'stu_' too"


def configured(jobs: dict[str, dict[str, object]]) -> Config:
    """A config of these jobs."""
    servers = {"source": {"url": "mysql://loader@127.0.0.1/test"}, "target": {"url": "redis://127.0.0.1"}}
    return Config.model_validate({"version": 1, **servers, "jobs": jobs})


LETTERS = st.text("ab", max_size=3)
JOBS = st.lists(st.tuples(LETTERS, st.sampled_from("tu"), st.sampled_from([False, False, True])), min_size=1)


@given(JOBS)
def test_jobs_are_held_against_each_other_as_if_each_with_each(drawn):
    """Refused are the jobs that share a prefix with an earlier one of another table, or where one of both deletes."""
    jobs = {
        f"j{place}": {"table": table, "key": f"{prefix}{{id}}", "changed_only": erases}
        for place, (prefix, table, erases) in enumerate(drawn)
    }
    rivals = [
        [
            f"like those of job j{at}{';' if other != table else ','} "
            for at, (own, other, deletes) in enumerate(drawn[:place])
            if own == prefix and (other != table or deletes or erases)
        ]
        for place, (prefix, table, erases) in enumerate(drawn)
    ]
    refused = [each[0] for each in rivals if each]
    try:
        config = configured(jobs)
    except ValueError as error:
        told = str(error)
    else:
        told = ""
        for job in config.jobs.values():
            longer = {each.prefix for each in config.jobs.values()} - {job.prefix}
            assert all(each in longer and each.startswith(job.prefix) for each in config.longer(job))
            for each in longer:
                assert each.startswith(tuple(config.longer(job))) == each.startswith(job.prefix)
            same = [each for each in config.jobs.values() if each.prefix == job.prefix and each is not job]
            assert (config.sharing(job) in same) if same else config.sharing(job) is None
    assert re.findall(r"like those of job \w+[;,] ", told) == refused


@pytest.mark.parametrize("key", ["{}_{{id}}", "t_{{id}}", "t{}_{{id}}"])
def test_thousands_of_jobs_take_no_more_looks_than_a_few_each(monkeypatch, key):
    """Each with each would be millions of looks at prefixes."""
    looks, prefix = [], JobConfig.prefix.fget
    monkeypatch.setattr(JobConfig, "prefix", property(lambda job: looks.append(1) or prefix(job)))
    config = configured({f"j{n}": {"table": "t", "key": key.format(n)} for n in range(3000)})
    assert len(config.warnings) in {0, len(config.jobs)}
    for job in config.jobs.values():
        config.longer(job)
        config.sharing(job)
    assert len(looks) < 20 * len(config.jobs)


def test_prefix_of_the_state(errors):
    """No row's key is one of the loader's own: a prefix within theirs is refused, whether written or the table's."""
    refused = "keys begin with 'loader:' like the loader's own state; change it"
    assert errors(f'{HEAD}jobs:\n  a: {{table: stu, key: "loader:{{x}}"}}\n  b: {{table: "loader:x"}}') == [
        f"a.yaml:5:24: error: jobs.a.key: {refused}",
        f"a.yaml:6:6: error: jobs.b.key: {refused}",
    ]


@pytest.mark.parametrize("prefix", ["", "l", "loader"])
def test_prefix_that_text_completes(load, prefix):
    """A prefix that a text may turn into that of the state is a warning."""
    config = load(job(f'{{table: stu, key: "{prefix}{{x}}"}}'))
    (warning,) = config.warnings
    assert warning == (
        f"jobs.stu.key: if text follows its prefix {prefix!r}, a row's key may begin with 'loader:'"
        " like the loader's own state"
    )
    assert load(job('{table: stu, key: "loaders:{x}"}')).warnings == ()


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("stu_{sid}", (("stu_", "sid"),)),
        ("{a}{b}:x", (("", "a"), ("", "b"), (":x", None))),
        ("{{{a}}}", (("{", "a"), ("}", None))),
        ("{a.b}{名}", (("", "a.b"), ("", "名"))),
    ],
)
def test_key_parts(template, parts):
    """A template is literal text and columns in turn; doubled braces are literal ones."""
    assert key_parts(template) == parts


def test_durations():
    """A duration is seconds, whatever its unit."""
    assert [seconds(text) for text in ("30s", "90m", "12h", "1d", "2w")] == [30, 5400, 43_200, 86_400, 1_209_600]


YAML_LINES = st.lists(
    st.sampled_from(
        [
            "version: 1",
            "source:",
            "  url: mysql://h/d",
            "target: {url: redis://h}",
            "jobs:",
            "  a: {table: b}",
            "&a",
            "*a",
            "<<: *a",
            "? ",
            "!!int x",
            "- ",
            "a: ${X}",
            "'",
            '"\\x',
            "|",
            "{",
            "]",
            "---",
            "%YAML 1.1",
            "\t",
            "#",
            ": :",
        ]
    )
    | st.text(max_size=12),
    max_size=12,
).map("\n".join)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=YAML_LINES | st.text() | st.binary())
def test_arbitrary_text(load, text):
    """Whatever a file holds, it is a Config, or a ConfigError in which each line has its place."""
    lines = []
    try:
        load(text)
    except ConfigError as error:
        lines = str(error).split("\n")
    assert [line for line in lines if not re.match(r"a\.yaml:\d+:\d+: error: .+: .+", line)] == []


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["source", "target", "jobs.a"]),
    key=st.sampled_from(
        ["url", "password", "tls_ca", "password_file", "cluster", "table", "key", "fields", "ttl", "where"]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.text("mysqlred:/@[]?#%0{}.~", max_size=20),
        lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
        max_leaves=5,
    ),
)
def test_arbitrary_values(load, path, key, value):
    """Whatever a key holds, the config is read or refused."""
    document = {
        "version": 1,
        "source": {"url": "mysql://h/d"},
        "target": {"url": "redis://h"},
        "jobs": {"a": {"table": "b"}},
    }
    place = document
    for step in path.split("."):
        place = place[step]
    place[key] = value
    lines = []
    try:
        load(json.dumps(document))
    except ConfigError as error:
        lines = str(error).split("\n")
    assert [line for line in lines if not line.startswith("a.yaml:1:")] == []


def test_several_nodes_of_a_cluster():
    """Hosts are separated by commas; user, database and TLS hold for all of them."""
    address = redis_address("rediss://me@a,b:7002,[::1]:7003/0")
    assert (address.host, address.port, address.user, address.tls) == ("a", 6379, "me", True)
    assert address.others == (("b", 7002), ("::1", 7003))
    with pytest.raises(ValueError, match="is not a url like"):
        redis_address("redis://a,b:x")


def test_the_config_of_the_docs(tmp_path, monkeypatch):
    """What docs/configuration.md shows is a config."""
    text = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    block = text.partition("\nversion: 1\n")[2].partition("\n```\n")[0]
    (tmp_path / "a.yaml").write_text("version: 1\n" + block, encoding="utf-8")
    for name, value in (("MYSQL_URL", "mysql://u@h/d"), ("MYSQL_PASSWORD", "p"), ("REDIS_URL", "redis://h")):
        monkeypatch.setenv(name, value)
    stu = load_config([tmp_path / "a.yaml"]).jobs["stu"]
    assert (stu.key, stu.deadline) == ("stu_{sid}", 120)


def test_a_hash_that_two_jobs_write_is_not_deleted(load, errors):
    """Where an incremental sync deletes hashes by itself, no other job may write into them."""
    text = HEAD + "jobs:\n  a: {table: stu, incremental: {column: at}%s}\n  b: {table: stu, where: id > 3}"
    load(text % "")
    for more in (", where: id > 3", ", soft_delete: gone", ", full_every: 1d"):
        (told,) = errors(text % more)
        assert told.startswith("a.yaml:6:6: error: jobs.b.key: keys begin with 'stu_' like those of job a, and a hash")


def test_an_incremental_job_with_a_ttl(load, errors):
    """A row that is not changed is not written: everything has to be read before the first hash expires."""
    text = "{table: stu, ttl: 1d, ttl_jitter: 10%%, incremental: {column: at}%s}"
    for more in ("", ", full_every: 1d"):
        (told,) = errors(job(text % more))
        assert "jobs.stu.full_every: has to be shorter than 77760s" in told
    assert load(job(text % ", full_every: 21h")).jobs["stu"].full_every == 75_600


def test_a_password_file_is_not_read_to_compare(tmp_path, monkeypatch):
    """Settings are equal, and keys of a dictionary, by the file that holds the password, whatever it holds by now."""
    (tmp_path / "secret").write_text("one")
    first, other = (fields.FileSecret(tmp_path / "secret") for _ in range(2))
    (tmp_path / "another").write_text("one")
    another = fields.FileSecret(tmp_path / "another")
    read = []
    monkeypatch.setattr(fields, "_read_secret", read.append)
    assert (first == other, {first: 1}[other], first == another, first == "one") == (True, 1, False, False)
    assert read == []
