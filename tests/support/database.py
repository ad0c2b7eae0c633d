"""A database and a cluster for one test: what it puts into MySQL, what it runs, and what is then in Redis."""

import secrets
import shutil
import subprocess
from contextlib import contextmanager

import pymysql
from redis.cluster import RedisCluster

from loader.config.load import Config
from loader.model import ChunkLoaded
from loader.pipeline.options import Options
from loader.pipeline.run import run_job


class Nobody:
    """Hands of a daemon that has no jobs to act on."""

    def knows(self, job):
        return False

    def act(self, job, action, by):
        raise AssertionError


class Clock:
    """Stands in for the module `time`: it goes on while somebody sleeps."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Ear:
    """Hears the events of a run."""

    def __init__(self):
        self.expected = self.throttle = None
        self.events = []

    def expect(self, rows, throttle):
        self.expected, self.throttle = rows, throttle

    def notify(self, event):
        self.events.append(event)


class Halter(Ear):
    """Asks a run to halt after its first chunk."""

    def __init__(self, halt):
        super().__init__()
        self._halt = halt

    def notify(self, event):
        super().notify(event)
        self._halt.asked |= isinstance(event, ChunkLoaded)


class World:
    """A new, empty database of the lab's MySQL, and of its cluster the keys that were not there before."""

    def __init__(self, lab, directory):
        self.lab = lab
        self.directory = directory
        self.name = f"world{secrets.token_hex(4)}"
        self.mysql = pymysql.connect(
            host="127.0.0.1",
            port=lab.mysql_port,
            user="owner",
            password=lab.owner_password,
            charset="utf8mb4",
            autocommit=True,
            init_command="SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
        )
        self.sql(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4", f"USE {self.name}")
        self.sql(f"GRANT SELECT ON {self.name}.* TO loader@'%'")
        self.is_mariadb = "MariaDB" in self.mysql.get_server_info()
        self.redis = RedisCluster(host="127.0.0.1", port=lab.redis_ports["n1"])
        self._before = self._keys()
        self._options = directory / "client.cnf"
        self._options.touch(mode=0o600)
        self._options.write_text(
            f"[client]\nhost=127.0.0.1\nport={lab.mysql_port}\nuser=owner\npassword={lab.owner_password}\n"
        )

    def close(self):
        """Leave both servers as they were."""
        self.clear()
        self.redis.close()
        self.sql(f"DROP DATABASE {self.name}", f"REVOKE SELECT ON {self.name}.* FROM loader@'%'")
        self.mysql.close()

    def sql(self, *statements, args=None):
        """Rows of the last statement."""
        with self.mysql.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, args)
            return cursor.fetchall()

    def config(self, **job):
        """The config of one job, named `job`."""
        return self.config_of({"job": job})

    def config_of(self, jobs):
        """The config of jobs by their names."""
        return Config.model_validate(
            {
                "version": 1,
                "source": {
                    "url": f"mysql://loader@127.0.0.1:{self.lab.mysql_port}/{self.name}",
                    "password": self.lab.password,
                },
                "target": {
                    "url": f"redis://loader@127.0.0.1:{self.lab.redis_ports['n1']}",
                    "password": self.lab.redis_password,
                },
                "jobs": jobs,
            }
        )

    def sync(self, ear=None, **job):
        """The run of a job."""
        config = self.config(**job)
        return run_job(config, config.jobs["job"], Options(), ear or Ear())

    def hashes(self):
        """The new keys of the cluster but for the loader's state, each with the fields of its hash, all bytes."""
        keys = [key for key in self._keys() - self._before if not key.startswith(b"loader:")]
        return dict(zip(keys, self._pipelined("hgetall", keys), strict=True))

    def state(self):
        """The keys of the loader's state, but for the history, the claim of the name and the fields, which stay."""
        state = {key for key in self._keys() - self._before if key.startswith(b"loader:")}
        return {key for key in state if not key.endswith((b"}:runs", b"}:success", b"}:claim", b"}:fields"))}

    def clear(self):
        """Take the new keys away."""
        if self._before:
            self._pipelined("delete", list(self._keys() - self._before))
        else:
            self.redis.flushall(target_nodes=RedisCluster.PRIMARIES)

    def _pipelined(self, command, keys):
        replies = []
        for start in range(0, len(keys), 2000):
            with self.redis.pipeline() as pipe:
                for key in keys[start : start + 2000]:
                    getattr(pipe, command)(key)
                replies += pipe.execute()
        return replies

    def printed(self, selects):
        """What the mysql client prints for each statement, which has one value; None for NULL."""
        mark = secrets.token_hex(16)
        script = "".join(
            f"SELECT ({select}) IS NULL;SELECT '{mark}';\n{select};SELECT '{mark}';\n" for select in selects
        )
        done = subprocess.run(
            [
                shutil.which("mariadb") or shutil.which("mysql"),
                f"--defaults-file={self._options}",
                "--raw",
                "-N",
                "-B",
                "--default-character-set=utf8mb4",
                "--max-allowed-packet=256M",
                self.name,
            ],
            input=script.encode(),
            capture_output=True,
            check=True,
        )
        assert done.stderr == b""
        *values, rest = done.stdout.split(f"\n{mark}\n".encode())
        assert rest == b""
        nulls = [value == b"1" for value in values[::2]]
        return [None if null else value for null, value in zip(nulls, values[1::2], strict=True)]

    def _keys(self):
        return set(self.redis.keys("*", target_nodes=RedisCluster.PRIMARIES))


@contextmanager
def globally(world, **values):
    """Global variables set for a while."""
    before = {name: world.sql(f"SELECT @@GLOBAL.{name}")[0][0] for name in values}
    try:
        for name, value in values.items():
            world.sql(f"SET GLOBAL {name} = %s", args=[value])
        yield
    finally:
        for name, value in before.items():
            world.sql(f"SET GLOBAL {name} = {'DEFAULT' if value == 'DEFAULT' else world.mysql.escape(value)}")


@contextmanager
def process_right(world):
    """The loader may see the transactions of others for a while."""
    world.sql("GRANT PROCESS ON *.* TO loader@'%'")
    yield
    world.sql("REVOKE PROCESS ON *.* FROM loader@'%'")


def standalone_config(world, mysql=None, target=None, *, silence="10s", **job):
    """The job `t`, from the world's MySQL or the port that leads there, to a standalone Redis."""
    return Config.model_validate(
        {
            "version": 1,
            "source": {
                "url": f"mysql://loader@127.0.0.1:{mysql or world.lab.mysql_port}/{world.name}",
                "password": world.lab.password,
                "read_timeout": silence,
            },
            "target": {"url": f"redis://127.0.0.1:{target}", "timeout": silence},
            "jobs": {"job": {"table": "t"} | job},
        }
    )
