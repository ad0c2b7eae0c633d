"""Who may take actions: the token, sessions, guesses, pages of others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.web import auth as room
from loader.web.auth import ADDRESSES, FREE, LASTS, LONGEST, SESSIONS, Auth, bearer, is_own_page, local

TOKEN = "0123456789abcdef"
HERE = "192.0.2.1"


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(room.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def access():
    access = Auth()
    access.configure(TOKEN)
    return access


def test_without_a_token_there_is_nothing():
    """Nothing fits, an empty one neither."""
    access = Auth()
    assert not access.exists
    assert not access.fits("", HERE)
    access.configure(TOKEN)
    assert access.exists
    access.configure(None)
    assert not access.fits("", HERE)
    assert not access.fits(TOKEN, HERE)


def test_a_part_of_the_token_is_not_enough(access):
    """Neither is more than it."""
    for token in ("", TOKEN[:-1], TOKEN[1:], f"{TOKEN}0", TOKEN.upper()):
        assert not access.fits(token, HERE)
    access.configure(TOKEN[::-1])
    assert access.fits(TOKEN[::-1], HERE)


def test_sessions(access, clock):
    """A session lasts half a day, or until it is closed or the token is another; of too many the oldest goes."""
    session = access.open()
    assert access.has(session)
    assert not access.has(session[:-1])
    assert not access.has(None)
    access.configure(TOKEN)
    assert access.has(session)
    clock.now += LASTS + 1
    assert not access.has(session)
    session = access.open()
    access.close(session)
    access.close(None)
    assert not access.has(session)
    opened = [access.open() for _ in range(SESSIONS + 1)]
    assert [access.has(each) for each in opened[:2]] == [False, True]
    assert access.has(opened[-1])
    access.configure("another token of 16")
    assert not any(access.has(each) for each in opened)


def test_guesses_are_slowed_down(access, clock):
    """After some wrong tokens each costs a growing wait, in which even the right one is refused; sessions are not."""
    session = access.open()
    for _ in range(FREE - 1):
        assert not access.fits("wrong", HERE)
        assert access.wait(HERE) == 0
    assert access.fits(TOKEN, HERE)
    waits = []
    for _ in range(FREE + 8):
        assert not access.fits("wröng", HERE)
        if access.wait(HERE):
            waits.append(access.wait(HERE))
            assert not access.fits(TOKEN, HERE)
            clock.now += access.wait(HERE)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2, LONGEST + 1)
    assert access.has(session)
    assert access.fits(TOKEN, HERE)
    assert not access.fits("wrong", HERE)
    assert access.wait(HERE) == 0


def test_guesses_keep_nobody_else_out(access, clock):
    """Another address is none of theirs; however many there are, and however long they guess, it ends."""
    for _ in range(2000):
        access.fits("wrong", HERE)
        clock.now += access.wait(HERE)
    access.fits("wrong", HERE)
    assert access.wait(HERE) == LONGEST + 1
    assert access.fits(TOKEN, "192.0.2.2")
    for number in range(ADDRESSES):
        access.fits("wrong", f"10.0.{number // 256}.{number % 256}")
    assert access.wait(HERE) == 0
    for _ in range(FREE + 1):
        access.fits("wrong", HERE)
    assert access.wait(HERE)
    access.configure("another token of 16")
    assert access.wait(HERE) == 0


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"host": "h:1", "origin": "http://h:1"}, True),
        ({"host": "H:1", "origin": "https://h:1", "sec-fetch-site": "same-origin"}, True),
        ({"host": "h:1", "sec-fetch-site": "same-origin"}, True),
        ({"host": "h:1", "sec-fetch-site": "none"}, True),
        ({"host": "h:1"}, False),
        ({"host": "h:1", "origin": "null"}, False),
        ({"host": "h:1", "origin": ""}, False),
        ({"host": "", "origin": "null"}, False),
        ({"host": "h:1", "origin": "http://h:2"}, False),
        ({"host": "h:1", "origin": "http://evil.example"}, False),
        ({"host": "h:1", "origin": "http://h:1.evil.example"}, False),
        ({"host": "h:1", "origin": "http://h:1", "sec-fetch-site": "cross-site"}, False),
        ({"host": "h:1", "origin": "http://h:1", "sec-fetch-site": "same-site"}, False),
    ],
)
def test_pages_of_others(headers, own):
    """A form counts only where the browser says that a page of this very host and port has sent it."""
    assert is_own_page(headers) is own


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("", None), ("Bearer", "")],
)
def test_bearer(header, token):
    """The token of a program."""
    assert bearer({"authorization": header}) == token


@pytest.mark.parametrize("path", ["/", "/jobs/stu", "/jobs/a%20b?done=run", "/?a=b#c"])
def test_ways_on(path):
    """A path of ours is gone on to."""
    assert local(path) == path


@pytest.mark.parametrize(
    "path", ["", "x", "//evil.example", "/\\evil", "http://evil", "/a\nb", "/a b", "/é", "/\t/evil"]
)
def test_ways_astray(path):
    """Anything else leads to the overview."""
    assert local(path) == "/"


@given(st.text())
def test_no_text_leads_away(text):
    """Whatever is typed, one stays here."""
    found = local(text)
    assert found.startswith("/")
    assert found[1:2] not in {"/", "\\"}
    assert found.isascii()
