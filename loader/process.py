"""Processes of this machine: their identity, and whether one is still alive."""

import os
import socket
import threading
import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import lru_cache
from pathlib import Path

from loader.errors import LoaderError

IDLE = 10.0  # seconds after which a thread with nothing to do ends


class Work:
    """Something that a thread does, or has done."""

    def __init__(self, target: Callable[..., None], args: tuple[object, ...]) -> None:
        self._target = target
        self._args = args
        self._doing = allocate_lock()
        self._doing.acquire()

    def do(self) -> None:
        """Do it, with no limits on waiting but its own."""
        try:
            Context().run(self._target, *self._args)
        finally:
            self._doing.release()

    def join(self, seconds: float = -1) -> None:
        """Wait until it is done, at most so many seconds if they are not negative."""
        if self._doing.acquire(timeout=seconds):
            self._doing.release()

    def is_alive(self) -> bool:
        """Whether it is not done yet."""
        return self._doing.locked()


class _Hand:
    """A thread that does one thing after another, and ends if there is nothing to do for a while, or at an error."""

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._wanted = allocate_lock()
        self._wanted.acquire()

    def give(self, work: Work) -> None:
        """Have it do something more."""
        self._work = work
        self._wanted.release()

    def run(self) -> None:
        """Do what is given."""
        while work := self._work:
            self._work = None
            work.do()
            del work
            _idle.append(self)
            if not self._wanted.acquire(timeout=IDLE):
                try:
                    _idle.remove(self)
                except ValueError:  # it has just been taken
                    self._wanted.acquire()


_idle: deque[_Hand] = deque()  # threads with nothing to do; its methods are atomic


def start_thread(target: Callable[..., None], *args: object) -> Work:
    """Do something in a thread that ends with the process; a `LoaderError` if this machine can start no more of them.

    Threads that are done are used again: to start one takes longer than most of what they do for a tiny table.
    """
    work = Work(target, args)
    try:
        _idle.pop().give(work)
    except IndexError:
        try:
            threading.Thread(target=_Hand(work).run, daemon=True).start()
        except RuntimeError as error:
            raise LoaderError(f"{error}: fewer --workers, or a higher limit of processes") from error
    return work


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot: fields 3, 20 and 22 of stat, proc(5); None once it has ended.

    Its first thread may be a zombie while the others still hold its files.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in {b"Z", b"X"} and int(fields[17]) <= 1:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # a child of this process stays a zombie otherwise
        return None
    return int(fields[19])


def identity() -> dict[str, str | int]:
    """This process, as others can identify it: host, pid, and whether that pid still means the same process.

    `world` is this boot of the machine and the namespace in which the pid counts; it is empty if there is no /proc.
    """
    return {"host": socket.gethostname(), **_own(os.getpid())}


@lru_cache(1)
def _own(pid: int) -> dict[str, str | int]:
    """What stays the same of this process."""
    return {"pid": pid, "started": start_time(pid) or 0, "world": _world()}


def ticks() -> float:
    """Seconds that advance evenly, whatever the clock is set to, and while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def clock(wall: float | None = None) -> dict[str, str | float]:
    """The time: `uptime` advances evenly within one `boot` of the machine, `wall` may be set; seconds.

    `boot` is empty if there is no /proc; `wall` is another machine's time, if it was asked for.
    """
    boot = _world().partition(" ")[0]
    return {
        "boot": boot,
        "uptime": time.clock_gettime(time.CLOCK_BOOTTIME) if boot else 0.0,
        "wall": time.time() if wall is None else wall,
    }


def elapsed(before: dict[str, str | float], now: dict[str, str | float]) -> float:
    """Seconds between two readings of `clock`, here or on another machine; at least 0."""
    kind = "uptime" if now["boot"] and now["boot"] == before["boot"] else "wall"
    return max(0.0, float(now[kind]) - float(before[kind]))


def is_gone(other: dict[str, str | int]) -> bool:
    """Whether a process is known to have ended: one of this boot and namespace, whose pid is free or reused."""
    if not _world() or other.get("world") != _world():
        return False
    pid, foreign = int(other["pid"]), False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        foreign = True
    try:
        started = start_time(pid)
    except OSError:
        return False
    return not foreign if started is None else started != other.get("started")  # /proc may hide the processes of others


def _world() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
