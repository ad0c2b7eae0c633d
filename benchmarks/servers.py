"""The servers that are measured, the tables they hold, and one measured run of a program against them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pymysql
import redis

from loader.config.load import load_config
from loader.lab.lab import Lab
from loader.lab.process import HOST, Server, free_ports, program, stop, wait
from loader.model import MOST, Batch, Chunk
from loader.mysql.connection import Connection
from loader.pipeline.job_context import open_job
from loader.pipeline.options import Options
from loader.pipeline.transfer import transfer
from loader.wire.slots import SlotMap

POOL = 1 << 30  # bytes of InnoDB's buffer pool: all tables fit, so that no disk is measured
SAMPLES = 25  # hashes that are compared after each run
IDLE = 0.04  # cores that all servers together may use when a run begins
TICK = os.sysconf("SC_CLK_TCK")
LIMIT = 900  # seconds until a run is given up

NAMES = "'张三丰','张无忌','段誉','乔峰','沈浪','令狐冲','黄蓉'"
PLACES = "'湖南长沙','河南洛阳','北京市','广州市','上海市'"
STU = (
    "sid int(8) unsigned zerofill NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    " sname varchar(20) NOT NULL DEFAULT '', address varchar(20) NOT NULL DEFAULT ''"
)
STU_ROW = f"n, ELT(1 + n % 7, {NAMES}), ELT(1 + n % 5, {PLACES})"
ORDERS = (
    "id bigint unsigned NOT NULL PRIMARY KEY, customer int unsigned NOT NULL, quantity smallint NOT NULL,"
    " amount decimal(12,2) NOT NULL, discount decimal(5,4) NULL, currency char(3) NOT NULL,"
    " status varchar(16) NOT NULL, created datetime NOT NULL, paid datetime(3) NULL, email varchar(64) NOT NULL,"
    " note text NULL, detail json NOT NULL"
)
ORDERS_ROW = (
    "n + 7000000000, CRC32(n) % 90000 + 1, 1 + n % 12, CRC32(n) % 10000000 / 100, IF(n % 3, NULL, n % 900 / 10000),"
    " ELT(1 + n % 3, 'EUR', 'USD', 'CNY'), ELT(1 + n % 4, 'new', 'paid', 'shipped', 'returned'),"
    " '2023-01-01' + INTERVAL n % 40000000 SECOND,"
    " IF(n % 4, '2024-06-01 00:00:00.125' + INTERVAL n % 900000 SECOND, NULL),"
    " CONCAT('customer', CRC32(n) % 90000 + 1, '@mail.example'),"
    " IF(n % 2, NULL, CONCAT('please ring twice, then leave it with the neighbour, number ', n % 300)),"
    """ CONCAT('{"sku": "A-', n % 5000, '", "gift": ', IF(n % 9, 'false', 'true'), '}')"""
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table to load: its rows, and the SQL of its columns and of its nth row."""

    rows: int
    columns: str
    row: str
    prefix: str = "stu"
    key: str = "sid"


def wide(rows: int, count: int) -> Table:
    """A table of a number and `count - 1` short texts."""
    columns = "".join(f", c{i} varchar(20) NOT NULL" for i in range(1, count))
    values = "".join(f", CONCAT('v', CRC32(n + {i}) % 1000000)" for i in range(1, count))
    return Table(rows, f"id int unsigned NOT NULL PRIMARY KEY{columns}", f"n{values}", "wide", "id")


