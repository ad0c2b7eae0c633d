"""A Dask cluster of real processes: a scheduler that does not know the loader, and workers that do."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

from loader.lab.process import HOST, wait

KNOWS_NO_LOADER = "import sys; sys.modules['loader'] = None"
SCHEDULER = f"{KNOWS_NO_LOADER}; from distributed.cli.dask_scheduler import main; main()"
WORKER = "from distributed.cli.dask_worker import main; main()"


class DaskWorker:
    """A worker process with one thread, and its log."""

    def __init__(self, process, log):
        self.process = process
        self.log = log

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()


class DaskServers:
    """A scheduler and its workers, in a directory for logs."""

    def __init__(self, directory, **changes):
        self.directory = directory
        self.workers = []
        self._processes = []
        named = directory / "scheduler.json"
        self.scheduler = self._spawn("scheduler", SCHEDULER, "--port", "0", "--scheduler-file", str(named), **changes)
        wait(lambda: named.exists() and named.read_text(), "the scheduler to listen")
        self.address = json.loads(named.read_text())["address"]

    def add(self, *, before="pass", **changes):
        """A worker more, which is registered; `before` is done first, `changes` are variables of its environment."""
        name = f"worker-{len(self.workers)}"
        words = ["--nthreads", "1", "--no-nanny", "--name", name]
        process = self._spawn(name, f"{before}; {WORKER}", self.address, *words, **changes)
        worker = DaskWorker(process, self.directory / f"{name}.log")
        wait(lambda: "Registered to" in worker.log.read_text() or process.poll() is not None, "a worker to register")
        assert process.poll() is None, worker.log.read_text()
        self.workers.append(worker)
        return worker

    def stop(self):
        for process in self._processes:
            process.kill()
            process.wait()

    def _spawn(self, name, code, *words, **changes):
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LOADER_", "PYTHON", "DASK_"))}
        with (self.directory / f"{name}.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *words, "--host", HOST, "--no-dashboard"],
                cwd=self.directory,
                env=kept | changes,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process


@contextmanager
def dask_servers(directory, **changes):
    """A scheduler, with these variables in its environment; it and all workers are killed at the end."""
    directory.mkdir(exist_ok=True)
    servers = DaskServers(directory, **changes)
    try:
        yield servers
    finally:
        servers.stop()
