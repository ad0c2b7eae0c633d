"""Notifications to systemd, by datagrams to the socket that $NOTIFY_SOCKET names; see sd_notify(3)."""

import os
import socket
from contextlib import suppress

PATIENCE = 1.0  # seconds until a notification is dropped: if systemd reads none, its queue is full after ten


def notify(**facts: str | int) -> None:
    """Notify systemd, if it listens: `READY=1`, `STATUS="…"`."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path  # @: an abstract socket
    text = "\n".join(f"{name}={value}" for name, value in facts.items())
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
        door.settimeout(PATIENCE)
        door.sendto(text.encode(), address)


def watchdog() -> float:
    """Seconds within which systemd expects `WATCHDOG=1`; 0 if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
