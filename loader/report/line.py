"""The lines of a terminal that tell how far something is, redrawn in their place until it ends."""

import sys
from collections.abc import Callable
from typing import Any

from loader.config.parsers import plain
from loader.formats import span
from loader.report.screen import CYAN, YELLOW, fold, paint, width_of
from loader.words import counted

LONGEST_BAR = 30  # columns
SHORTEST_BAR = 8
REDRAWS = 4  # a second
NO_BREAK = "\N{NO-BREAK SPACE}"


class LiveLine:
    """Lines that `draw` makes for a width, shown until `stop`; nothing of them stays."""

    def __init__(self, draw: Callable[[int], str], *, color: bool) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=sys.stderr, no_color=not color, highlight=False, soft_wrap=False)
        self._live: Any = Live(
            console=console,
            get_renderable=lambda: Text.from_ansi(draw(console.width - 1)),
            refresh_per_second=REDRAWS,
            transient=True,
        )
        self._live.start()

    def stop(self) -> None:
        """Take the lines away."""
        self._live.stop()


def progress_text(
    name: str, rows: int, total: int | None, seconds: float, waits: str, width: int, noun: str = "row"
) -> str:
    """How far a job is: its name, a bar, percent, rows of rows, the rate, the time left, and why it waits.

    `total` is an estimate; without one there is neither a bar nor a time left, but the time so far.
    """
    rate = rows / seconds if seconds > 0 else 0.0
    done = percent_of(rows, total)
    of = counted(rows, noun) if done is None else f"{rows:,} of about {counted(total or 0, noun)}"
    left = span(((total or 0) - rows) / rate) if done is not None and rate and rows else ""
    parts = [*([] if done is None else [f"{done}%"]), of, f"{rate:,.0f} {noun}s/s"]
    parts.append(f"{left} left" if left else span(seconds))
    told = ", ".join(part.replace(" ", NO_BREAK) for part in parts)
    bar = _bar(done, min(LONGEST_BAR, width - width_of(name) - width_of(told) - 4))
    lines = [fold(f"{paint(plain(name), CYAN)}  {bar}{told}", width).replace(NO_BREAK, " ")]
    lines += [fold(f"  {paint('waits:', YELLOW)} {plain(waits)}", width)] if waits else []
    return "\n".join(lines)


def percent_of(rows: int, total: int | None) -> int | None:
    """Percent of an estimate that are done, never all of it; None without one."""
    return min(99, rows * 100 // total) if total else None


def _bar(done: int | None, width: int) -> str:
    if done is None or width < SHORTEST_BAR:
        return ""
    filled = width * done // 100
    return f"{paint('━' * filled, CYAN)}{'─' * (width - filled)}  "
