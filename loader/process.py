"""Processes of this machine: their identity, and whether one is still alive."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from loader.errors import LoaderError


def start_thread(target: Callable[..., None], *args: object) -> threading.Thread:
    """A thread that ends with the process; a `LoaderError` if this machine can start no more of them."""
    thread = threading.Thread(target=target, args=args, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise LoaderError(f"{error}: fewer --workers, or a higher limit of processes") from error
    return thread


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
