"""The times of a schedule: crontab expressions in a time zone, and intervals. Text in, moments out.

A line means the same as in Debian's cron, also on days on which clocks change: a skipped fixed time comes right after
the gap, a repeated one comes once; if the minute or the hour begins with `*`, the job follows real time. Every function
raises ValueError with a message for a person.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from cronsim.cronsim import SYMBOLIC_DAYS, SYMBOLIC_MONTHS

from loader.records import dataclass

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
VALUE = "(?:[0-9]{1,2}|[A-Za-z]{3})"
TERM = rf"(?:(?:\*|{VALUE}-{VALUE})(?:/[0-9]{{1,4}})?|{VALUE})"
FIELD = re.compile(f"{TERM}(?:,{TERM})*")
ALONE = re.compile(f"({VALUE})-({VALUE})/[0-9]+")
NUMBERS = {name: str(n) for n, name in enumerate(SYMBOLIC_DAYS)} | {n: str(i) for i, n in enumerate(SYMBOLIC_MONTHS, 1)}
YEARS = 41  # a 29th of February falls on each weekday within that, even around 2100
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


class Timing(Protocol):
    """The values that `next_times` needs: a `cron` with its time zone, or `every` in seconds."""

    @property
    def cron(self) -> str | None:
        """A crontab expression."""

    @property
    def every(self) -> int | None:
        """Seconds between two times."""

    @property
    def timezone(self) -> str:
        """The name of a time zone."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A crontab expression, parsed by `parse`; `fixed` says that it names its hours and minutes."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # Monday is 1, Sunday 7
    both: bool  # day of month and day of week must both fit, not just one of them
    fixed: bool

    def fits(self, day: date) -> bool:
        """Whether the job runs on a day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() in self.weekdays
        return (of_month and of_week) if self.both else (of_month or of_week)


@lru_cache(maxsize=256)
def parse(text: str) -> Cron:
    """Read a crontab expression: five fields, or one of the nicknames."""
    words = text.split()
    if words == ["@reboot"]:
        raise ValueError("@reboot is not a time: write five fields, like 0 3 * * *")
    if len(words) == 1 and words[0].startswith("@"):
        if words[0].lower() not in NICKNAMES:
            raise ValueError(f"{words[0]} is unknown; use one of {', '.join(NICKNAMES)}")
        words = NICKNAMES[words[0].lower()].split()
    if len(words) != 5:  # minute, hour, day of month, month, day of week
        raise ValueError("must have five fields, minute hour day-of-month month day-of-week, like 0 3 * * *")
    for word in words:
        if not FIELD.fullmatch(word):
            raise ValueError(f"{word!r} is not a crontab field: write *, 5, 1-5, a list of these, or */15, 0-30/5")
    sets = _sets(words)
    cron = Cron(
        minutes=tuple(sorted(sets.minutes)),
        hours=tuple(sorted(sets.hours)),
        days=frozenset(sets.days),
        months=frozenset(sets.months),
        weekdays=frozenset(day % 7 or 7 for day in sets.weekdays if isinstance(day, int)),
        both=sets.day_and,
        fixed=not words[0].startswith("*") and not words[1].startswith("*"),
    )
    if not any(cron.fits(day) for day in _days(date(2000, 1, 1), cron)):
        raise ValueError(f"{text!r} never occurs: the calendar has no such day")
    return cron


def _sets(words: list[str]) -> CronSim:
    """The numbers that the five fields name."""
    try:
        return CronSim(" ".join(ALONE.sub(_alone, word) for word in words), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        text = " ".join(words)
        raise ValueError(f"{text!r} has a wrong {field}: out of range, not in order, or never in its month") from None


def _alone(term: re.Match[str]) -> str:
    """Replace a range of one value by that value, whatever its step: cronsim would take it for an open range."""
    first, last = (NUMBERS.get(end.upper(), end) for end in term.groups())
    return first if first == last or (first.isdigit() and last.isdigit() and int(first) == int(last)) else term[0]


def zone(name: str) -> ZoneInfo:
    """The time zone of that name."""
    try:
        return ZoneInfo(name)
    except (OSError, KeyError, ValueError):
        raise ValueError(
            f"{name!r} is not a time zone that this machine knows: write UTC, or one like Europe/Berlin"
        ) from None


def next_times(schedule: Timing, after: datetime, count: int) -> list[datetime]:
    """The next times of a schedule after a moment, in the schedule's time zone."""
    return list(islice(times(schedule, after), count))


def times(schedule: Timing, after: datetime) -> Iterator[datetime]:
    """All times of a schedule after a moment; with an interval, the multiples of it since 1970."""
    local = zone(schedule.timezone)
    if schedule.every is not None:
        slot = int(after.timestamp() // 1)
        while True:
            slot += schedule.every - slot % schedule.every
            yield datetime.fromtimestamp(slot, local)
    cron = parse(schedule.cron or "")
    last = after.astimezone(UTC)
    for day in _days(last.astimezone(local).date() - DAY, cron):
        for moment in _moments(cron, local, day) if cron.fits(day) else ():
            if moment > last:
                last = moment
                yield moment.astimezone(local)


def _days(first: date, cron: Cron) -> Iterator[date]:
    """The days from one on, except months without a run; ends after `YEARS`."""
    day, end = first, first.year + YEARS
    while day.year <= end:
        if day.month in cron.months:
            yield day
            day += DAY
        else:
            day = (day.replace(day=1) + 32 * DAY).replace(day=1)


@lru_cache(maxsize=64)
def _moments(cron: Cron, local: ZoneInfo, day: date) -> tuple[datetime, ...]:
    """The times of a job on one of its days, in UTC and in order."""
    found = set()
    for hour in cron.hours:
        for minute in cron.minutes:
            time = datetime(day.year, day.month, day.day, hour, minute, tzinfo=local)
            first, second = time.astimezone(UTC), time.replace(fold=1).astimezone(UTC)
            skipped = not _same(first, time)
            if cron.fixed:
                found.add(_after_gap(time) if skipped else first)
            elif not skipped:
                found |= {first, second}
    return tuple(sorted(found))


def _after_gap(time: datetime) -> datetime:
    """The first moment, in UTC, after the gap that contains a skipped local time."""
    moment = time.replace(tzinfo=None)
    while True:
        moment += MINUTE
        found = moment.replace(tzinfo=time.tzinfo)
        if _same(found.astimezone(UTC), found):
            return found.astimezone(UTC)


def _same(moment: datetime, time: datetime) -> bool:
    """Whether clocks show this local time at the moment."""
    return moment.astimezone(time.tzinfo).replace(tzinfo=None, fold=0) == time.replace(tzinfo=None, fold=0)