def tables(scale: float) -> dict[str, Table]:
    """All tables, with fewer or more rows than usual."""

    def rows(count: int) -> int:
        return max(5, int(count * scale))

    million = rows(1_000_000)
    return {
        "stu": Table(million, STU, STU_ROW),
        "stu_five": Table(5, STU, STU_ROW),
        "stu_tenth": Table(million // 10, STU, STU_ROW),
        "stu_half": Table(million // 2, STU, STU_ROW),
        "stu_fivefold": Table(million * 5, STU, STU_ROW),
        "orders": Table(rows(500_000), ORDERS, ORDERS_ROW, "orders", "id"),
        "orders_five": Table(5, ORDERS, ORDERS_ROW, "orders", "id"),
        "wide_4": wide(rows(500_000), 4),
        "wide_12": wide(rows(500_000), 12),
        "wide_30": wide(rows(200_000), 30),
        "wide_40": wide(rows(500_000), 40),
        "wide_100": wide(rows(100_000), 100),
    }


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took: seconds of wall time and of CPU, bytes of memory."""

    rows: int
    wall: float
    cpu: float  # user and system, of the program and all programs it started
    memory: int  # the most that one of these programs had resident
    mysql_cpu: float
    redis_cpu: float  # of all nodes, until the replicas had everything


# Starts a program and says what it took. A process inherits its parent's peak memory, and this parent has 9 MB.
CLERK = """
import json, os, sys, time
started = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - started
with open(sys.argv[1], "w") as file:
    json.dump([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)], file)
"""


class Servers:
    """A MySQL or MariaDB, a cluster of six nodes and a single node, with the tables; all gone at the end."""

    def __init__(self, directory: Path, lab: Lab, single: Server, described: dict[str, Table]) -> None:
        self.directory = directory
        self.tables = described
        self.lab = lab
        self.ports = {"cluster": lab.redis_ports["n1"], "one": single.port}
        self.options = directory / "client.cnf"
        self._single = single
        self._pids = {row.name: row.pid for row in lab.status()} | {"single": single.pid}
        every = [*lab.redis_ports.values(), single.port]
        self._nodes = {port: redis.Redis(HOST, port, socket_timeout=120) for port in every}
        masters = [int(row.address.rpartition(":")[2]) for row in lab.status() if row.role == "master"]
        self.masters = {"cluster": sorted(masters), "one": [single.port], "": []}
        self.owner = self._connect("owner", lab.owner_password)
        self.options.touch(mode=0o600)
        self.options.write_text(
            f"[client]\nhost={HOST}\nport={lab.mysql_port}\nuser=loader\npassword={lab.password}\n"
            "default-character-set=utf8mb4\n"
        )
        for node in self._nodes.values():  # neither a rewrite of the log nor a new copy of all data amid a run
            node.config_set("auto-aof-rewrite-percentage", 0)
            node.config_set("client-output-buffer-limit", "replica 0 0 0")

    def versions(self) -> dict[str, str]:
        """What serves."""
        node = self._nodes[self.ports["one"]].info("server")
        name = "Valkey" if "valkey_version" in node else "Redis"
        return {"database": self.sql("SELECT VERSION()")[0][0].decode(), name: node["redis_version"]}

    def sql(self, *statements: str) -> tuple[tuple[bytes | None, ...], ...]:
        """Rows of the last statement, every value as the server's text."""
        with self.owner.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    def fill(self, say: Callable[[str], None]) -> None:
        """Make the tables."""
        self.sql(f"SET GLOBAL innodb_buffer_pool_size = {POOL}", "USE test")
        most = max(table.rows for table in self.tables.values())
        digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
        count = len(str(most))
        number = "1" + "".join(f" + {10**i} * t{i}.d" for i in range(count))
        source = ", ".join(f"({digits}) t{i}" for i in range(count))
        self.sql(
            "CREATE TABLE numbers (n int unsigned NOT NULL PRIMARY KEY)",
            f"INSERT INTO numbers SELECT n FROM (SELECT {number} AS n FROM {source}) s WHERE n <= {most} ORDER BY n",
        )
        for name, table in self.tables.items():
            say(f"table {name}: {table.rows:,} rows")
            self.sql(
                f"CREATE TABLE {name} ({table.columns}) CHARACTER SET utf8mb4",
                f"INSERT INTO {name} SELECT {table.row} FROM numbers WHERE n <= {table.rows} ORDER BY n",
                f"ANALYZE TABLE {name}",
            )
        self.sql("DROP TABLE numbers")

    def columns(self, table: str) -> list[tuple[str, bool]]:
        """Names of a table's columns, each with whether it may be NULL."""
        return [(row[0].decode(), row[2] == b"YES") for row in self.sql(f"SHOW COLUMNS FROM {table}")]

    def config(self, table: str, target: str, write: str = "hmset") -> Path:
        """A config whose job is named like the table."""
        path = self.directory / f"{table}-{target or 'none'}-{write}.yaml"
        key = f"{self.tables[table].prefix}_{{{self.tables[table].key}}}"
        job = {"table": table, "key": key, "write": write}
        document = {
            "version": 1,
            "source": {
                "url": f"mysql://loader@{HOST}:{self.lab.mysql_port}/test",
                "password_file": str(self.lab.directory / "mysql.password"),
            },
            "target": {"url": f"redis://{HOST}:{self.ports[target or 'cluster']}"},
            "jobs": {table: job},
        }
        path.write_text(json.dumps(document))
        return path

    def commands(self, table: str, write: str = "hmset") -> dict[int, Path]:
        """Files with the commands of a table for each master, made once, by the loader's encoder."""
        paths = {port: self.directory / f"{table}-{port}-{write}.resp" for port in self.masters["cluster"]}
        if not all(path.exists() for path in paths.values()):
            settings = load_config([self.config(table, "cluster", write)])
            with open_job(settings, settings.jobs[table], Options()) as ends, Connection(settings.source) as source:
                writer = _Files(ends.target.slots, paths)
                transfer(ends.plan, ends.plan.select(Chunk(1)), source, writer, ends.throttle)
                writer.close()
        return paths

    # a run

    def measure(
        self,
        command: list[str],
        table: str,
        rows: int,
        target: str,
        *,
        exact: bool = True,
        before: list[str] | None = None,
    ) -> Run:
        """Run a program that loads `rows` rows of a table, from empty and idle servers, and check that it did.

        What comes `before` it, such as a first load, is not measured.
        """
        self._empty()
        if before:
            self._spawn(before)
            self._follow()
        self._settle()
        used = self._cpu()
        wall, cpu, memory = self._spawn(command)
        self._follow()
        after = self._cpu()
        self._verify(table, rows, target, exact=exact)
        mysql = after["mysql"] - used["mysql"]
        nodes = sum(after.values()) - sum(used.values()) - mysql
        return Run(rows, wall, cpu, memory, mysql, nodes)

    def output(self) -> str:
        """What the last program printed."""
        return (self.directory / "out").read_text(errors="replace")

    def _spawn(self, command: list[str]) -> tuple[float, float, int]:
        report = self.directory / "clerk"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOADER_")}
        with (self.directory / "out").open("wb") as out, (self.directory / "err").open("wb") as err:
            clerk = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", CLERK, str(report), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
            try:
                clerk.wait(LIMIT)
            except BaseException:
                os.killpg(clerk.pid, 9)
                clerk.wait()
                raise
        wall, cpu, memory, code = json.loads(report.read_text())
        if code:
            errors = (self.directory / "err").read_text(errors="replace")
            raise RuntimeError(
                f"exit code {code} of {' '.join(command)[:500]}\n{self.output()[-800:]}\n{errors[-1500:]}"
            )
        return wall, cpu, memory

    def _empty(self) -> None:
        for port in [*self.masters["cluster"], *self.masters["one"]]:
            self._nodes[port].flushall()
        self._follow()
        for node in self._nodes.values():
            node.bgrewriteaof()
        wait(lambda: not any(_is_rewriting(node) for node in self._nodes.values()), "the logs to be rewritten")

    def _follow(self) -> None:
        """Wait until every replica has what its master has."""

        def done() -> bool:
            for port in self.masters["cluster"]:
                info = self._nodes[port].info("replication")
                replicas = [info[f"slave{i}"] for i in range(info["connected_slaves"])]
                if not replicas or any(replica["offset"] != info["master_repl_offset"] for replica in replicas):
                    return False
            return True

        wait(done, "the replicas")

    def _settle(self) -> None:
        """Wait until the servers do nothing."""

        def idle() -> bool:
            before = sum(self._cpu().values())
            time.sleep(0.25)
            return sum(self._cpu().values()) - before <= IDLE * 0.25 + 1 / TICK

        wait(idle, "idle servers")

    def _cpu(self) -> dict[str, float]:
        """Seconds of CPU that each server has used, proc(5)."""
        used = {}
        for name, pid in self._pids.items():
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            used[name] = (int(fields[11]) + int(fields[12])) / TICK
        return used

    def _verify(self, name: str, rows: int, target: str, *, exact: bool) -> None:
        """Every row is a hash, no other keys are there, and some of the hashes are what MySQL has."""
        for place in ("cluster", "one"):
            nodes = [self._nodes[port] for port in self.masters[place]]
            found = sum(node.dbsize() - len(node.keys("loader:*")) for node in nodes)  # the history of runs stays
            expected = rows if target == place else 0
            if found != expected:
                keys = [key for port in self.masters[place] for key in self._nodes[port].scan(count=20)[1]][:5]
                raise RuntimeError(f"{found:,} keys in place of {expected:,} ({place}), such as {keys}")
        if not target or not exact:
            return
        table = self.tables[name]
        columns = [column.encode() for column, _ in self.columns(name)]
        step = max(1, rows // SAMPLES)
        first = int(self.sql(f"SELECT MIN({table.key}) FROM {name}")[0][0])
        numbers = ",".join(str(first + i) for i in range(0, rows, step))
        client = (
            redis.RedisCluster(HOST, self.ports[target]) if target == "cluster" else self._nodes[self.ports[target]]
        )
        for row in self.sql(f"SELECT * FROM {name} WHERE {table.key} IN ({numbers})"):
            expected = {column: cell for column, cell in zip(columns, row, strict=True) if cell is not None}
            found = client.hgetall(f"{table.prefix}_".encode() + row[0])
            if found != expected:
                raise RuntimeError(f"{table.prefix}_{row[0]}: {found} in place of {expected}")
        if target == "cluster":
            client.close()

    def _connect(self, user: str, password: str) -> pymysql.Connection:
        return pymysql.connect(
            host=HOST,
            port=self.lab.mysql_port,
            user=user,
            password=password,
            charset="utf8mb4",
            use_unicode=False,
            conv={},
            autocommit=True,
            database="test",
        )

    def close(self) -> None:
        """Leave the servers."""
        self.owner.close()
        for node in self._nodes.values():
            node.close()


class _Files:
    """Takes batches in place of a writer, into a file for each node."""

    most = MOST
    restores = True

    def __init__(self, slots: SlotMap, paths: dict[int, Path]) -> None:
        self._slots = slots
        self._files = [paths[node.port].open("wb") for node in slots.nodes]

    def begin(self) -> SlotMap:
        return self._slots

    def send(self, index: int, batch: Batch) -> None:
        self._files[index].write(batch.data)

    def close(self) -> None:
        for file in self._files:
            file.close()


@contextmanager
def started(directory: Path, described: dict[str, Table]) -> Iterator[Servers]:
    """The servers, running; they end with the block, however it ends."""
    lab = Lab(directory / "lab")
    single = Server("single", free_ports(1)[0])
    home = directory / "single"
    home.mkdir()
    servers = None
    try:
        lab.up()
        words = ["--port", str(single.port), "--bind", HOST, "--dir", str(home), "--save", "", "--appendonly", "yes"]
        single.spawn([program("redis-server", "valkey-server"), *words], directory / "single.log")
        wait(lambda: _answers(single), "the single node")
        servers = Servers(directory, lab, single, described)
        yield servers
    finally:
        if servers:
            servers.close()
        stop([single])
        lab.down()


def _answers(server: Server) -> bool:
    with redis.Redis(HOST, server.port) as node:
        try:
            return node.info("server")["process_id"] == server.pid
        except redis.ConnectionError:
            return False


def _is_rewriting(node: redis.Redis) -> bool:
    info = node.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def as_document(run: Run) -> dict[str, float]:
    """A run as JSON has it."""
    return {name: round(value, 6) for name, value in asdict(run).items()}
