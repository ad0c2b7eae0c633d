"""Configs of many tables: sources, defaults, patterns, and the parts that they stand for. No server is asked."""

from pathlib import Path

import pytest

from loader.config.load import Config, load_config
from loader.config.parts import Pattern, Selection, piece_of_name, table_of, with_primary_key
from loader.errors import ConfigError
from loader.jobs.expand import _part, expand

HEAD = """\
version: 1
sources:
  s1: {url: "mysql://u@h1/one"}
  s2: {url: "mysql://u@h2/two"}
target: {url: "redis://h"}
"""
ONE = 'version: 1\nsource: {url: "mysql://u@h/own"}\ntarget: {url: "redis://h"}\n'


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(text):
    Path("a.yaml").write_text(text, encoding="utf-8")
    return load_config([Path("a.yaml")])


def faults(text):
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value).splitlines()


def test_a_job_of_several_sources():
    """Each source makes a part, with the names in its key; no server is asked, as there is no pattern."""
    config = load(
        f'{HEAD}jobs:\n  stu: {{source: [s1, s2], table: stu, key: "{{source}}:{{database}}:{{table}}:{{sid}}"}}\n'
    )
    parts = config.jobs
    assert {name: (part.key, part.part_of) for name, part in parts.items()} == {
        "stu/s1": ("s1:one:stu:{sid}", "stu"),
        "stu/s2": ("s2:two:stu:{sid}", "stu"),
    }
    assert [config.source_of(part).address for part in parts.values()] == ["h1:3306/one", "h2:3306/two"]
    assert expand(config).config is config


def test_parts_of_a_pattern():
    """Parts are named after what varies; a table's odd characters are encoded in the name, not in the key."""
    a = 'a: {source: [s1], tables: "t*", key: "{table}:{pk}"}'
    config = load(f'{HEAD}jobs:\n  {a}\n  b: {{source: s1, tables: "*.t*"}}\n')
    assert list(config.jobs) == ["a/s1", "b"]
    assert all(job.is_open for job in config.jobs.values())
    a, b = config.jobs.values()
    part = _part(a, config.source_of(a), "one", "t{%/ 学}")
    assert (part.name, part.key) == ("a/s1/t%7B%25%2F%20学%7D", "t{{%/ 学}}:{pk}")
    part = _part(b, config.source_of(b), "other", "t1")
    assert (part.name, part.prefix, config.source_of(part).address) == ("b/other/t1", "t1_", "h1:3306/other")


def test_a_table_of_another_database():
    """`other.t` is table t of another database; backticks keep a dot that is part of a name."""
    config = load(f"{ONE}jobs:\n  a: {{table: other.t}}\n  b: {{table: own.t2}}\n  c: {{table: '`x.y`'}}\n")
    found = [(config.source_of(job).database, job.table) for job in config.jobs.values()]
    assert found == [("other", "t"), ("own", "t2"), ("own", "x.y")]
    assert table_of("`a.b`.`c``d`") == ("a.b", "c`d")


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ("a: {table: t}", "a.yaml:7:6: error: jobs.a.source: this key is required; the sources are s1, s2"),
        (
            "a: {source: s3, table: t}",
            "a.yaml:7:15: error: jobs.a.source: there is no source 's3'; the sources are s1, s2",
        ),
        (
            "a: {source: [s1, 1], table: t}",
            "a.yaml:7:15: error: jobs.a.source: must be the name of a source, or a list",
        ),
        ("a: {source: s1, tables: t, table: t}", "a.yaml:7:6: error: jobs.a.query: tables excludes table and query"),
        ("a: {source: s1, tables: /t(/}", "a.yaml:7:27: error: jobs.a.tables: '/t(/' is not a regular expression"),
        ("a: {source: s1, table: t, exclude: x}", "a.yaml:7:38: error: jobs.a.exclude: belongs to tables"),
        ('a: {source: s1, tables: t, key: "{table}"}', "a.yaml:7:35: error: jobs.a.key: names no column of the rows"),
        (
            'a: {source: [s1, s2], table: t, key: "t:{id}"}',
            "a.yaml:7:40: error: jobs.a.key: keys of part a/s2 begin with 't:' like those of part a/s1; put {source}",
        ),
    ],
)
def test_faults(jobs, message):
    """What is wrong with a job of many tables is told with its place."""
    (line,) = faults(f"{HEAD}jobs:\n  {jobs}\n")
    assert line.startswith(message)


