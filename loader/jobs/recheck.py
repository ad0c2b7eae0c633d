"""How a difference is confirmed: it counts when it is seen again after a pause, since a row may change meanwhile."""

LOOKS = 3  # times that a difference is seen before it counts
PAUSE = 1.0  # seconds between two looks: a row is brought to Redis in less
PENDING = 100_000  # keys that wait for another look at most: about 10 MB
