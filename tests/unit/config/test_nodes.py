"""libyaml reads what is plain, and says of it exactly what ruamel says."""

import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.config import files, nodes
from loader.config.load import load_config
from support.many_jobs import many_jobs

PIECES = [
    "a",
    "b: ",
    "c:",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ",",
    ": ",
    ":",
    "'",
    '"',
    "# x",
    "#",
    ">",
    "&x ",
    "*x",
    "? ",
    "~",
    "null",
    "12",
    "0x1f",
    "1.5",
    "true",
    "no",
    "2024-01-01",
    "\\",
    "\\n",
    "\\u0041\n",
    "<<: ",
    "é",
    "学生",
    "x y",
    "k: v",
    "k2: v2\n",
    "k3: [1, 2]\n",
    "k4:\n  - a\n  - b\n",
    "'it''s'",
    '"q"',
    "!t ",
    "%",
    "@",
    "`",
    "\t",
    "---",
    "...",
    "\r\n",
    "=",
    "_1",
    "1_0",
    ".5",
    "1e5",
    "\r\n",
    "k:\n",
    "key: # c\n",
    "- k: 1\n  j: 2\n",
    ">-\n  f\n  g\n\n   h\n",
    "http://x",
    "\x85",
    "k: ",
]
BLOCKS = ["|", "|-", "k: |\n  text\n  more\n\n", "|2"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file with 345 jobs."""
    file = tmp_path_factory.mktemp("many") / "many.yaml"
    file.write_text(many_jobs(345), encoding="utf-8")
    return file


def read(monkeypatch, file, compose):
    """All that is read from a file if its nodes are composed in one way."""
    monkeypatch.setattr(files, "compose", compose)
    try:
        document = files.read_document([file], {})
    except files.ConfigError as error:
        return str(error)
    return repr(document.values), document.places, document.keys, document.problems


def test_folded_text(monkeypatch, tmp_path):
    """Nothing marks where a line was folded."""
    file = tmp_path / "any.yaml"
    file.write_text("b: >-\n  f\n  g\n\n   h\n", encoding="utf-8")
    for compose in (nodes.compose, nodes.compose_any):
        assert read(monkeypatch, file, compose)[0] == repr({"b": "f g\n\n h"})


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES + BLOCKS), max_size=14).map("".join), st.sampled_from(["", "r: 1\n"]))
def test_both_say_the_same(monkeypatch, tmp_path, text, before):
    """Values, places of values and of keys, and problems are the same, whoever composes the nodes."""
    file = tmp_path / "any.yaml"
    file.write_text(before + text, encoding="utf-8", newline="")
    assert read(monkeypatch, file, nodes.compose) == read(monkeypatch, file, nodes.compose_any)


def test_a_plain_config_needs_no_ruamel(many):
    """It is imported only for what libyaml does not read: its parser needs a second for this file."""
    code = f"import sys; from loader.cli.main import main; sys.argv[1:] = ['-c', {str(many)!r}, 'check']; main()"
    watched = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ok: 345 jobs")
    assert "ruamel.yaml" not in done.stdout.split()


def test_without_libyaml(monkeypatch, many):
    """A PyYAML that was built without it changes nothing but the time."""
    config = load_config([many])
    monkeypatch.setitem(sys.modules, "yaml.cyaml", None)
    assert load_config([many]) == config
    assert len(config.jobs) == 345


@pytest.mark.parametrize(
    "text", ["- |#\n", "%YAML 1.1\n---\na: yes\n", "a:\tb\n", "a: !!str 1\n", "a: *b\n", "[" * 1000]
)
def test_the_rest_is_left_to_ruamel(monkeypatch, text):
    """libyaml is not believed about what is not plain."""
    asked = []
    monkeypatch.setattr(nodes, "compose_any", asked.append)
    nodes.compose(text)
    assert asked == [text]


def test_ten_thousand_jobs(tmp_path):
    """They are read in seconds; this limit is generous, benchmarks/config.py measures."""
    file = tmp_path / "thousands.yaml"
    file.write_text(many_jobs(10_000), encoding="utf-8")
    begun = time.monotonic()
    assert len(load_config([file]).jobs) == 10_000
    assert time.monotonic() - begun < 20
