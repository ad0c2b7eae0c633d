"""Tables of any kind, on a server that is set up in any way: the hashes are what a reader of its own makes of the rows.

`scripts/tables.sh` goes through thousands; each is made by its number alone, which a failure tells.
"""

import random
from contextlib import ExitStack

import pymysql
import pytest
from pymysql.converters import conversions

from loader.jobs import prune, recheck, verify
from loader.pipeline.options import Options
from loader.pipeline.run import run_job
from support.database import Ear, globally
from support.hostile import HOSTILE, OF_MARIADB, OF_MYSQL

SIGNS = "aAbßéÉ 张丰😀.,'\"\\%_*?[]{}\n"  # of texts, without what joins two columns
LATIN = "aAbßéÉ .,'\"\\%_*?[]{}\n"
FOREIGN = {b"other:1": {b"a": b"b"}, b"s": {b"a": b"b"}}  # hashes that no job of a trial may touch


def text(chance, signs=SIGNS, most=9):
    return "".join(chance.choices(signs, k=chance.randrange(1, most)))


def date(chance):
    return f"{chance.randrange(1000, 9999):04}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"


def time(chance):
    return f"{chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02}.{chance.randrange(1000):03}"


# Types of columns, and a value of each.
TYPES = {
    "int": lambda chance: chance.choice([-(2**31), -1, 0, 1, 2**31 - 1, chance.randrange(-99, 99)]),
    "bigint unsigned": lambda chance: chance.choice([0, 1, 2**64 - 1, 2**63, chance.randrange(10**12)]),
    "int(6) unsigned zerofill": lambda chance: chance.randrange(10**7),
    "decimal(12,3)": lambda chance: f"{chance.randrange(-(10**8), 10**8)}.{chance.randrange(1000):03}",
    "year": lambda chance: chance.randrange(1901, 2156),
    "date": date,
    "datetime(3)": lambda chance: f"{date(chance)} {time(chance)}",
    "time(3)": lambda chance: chance.choice(["", "-"]) + time(chance),
    "varchar(20) COLLATE utf8mb4_bin": text,
    "varchar(20) COLLATE utf8mb4_general_ci": text,
    "varchar(20) CHARACTER SET latin1": lambda chance: text(chance, LATIN),
    "varchar(20) CHARACTER SET gbk": lambda chance: text(chance, "aAb .,'张丰湖南"),
    "varchar(20) CHARACTER SET utf16": text,
    "char(9)": text,
    "varbinary(20)": lambda chance: text(chance).encode(),
    "binary(4)": lambda chance: text(chance, LATIN, 2).encode(),
    "bit(9)": lambda chance: chance.randrange(512),
    "enum('a','B','张','')": lambda chance: chance.choice(["a", "B", "张", ""]),
    "set('a','B','c')": lambda chance: chance.choice(["", "a", "a,c", "B,c"]),
}
WIDE = {  # of columns that are in no key
    **TYPES,
    "double": lambda chance: chance.uniform(-1e9, 1e9),
    "longtext": lambda chance: text(chance, most=400),
    "blob": lambda chance: chance.randbytes(chance.randrange(300)),
    "timestamp": lambda chance: f"20{chance.randrange(10, 30)}-05-{chance.randrange(1, 29):02} 03:04:05",
}


@pytest.fixture(autouse=True)
def pause(monkeypatch):
    """Nobody brings rows to Redis meanwhile, so there is little to wait for."""
    monkeypatch.setattr(recheck, "PAUSE", 0.001)


