"""When a schedule comes, held against a second implementation that knows only how clocks are read."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.config.cron import next_times
from loader.config.models import ScheduleConfig

MINUTE = timedelta(minutes=1)
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
    "Asia/Kolkata",
    "Pacific/Chatham",
]


def cron(text, zone="UTC"):
    return ScheduleConfig(cron=text, timezone=zone)


def shown(text, after, count, zone="UTC"):
    times = next_times(cron(text, zone), datetime.fromisoformat(after), count)
    return [f"{time:%a %Y-%m-%d %H:%M %z}" for time in times]


def values(field, low, high, names, offset):
    """What a crontab field allows, read anew."""
    allowed = set()
    for term in field.lower().split(","):
        span, _, step = term.partition("/")
        if span == "*":
            span = f"{low}-{high}"
        ends = [names.index(end) + offset if end in names else int(end) for end in span.split("-")]
        allowed |= set(range(ends[0], ends[-1] + 1, int(step or 1)))
    return allowed


def walked(text, zone, start, end):
    """Each minute of real time between two moments at which the job comes, clocks read minute by minute."""
    words = text.split()
    fields = [
        values(words[0], 0, 59, [], 0),
        values(words[1], 0, 23, [], 0),
        values(words[2], 1, 31, [], 0),
        values(words[3], 1, 12, MONTHS, 1),
        values(words[4], 0, 7, DAYS, 1),
    ]
    stars = [word.startswith("*") for word in words]
    local = ZoneInfo(zone)

    def fits(wall):
        day, weekday = wall.day in fields[2], bool({wall.isoweekday(), wall.isoweekday() % 7} & fields[4])
        dated = (day and weekday) if stars[2] or stars[4] else (day or weekday)
        return dated and wall.month in fields[3] and wall.hour in fields[1] and wall.minute in fields[0]

    wildcard = stars[0] or stars[1]
    moment = start - timedelta(days=2)
    latest = moment.astimezone(local).replace(tzinfo=None) - MINUTE  # the latest time that clocks have shown
    found = []
    while moment <= end:
        wall = moment.astimezone(local).replace(tzinfo=None)
        if wildcard:
            due = fits(wall)
        else:  # each time that clocks have come to for the first time, shown or jumped over
            due = False
            while latest < wall:
                latest += MINUTE
                due |= fits(latest)
        if due and moment > start:
            found.append(moment)
        moment += MINUTE
    return found


@st.composite
def fields(draw, low, high, names=()):
    number = st.integers(low, high)

    def term():
        kind = draw(st.sampled_from(("number", "range", "star", "number")))
        if kind == "number":
            at = draw(number)
            return names[at - 1] if names and 1 <= at <= len(names) and draw(st.booleans()) else str(at)
        ends = sorted((draw(number), draw(number)))
        step = f"/{draw(st.integers(1, high))}" if draw(st.booleans()) else ""
        return ("*" if kind == "star" else f"{ends[0]}-{ends[1]}") + step

    if draw(st.booleans()):
        return "*"
    return ",".join(term() for _ in range(draw(st.integers(1, 3))))


EXPRESSIONS = st.tuples(fields(0, 59), fields(0, 5), fields(1, 31), fields(1, 12, MONTHS), fields(0, 7, DAYS)).map(
    " ".join
)


def changes(zone):
    """Days of 2025 and 2026 on which the zone's clocks change, and one on which they do not."""
    local = ZoneInfo(zone)
    days = [date(2025, 1, 1) + timedelta(days=n) for n in range(730)]
    noons = [datetime(day.year, day.month, day.day, 12, tzinfo=local).utcoffset() for day in days]
    return days[100:101] + [day for day, one, two in zip(days[1:], noons, noons[1:], strict=False) if one != two]


CHANGES = {zone: changes(zone) for zone in ZONES}


