"""The variables that each MySQL session sets, so that no result depends on the server's configuration. Pure.

Global variables, `init_connect` and proxies may change a session, mostly silently: rows are left out, or differ.
docs/sessions.md has this table, and says why each other variable is left alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from loader.records import dataclass

MARIADB, MYSQL = "MariaDB", "MySQL"
DAY = "86400"  # seconds: longer than any pause of a run
ALL = str(2**64 - 1)
SYSTEM = "DEFAULT"  # not a text: the server's own keyword
ZONE = "source.time_zone"
HALF = "half of source.read_timeout"  # so that the server stops waiting before it counts as dead
# Errors of SET: the server lacks a variable or its value; the account may not set it.
UNKNOWN, FORBIDDEN = frozenset({1193, 1231, 1273}), frozenset({1227, 1290})


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable, its value, and the effect of another value; for both servers unless it names one.

    `since` is the first version that has it: an older one cannot depend on it. `vital` variables change results: if one
    does not have its value, nothing is read.
    """

    name: str
    value: str
    why: str
    server: str = ""
    since: str = ""
    vital: bool = True

    @property
    def literal(self) -> str:
        """The value as SET accepts it."""
        return self.value if self.value.isdigit() or self.value == SYSTEM else f"'{self.value}'"

    def holds(self, found: str | None) -> bool:
        """Whether a session that reports this has the value."""
        if found is None or self.name == "timestamp":  # it is the time: only SET can tell
            return found is not None
        if self.value.isdigit():
            return found.replace(".", "").isdigit() and float(found) == float(self.value)
        return found.lower() == self.value.lower() or (self.name == "time_zone" and _offset(found) == self.value)


class Astray(NamedTuple):
    """A variable that does not have the value that was set."""

    variable: Variable
    found: str | None

    def __str__(self) -> str:
        return f"{self.variable.name} is {self.found!r}, but {self.variable.value!r} was set"


CUT = "a result is silently truncated"
FAILS = "statements fail"
IDLE = "a pause closes the connection"
WORDS = "text in expressions arrives as other bytes, or compares differently"

STATED = (
    Variable("sql_mode", "ALLOW_INVALID_DATES", "quotes, backslashes, || mean something else; invalid dates in keys"),
    Variable("autocommit", "1", "everything runs in one transaction: old rows, and tables that cannot be altered"),
    Variable("transaction_isolation", "READ-COMMITTED", "uncommitted rows, or reads that lock", MYSQL),
    Variable("tx_isolation", "READ-COMMITTED", "uncommitted rows, or reads that lock", MARIADB),
    Variable("transaction_read_only", "1", "a job's SQL may write", MYSQL),
    Variable("tx_read_only", "1", "a job's SQL may write", MARIADB),
    Variable("sql_select_limit", ALL, CUT),
    Variable("max_join_size", ALL, FAILS),
    Variable("sql_big_selects", "1", FAILS),
    Variable("max_statement_time", "0", f"a chunk whose rows wait for Redis is killed: {FAILS}", MARIADB),
    Variable("max_execution_time", "0", f"a chunk whose rows wait for Redis is killed: {FAILS}", MYSQL),
    Variable("sql_safe_updates", "0", "does not affect reads; set because it comes with sql_select_limit"),
    Variable("sql_auto_is_null", "0", "IS NULL matches another row"),
    Variable("character_set_client", "utf8mb4", WORDS),
    Variable("character_set_results", "utf8mb4", "text arrives as other bytes, or as ?"),
    Variable("collation_connection", "utf8mb4_0900_ai_ci", WORDS, MYSQL, "8.0"),
    Variable("collation_connection", "utf8mb4_general_ci", WORDS, MARIADB, "10.0"),
    Variable("time_zone", ZONE, "TIMESTAMP values are printed differently; the server's zone if the config names none"),
    Variable("timestamp", SYSTEM, "NOW() stands still: increments miss changes", "", "5.7"),
    Variable("max_sort_length", "8192", "keys that begin alike are not sorted", "", "5.7"),
    Variable("group_concat_max_len", str(1 << 30), CUT, "", "5.7"),
    Variable("max_recursive_iterations", str(2**32 - 1), CUT, MARIADB, "10.2"),
    Variable("cte_max_recursion_depth", str(2**32 - 1), FAILS, MYSQL, "8.0"),
    Variable("standard_compliant_cte", "1", "a recursive query returns other rows", MARIADB, "10.2"),
    Variable("div_precision_increment", "4", "quotients have other digits"),
    Variable("windowing_use_high_precision", "1", "sums over windows have other digits", MYSQL, "8.0"),
    Variable("default_week_format", "0", "WEEK() counts differently"),
    Variable("lc_time_names", "en_US", "names of days and months are in another language"),
    Variable("default_regex_flags", "", "REGEXP matches other rows", MARIADB, "10.0"),
    Variable("old_mode", "UTF8_IS_UTF8MB3", "casts of times give other dates; utf8 means utf8mb4", MARIADB, "10.6"),
    Variable("system_versioning_asof", SYSTEM, "rows of the past are read", MARIADB, "10.3"),
    Variable("wsrep_dirty_reads", "0", "a node outside its cluster returns old rows", MARIADB, "10.1"),
    Variable("show_gipk_in_create_table_and_information_schema", "1", "a generated key is hidden", MYSQL, "8.0.30"),
    Variable("wait_timeout", DAY, IDLE, vital=False),
    Variable("net_write_timeout", DAY, f"{IDLE} while rows are in transit", vital=False),
    Variable("net_read_timeout", DAY, f"{IDLE} while a statement is in transit", vital=False),
    Variable("lock_wait_timeout", HALF, "waits for ALTER TABLE for up to a year, or not at all", vital=False),
    Variable("innodb_lock_wait_timeout", HALF, "a job's SQL that locks rows waits too long", "", "5.7", vital=False),
)  # fmt: skip


def stated(*, mariadb: bool, zone: str | None, read_timeout: int) -> tuple[Variable, ...]:
    """The variables of a server, with the values from a source's settings."""
    values = {ZONE: zone, HALF: str(max(1, read_timeout // 2))}
    return tuple(
        Variable(each.name, value, each.why, each.server, each.since, each.vital)
        for each in STATED
        if each.server in {"", MARIADB if mariadb else MYSQL}
        and (value := values.get(each.value, each.value)) is not None
    )


def setting(variables: Sequence[Variable]) -> str:
    """The statement that sets them."""
    return "SET SESSION " + ", ".join(f"{each.name} = {each.literal}" for each in variables)


def asking(variables: Sequence[Variable]) -> str:
    """The statement that reads them back."""
    return "SELECT " + ", ".join(f"@@SESSION.{each.name}" for each in variables)


def astray(variables: Sequence[Variable], found: Sequence[str | None]) -> list[Astray]:
    """Those that do not have their value."""
    return [Astray(*pair) for pair in zip(variables, found, strict=True) if not pair[0].holds(pair[1])]


def _offset(zone: str) -> str:
    """An offset with one digit of hours, as a config may have it."""
    return zone[0] + zone[2:] if zone[1:2] == "0" else zone