def test_source_or_sources():
    """There is one of the two."""
    both = HEAD.replace("target", 'source: {url: "mysql://u@h/d"}\ntarget')
    (line,) = faults(f"{both}jobs: {{a: {{source: s1, table: t}}}}")
    assert line == "a.yaml:5:9: error: source: source and sources exclude each other; keep one"
    (line,) = faults('version: 1\ntarget: {url: "redis://h"}\njobs: {a: {table: t}}')
    assert line == "a.yaml:1:1: error: source: this key is required"
    (line,) = faults(f"{ONE}jobs: {{a: {{source: s1, table: t}}}}")
    assert line.startswith("a.yaml:4:20: error: jobs.a.source: names a source, and there are no `sources`")
    config = load('version: 1\nsources: {x: {url: "mysql://u@h/d"}}\ntarget: {url: "redis://h"}\njobs: {a: {table: t}}')
    assert config.source_of(config.jobs["a"]).address == "h:3306/d"


def test_defaults():
    """Jobs have the keys of `defaults` unless they have them themselves, also with no value."""
    text = "defaults: {changed_only: true, schedule: {every: 5m}}\n"
    text += "jobs:\n  a: {table: a}\n  b: {table: b, schedule: null}\n"
    a, b = load(ONE + text).jobs.values()
    assert (a.changed_only, a.schedule.every, b.changed_only, b.schedule) == (True, 300, True, None)


def test_faults_of_defaults():
    """One fault that all jobs inherit is told once, at its place; one that a job adds is told of that job."""
    text = "defaults: {ttl: soon, keys: 1, table: x}\njobs:\n  a: {table: a}\n  b: {table: b}\n"
    assert faults(ONE + text) == [
        "a.yaml:4:17: error: defaults.ttl: must be a number and its unit: 30s, 90m, 12h, 1d or 2w",
        "a.yaml:4:23: error: defaults.keys: unknown key; did you mean key?",
        "a.yaml:4:32: error: defaults.table: belongs to a job, not to all of them",
    ]
    text = "defaults: {changed_only: true}\njobs:\n  a: {table: a}\n  b: {table: b, ttl: 1d}\n"
    assert faults(ONE + text) == [
        "a.yaml:7:6: error: jobs.b.changed_only: excludes a ttl: a hash that is not written again would expire"
    ]
    assert faults(f"{ONE}defaults: [1]\njobs: {{a: {{table: a}}}}") == [
        "a.yaml:4:11: error: defaults: must be a mapping of the keys of jobs to values"
    ]


def test_patterns():
    """Globs and regular expressions are about whole names, in the source's own database unless they have a dot."""
    selection = Selection(["student_*", "school_?.t", r"/log\.[a-z]+/", "/x[0-9]+/"], ["*_tmp", "school_2.*"])
    names = ["own.student_1", "other.student_1", "own.student_tmp", "school_1.t", "school_2.t", "log.abc", "own.x12"]
    names += ["own.x12y", "log.ab1", "own.Student_1"]
    taken = [name for name in names if selection.takes(*name.split("."), "own")]
    assert taken == ["own.student_1", "school_1.t", "log.abc", "own.x12"]
    assert [Pattern(text).names_database for text in ("a*", "a.b", "/a.b/", r"/a\.b/")] == [False, True, False, True]


def test_names_of_parts():
    """Any table has a name that suits state keys and urls, and no two have the same."""
    names = ["学生", "a:b", "..", "rejects", "%7B", "{", "a/b", "a\nb"]
    pieces = [piece_of_name(name) for name in names]
    assert pieces == ["学生", "a%3Ab", "%2E%2E", "%72ejects", "%257B", "%7B", "a%2Fb", "a%0Ab"]


def test_the_primary_key_in_a_key():
    """`{pk}` stands for its columns, joined by the character before it, or by _ if that is a letter or digit."""
    assert with_primary_key((("t:", "pk"),), ["a", "b"]) == (("t:", "a"), (":", "b"))
    assert with_primary_key((("t", "pk"), ("/x", None)), ["a", "b"]) == (("t", "a"), ("_", "b"), ("/x", None))


def test_jobs_are_named_in_any_script():
    """Letters of all scripts make a name."""
    assert list(load(f"{ONE}jobs: {{学生: {{table: 学生}}}}").jobs) == ["学生"]
    assert isinstance(load(f"{ONE}jobs: {{学生: {{table: 学生}}}}"), Config)


def test_the_example(monkeypatch):
    """configs/many.yaml is valid, and has all that docs/many.md tells of."""
    for name in ("SHARD1_URL", "SHARD2_URL", "SHOPS_URL"):
        monkeypatch.setenv(name, f"mysql://u@{name.lower().replace('_', '-')}/db")
    monkeypatch.setenv("MYSQL_PASSWORD", "x")
    monkeypatch.setenv("REDIS_URL", "redis://h")
    config = load_config([Path(__file__).parents[3] / "configs" / "many.yaml"])
    assert list(config.jobs) == ["students/s1", "students/s2", "shop"]