@settings(max_examples=120)
@given(st.data(), EXPRESSIONS, st.sampled_from(ZONES))
def test_the_times_are_those_of_an_independent_walk_over_every_minute(data, text, zone):
    """Any expression, in any zone, around the days on which clocks change."""
    day = data.draw(st.sampled_from(CHANGES[zone]))
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=data.draw(st.integers(0, 30)))
    start += timedelta(seconds=data.draw(st.integers(0, 3600 * 24)))
    floor = start.replace(second=0, microsecond=0)
    end = floor + timedelta(days=2)
    try:
        schedule = cron(text, zone)
    except ValueError as error:
        assert "never" in str(error)  # noqa: PT017  # a 31st of April is refused, and nothing else
        assert walked(text, zone, floor, end) == []
        return
    expected = [moment for moment in walked(text, zone, floor, end) if moment > start]
    times = [time.astimezone(UTC) for time in next_times(schedule, start, len(expected) + 1)]
    assert [time for time in times if time <= end] == expected


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("0 12 * * 0", "UTC", "2026-01-01T00:00Z", ["Sun 2026-01-04 12:00 +0000"]),
        ("0 12 * * 7", "UTC", "2026-01-01T00:00Z", ["Sun 2026-01-04 12:00 +0000"]),
        ("0 12 * * 1", "UTC", "2026-01-01T00:00Z", ["Mon 2026-01-05 12:00 +0000"]),
        ("0 12 13 * fri", "UTC", "2026-02-01T00:00Z", ["Fri 2026-02-06 12:00 +0000", "Fri 2026-02-13 12:00 +0000"]),
        ("0 12 */7 * 1", "UTC", "2026-06-01T13:00Z", ["Mon 2026-06-08 12:00 +0000", "Mon 2026-06-15 12:00 +0000"]),
        ("0 12 29 2 *", "UTC", "2026-06-01T00:00Z", ["Tue 2028-02-29 12:00 +0000"]),
        ("@hourly", "UTC", "2026-01-01T00:59:59Z", ["Thu 2026-01-01 01:00 +0000"]),
        ("@daily", "Europe/Berlin", "2026-01-01T00:00Z", ["Fri 2026-01-02 00:00 +0100"]),
        ("@midnight", "UTC", "2026-01-01T00:00Z", ["Fri 2026-01-02 00:00 +0000"]),
        ("@weekly", "UTC", "2026-01-01T00:00Z", ["Sun 2026-01-04 00:00 +0000"]),
        ("@monthly", "UTC", "2026-01-01T00:00Z", ["Sun 2026-02-01 00:00 +0000"]),
        ("@yearly", "UTC", "2026-01-01T00:00Z", ["Fri 2027-01-01 00:00 +0000"]),
        ("@annually", "UTC", "2026-01-01T00:00Z", ["Fri 2027-01-01 00:00 +0000"]),
        # skipped: right after the gap, once
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00Z",
            ["Sun 2026-03-29 03:00 +0200", "Mon 2026-03-30 02:30 +0200"],
        ),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-29T00:59Z", ["Sun 2026-03-29 03:00 +0200"]),
        # repeated: the first time only, also for one who asks in between
        (
            "30 1 * * *",
            "America/New_York",
            "2026-11-01T05:00Z",
            ["Sun 2026-11-01 01:30 -0400", "Mon 2026-11-02 01:30 -0500"],
        ),
        ("30 1 * * *", "America/New_York", "2026-11-01T06:10Z", ["Mon 2026-11-02 01:30 -0500"]),
        # by real time where the minute or the hour is a wildcard
        (
            "*/30 2 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00Z",
            ["Sun 2026-04-05 02:00 +1030", "Sun 2026-04-05 02:30 +1030"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:00Z",
            ["Sun 2026-10-25 02:30 +0200", "Sun 2026-10-25 02:30 +0100"],
        ),
        # a zone whose gap is at midnight
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00Z", ["Fri 2026-04-24 01:00 +0300"]),
    ],
)
def test_a_crontab_line_means_what_cron_makes_of_it(text, zone, after, expected):
    """0 and 7 are Sunday, day of month OR of week unless one begins with *, nicknames, and clocks that change."""
    assert shown(text, after, len(expected), zone) == expected


def test_an_interval_comes_at_multiples_since_1970():
    """Two daemons that started at different moments mean the same slots."""
    times = next_times(ScheduleConfig(every="40s"), datetime(2026, 1, 1, 0, 0, 1, 5, tzinfo=UTC), 2)
    assert [time.timestamp() % 40 for time in times] == [0, 0]
    assert times[0] - datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC) <= timedelta(seconds=40)
    assert next_times(ScheduleConfig(every="40s"), times[0], 1) == times[1:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30 2 30 2 *", "never"),
        ("0 0 31 4,6 *", "never"),
        ("@reboot", "@reboot is not a time"),
        ("@fortnightly", "use one of @hourly"),
        ("* * * *", "five fields"),
        ("0 0 0 * * *", "five fields"),
        ("60 * * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 0 0 * *", "day-of-month"),
        ("0 0 * 13 *", "month"),
        ("0 0 * * 8", "day-of-week"),
        ("0 0 * * fri-mon", "not in order"),
        ("0 0 * * xyz", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("5/15 * * * *", "'5/15' is not a crontab field"),
        ("0 0 L * *", "'L' is not a crontab field"),
        ("0 0 * * 5#2", "'5#2' is not a crontab field"),
        ("0 0 * * 1,", "'1,' is not a crontab field"),
    ],
)
def test_what_is_no_crontab_line_is_refused_with_words(text, words):
    """The words name the field; what other programs added to crontab is not guessed at."""
    with pytest.raises(ValueError, match="cron") as error:
        cron(text)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["Europe/Bonn", "Europe", "../etc/passwd", "CET+1"])
def test_an_unknown_time_zone_is_refused(name):
    """Before any job is run at a wrong time."""
    with pytest.raises(ValueError, match="is not a time zone that this machine knows"):
        cron("@daily", name)
