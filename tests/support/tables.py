"""Tables that tests load."""

from pathlib import Path

from support.command import Desk

STU_SQL = Path(__file__).parents[2] / "sql" / "stu.sql"


def table(world, rows):
    """A table `t` of ten thousand rows at most."""
    world.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int)",
        "CREATE TABLE ten (n int PRIMARY KEY)",
        "INSERT INTO ten VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        f"INSERT INTO t SELECT 1 + a.n + 10*b.n + 100*c.n + 1000*d.n, a.n FROM ten a, ten b, ten c, ten d LIMIT {rows}",
        "ANALYZE TABLE t",
    )


def fill(world, rows):
    """A table `big` of so many rows, the key with zeros before it, some of the notes NULL."""
    world.sql(
        "CREATE TABLE big (id int(8) unsigned zerofill PRIMARY KEY, name varchar(40) NOT NULL, note varchar(40))",
        "CREATE TABLE ten (n int PRIMARY KEY)",
        "INSERT INTO ten VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "INSERT INTO big SELECT n, CONCAT('name ', n), IF(n % 3, CONCAT('note ', n), NULL)"
        " FROM (SELECT 1 + a.n + 10*b.n + 100*c.n + 1000*d.n + 10000*e.n + 100000*f.n AS n"
        " FROM ten a, ten b, ten c, ten d, ten e, ten f) s"
        f" WHERE n <= {rows}",
        "ANALYZE TABLE big",
    )


def desk_of_big(world, directory):
    """A table `big` of 60,000 rows with a string beside the key, and a job in small chunks."""
    world.sql(
        "CREATE TABLE big (id int PRIMARY KEY, name varchar(40) NOT NULL)",
        "CREATE TABLE ten (n int PRIMARY KEY)",
        "INSERT INTO ten VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "INSERT INTO big SELECT 1 + a.n + 10*b.n + 100*c.n + 1000*d.n + 10000*e.n, CONCAT('name ', a.n, RAND())"
        " FROM ten a, ten b, ten c, ten d, ten e WHERE e.n < 6",
    )
    desk = Desk(world, directory)
    desk.write({"big": {"table": "big", "chunk_rows": 1000}})
    return desk
