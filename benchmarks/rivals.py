"""What the loader is compared with, where that is Python: PyMySQL with redis-py, and a reader that looks at nothing.

rivals.py usual OPTIONS TABLE PREFIX PORT
rivals.py redis-py OPTIONS TABLE PREFIX PORT
rivals.py drain OPTIONS TABLE
"""

import os
import sys

import pymysql
from pymysql.cursors import SSCursor, SSDictCursor
from redis.cluster import RedisCluster

BATCH = 1000  # rows a pipeline
LAST = b"\x05\0\0"  # the header of the packet that ends a result, but for its number


def query(options: str, table: str) -> tuple[pymysql.Connection, SSCursor]:
    """A cursor at the first row, whose values stay bytes: the fastest and most exact that PyMySQL offers."""
    db = pymysql.connect(
        read_default_file=options,
        database="test",
        charset="utf8mb4",
        use_unicode=False,
        conv={},
        autocommit=True,
        cursorclass=SSCursor,
    )
    cursor = db.cursor()
    cursor.execute(f"SELECT * FROM {table}")
    return db, cursor


def redis_py(options: str, table: str, prefix: str, port: str) -> None:
    """A hash of each row, by a pipeline of the cluster client for each thousand."""
    _, cursor = query(options, table)
    names = [column[0] for column in cursor.description]
    cluster = RedisCluster("127.0.0.1", int(port))
    while rows := cursor.fetchmany(BATCH):
        with cluster.pipeline() as pipe:
            for row in rows:
                fields = {name: cell for name, cell in zip(names, row, strict=True) if cell is not None}
                pipe.hset(f"{prefix}_".encode() + row[0], mapping=fields)
            pipe.execute()


def usual(options: str, table: str, prefix: str, port: str) -> None:
    """The same as one writes it: a dictionary a row, values as Python has them. ZEROFILL and DATETIME(3) are lost."""
    db = pymysql.connect(read_default_file=options, database="test", charset="utf8mb4", cursorclass=SSDictCursor)
    cursor = db.cursor()
    cursor.execute(f"SELECT * FROM {table}")
    cluster = RedisCluster(host="127.0.0.1", port=int(port))
    key = cursor.description[0][0]
    while rows := cursor.fetchmany(BATCH):
        pipe = cluster.pipeline()
        for row in rows:
            fields = {name: str(value) for name, value in row.items() if value is not None}
            pipe.hset(f"{prefix}_{row[key]}", mapping=fields)
        pipe.execute()


def drain(options: str, table: str) -> None:
    """Take the rows off the socket and forget them: as fast as the server sends."""
    db, _ = query(options, table)
    buffer = bytearray(256 * 1024)
    view = memoryview(buffer)
    tail = db._rfile.peek()[-9:]  # noqa: SLF001
    while not (tail[:3] == LAST and tail[4] == 0xFE):
        count = db._rfile.raw.readinto(view)  # noqa: SLF001
        tail = (tail + bytes(view[max(0, count - 9) : count]))[-9:]
    os._exit(0)  # PyMySQL would wait for the rows that it was not given


if __name__ == "__main__":
    {"usual": usual, "redis-py": redis_py, "drain": drain}[sys.argv[1]](*sys.argv[2:])
