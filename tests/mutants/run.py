"""Plants faults into copies of the package, one at a time: the tests that are named with a fault must notice it.

A fault is a change that a person could make by mistake; the list is in planted.py. A copy is a directory of its own
with an interpreter that imports it, so that commands which tests start are mutated too. All tests that are named run
once without a fault first, and have to pass.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from planted import FAULTS, Fault, misfits  # noqa: E402

LATEST = 120.0  # seconds that the tests of a fault may take, and ten times that those of all without one
LEAVE = 20.0  # seconds that pytest has to end its servers once it is interrupted
HASTE = "READY_TIME = 60.0", "READY_TIME = 30.0"  # of tests that wait in vain
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "dist", "benchmarks")
KILLED, SURVIVED, LATE, BROKEN = "killed", "SURVIVED", "TIMED OUT", "BROKEN"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/mutants.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="faults whose name or file holds one of these words")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at a time; default %(default)s")
    parser.add_argument("--list", action="store_true", help="show the faults and their tests, and plant none")
    parser.add_argument("--only-faults", action="store_true", help="leave out the run without a fault")
    args = parser.parse_args()
    if wrong := misfits(ROOT):
        sys.exit("\n".join(wrong))
    chosen = [fault for fault in FAULTS if not args.words or any(word in fault.place for word in args.words)]
    if not chosen:
        sys.exit("no fault has such a name")
    if args.list:
        for fault in chosen:
            print(f"{fault.file}: {fault.name}\n    {' '.join(fault.tests)}")
        return
    sys.exit(plant(chosen, args.jobs, sane=args.only_faults or sanity(chosen, args.jobs)))


def sanity(faults: Sequence[Fault], jobs: int) -> bool:
    """Whether the tests pass without a fault."""
    spread = ("-n", str(jobs), "--dist", "loadfile")
    tests = dict.fromkeys(test for fault in faults for test in fault.tests)
    found, seconds, told = tried(None, [*spread, *tests], LATEST * 10)
    print(f"{'passed' if found == SURVIVED else 'FAILED':9} {seconds:6.1f} s  without a fault", flush=True)
    if found != SURVIVED:
        print(told)
    return found == SURVIVED


def plant(faults: Sequence[Fault], jobs: int, *, sane: bool) -> int:
    """Try each fault; the exit code."""
    if not sane:
        return 1
    counts = dict.fromkeys((KILLED, LATE, SURVIVED, BROKEN), 0)

    def one(fault: Fault) -> None:
        found, seconds, told = tried(fault, fault.tests, LATEST)
        counts[found] += 1
        print(f"{found:9} {seconds:6.1f} s  {fault.file}: {fault.name}", flush=True)
        if found == BROKEN:
            print(told, flush=True)

    began = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, faults))
    rate = 100 * counts[KILLED] / len(faults)
    print(
        f"{counts[KILLED]} of {len(faults)} killed ({rate:.0f}%), {counts[LATE]} timed out,"
        f" {counts[SURVIVED]} survived, in {time.monotonic() - began:.0f} s"
    )
    return 1 if counts[SURVIVED] or counts[BROKEN] else 0


def tried(fault: Fault | None, tests: Sequence[str], latest: float) -> tuple[str, float, str]:
    """What became of a fault, after how many seconds, and what pytest said."""
    with tempfile.TemporaryDirectory(prefix="loader-mutant-", ignore_cleanup_errors=True) as name:
        directory = Path(name).resolve()
        copy = directory / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if fault:
            mutated = fault.applied((copy / fault.file).read_text(encoding="utf-8"))
            compile(mutated, fault.file, "exec")
            (copy / fault.file).write_text(mutated, encoding="utf-8")
            server = copy / "loader" / "lab" / "process.py"
            server.write_text(server.read_text(encoding="utf-8").replace(*HASTE), encoding="utf-8")
        began = time.monotonic()
        try:
            code, told = run([interpreter(directory, copy), "-m", "pytest", *WORDS, *tests], copy, latest)
        finally:
            sweep(directory)
        found = {0: SURVIVED, 1: KILLED, None: LATE}.get(code, BROKEN)
        return found, time.monotonic() - began, told


WORDS = ("-x", "-q", "--tb=short", "-p", "no:cacheprovider", "--basetemp", "../tmp")


def interpreter(directory: Path, copy: Path) -> str:
    """One that imports the copy, and all else from where this one does."""
    venv.create(directory / "venv", symlinks=True)
    packages = directory / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "copy.pth").write_text(f"{copy}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return str(directory / "venv" / "bin" / "python")


def run(command: Sequence[str], copy: Path, latest: float) -> tuple[int | None, str]:
    """Exit code and output; no code where it took too long."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "LOADER_"))}
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=kept | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="backslashreplace",  # what a test shows need not be text
        start_new_session=True,
        text=True,
    )
    for number, seconds in ((None, latest), (signal.SIGINT, LEAVE), (signal.SIGKILL, LEAVE)):
        if number:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            told, _ = process.communicate(timeout=seconds)
            return None if number else process.returncode, told
    return None, ""


def sweep(directory: Path) -> None:
    """End the servers that tests have left in a directory."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if f"{directory}/" in f"{words}\0{(entry / 'cwd').readlink()}/":
                    os.kill(int(entry.name), signal.SIGKILL)


if __name__ == "__main__":
    main()
