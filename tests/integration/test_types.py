"""Every type of column, as a value and as a key: what arrives is what the server itself prints, byte for byte."""

from itertools import zip_longest

import pytest

from loader.mysql.stream import BUFFER
from loader.outcome import Status
from support.database import Ear

BYTES = "X'" + bytes(range(256)).hex() + "'"
PRINTABLE = r"""'a {b} "c" \'d\' `e` \\ % \r\n \t\n'"""  # as MySQL reads it: quotes, a backslash, CRLF, a tab
EMOJI = "'😀 张三丰 é'"
MiB = 2**20
PACKET = 2**24 - 1  # the longest packet of the protocol; what is as long or longer goes on in a next one

# Column type, then values.
TYPES = [
    ("TINYINT", "-128", "0", "127"),
    ("TINYINT UNSIGNED", "0", "255"),
    ("TINYINT(3) UNSIGNED ZEROFILL", "0", "7", "255"),
    ("SMALLINT", "-32768", "32767"),
    ("SMALLINT UNSIGNED", "65535"),
    ("SMALLINT(8) UNSIGNED ZEROFILL", "1", "65535"),
    ("MEDIUMINT", "-8388608", "8388607"),
    ("MEDIUMINT UNSIGNED", "16777215"),
    ("INT", "-2147483648", "2147483647"),
    ("INT UNSIGNED", "4294967295"),
    ("INT(10) ZEROFILL", "0", "42", "4294967295"),
    ("BIGINT", "-9223372036854775808", "9223372036854775807"),
    ("BIGINT UNSIGNED", "0", "9223372036854775808", "18446744073709551615"),
    ("BIGINT(20) ZEROFILL", "1", "18446744073709551615"),
    ("BOOLEAN", "FALSE", "TRUE"),
    ("DECIMAL(5,2)", "1.5", "-0.10", "0", "999.99"),
    ("DECIMAL(65,30)", "0." + "0" * 29 + "1", "-" + "9" * 35 + "." + "9" * 30),
    ("DECIMAL(8,2) ZEROFILL", "3.1"),
    ("FLOAT", "1.1", "-0e0", "3.4e38", "1e-38", "16777217", "0.1"),
    ("DOUBLE", "5e-324", "1e308", "-0e0", "0.1", "1e15", "123456789012345678", "-1.7976931348623157e308"),
    ("DOUBLE(10,3) ZEROFILL", "1.5"),
    ("FLOAT(7,3)", "1.5"),
    ("BIT", "b'0'", "b'1'"),
    ("BIT(10)", "b'1000000001'", "b'0000001010'"),
    ("BIT(64)", "b'" + "1" * 64 + "'", "0"),
    ("DATE", "'0000-00-00'", "'2024-02-29'", "'9999-12-31'", "'2024-00-00'", "'2023-02-31'", "'1000-01-01'"),
    ("TIME", "'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'", "'25:00:00'"),
    ("TIME(6)", "'-00:00:00.000001'", "'12:34:56.5'", "'-837:59:59.999999'"),
    ("DATETIME", "'0000-00-00 00:00:00'", "'2024-02-29 23:59:59'", "'2023-02-31 01:02:03'"),
    ("DATETIME(3)", "'2024-02-29 23:59:59.5'", "'9999-12-31 23:59:59.999'"),
    ("DATETIME(6)", "'2024-02-29 23:59:59.000001'", "'1000-01-01 00:00:00'"),
    ("TIMESTAMP NULL", "'0000-00-00 00:00:00'", "'1970-01-02 00:00:01'", "'2038-01-18 03:14:07'"),
    ("TIMESTAMP(6) NULL", "'2024-03-31 02:30:00.123456'"),
    ("YEAR", "'0000'", "1901", "2155"),
    ("CHAR(20)", "''", "'a  '", "' a'", EMOJI),
    ("CHAR(20) CHARACTER SET latin1", "'é '", "''"),
    ("VARCHAR(50)", "''", "'a  '", "'NULL'", "'\\0\\n'", PRINTABLE, EMOJI),
    ("VARCHAR(300) CHARACTER SET latin1", BYTES, "'ÿ'"),
    ("VARCHAR(20) CHARACTER SET gbk", "'张三丰'", "X'D5C55C'", "''"),
    ("VARCHAR(20) CHARACTER SET utf16", EMOJI),
    ("VARCHAR(20) CHARACTER SET utf8mb3", "'张三丰'"),
    ("VARCHAR(20) COLLATE utf8mb4_bin", "'a'", "'A '"),
    ("TINYTEXT", "''", EMOJI, PRINTABLE),
    ("TEXT", "''", "REPEAT('é', 30000)", PRINTABLE),
    ("TEXT CHARACTER SET latin1", BYTES, f"REPEAT({BYTES}, 255)"),
    ("TEXT CHARACTER SET gbk", "REPEAT('张三丰', 10000)"),
    ("MEDIUMTEXT", "''", "REPEAT('😀', 100000)", PRINTABLE),
    ("LONGTEXT", "''", "REPEAT('😀', 300000)", PRINTABLE),
    ("BINARY(5)", "''", "'a '", "X'00FF0A0D00'"),
    ("BINARY(255)", f"LEFT({BYTES}, 255)"),
    ("VARBINARY(300)", "''", BYTES, "'a '", "X'80FF'"),
    ("TINYBLOB", "''", f"RIGHT({BYTES}, 255)"),
    ("BLOB", "''", BYTES, f"REPEAT({BYTES}, 255)", "REPEAT('x', 250)", "REPEAT('x', 251)", "REPEAT('x', 65535)"),
    ("MEDIUMBLOB", "''", BYTES, f"REPEAT({BYTES}, 256)", "REPEAT('x', 65536)"),
    ("LONGBLOB", "''", BYTES, f"REPEAT({BYTES}, 4000)"),
    ("ENUM('a','','c d','é😀')", "1", "2", "3", "4", "'no such'"),
    ("ENUM('x','{','}')", "2", "3"),
    ("SET('a','b c','é')", "''", "7", "2", "5"),
    ("JSON", """'{"b": 1, "a": [1.0, "é😀", null], "n": 18446744073709551615}'""", "'null'", """'""'""", "'1e3'"),
    ("GEOMETRY", "ST_GeomFromText('POINT(1.5 -2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)"),
    ("POINT", "ST_GeomFromText('POINT(10 13)')"),
    ("LINESTRING", "ST_GeomFromText('LINESTRING(0 0,1 1,2 2)')"),
    ("POLYGON", "ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 10,0 0))')"),
    ("MULTIPOINT", "ST_GeomFromText('MULTIPOINT(0 0,20 20)')"),
    ("MULTILINESTRING", "ST_GeomFromText('MULTILINESTRING((0 0,1 1),(2 2,3 3))')"),
    ("MULTIPOLYGON", "ST_GeomFromText('MULTIPOLYGON(((0 0,3 0,3 3,0 3,0 0)))')"),
    ("GEOMETRYCOLLECTION", "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')"),
]
MARIADB_TYPES = [
    ("INET4", "'0.0.0.0'", "'255.255.255.255'"),
    ("INET6", "'::'", "'2001:db8::ff00:42:8329'", "'::ffff:1.2.3.4'"),
    ("UUID", "'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"),
]
MYSQL_TYPES = [
    ("VECTOR(3)", "TO_VECTOR('[1,-2.5,1e-10]')"),
    ("VARCHAR(20) COLLATE utf8mb4_0900_ai_ci", "'a '"),
]
GENERATED = {
    "on_read": "VARCHAR(80) GENERATED ALWAYS AS (CONCAT('😀', id)) VIRTUAL",
    "on_write": "DECIMAL(20,3) GENERATED ALWAYS AS (id * 1.5) STORED",
    "unseen": "INT(5) ZEROFILL INVISIBLE",
}

