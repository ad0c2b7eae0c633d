"""PyMySQL, without `cryptography` until a server asks for a password that is encrypted by its key.

That happens once after each start of a server; importing it takes longer than PyMySQL itself.
"""

import importlib

from loader.imports import without

with without("cryptography"):
    from pymysql import MySQLError, _auth, connections
from pymysql.constants import CLIENT, COMMAND, FIELD_TYPE, FLAG, SERVER_STATUS
from pymysql.converters import conversions
from pymysql.cursors import DictCursor, SSCursor
from pymysql.err import OperationalError
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

__all__ = [
    "CLIENT",
    "COMMAND",
    "FIELD_TYPE",
    "FLAG",
    "SERVER_STATUS",
    "DictCursor",
    "FieldDescriptorPacket",
    "MySQLError",
    "MysqlPacket",
    "OperationalError",
    "SSCursor",
    "_auth",
    "connections",
    "conversions",
]


def _encrypted(password: bytes, salt: bytes, key: bytes) -> bytes:
    """The password, encrypted with a server's key; from now on, PyMySQL does it by itself."""
    importlib.reload(_auth)
    encrypted: bytes = _auth.sha2_rsa_encrypt(password, salt, key)
    return encrypted


_auth.sha2_rsa_encrypt = _encrypted
