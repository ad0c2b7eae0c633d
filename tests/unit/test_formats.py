"""How times, durations and sizes are written."""

import pytest

from loader.formats import (
    compact_span,
    compact_took,
    duration,
    mebibytes,
    moment,
    number,
    precise_moment,
    rough_size,
    short_moment,
    size,
    span,
    took,
    utc,
)

AT = 1_770_091_506.7891  # seconds since 1970


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (moment(AT), "2026-02-03T04:05:06Z"),
        (moment(0), "1970-01-01T00:00:00Z"),
        (precise_moment(AT), "2026-02-03T04:05:06.789+00:00"),
        (utc(AT), "2026-02-03 04:05:06 UTC"),
        (short_moment(AT), "02-03 04:05:06"),
    ],
)
def test_times(made, text):
    """Times are in UTC; what is less than the last digit is cut off."""
    assert made == text


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (span(0.4), "0 s"),
        (span(59.4), "59 s"),
        (span(60), "1 min"),
        (span(3_599), "59 min"),
        (span(3_900), "1 h 5 min"),
        (span(2 * 86_400 + 3 * 3_600), "2 d 3 h"),
        (span(-5), "0 s"),
        (took(0.25), "0.25 s"),
        (took(9.94), "9.9 s"),
        (took(84), "1 min 24 s"),
        (took(59.7), "1 min"),
        (took(3_600), "1 h"),
        (compact_span(-5), "0s"),
        (compact_span(59.6), "1m"),
        (compact_span(7_199), "1h"),
        (compact_span(172_800), "2d"),
        (compact_took(0.254), "0.25s"),
        (compact_took(9.99), "9.99s"),
        (compact_took(59.4), "59s"),
        (duration(90), "90s"),
        (duration(0), "0d"),
        (duration(900), "15m"),
        (duration(5_400), "90m"),
        (duration(604_800), "7d"),
    ],
)
def test_durations(made, text):
    """Durations have one or two units, and a config's loses nothing."""
    assert made == text


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (size(1_023), "1023 B"),
        (size(1_024), "1.0 KiB"),
        (size(150 * 2**20), "150 MiB"),
        (size(1_023 * 2**20), "1.0 GiB"),
        (size(2**60), "1,024 PiB"),
        (rough_size(3), "3 B"),
        (rough_size(9.5 * 2**10), "9.5 KiB"),
        (rough_size(11.5 * 2**30), "12 GiB"),
        (rough_size(2_000 * 2**40), "2,000.0 TiB"),
        (mebibytes(1_500 * 2**20 + 2**19), "1,500.5"),
        (number(1_234_567), "1,234,567"),
        (number(0.25), "0.2"),
        (number(9.96), "10"),
        (number(0.0), "0"),
    ],
)
def test_sizes_and_numbers(made, text):
    """Sizes have two or three digits, and thousands stand apart."""
    assert made == text
