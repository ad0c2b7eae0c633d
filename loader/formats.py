"""How times, durations and sizes are written, for people and for programs.

Times are in seconds since 1970 and written in UTC, durations are in seconds, sizes in bytes.
"""

from datetime import UTC, datetime

COMPACT_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 0, ""))
BINARY = ("KiB", "MiB", "GiB", "TiB", "PiB")


def moment(seconds: float) -> str:
    """A time as ISO 8601: 2026-02-03T04:05:06Z."""
    return f"{_at(seconds):%Y-%m-%dT%H:%M:%SZ}"


def precise_moment(seconds: float) -> str:
    """A time as ISO 8601, to the millisecond: 2026-02-03T04:05:06.789+00:00."""
    return _at(seconds).isoformat(timespec="milliseconds")


def utc(seconds: float) -> str:
    """A time for people: 2026-02-03 04:05:06 UTC."""
    return f"{_at(seconds):%Y-%m-%d %H:%M:%S} UTC"


def short_moment(seconds: float) -> str:
    """A time of this year, for a narrow column: 02-03 04:05:06."""
    return f"{_at(seconds):%m-%d %H:%M:%S}"


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def span(seconds: float) -> str:
    """A duration in its two largest units: 12 s, 4 min, 1 h 5 min, 2 d 3 h."""
    whole = max(0, round(seconds))
    for unit, name, lesser, below in UNITS:
        if whole >= unit:
            rest = whole % unit // lesser if lesser else 0
            return f"{whole // unit} {name} {rest} {below}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def took(seconds: float) -> str:
    """How long a run took: 0.25 s, 1.2 s, 4 min 5 s, 1 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest and 0 < minutes < 60 else span(seconds)


def compact_span(seconds: float) -> str:
    """A duration in its largest whole unit, for a narrow column: 5s, 12m, 3h, 2d."""
    whole = max(0, round(seconds))
    return next((f"{whole // size}{unit}" for size, unit in COMPACT_UNITS if whole >= size), f"{whole}s")


def compact_took(seconds: float) -> str:
    """How long a run took, for a narrow column: 0.25s, 59s, 12m."""
    return f"{seconds:.2f}s" if seconds < 10 else compact_span(seconds)


def duration(seconds: int) -> str:
    """A duration as a config states it, in the largest unit that leaves a whole number: 90s, 15m, 1d."""
    size, unit = next(((size, unit) for size, unit in COMPACT_UNITS if seconds % size == 0), (1, "s"))
    return f"{seconds // size}{unit}"


def size(count: float) -> str:
    """A size in the unit that gives it two or three digits: 512 B, 1.2 GiB."""
    if count < 1024:
        return f"{count:.0f} B"
    power = next((power for power in range(1, len(BINARY)) if count < 999.5 * 1024**power), len(BINARY))
    shown = count / 1024**power
    return f"{shown:.1f} {BINARY[power - 1]}" if shown < 99.95 else f"{shown:,.0f} {BINARY[power - 1]}"


def rough_size(count: float) -> str:
    """A size that is an estimate, with a decimal only below 10: 512 B, 1.2 MiB, 17 GiB."""
    for unit in ("B", *BINARY[:3]):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def mebibytes(count: int) -> str:
    """A size in MiB, without the unit, to compare with others: 1,234.5."""
    return f"{count / (1 << 20):,.1f}"


def number(value: float) -> str:
    """A number with its thousands apart, and one decimal if it is a small fraction: 1,234,567, 0.2, <0.1, 10."""
    if isinstance(value, float) and 0 < value < 0.05:
        return "<0.1"
    return f"{value:.1f}" if isinstance(value, float) and 0 < value < 9.95 else f"{value:,.0f}"