NAMES = [
    "a b",
    "back`tick",
    "`",
    "per%cent",
    "%s",
    "select",
    "NULL",
    "current_user",
    "名字",
    "ÀÉÎ",
    'quote\'s "both"',
    "semi;--colon/*",
    "back\\slash",
    "{brace}",
    "1",
    "1+1",
    "x'41'",
    "a.b",
    " leading",
    "@@version",
    "$",
    "n" * 64,
    "字" * 64,
]

WORDS = [
    "'b'",
    "'A'",
    "''",
    "'{x}'",
    "'a b'",
    "' a'",
    r"'a\"\'`\\'",
    r"'a\r\nb'",
    r"'a\tb'",
    r"'a\0b'",
    "'z'",
    "'100%_'",
    "X'5C'",
]
WIDE = [*WORDS, "'é'", "'ss'", "'张三丰'", "'张无忌'", "'中'"]
WIDEST = [*WIDE, "'😀'", "'😁{'"]
DAYS = ["0000-00-00", "0000-01-01", "2023-02-31", "2024-00-00", "2024-02-29", "2024-03-01", "1000-01-01", "9999-12-31"]

# Types of the key's columns, then rows.
WALKED = {
    "tinyint": ["TINYINT", "-128", "-2", "-1", "0", "1", "2", "127"],
    "smallint": ["SMALLINT", "-32768", "-1", "0", "1", "2", "3", "32767"],
    "mediumint": ["MEDIUMINT", "-8388608", "-1", "0", "1", "2", "3", "8388607"],
    "int": ["INT", "-2147483648", "-1", "0", "1", "2", "1000000000", "2147483647"],
    "int unsigned": ["INT UNSIGNED", "0", "1", "2", "3", "2147483648", "4294967294", "4294967295"],
    "bigint": [
        "BIGINT",
        "-9223372036854775808",
        "-9223372036854775807",
        "-9007199254740993",
        "-9007199254740992",
        "-1",
        "0",
        "9007199254740992",
        "9007199254740993",
        "9223372036854775806",
        "9223372036854775807",
    ],
    "bigint unsigned": [
        "BIGINT UNSIGNED",
        "0",
        "1",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "9223372036854775809",
        "18446744073709551613",
        "18446744073709551614",
        "18446744073709551615",
    ],
    "zerofill": ["SMALLINT(8) UNSIGNED ZEROFILL", "0", "1", "7", "8", "9", "10", "65535"],
    "bigint zerofill": ["BIGINT(20) ZEROFILL", "0", "1", "8", "9", "18446744073709551614", "18446744073709551615"],
    "decimal": ["DECIMAL(6,3)", "-999.999", "-1.5", "-0.001", "0", "0.001", "1.5", "999.999"],
    "decimal(65)": ["DECIMAL(65,30)", *[sign + "9" * 35 + "." + "9" * 29 + d for sign in ("-", "") for d in "1234"]],
    "decimal zerofill": ["DECIMAL(6,2) ZEROFILL", "0", "1", "1.01", "8", "9.99", "10", "9999.99"],
    "char": ["CHAR(10)", *WIDEST],
    "varchar utf8mb4_general_ci": ["VARCHAR(10) COLLATE utf8mb4_general_ci", *WIDEST[:-1]],  # all emoji are equal
    "varchar utf8mb4_unicode_520_ci": ["VARCHAR(10) COLLATE utf8mb4_unicode_520_ci", *WIDEST],
    "varchar utf8mb4_bin": ["VARCHAR(10) COLLATE utf8mb4_bin", *WIDEST, "'a'", "'B'"],
    "varchar latin1_swedish_ci": ["VARCHAR(10) CHARACTER SET latin1", *WORDS, "'é'", "'ö'", "'ÿ'"],
    "varchar latin1_german2_ci": ["VARCHAR(10) COLLATE latin1_german2_ci", *WORDS, "'é'", "'ö'", "'ßx'"],
    "varchar latin1_bin": ["VARCHAR(10) COLLATE latin1_bin", *WORDS, "'é'", "X'80'", "X'FF'"],
    "varchar gbk_chinese_ci": ["VARCHAR(10) CHARACTER SET gbk", *WORDS, "'张三丰'", "'张无忌'", "'中'", "X'D55C'"],
    "varchar utf16": ["VARCHAR(10) CHARACTER SET utf16", *WIDE[:13], *WIDE[14:]],
    "varchar utf8mb3": ["VARCHAR(10) CHARACTER SET utf8mb3", *WIDE],
    "binary": ["BINARY(3)", "''", "X'00FF'", "X'FF'", "'a'", "'A'", "' '", "X'0A0D0A'", "X'7F80FF'"],
    "varbinary": ["VARBINARY(3)", "''", *[f"X'{byte:02X}'" for byte in range(256)], "X'0000'", "X'2000'"],
    "date": ["DATE", *[f"'{day}'" for day in DAYS]],
    "datetime": ["DATETIME", *[f"'{day} 00:00:00'" for day in DAYS], "'2023-02-31 00:00:01'"],
    "datetime(6)": [
        "DATETIME(6)",
        *[f"'{day} 23:59:59.{fraction}'" for day in DAYS for fraction in ("000000", "000001", "999999")],
    ],
    "time": [
        "TIME",
        "'-838:59:59'",
        "'-24:00:00'",
        "'-00:00:01'",
        "'00:00:00'",
        "'00:00:01'",
        "'99:00:00'",
        "'838:59:59'",
    ],
    "time(6)": ["TIME(6)", *[f"'{h}:59:59.{f}'" for h in ("-837", "-00", "00", "25", "837") for f in ("000001", "5")]],
    "year": ["YEAR", "'0000'", "1901", "1969", "1970", "2000", "2001", "2069", "2155"],
    "enum": ["ENUM('z','b','a','10','9','{',' ')", "'no such'", "1", "2", "3", "4", "5", "6"],
    "set": ["SET('z','b','a','{')", *map(str, range(16))],
    "set of 53": [
        "SET(" + ",".join(f"'m{n}'" for n in range(53)) + ")",
        *map(str, (0, 1, 2, 3, 2**52, 2**53 - 2, 2**53 - 1)),
    ],
    "bit": ["BIT(10)", *[f"b'{n:b}'" for n in (0, 1, 2, 10, 13, 255, 256, 512, 1023)]],
    "bit(64)": [
        "BIT(64)",
        *[f"b'{n:b}'" for n in (0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1)],
    ],
    "boolean": ["BOOLEAN", "FALSE", "TRUE", "2"],
    "composite": [
        "INT|VARCHAR(5)|DATE",
        *[f"{n}|{word}|'{day}'" for n in (-1, 0) for word in ("'a'", "''", "'Z z'") for day in DAYS[1:4]],
    ],
    "composite with zerofill": [
        "INT(4) ZEROFILL|VARBINARY(2)|DECIMAL(4,2)",
        *[f"{n}|{word}|{d}" for n in (7, 8, 10) for word in ("X'00'", "X'FF00'") for d in ("-1.5", "0", "1.25")],
    ],
    "composite of five": [
        "TINYINT|ENUM('b','a')|BIT(2)|YEAR|TIME(1)",
        *[
            f"{n}|{e}|{b}|{y}|'{t}'"
            for n in (0, 1)
            for e in (1, 2)
            for b in (0, 3)
            for y in (1999, 2001)
            for t in (-1, 1)
        ],
    ],
}
WALKED_ON_MARIADB = [
    ["VARCHAR(10) COLLATE utf8mb4_nopad_bin", *WIDEST, "'a'", "'a '", "'a  '", "'b '"],
    ["INET6", "'::'", "'::1'", "'::ffff:1.2.3.4'", "'2001:db8::1'", "'2001:db8::a'", "'ff::'", "'9::'"],
    ["INET4", "'0.0.0.0'", "'9.0.0.0'", "'10.0.0.0'", "'100.0.0.0'", "'127.0.0.1'", "'255.255.255.255'"],
    ["UUID", *[f"'{d * 8}-{d * 4}-1{d * 3}-8{d * 3}-{e * 12}'" for d in "09af" for e in "19"]],
]
WALKED_ON_MYSQL = [
    ["VARCHAR(10) COLLATE utf8mb4_0900_ai_ci", *WIDEST, "'b '", "'b  '", "'z '"],
    ["VARCHAR(10) COLLATE utf8mb4_0900_bin", *WIDEST, "'a'", "'a '", "'a  '", "'b '"],
    ["VARCHAR(10) COLLATE utf8mb4_0900_as_cs", *WIDEST, "'a'", "'a '", "'B'"],
    ["VARCHAR(10) CHARACTER SET gb18030", *WIDEST],
]

