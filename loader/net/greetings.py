"""Recognises other kinds of servers at an address by the first bytes they send. Pure."""

import re

GREETING = b"GET / HTTP/1.0\r\n\r\n"  # even servers that wait for the client answer it; it harms no Redis
HEARD = 64  # bytes that identify a server

MYSQL, REDIS, TLS = "MySQL or MariaDB", "Redis", "a server that speaks TLS from its first byte on"
# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html and …/page_mysqlx_protocol.html
KNOWN = (
    (MYSQL, rb"...\0(\x0a[0-9]|\xff..)"),
    ("MySQL's X protocol (its port is 33060, that of MySQL itself 3306)", rb"...\0\x0b\x08|...\0\x01\x08"),
    ("a MySQL from before 3.22, by its protocol 9", rb"...\0\x09[0-9]"),
    (REDIS, rb"-(ERR|NOAUTH|NOPERM|DENIED|LOADING|MASTERDOWN|MISCONF) "),
    ("an HTTP server", rb"HTTP/[0-9]"),
    ("an SSH server", rb"SSH-[0-9]"),
    ("a mail or FTP server", rb"[2-5][0-9]{2}[ -]|\+OK |\* (OK|BYE)"),
    ("memcached", rb"(CLIENT_|SERVER_)?ERROR\b"),
    ("PostgreSQL", rb"E\0\0..S"),
    ("an AMQP broker", rb"AMQP"),
    (TLS, rb"[\x15\x16]\x03[\0-\x04]"),
)


def speaker(heard: bytes, *meant: str) -> str:
    """The kind of server, if it is another than the expected one; empty if unknown."""
    who = next((who for who, begins in KNOWN if re.match(begins, heard, re.DOTALL)), "")
    return "" if who in meant else who
