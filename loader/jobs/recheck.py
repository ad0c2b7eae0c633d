"""Confirming differences: one counts if it is seen again after a pause, because a row may change meanwhile."""

LOOKS = 3  # times that a difference is seen before it counts
PAUSE = 1.0  # seconds between two checks: a row reaches Redis in less
PENDING = 100_000  # keys that wait for another check at most: about 10 MB
