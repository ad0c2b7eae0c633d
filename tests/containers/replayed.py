"""The commands of a page, and whether they printed what the page shows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

PROMPT = "    $ "
GAP = "…"
BLANK = r"[ \t]+"
FAILS = re.compile(r"^\s*(?:ERROR|error|fail)\b")
VARIES = re.compile(r"\d[\d,]*(?= keys?\b)|\d+\.\d+(?= s\b)")  # from run to run


@dataclass(slots=True)
class Step:
    """A command as it stands on the page, and the lines shown of what it prints."""

    section: str
    command: str
    shown: list[str] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether the page shows an error."""
        return any(FAILS.match(line) for line in self.shown)

    def printed(self, output: str) -> bool:
        """Whether an output contains the lines that are shown; `…` stands for anything, spaces may differ."""
        return not self.shown or re.search("".join(map(_pattern, self.shown)), output, re.MULTILINE) is not None


def steps(text: str) -> Iterator[Step]:
    """Yield the commands in the page's blocks of code, in their order."""
    section, step = "", None
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        if not line.startswith("    "):
            if step and line:
                yield step
                step = None
        elif step and step.command.endswith("\\"):
            step.command += f"\n{line}"
        elif line.startswith(PROMPT):
            if step:
                yield step
            step = Step(section, line.removeprefix(PROMPT))
        elif step:
            step.shown.append(line.strip())
    if step:
        yield step


def _pattern(line: str) -> str:
    if line == GAP:
        return r"(?:.*\n)*?"
    words = [re.escape(word).replace(GAP, ".*") for word in VARIES.sub(GAP, line).split()]
    return rf"^[ \t]*{BLANK.join(words)}[ \t\r]*$\n?"
