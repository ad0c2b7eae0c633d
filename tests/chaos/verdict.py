"""How the commands that were typed in `chaos` may have ended, and what came of it all."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from faults import FAULTS
from hands import Typed, Window
from promises import LOCKED, OK
from scene import REJECTS
from stage import Done

TOLD = 2000  # characters of what is wrong about a command


def wrong_ends(typed: Sequence[Typed], windows: Sequence[Window]) -> Iterator[str]:
    """What is wrong about the commands that were typed, a sentence each."""
    for each in typed:
        if each.done and (why := _wrong(each, each.done, typed, windows)):
            beside = ", ".join(window.name for window in windows if _overlap(window, each)) or "no fault"
            yield f"{why}, after {each.began:.1f} s, beside {beside}: {each.done}"[:TOLD]


def _wrong(typed: Typed, done: Done, others: Sequence[Typed], windows: Sequence[Window]) -> str:
    if "Traceback" in done.error:
        return "a traceback"
    if "did not end within" in done.error:
        return "no end"
    if done.code not in _allowed(typed, others, windows):
        return f"exit code {done.code}"
    for line in done.out.splitlines():
        document = json.loads(line)
        if document["schema"] == "loader.run/v1":
            rows = document["rows"]
            if rows["read"] != rows["written"] + rows["unchanged"] + rows["rejected"]:
                return "rows that do not add up"
    return ""


def _allowed(typed: Typed, others: Sequence[Typed], windows: Sequence[Window]) -> set[int]:
    """The exit codes that a command may have: by its kind, by what was typed beside it, and by the faults."""
    codes = {OK} | typed.signalled
    if typed.words[0] == "verify":
        codes.add(REJECTS)
    beside = [each for each in others if each is not typed and each.job == typed.job]
    if any(each.began < typed.ended and typed.began < (each.ended or typed.ended) for each in beside):
        codes.add(LOCKED)
    for window in windows:
        fault = FAULTS[window.name]
        if _overlap(window, typed):
            codes.update(fault.codes)
        if typed.words[0] == "backfill" and window.began < typed.ended and typed.job == "item":
            codes.update(fault.lasting)
    return codes


def counted(typed: Sequence[Typed], windows: Sequence[Window]) -> Iterator[str]:
    """How many faults there were, and how many commands, of each kind."""
    kinds = Counter(window.name for window in windows)
    yield f"faults    {len(windows)} survived: " + ", ".join(f"{n} {name}" for name, n in sorted(kinds.items()))
    ends = Counter((each.words[0], each.done.code) for each in typed if each.done)
    yield f"commands  {sum(ends.values())}: " + ", ".join(
        f"{n} {command} → {code}" for (command, code), n in sorted(ends.items())
    )


def _overlap(window: Window, typed: Typed) -> bool:
    return window.began < typed.ended and typed.began < window.ended
