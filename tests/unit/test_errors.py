"""What follows from the kind of an error."""

import re
from pathlib import Path

import pytest

import loader
from loader.errors import (
    REFUSALS,
    RULES,
    STOPS,
    TAKEN,
    UNREACHABLE,
    Exit,
    Kind,
    LoaderError,
    PlanError,
    Retry,
    Stopped,
    TargetError,
)


def test_every_kind_has_a_rule():
    """Exit code and retries follow from the kind; who is refused has to change something, and exits with 2."""
    assert RULES.keys() == set(Kind)
    assert {kind for kind in Kind if kind.exit_code is Exit.CONFIG} == REFUSALS
    assert {kind.name for kind in Kind if kind.retry is not Retry.NEVER} == {
        "MISSING", "LIMITED", "UNAVAILABLE", "UNSETTLED", "VANISHED", "UNREPLICATED",
    }  # fmt: skip
    assert {kind for kind in Kind if kind.exit_code is Exit.UNREACHABLE} == UNREACHABLE
    assert {kind for kind in Kind if kind.exit_code is Exit.LOCKED} == TAKEN
    assert {kind for kind in Kind if kind.exit_code in {Exit.SIGINT, Exit.SIGTERM}} == STOPS
    assert (Kind.UNAVAILABLE.exit_code, Kind.UNSETTLED.exit_code, Kind.FAULT.exit_code) == (4, 1, 1)


FOREIGN = ("LOAD_LOCAL", "don't agree")  # of PyMySQL and redis-cli, which say it in words alone


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        (LoaderError("no"), 1, False),
        (PlanError("no"), 2, False),
        (PlanError("no", kind=Kind.MISSING), 2, True),
        (TargetError("no", kind=Kind.UNAVAILABLE), 4, True),
        (Stopped.by("SIGINT"), 130, False),
        (Stopped.by("SIGTERM"), 143, False),
    ],
)
def test_an_error_follows_its_kind(error, code, transient):
    """Each class has a kind of its own, which whoever raises it may narrow."""
    assert (error.exit_code, error.transient) == (code, transient)


def test_nothing_is_decided_by_an_exit_code_or_a_text():
    """What an error is can be asked of its kind alone."""
    code, text = (
        r"(error|failure|stop|run)\.exit_code (==|!=|in|not in|is)\b",
        r"""(==|!=|["A-Z] in|with\() ?str\(error\)""",
    )
    wrong = re.compile(rf"{code}|{text}|str\(error\)\.(starts|ends)with")
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(loader.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if wrong.search(line) and not any(words in line for words in FOREIGN)
    ]
    assert found == []
