"""The figures of a benchmark's runs, and how they are shown."""

from statistics import median, quantiles
from typing import Any

MICRO, MEGA = 1e6, 1e6
LEAST = 0.02  # seconds beside the start-up's spread that a run must have taken beyond it

Spread = tuple[float, float, float]  # median, least, greatest


class Figures:
    """The runs of each case, as figures; None for what was not measured."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.runs: dict[str, list[dict[str, float]]] = {k: v for k, v in document["runs"].items() if v}
        self._base: dict[str, str] = document["base"]

    def rows(self, case: str) -> int:
        return int(self.runs[case][0]["rows"]) if case in self.runs else 0

    def all(self, case: str, what: str) -> list[float]:
        """A figure of each run: wall, rate, cpu, memory, mysql, redis; `net` before it: without start-up.

        Nothing where what is left without start-up is too little to tell.
        """
        name, net = what.removeprefix("net "), what.startswith("net ")
        values = []
        taken_off = "cpu" if name == "cpu" else "wall"
        start = [run[taken_off] for run in self.runs.get(self._base.get(case, ""), [])]
        less = median(start) if net and start else 0
        if net and (not start or self._typical(case, taken_off) - less <= middle_half(start) + LEAST):
            return []  # lost in the spread of the start-up
        for run in self.runs.get(case, []):
            taken = {
                "wall": run["wall"] - less,
                "rate": run["rows"] / max(run["wall"] - less, 1e-3),
                "cpu": (run["cpu"] - less) / run["rows"] * MICRO,
                "memory": run["memory"] / MEGA,
                "mysql": run["mysql_cpu"] / run["rows"] * MICRO,
                "redis": run["redis_cpu"] / run["rows"] * MICRO,
            }
            values.append(taken[name])
        return values

    def of(self, case: str, what: str) -> Spread | None:
        return spread(self.all(case, what))

    def ratio(self, over: tuple[str, str], under: tuple[str, str]) -> Spread | None:
        """One figure by another, of the same round where both are there."""
        above, below = self.all(*over), self.all(*under)
        return spread([a / b for a, b in zip(above, below, strict=False) if b > 0])

    def _typical(self, case: str, name: str) -> float:
        return median(run[name] for run in self.runs[case]) if case in self.runs else 0


def middle_half(values: list[float]) -> float:
    """From the first quartile to the third."""
    first, _, third = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0, 0, 0)
    return third - first


def spread(values: list[float]) -> Spread | None:
    return (median(values), min(values), max(values)) if values else None


def shown(value: Spread | None, digits: int = 2) -> str:
    if value is None:
        return "-"
    middle, low, high = (f"{number:,.{digits}f}" for number in value)
    return middle if low == high else f"{middle} ({low} to {high})"


def seconds(figures: Figures, case: str) -> Spread | None:
    return spread([run["cpu"] for run in figures.runs.get(case, [])])