IN_ONE_PASS = {
    "float": ("FLOAT", "1.1", "0.1", "-0.1", "1e-38", "3.4e38", "16777216", "0"),
    "double": ("DOUBLE", "1.1", "0.1", "-0.1", "5e-324", "1e308", "9007199254740993", "0"),
    "set of 64": (
        "SET(" + ",".join(f"'m{n}'" for n in range(64)) + ")",
        *map(str, (0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1)),
    ),
    "timestamp": ("TIMESTAMP", *[f"'2024-10-27 0{hour}:30:00'" for hour in range(7)]),
    "prefix": ("BLOB", "'a'", "'b'", "'c'", "''", "X'00'", "X'FF'", "X'0D0A'"),
}


def name(text):
    return "`" + text.replace("`", "``") + "`"


def fill(world, table, columns, rows):
    for row in rows:
        world.sql(f"INSERT INTO {table} ({', '.join(map(name, columns))}) VALUES ({', '.join(row)})")


def as_printed(world, table, columns, ids):
    """What the client prints of each row, by field: the hashes to expect."""
    cells = [(number, column) for number in ids for column in columns]
    values = world.printed([f"SELECT {name(column)} FROM {table} WHERE n = {number}" for number, column in cells])
    rows = {number: {} for number in ids}
    for (number, column), value in zip(cells, values, strict=True):
        if value is not None:
            rows[number][column.encode()] = value
    return rows


