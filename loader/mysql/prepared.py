"""Where the columns of a result come from, as MySQL describes them when it prepares a statement."""

from typing import Any, NamedTuple

from loader.mysql.connection import Connection, understood
from loader.mysql.driver import COMMAND, FieldDescriptorPacket
from loader.mysql.failures import Nonsense

END = 1 + 4  # bytes of the first reply up to the number of columns: a status, and the statement's number


class Origin(NamedTuple):
    """A column of a result: `column` of `table`, which the statement calls `alias`; all empty for an expression."""

    name: str
    database: str
    table: str
    alias: str
    column: str


@understood
def origins(source: Connection, sql: str) -> list[Origin]:
    """The origin of each column of a statement's result; nothing is run.

    The statement must not be in parentheses of another: columns of such a result may be described as those of a table,
    although they are computed.
    """
    with source.cursor() as cursor:
        connection = cursor.connection
        connection._execute_command(COMMAND.COM_STMT_PREPARE, sql)  # noqa: SLF001
        reply = connection._read_packet().get_all_data()  # noqa: SLF001
        if len(reply) < END + 4:
            raise Nonsense("a prepared statement without its numbers")
        statement, columns, parameters = reply[1:END], _number(reply, END), _number(reply, END + 2)
        for count in (parameters, columns):
            found = [connection._read_packet(FieldDescriptorPacket) for _ in range(count)]  # noqa: SLF001
            if count:
                connection._read_packet()  # noqa: SLF001  # the end of their definitions
        connection._execute_command(COMMAND.COM_STMT_CLOSE, statement)  # noqa: SLF001  # which has no reply
    return [_origin(field) for field in found]


def _number(reply: bytes, at: int) -> int:
    return int.from_bytes(reply[at : at + 2], "little")


def _origin(field: Any) -> Origin:
    return Origin(field.name, field.db.decode(errors="replace"), field.org_table, field.table_name, field.org_name)
