"""A daemon as a process of its own, and what it has logged so far."""

import json
import signal
import threading
import time
from contextlib import contextmanager

from loader.lab.process import wait
from support.command import MARK


class Running:
    """A daemon, and the log lines that it has written so far."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            assert MARK not in line
            self.lines.append(json.loads(line) if line.startswith("{") else {"event": line.strip()})

    def of(self, event, **facts):
        found = [line for line in list(self.lines) if line["event"] == event]
        return [line for line in found if all(line.get(name) == fact for name, fact in facts.items())]

    def until(self, event, count=1, **facts):
        """The lines of an event, once there are so many."""
        wait(lambda: len(self.of(event, **facts)) >= count or self.process.poll() is not None, event)
        found = self.of(event, **facts)
        assert len(found) >= count, self.lines
        return found

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM, seconds=60):
        """Seconds that it took to end, and its exit code."""
        started = time.monotonic()
        self.send(number)
        code = self.process.wait(seconds)
        self._reader.join()
        return time.monotonic() - started, code

    def finish(self, seconds=60):
        """Wait for the end of one that ends by itself."""
        self.process.wait(seconds)
        self._reader.join()
        self.process.stderr.close()
        self.process.stdout.close()


@contextmanager
def daemon(desk, **changes):
    process = desk.start("daemon", **changes)
    running = Running(process)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        running._reader.join()
        process.stderr.close()
        process.stdout.close()