def test_every_type(world):
    """A field is what the client prints of it, of every type, generated or not; a NULL is no field."""
    own = MARIADB_TYPES if world.is_mariadb else MYSQL_TYPES
    types = {f"c{number}": types for number, types in enumerate([*TYPES, *own])}
    columns = [*types, *GENERATED]
    definitions = [f"{column} {kind}" for column, (kind, *_) in types.items()]
    generated = [f"{column} {kind.replace('id', 'n')}" for column, kind in GENERATED.items()]
    world.sql(f"CREATE TABLE t (n INT PRIMARY KEY, {', '.join([*definitions, *generated])})")
    rows = list(zip_longest(*[values for _, *values in types.values()], fillvalue="NULL"))
    ids = range(1, len(rows) + 2)  # one more, of NULLs
    fill(world, "t", ["n", *types], [(str(n), *row) for n, row in zip(ids, rows, strict=False)])
    world.sql(f"INSERT INTO t (n) VALUES ({ids[-1]})")
    world.sql("UPDATE t SET unseen = n WHERE n < 3")

    run = world.sync(table="t", fields=columns)

    printed = as_printed(world, "t", columns, ids)
    assert (run.status, run.error) == (Status.OK, None)
    assert run.read == run.written == len(ids)
    assert world.hashes() == {b"t_%d" % number: fields for number, fields in printed.items()}
    assert printed[ids[-1]].keys() == {b"on_read", b"on_write"}
    assert all(column.encode() in printed[1] for column in columns)


