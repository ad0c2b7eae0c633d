"""Texts that fit a terminal: no word is cut there, and nothing is shortened elsewhere."""

import io

import pytest

from loader.doctor.findings import ok, skip
from loader.doctor.shown import tell_findings
from loader.report.line import percent_of, progress_text
from loader.report.screen import PIPE, Screen, columns_of, fold, padded, width_of
from loader.report.table import Column, table_text

COLUMNS = (
    Column("job"),
    Column("state"),
    Column("rows", right=True, spills=1, words="{} rows"),
    Column("next", spills=2, words="next {}"),
)
ROWS = [("stu", "ok", "12,345", "in 5m"), ("a_name_of_more_than_twenty_columns", "failed", "1", "-")]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_width():
    """Chinese characters take two columns, accents and colours none."""
    assert [width_of(text) for text in ("abc", "沈浪", "e\u0301", "\x1b[32mok\x1b[0m")] == [3, 4, 1, 2]
    assert (padded("沈", 4), padded("7", 3, right=True)) == ("沈  ", "  7")


def test_columns(monkeypatch):
    """A pipe has no width; a terminal that does not tell its own has 80 columns, or those of $COLUMNS."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert (columns_of(io.StringIO()), columns_of(Terminal())) == (None, 80)
    monkeypatch.setenv("COLUMNS", "61")
    assert (columns_of(io.StringIO()), columns_of(Terminal())) == (None, 61)


@pytest.mark.parametrize(
    ("text", "hang", "lines"),
    [
        ("one two three", None, ["one two", "  three"]),
        ("  one two three", None, ["  one two", "    three"]),
        ("one  two", 4, ["one  two"]),
        ("a_word_that_is_too_long for it", 1, ["a_word_that_is_too_long", " for it"]),
        ("沈浪 沈浪 沈浪", 0, ["沈浪 沈浪", "沈浪"]),
        ("first\nsecond line is", 2, ["first", "second", "  line is"]),
    ],
)
def test_fold(text, hang, lines):
    """Lines are folded at spaces alone, and indented."""
    assert fold(text, 10, hang).split("\n") == lines
    assert fold(text, None, hang) == text


def test_a_table_in_a_pipe():
    """Names are whole, and so is each line."""
    assert table_text(COLUMNS, ROWS, [[], ["a long error " * 20]], PIPE).split("\n") == [
        "job                                 state     rows  next",
        "stu                                 ok      12,345  in 5m",
        "a_name_of_more_than_twenty_columns  failed       1  -",
        "  " + "a long error " * 20,
    ]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            40,
            [
                "job state    rows next",
                "stu ok     12,345 in 5m",
                "a_name_of_more_than_twenty_columns",
                "    failed      1 -",
                "  a b",
            ],
        ),
        (
            20,
            [
                "job state  next",
                "stu ok     in 5m",
                "  12,345 rows",
                "a_name_of_more_than_twenty_columns",
                "    failed -",
                "  1 rows",
                "  a b",
            ],
        ),
    ],
)
def test_a_table_on_a_terminal(width, lines):
    """A long name stands alone, and what does not fit stands below its row; nothing is left out."""
    assert table_text(COLUMNS, ROWS, [[], ["a b"]], Screen(width)).split("\n") == lines


def test_colours():
    """States are painted on a screen with colours only, and its text may hold no other control character."""
    screen = Screen(80, color=True)
    assert (screen.state("failed"), PIPE.state("failed")) == ("\x1b[31mfailed\x1b[0m", "failed")
    assert screen.safe("\x1b[31mx\x1b[0m\x1b[2Jy") == "\x1b[31mx\x1b[0m\\x1b[2Jy"
    assert PIPE.safe("\x1b[31mx") == "\\x1b[31mx"


@pytest.mark.parametrize("width", [80, 60, 40])
def test_progress(width):
    """A line of progress has name, percent, rows of rows, rate, time left and the reason for waiting, and fits."""
    text = progress_text("stu", 1_500_000, 3_000_000, 60.0, "127.0.0.1:7001 took 2.0 s to reply", width)
    assert max(map(width_of, text.split("\n"))) <= width
    told = " ".join(text.split())
    for piece in ("stu", "50%", "1,500,000 of about 3,000,000 rows", "25,000 rows/s", "1 min left", "took 2.0 s"):
        assert piece in told
    assert ("─" in text) is (width == 80)


def test_progress_without_an_estimate():
    """There is neither a percentage nor a time left; an estimate that was too low is never reached."""
    assert progress_text("stu", 10, None, 5.0, "", 80) == "\x1b[36mstu\x1b[0m  10 rows, 2 rows/s, 5 s"
    assert (percent_of(10, 5), percent_of(0, 5), percent_of(1, None)) == (99, 0, None)


def test_reasons_why_checks_were_not_made_fit():
    """The reason is an error with its fix, as long as those are."""
    why = "redis 127.0.0.1:45591: cannot connect: Connection refused: see whether the server runs, and target.url"
    said = []
    tell_findings([ok("x"), *skip("redis", ["a", "b"], why)], said.append, Screen(60), everything=False)
    told = "\n".join(said)
    assert f"2 checks not made: {why}" in " ".join(told.split())
    assert max(map(width_of, told.splitlines())) <= 60