class Trial:
    """One table, one job and one way to set up the server, all by a number."""

    def __init__(self, world, number):
        self.world, self.chance = world, random.Random(number)
        chance = self.chance
        self.keys = chance.choices(list(TYPES), k=chance.choice([1, 1, 2, 3, 4]))
        self.values = chance.choices(list(WIDE), k=chance.randrange(1, 6))
        self.names = [f"k{n}" for n in range(len(self.keys))] + [f"v{n}" for n in range(len(self.values))]
        self.prefix = f"t{number}:"
        self.kind = chance.choice(["table", "view", "query"])
        key = self.prefix + "|".join(f"{{{name}}}" for name in self.names[: len(self.keys)])
        reads = {"table": {"table": "t"}, "view": {"table": "seen"}, "query": {"query": "SELECT * FROM t"}}[self.kind]
        nulls, chunk_rows = chance.choice(["omit", "empty"]), chance.choice([1, 3, 7, 1000])
        self.config = world.config(**reads, key=key, nulls=nulls, chunk_rows=chunk_rows, deadline="2s")
        self.empty = nulls == "empty"
        known = HOSTILE | (OF_MARIADB if world.is_mariadb else OF_MYSQL)
        self.globals = {name: known[name] for name in chance.sample(sorted(known), chance.randrange(4))}

    def make(self):
        columns = [
            f"{name} {kind}{' NOT NULL' if name[0] == 'k' else ' NULL'}"
            for name, kind in zip(self.names, self.keys + self.values, strict=True)
        ]
        keyed = ", ".join(self.names[: len(self.keys)])
        self.world.sql(
            "DROP VIEW IF EXISTS seen",
            "DROP TABLE IF EXISTS t",
            f"CREATE TABLE t ({', '.join(columns)}, PRIMARY KEY ({keyed})) CHARACTER SET utf8mb4",
            "CREATE VIEW seen AS SELECT * FROM t",
        )
        self.add(self.chance.randrange(30))

    def add(self, rows):
        for _ in range(rows):
            row = [TYPES[kind](self.chance) for kind in self.keys]
            row += [WIDE[kind](self.chance) if self.chance.random() < 0.8 else None for kind in self.values]
            self.world.sql(f"REPLACE INTO t VALUES ({', '.join(['%s'] * len(row))})", args=row)

    def change(self):
        """Delete, change and add rows."""
        self.world.sql(f"DELETE FROM t ORDER BY k0 LIMIT {self.chance.randrange(6)}")
        kind = self.values[0]
        value = WIDE[kind](self.chance)
        self.world.sql(f"UPDATE t SET v0 = %s ORDER BY k0 DESC LIMIT {self.chance.randrange(6)}", args=[value])
        self.add(self.chance.randrange(6))

    def expected(self):
        """The hashes of the rows, as PyMySQL gets what the server sends."""
        lab, world = self.world.lab, self.world
        reader = pymysql.connect(
            host="127.0.0.1",
            port=lab.mysql_port,
            user="owner",
            password=lab.owner_password,
            database=world.name,
            charset="utf8mb4",
            use_unicode=False,
            conv={kind: way for kind, way in conversions.items() if type(kind) is not int},  # text stays text
            autocommit=True,
            init_command=f"SET SESSION sql_select_limit = {2**64 - 1}, sql_mode = 'ALLOW_INVALID_DATES'"
            + (
                ", system_versioning_asof = DEFAULT, max_statement_time = 0"
                if world.is_mariadb
                else ", max_execution_time = 0"
            )
            + ", sql_big_selects = 1, wait_timeout = 99",
        )
        with reader, reader.cursor() as cursor:
            cursor.execute("SELECT * FROM t")
            rows = cursor.fetchall()
        hashes = {}
        for row in rows:
            pairs = zip(self.names, row, strict=True)
            fields = {name.encode(): value or b"" for name, value in pairs if value is not None or self.empty}
            hashes[self.prefix.encode() + b"|".join(row[: len(self.keys)])] = fields
        return hashes

    def run(self):
        job = self.config.jobs["job"]
        with ExitStack() as stack:
            self.make()
            stack.enter_context(globally(self.world, **self.globals))
            self.synced()
            before = self.expected()
            assert self.hashes() == before
            self.change()
            self.synced()
            now = self.expected()
            gone = before.keys() - now.keys()
            assert self.hashes() == {**{key: before[key] for key in gone}, **now}
            verdict = verify.verify(self.config, job, show=9)
            assert (verdict.rows, verdict.missing, verdict.different) == (len(now), 0, 0), verdict.shown
            assert verdict.extra == len(gone)
            done = prune.Pruned("job")
            prune.prune(self.config, job, done, max_delete=100)
            assert (done.deleted, done.refused) == (len(gone), "")
            assert self.hashes() == now
            assert verify.verify(self.config, job).is_equal

    def synced(self):
        done = run_job(self.config, self.config.jobs["job"], Options(restart=True), Ear())
        assert (done.status, done.error) == ("ok", None)

    def hashes(self):
        found = self.world.hashes()
        for key, fields in FOREIGN.items():
            assert found.pop(key) == fields
        return found

    def __str__(self):
        columns = zip(self.names, self.keys + self.values, strict=True)
        return f"{self.kind} of {dict(columns)} with {self.globals}"


def test_the_hashes_are_the_rows(world, request):
    """Synced, changed, synced again, verified and pruned, whatever the table and the server are."""
    first, count = request.config.getoption("--table"), request.config.getoption("--tables")
    for number in range(first, first + count):
        world.clear()
        for key, fields in FOREIGN.items():
            world.redis.hset(key, mapping=fields)
        trial = Trial(world, number)
        try:
            trial.run()
        except BaseException as error:
            error.add_note(f"--table {number}: {trial}")
            raise