def test_an_invisible_column_is_left_out(world):
    """Unless it is named, a column that `SELECT *` leaves out is no field."""
    world.sql("CREATE TABLE t (n INT PRIMARY KEY, a INT, b INT INVISIBLE)", "INSERT INTO t (n, a, b) VALUES (1, 2, 3)")

    world.sync(table="t")

    assert world.hashes() == {b"t_1": {b"n": b"1", b"a": b"2"}}


def test_every_name(world):
    """A column may have any name, in the key and in the fields; a field has the column's name."""
    world.sql(
        f"CREATE TABLE `{{t}} %` (n INT, {', '.join(f'{name(c)} VARCHAR(9)' for c in NAMES)},"
        f" PRIMARY KEY ({', '.join(name(c) for c in NAMES[:10])}))"
    )
    rows = [[f"'{n}.{column}'" for column in range(len(NAMES))] for n in range(5)]
    fill(world, "`{t} %`", ["n", *NAMES], [(str(n), *row) for n, row in enumerate(rows)])

    run = world.sync(table="{t} %", chunk_rows=2)

    assert run.error is None
    assert run.chunks == 3
    assert world.hashes() == {
        "_".join(["{t} %", *[f"{n}.{column}" for column in range(10)]]).encode(): {b"n": b"%d" % n}
        | {column.encode(): f"{n}.{place}".encode() for place, column in enumerate(NAMES)}
        for n in range(5)
    }


