"""The meaning of MySQL's error numbers for a run: whether they are transient, how the run ends, and the fix.

See https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html and
https://mariadb.com/kb/en/mariadb-error-code-reference/: the servers have their own numbers for some cases.
"""

import re
from collections.abc import Mapping

from loader.errors import Kind
from loader.mysql.driver import MySQLError

NO_PROCESS = 1227
NO_DATABASE_RIGHT = 1044


KINDS: Mapping[Kind, frozenset[int]] = {
    Kind.UNAVAILABLE: frozenset({
        1040, 1041, 1042, 1043, 1053, 1077, 1079, 1080, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 3032,  # server
        1205, 1213, 1317, 1412, 1614, 1927, 1969, 3024, 3058, 4031,  # lock wait, deadlock, killed, out of time
        2002, 2003, 2005, 2006, 2012, 2013, 2014, 2027, 2055,  # client side: no server, or it went away
    }),
    Kind.VANISHED: frozenset({1146, 1356}),
    Kind.LIMITED: frozenset({1203, 1226}),
    Kind.ACCESS: frozenset({
        1044, 1045, 1129, 1130, 1142, 1143, 1227, 1251, 1275, 1370, 1524, 1698, 1820, 1862, 3118, 3955, 4150, 4151,
    }),
    Kind.REFUSED: frozenset({1049, 1102, 2026, 2059, 3159}),
}  # fmt: skip
_KIND = {code: kind for kind, codes in KINDS.items() for code in codes}

CHANGED = "give the account caching_sha2_password or mysql_native_password"
HOSTS = "from MySQL 8.4 on TRUNCATE TABLE performance_schema.host_cache, and see max_connect_errors"
# Fixes for someone with the rights; `{account}` is the loader's.
STATEMENTS = {
    1129: "FLUSH HOSTS",
    1130: "CREATE USER {account} IDENTIFIED BY '…'",
    1203: "SET GLOBAL max_user_connections = 0",
    1226: "ALTER USER {account} WITH MAX_USER_CONNECTIONS 0 MAX_QUERIES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0",
    1820: "ALTER USER {account} IDENTIFIED BY '…'",
    1862: "ALTER USER {account} IDENTIFIED BY '…'",
    3118: "ALTER USER {account} ACCOUNT UNLOCK",
    3955: "ALTER USER {account} ACCOUNT UNLOCK",
    4150: "FLUSH PRIVILEGES",
    4151: "ALTER USER {account} ACCOUNT UNLOCK",
}
# Other fixes, or hints.
ADVICE = {
    1044: "GRANT SELECT on it, or see source.url",
    1045: "see the user in source.url, and source.password",
    1049: "see source.url",
    1054: "the table was changed",
    1129: HOSTS,
    1130: "for a host pattern that matches this one, or see source.url",
    1142: "GRANT SELECT on it TO the loader's account",
    1143: "GRANT SELECT on it TO the loader's account",
    1203: "or run fewer jobs, or fewer --workers, at the same time",
    1226: "or run fewer jobs, or fewer --workers, at the same time",
    1969: "see chunk_rows, and max_statement_time of the loader's account",
    2003: "see whether the server runs, and source.url",
    2026: "see source.tls",
    2059: CHANGED,
    3024: "see chunk_rows, and max_execution_time",
    3159: "source: {tls: true}",
    3955: "once source.password is the right one",
    4150: "once source.password is the right one",
}


# PyMySQL's words around the reason that the system gives.
REASON = r"\1"
UNREACHED = re.compile(r"^Can't connect to MySQL server on '[^']*' \((?:\[Errno -?\d+\] )?(.*)\)$")


def kind_of(code: int | None) -> Kind:
    """The kind of an error's number."""
    return _KIND.get(code or 0, Kind.FAULT)


def statement(code: int | None, user: str) -> str:
    """The statement that fixes it, for a user; empty if there is none or it is unknown."""
    return STATEMENTS.get(code or 0, "").format(account=_account(user))


def more_connections(user: str, most: int) -> str:
    """The statement that allows a user this many connections at the same time, whatever max_user_connections is."""
    return f"ALTER USER {_account(user)} WITH MAX_USER_CONNECTIONS {most}"


def replication(user: str) -> str:
    """What lets a user read the binlog."""
    return f"GRANT REPLICATION SLAVE ON *.* TO {_account(user)}"


def advice(code: int | None, user: str) -> str:
    """The fix, for people; empty if unknown."""
    return ", ".join(filter(None, [statement(code, user), ADVICE.get(code or 0, "")]))


def _account(user: str) -> str:
    return "'" + user.replace("'", "''") + "'@'%'"


def code_of(error: BaseException | None) -> int | None:
    """The number of a server's or the client's error; None for any other."""
    code = error.args[0] if error is not None and error.args else None
    return code if isinstance(code, int) else None


def text_of(error: BaseException | None) -> str:
    """An error's text, on one line."""
    if isinstance(error, MySQLError) and len(error.args) > 1:
        code, text = error.args[:2]
        return f"{UNREACHED.sub(REASON, ' '.join(str(text).split()))} ({code})"
    return str(error) or type(error).__name__
