"""Libraries that are imported in less time do what they did."""

import subprocess
import sys

import pytest

BEGIN = "import dataclasses, re, typing_extensions\nfrom loader.cli.libraries import prepare\n"
BEGIN += "before = dataclasses.dataclass, re.compile, typing_extensions.TypedDict\nprepare()\n"


def said(code):
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_standard_library_stays_as_it_is():
    """After each import; and so does what others import from it."""
    code = """
import pydantic, pydantic_core.core_schema, pymysql, redis.connection, structlog.dev, typer, yaml
print((dataclasses.dataclass, re.compile, typing_extensions.TypedDict) == before)
"""
    assert said(code) == ["True"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import yaml; print(*yaml.safe_load('a: [1, 2001-02-03]')['a'])", ["1", "2001-02-03"]),
        ("import yaml.reader as r; print(r.Reader.NON_PRINTABLE.search('a\\0').start())", ["1"]),
        ("import asyncio; print(asyncio.run(asyncio.sleep(0, 5)))", ["5"]),
        ("import loader.redis.driver; from asyncio import Lock, run; print(Lock.__module__)", ["asyncio.locks"]),
        ("from importlib.metadata import version; print(version('redis') > '8')", ["True"]),
        ("import annotated_types as a; print(a.Ge(1) == a.Ge(1), len({a.Ge(1), a.Ge(1)}))", ["True", "1"]),
        ("import annotated_types as a; print(*a.Interval(ge=1, lt=5))", ["Ge(ge=1)", "Lt(lt=5)"]),
        ("from pymysql.cursors import RE_INSERT_VALUES as r; print(r.match('insert t values (%s)')[2])", ["(%s)"]),
        ("from redis.asyncio import Redis; print(Redis.__name__)", ["Redis"]),
        ("import redis; print(redis.Redis.__name__)", ["Redis"]),
        ("import structlog; print(structlog.dev.ConsoleRenderer.__name__)", ["ConsoleRenderer"]),
        ("from structlog.stdlib import BoundLogger as b; print(b.__name__)", ["BoundLogger"]),
    ],
)
def test_what_they_do(code, expected):
    """As without."""
    assert said(code) == expected
