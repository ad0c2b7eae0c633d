"""Whether `chaos` finds what it is there to find: known faults are planted in a copy of the loader."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import loader
from hands import LARGE, SMALL, Script
from havoc import Chaos
from loader.lab.lab import Lab
from stage import Broken, clock

SEED = 1
SECONDS = 120.0  # until a planted fault has to be found
UNPLANTED = 20.0  # seconds in which nothing may be found where nothing is planted
EVERY = 8.0
WHOLE = ("sync", "--rate", "6000", "--chunk-rows", "100000")  # one chunk


@dataclass(frozen=True, slots=True)
class Patch:
    """In a file, what a regular expression over lines finds, and once, is replaced."""

    file: str
    pattern: str
    instead: str

    def put(self, package: Path) -> None:
        """Put it into a copy of the package."""
        path = package / self.file
        text, count = re.subn(self.pattern, self.instead, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if count != 1:
            raise Broken(f"nothing can be planted in {self.file}: it has {self.pattern!r} {count} times")
        path.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Plant:
    """A fault of the loader: what it is called, how it is made, and which faults of a lab and which command meet it."""

    name: str
    patches: tuple[Patch, ...]
    faults: tuple[str, ...]
    command: tuple[str, ...]

    def put(self, package: Path) -> None:
        """Plant it in a copy of the package."""
        for patch in self.patches:
            patch.put(package)


MARKERS, WRITER = "state/markers.py", "redis/writer.py"
BLIND = (
    Patch(MARKERS, r"^(def lacking\(.*\n *\"\"\".*\"\"\"\n)", r"\1    return False\n"),
    Patch(MARKERS, r"^if .*HGET.* ~= ARGV\[2\] then return 0 end\n", ""),
)
PLANTS = (
    Plant(
        "WAIT's answer is ignored",
        (Patch(WRITER, r"^( *)(def _check_replicas\(self, .*\n *\"\"\".*\"\"\"\n)", r"\1\2\1    return 10**6\n"),),
        ("replicas behind", "takeover behind"),
        WHOLE,
    ),
    Plant(
        "a demoted master is not noticed",
        (Patch(WRITER, r"^( *)raise TargetError\(.*was written to, but is no longer a master.*$", r"\1pass"),),
        ("takeover behind",),
        LARGE,
    ),
    Plant("markers are not looked at", BLIND, ("lone replica", "old snapshot"), SMALL),
)


def prove() -> str | None:
    """Plant each fault, and look for it; then the same without it, which has to find nothing. What went wrong."""
    wrong = []
    for plant in PLANTS:
        wrong += [] if _finds(plant) else [f"not found: {plant.name}"]
        wrong += [f"found without being planted: {plant.name}"] if _finds(replace(plant, patches=())) else []
    return f"\nchaos: {'; '.join(wrong)}" if wrong else None


def _finds(plant: Plant) -> bool:
    began, what = clock(), plant.name if plant.patches else f"nothing, instead of: {plant.name}"
    with tempfile.TemporaryDirectory(prefix="loader-proof-") as name:
        home = Path(name) / "home"
        package = home / "loader"
        shutil.copytree(Path(loader.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        plant.put(package)
        print(f"\nplanted: {what}", flush=True)
        lab = Lab(Path(name) / "lab")
        try:
            lab.up(nodes=9, replicas=2)
            found = next(_findings(lab, home, plant), "")
        finally:
            lab.down()
    print(f"{'found' if found else 'nothing found'} after {clock() - began:.0f} s", flush=True)
    return bool(found)


def _findings(lab: Lab, home: Path, plant: Plant) -> Iterator[str]:
    script = Script(plant.faults, ("item",), {"item": {plant.command: 1}}, rest=1)
    chaos = Chaos(lab, SEED, script, home)
    try:
        yield from chaos.rage(SECONDS if plant.patches else UNPLANTED, EVERY)
        yield from chaos.compare()
    finally:
        chaos.close()
