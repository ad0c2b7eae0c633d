"""The stage of `chaos`: a lab under a workload, hands that type commands of the loader, and one fault after the other.

What happens is drawn from the seed beforehand: which faults and commands, in which order, with which numbers. When
exactly, and so to whom, differs from run to run.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from redis.crc import key_slot

from account import Account
from cut import Cut
from faults import FAULTS
from hands import CATCH_UP, DELETE_ALL, FOLLOW, Script, Strike, Typed, Window, commands, strikes
from loader.lab.lab import Lab
from promises import GRACE, LONG_AGO, Void
from stage import Broken, Count, Done, Fleet, clock, run, start, until, write_config
from verdict import TOLD, counted, wrong_ends
from workload import FOLLOWED, JOBS, TABLES, Workload, fill

NODE_TIMEOUT = 1000  # milliseconds until a master counts as dead
LATEST = 240.0  # seconds that a command may take: its own deadline is 120
LONG = 20.0  # seconds of waiting for a command that are told of
FOLLOWING = 30.0  # seconds until a follower is told to end
BORN = 5.0  # seconds until a command listens to a signal
HANDS = 2


class Chaos:
    """A lab, what is done in it, and what came of that; `home` has the package that is tried, by default this one."""

    def __init__(self, lab: Lab, seed: int, script: Script, home: Path | None = None) -> None:
        chance = random.Random(seed)  # reproducible, not secret
        self.lab = lab
        write_config(lab, JOBS, silence="5s")
        rows = fill(lab, random.Random(chance.random()))
        self.fleet = Fleet(lab, NODE_TIMEOUT)
        self.fleet.warm()
        self.cut = Cut.make()
        self.windows: list[Window] = []
        self.typed: list[Typed] = []
        self._home = home
        self._script = script
        self._strikes = strikes(random.Random(chance.random()), script.faults)
        self._work = Workload(Lab(lab.directory), random.Random(chance.random()), rows)
        self.account = Account(lab, self._work)
        self._commands = [commands(random.Random(chance.random()), script) for _ in range(HANDS)]
        self._busy, self._go = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._hands = [
            threading.Thread(target=self._type, args=[each, number == HANDS - 1], daemon=True)
            for number, each in enumerate(self._commands)
        ]

    def rage(self, seconds: float, every: float) -> Iterator[str]:
        """A fault every so many seconds, with the workload and the hands going on; what comparisons find meanwhile."""
        self._busy.set()
        self._go.set()
        for thread in (self._work, *self._hands):
            thread.start()
        first = due = clock()
        for strike in self._strikes:
            time.sleep(max(0.0, due - clock()))
            if clock() - first > seconds:
                return
            due += every
            self._strike(strike)
            if not self._go.is_set() or len(self.windows) % self._script.rest == 0:
                began = clock()
                yield from self.compare()
                self._work.go_on()
                self._go.set()
                first, due = first + clock() - began, due + clock() - began

    def compare(self) -> list[str]:
        """Have all come to rest, and hold the hashes against what was promised of them."""
        began = clock()
        self._rest()
        with self._lock:
            ended = [typed.command(typed.done) for typed in self.typed if typed.done]
        rested, compared = clock(), self.account.compared
        wrong = self.account.compare(ended)
        rows, took = self.account.compared - compared, clock() - rested
        said = "not as promised" if wrong else "as promised"
        print(f"     {began:>7.1f} s  compared at rest   {rows:,} hashes in {took:.1f} s: {said}", *wrong, sep="\n")
        sys.stdout.flush()
        return wrong

    def end(self) -> None:
        """End the workload and the hands, which are at rest."""
        self._busy.clear()
        self._work.stop()
        for hand in self._hands:
            hand.join(LATEST)

    def close(self) -> None:
        self._busy.clear()
        for typed in self.typed:
            typed.process.kill()
        self._work.stop()
        if self.cut:
            self.cut.close()

    # what faults ask for

    def work(self, *, cut: bool = False) -> Typed | None:
        """Wait until a run is at work, if wanted one that can be cut off; None where none came."""

        def found() -> list[Typed]:
            return [typed for typed in self._at_work(1.0) if typed.writes and (typed.cut or not cut)]

        try:
            until(found, "a run to be at work", 30)
        except Broken:
            return None
        return next(iter(found()), None)

    def is_at_work(self, job: str) -> bool:
        """Whether a run of that job is at work."""
        return any(typed.job == job and typed.writes for typed in self._at_work(0))

    def hush(self) -> None:
        """Have nothing more typed until the fault is over and all was compared at rest."""
        self._go.clear()

    def hit(self, which: float, number: signal.Signals, *, cut: bool = False) -> str:
        """Send a signal to a command at work, and say to which."""

        def found() -> list[Typed]:
            return [typed for typed in self._at_work(0.5) if typed.cut or not cut]

        until(found, "a command to be at work")
        working = found()
        if not working:
            return "nobody: it had just ended"
        typed = working[int(which * len(working))]
        typed.signalled |= {-number, 128 + number}
        typed.process.send_signal(number)
        return f"{typed}, after {clock() - typed.began:.1f} s"

    def void(self, void: Void) -> None:
        """Take promises back: Redis itself has lost something."""
        self.account.voids.append(void)

    def shake(self, jobs: Collection[str] | None = None, slots: Collection[int] | None = None) -> None:
        """The runs under way, of some jobs or whose lock is in some slots, may have lost their lock."""
        for typed in self._at_work(0):
            slot = key_slot(f"loader:{{{typed.job}}}:lock".encode())
            if (jobs is None or typed.job in jobs) and (slots is None or slot in slots):
                typed.shaken = True

    def widen(self, table: str, name: str, default: str | None, sent: float) -> None:
        """A table got one more column, by a statement that was sent then."""
        self._work.widen(table, name.encode(), None if default is None else default.encode(), sent)

    # what goes on

    def _at_work(self, least: float) -> list[Typed]:
        with self._lock:
            return [typed for typed in self.typed if not typed.ended and clock() - typed.began >= least]

    def _strike(self, strike: Strike) -> None:
        began, fault = clock(), FAULTS[strike.name]
        detail = fault.act(self, strike.draw)
        self.windows.append(Window(strike.name, began, clock()))
        if fault.moves:
            self.void(Void(strike.name, LONG_AGO, clock() + GRACE, soft=True))
        print(f"{len(self.windows):>4} {began:>7.1f} s  {strike.name:<18} {detail}", flush=True)

    def _rest(self) -> None:
        """Have the hands and the workload end what they have begun, and the servers be in place."""
        self._go.clear()
        began, waiting = clock(), self._at_work(0)
        until(lambda: not self._at_work(0), "the commands to end", LATEST + 30)
        for typed in waiting:
            if typed.ended - began > LONG and typed.done:
                print(f"     waited {typed.ended - began:.0f} s for {typed}, which ended with {typed.done.code}")
        self._work.pause()
        for row in self.lab.status():
            if not row.running:
                self.lab.start(row.name)
        self.fleet.settle()
        if self.cut and not self.cut.settle():
            raise Broken("what was sent through the network that was cut is still under way")
        if FOLLOWED in self._script.jobs:
            self._catch_up()

    def _catch_up(self) -> None:
        """Have the job that is followed catch up, with nothing else between its rows and the comparison."""
        began = clock()
        process = start(self.lab, CATCH_UP[0], FOLLOWED, *CATCH_UP[1:], "-o", "json", home=self._home)
        typed = Typed(FOLLOWED, CATCH_UP, began, process, cut=False)
        self._wait_for(typed, LATEST)
        with self._lock:
            self.typed.append(typed)

    def _type(self, words: Iterator[tuple[str, tuple[str, ...]]], last: bool) -> None:  # noqa: FBT001
        """What one hand does; the last one types in the network that can be cut."""
        cut = self.cut if last else None
        while self._busy.is_set():
            if not self._go.wait(0.2):
                continue
            with self._lock:
                if not self._go.is_set():
                    continue
                job, (command, *options) = next(words)
                began, line = clock(), (command, job, *options, "-o", "json")
                process = start(self.lab, *line, lead=cut.lead if cut else (), home=self._home)
                typed = Typed(job, (command, *options), began, process, cut=cut is not None)
                self.typed.append(typed)
            if typed.words == FOLLOW:
                self._until_rest(typed)
            self._wait_for(typed, LATEST)

    def _until_rest(self, typed: Typed) -> None:
        """Have a follower end after a while, or once all shall come to rest."""
        while self._go.is_set() and clock() < typed.began + FOLLOWING and typed.process.poll() is None:
            time.sleep(0.2)
        if clock() < typed.began + BORN:
            typed.signalled |= {-signal.SIGTERM, 128 + signal.SIGTERM}
        typed.process.send_signal(signal.SIGTERM)

    def _wait_for(self, typed: Typed, seconds: float) -> None:
        """Wait until a command has ended, and note how."""
        try:
            out, error = typed.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            typed.process.kill()
            out, error = typed.process.communicate()
            error += f"\nit did not end within {seconds:g} s"
        ended = clock()
        with self._lock:
            command, *options = typed.words
            typed.done, typed.ended = Done((command, typed.job, *options), typed.process.returncode, out, error), ended

    def wrong_ends(self) -> Iterator[str]:
        """What is wrong about the commands that were typed, a sentence each."""
        return wrong_ends(self.typed, self.windows)

    def settle_up(self) -> list[str]:
        """Sync, prune and verify each job once more; what went wrong."""
        wrong = []
        for job in TABLES:
            for words in (("sync", job), ("prune", job, *DELETE_ALL), ("verify", job)):
                done = run(self.lab, *words, "-o", "json", home=self._home)
                if done.code or "Traceback" in done.error:
                    wrong.append(f"at rest: {done}"[:TOLD])
        return wrong

    def summary(self, counts: Mapping[str, Count]) -> Iterator[str]:
        """What there was, and what came of it, a line each."""
        yield from counted(self.typed, self.windows)
        yield f"workload  {self._work.done:,} statements, {self._work.refused:,} refused"
        yield f"at rest   {self.account.comparisons} comparisons of {self.account.compared:,} hashes in all"
        for table, count in counts.items():
            yield f"{table:<9} {count}"
        yield f"took      {clock():.0f} s"
