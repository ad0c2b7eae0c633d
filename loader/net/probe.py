"""Finds out what listens at an address after connecting failed: plaintext or TLS, with or without a certificate."""

import socket
import ssl
from contextlib import suppress

from loader.net.greetings import GREETING, HEARD
from loader.net.tls import NO_TLS, UNSHOWN, NoTls, meaning

FIRST_WORD = 1.0  # seconds in which a probed server must send its first bytes


def shake_hands(connection: socket.socket, context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    """Turn a connection into a TLS one; `NoTls` if a silent server answers in plaintext.

    A Redis without TLS takes the first bytes of TLS for an unfinished line, and sends nothing.
    """
    patience = connection.gettimeout()
    wrapped = context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
    try:
        wrapped.settimeout(min(FIRST_WORD, patience or FIRST_WORD))
        try:
            wrapped.do_handshake()
        except TimeoutError:
            if speaks_plain(host, port):
                raise NoTls("it answers in plaintext") from None
            wrapped.settimeout(patience)
            wrapped.do_handshake()
        wrapped.settimeout(patience)
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def overhear(host: str, port: int, patience: float = FIRST_WORD) -> bytes:
    """The first bytes of a plaintext server, whoever speaks first; a unix socket is a path, at port 0."""
    with suppress(OSError), _reach(host, port, patience) as connection:
        connection.sendall(GREETING)
        return connection.recv(HEARD)
    return b""


def _reach(host: str, port: int, patience: float) -> socket.socket:
    if port:
        return socket.create_connection((host, port), patience)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(patience)
        connection.connect(host)
    except BaseException:
        connection.close()
        raise
    return connection


def speaks_plain(host: str, port: int) -> bool:
    """Whether a Redis answers without TLS."""
    with suppress(OSError), socket.create_connection((host, port), FIRST_WORD) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(1) in {b"+", b"-"}
    return False


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server answers under TLS, whatever it then says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), FIRST_WORD) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "") and error.reason not in NO_TLS
    except OSError:
        return False
    return True


def wants_certificate(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Whether a server closes a TLS connection because it wants a certificate that it trusts."""
    try:
        connection = socket.create_connection((host, port), FIRST_WORD)
        with connection, context.wrap_socket(connection, server_hostname=host) as wrapped:
            wrapped.recv(1)  # no data: the reason for closing comes next
    except OSError as error:
        return meaning(error) == UNSHOWN
    return False