def walk(world, types, *rows):
    """Sync a table of these rows, with a key of these types, two rows at a time."""
    columns = [f"k{number}" for number, _ in enumerate(types.split("|"))]
    definitions = [f"{column} {kind} NOT NULL" for column, kind in zip(columns, types.split("|"), strict=True)]
    world.sql(f"CREATE TABLE t (n INT NOT NULL, {', '.join(definitions)}, PRIMARY KEY ({', '.join(columns)}))")
    fill(world, "t", ["n", *columns], [(str(n), *row.split("|")) for n, row in enumerate(rows)])
    ear = Ear()

    run = world.sync(ear, table="t", chunk_rows=2)

    printed = as_printed(world, "t", ["n", *columns], range(len(rows)))
    expected = {b"_".join([b"t", *[row[c.encode()] for c in columns]]): row for row in printed.values()}
    assert (run.status, run.error) == (Status.OK, None)
    assert run.read == run.written == len(expected) == len(rows)
    assert {event.chunk.number: event.read for event in ear.events} == dict(
        enumerate([2] * (len(rows) // 2) + [len(rows) % 2], 1)
    )
    assert world.hashes() == expected


@pytest.mark.parametrize("case", WALKED)
def test_walked_keys(world, case):
    """A table is walked along a key of this type, and every row arrives once, under the key that the client prints."""
    walk(world, *WALKED[case])


def test_walked_keys_that_one_server_has(world):
    """Types and collations that only MariaDB or only MySQL has are walked as all others."""
    for case in WALKED_ON_MARIADB if world.is_mariadb else WALKED_ON_MYSQL:
        walk(world, *case)
        world.sql("DROP TABLE t")
        world.clear()


@pytest.mark.parametrize("case", IN_ONE_PASS)
def test_keys_that_are_not_walked(world, case):
    """A table is read in one pass whose key has no exact literal, an hour twice, two orders, or is a prefix."""
    kind, *values = IN_ONE_PASS[case]
    length = "(5)" if kind == "BLOB" else ""
    world.sql(f"CREATE TABLE t (n INT NOT NULL, k {kind} NOT NULL, PRIMARY KEY (k{length}))")
    fill(world, "t", ["n", "k"], [(str(n), value) for n, value in enumerate(values)])

    run = world.sync(table="t", key="t_{k}", chunk_rows=2)

    printed = as_printed(world, "t", ["n", "k"], range(7))
    assert (run.error, run.chunks, run.read) == (None, 1, 7)
    assert world.hashes() == {b"t_" + row[b"k"]: row for row in printed.values()}


@pytest.mark.parametrize(
    ("key", "chunks"),
    [
        ("", 1),
        ("KEY (n)", 1),
        ("UNIQUE KEY (n)", 1),
        ("UNIQUE KEY (m)", 4),
        ("PRIMARY KEY (f), UNIQUE KEY (m)", 4),
        ("UNIQUE KEY (s(3)), UNIQUE KEY (m, s)", 4),
    ],
)
def test_other_keys(world, key, chunks):
    """Without a usable primary key a unique one without NULLs is walked; without that the table is read in one pass."""
    comma = ", " if key else ""
    world.sql(
        f"CREATE TABLE t (n INT, m INT NOT NULL, s VARCHAR(9) NOT NULL, f FLOAT NOT NULL{comma}{key})",
        "INSERT INTO t VALUES " + ",".join(f"({n or 'NULL'}, {-n}, 's {n}', {n}.5)" for n in range(7)),
    )

    run = world.sync(table="t", key="t_{m}", fields=["s", "f"], chunk_rows=2)

    assert (run.error, run.read, run.written, run.chunks) == (None, 7, 7, chunks)
    assert world.hashes() == {b"t_%d" % -n: {b"s": b"s %d" % n, b"f": b"%d.5" % n} for n in range(7)}


def test_a_view(world):
    """A view is read in one pass, and its expressions are values like others."""
    world.sql(
        "CREATE TABLE t (n INT(3) ZEROFILL PRIMARY KEY, s VARCHAR(9))",
        "INSERT INTO t VALUES " + ",".join(f"({n}, 'é{n}')" for n in range(7)),
        "CREATE VIEW v AS SELECT n, UPPER(s) AS big, n / 3 AS third FROM t WHERE n > 0",
    )

    run = world.sync(table="v", key="v:{n}", chunk_rows=2)

    assert (run.error, run.read, run.chunks) == (None, 6, 1)
    thirds = [b"0.3333", b"0.6667", b"1.0000", b"1.3333", b"1.6667", b"2.0000"]
    assert world.hashes() == {
        b"v:%03d" % n: {b"n": b"%03d" % n, b"big": f"É{n}".encode(), b"third": third}
        for n, third in enumerate(thirds, 1)
    }


def test_a_query(world):
    """A query's columns are fields, expressions and a join included; it is read in one pass."""
    world.sql(
        "CREATE TABLE t (n INT(3) ZEROFILL PRIMARY KEY, s VARCHAR(9))",
        "INSERT INTO t VALUES " + ",".join(f"({n}, 's{n}')" for n in range(7)),
    )
    query = "SELECT a.n, b.s, NULL AS nothing, '{}%' AS `x y` FROM t a JOIN t b ON b.n = 6 - a.n ORDER BY a.n"

    run = world.sync(query=query, key="q{{{n}}}", chunk_rows=2)

    assert (run.error, run.read, run.chunks) == (None, 7, 1)
    assert world.hashes() == {
        b"q{%03d}" % n: {b"n": b"%03d" % n, b"s": b"s%d" % (6 - n), b"x y": b"{}%"} for n in range(7)
    }


@pytest.mark.parametrize("kind", ["LONGBLOB", "LONGTEXT"])
def test_long_values(world, kind):
    """Values around and above the protocol's 16 MiB packets arrive whole, first or last in their row."""
    pattern = bytes(range(32, 127)) * 10 + b"\r\n"
    around = [k * PACKET + d - (6 if k == 1 else 11) for k in (1, 2) for d in (-1, 0, 1)]  # where a row fills packets
    sizes = [16 * MiB - 1, 16 * MiB, 16 * MiB + 5, 20 * MiB, *around]
    world.sql(f"CREATE TABLE t (n INT PRIMARY KEY, v {kind})")
    for n, size in enumerate(sizes):
        world.sql(
            "INSERT INTO t VALUES (%s, LEFT(REPEAT(%s, %s), %s))",
            args=(n, pattern.decode(), size // len(pattern) + 1, size),
        )
    values = [(pattern * (size // len(pattern) + 1))[:size] for size in sizes]

    last = world.sync(table="t", fields=["v"])
    first = world.sync(query="SELECT v, n FROM t", key="first_{n}", fields=["v"])

    assert (last.error, last.read, first.error, first.read) == (None, len(sizes), None, len(sizes))
    for n, value in enumerate(values):
        for prefix in ("t", "first"):
            found = world.redis.hgetall(f"{prefix}_{n}")
            assert (n, found.keys(), len(found[b"v"])) == (n, {b"v"}, len(value))
            assert found[b"v"] == value


@pytest.mark.parametrize("end", [0, 40])
def test_rows_as_long_as_a_buffer(world, end):
    """Rows that nearly fill or just overflow the buffer they are read into arrive, the last one too."""
    sizes = [BUFFER + d for d in [*range(-9000, 9000, 1111), *range(-20 + end, 20 + end, 3)]]
    world.sql("CREATE TABLE t (n INT PRIMARY KEY, v MEDIUMBLOB)")
    for n, size in enumerate(sizes):
        world.sql("INSERT INTO t VALUES (%s, REPEAT('v', %s))", args=(n, size))

    together = world.sync(table="t", fields=["v"])
    apart = world.sync(table="t", key="apart_{n}", fields=["v"], chunk_rows=1)

    assert (together.error, together.read, apart.error, apart.read) == (None, len(sizes), None, len(sizes))
    lengths = {f"{prefix}_{n}".encode(): size for n, size in enumerate(sizes) for prefix in ("t", "apart")}
    assert {key: len(row[b"v"]) for key, row in world.hashes().items()} == lengths


def test_rows_of_several_long_values(world):
    """A row of 49 MiB arrives whole, and so do the short rows before and after it."""
    world.sql(
        "CREATE TABLE t (n INT PRIMARY KEY, a LONGBLOB, b LONGBLOB, c LONGTEXT, d LONGBLOB)",
        "INSERT INTO t VALUES (1, '1', '2', '3', '4'), (3, NULL, '', '3', NULL)",
        "INSERT INTO t VALUES (2, REPEAT('a', 10485760), REPEAT(X'00FF', 10485760), REPEAT('c', 16777216), 'd')",
        "UPDATE t SET d = REPEAT('d', 13631488) WHERE n = 2",
    )

    run = world.sync(table="t")

    sizes = {b"a": 10 * MiB, b"b": 10 * MiB, b"c": 16 * MiB, b"d": 13 * MiB}
    row = {field: (b"\0\xff" if field == b"b" else field) * size for field, size in sizes.items()}
    found = world.hashes()
    assert (run.error, run.read) == (None, 3)
    assert {field: len(value) for field, value in found[b"t_2"].items()} == {
        field: len(value) for field, value in ({b"n": b"2"} | row).items()
    }
    assert found[b"t_2"] == {b"n": b"2"} | row
    assert found[b"t_1"] == {b"n": b"1", b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"}
    assert found[b"t_3"] == {b"n": b"3", b"b": b"", b"c": b"3"}
