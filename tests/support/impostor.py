"""Servers that are none: what answers in place of MySQL or Redis says whatever a test has it say."""

import re
import socket
import ssl
import threading
from contextlib import contextmanager, suppress

from loader.lab.process import HOST
from loader.mysql import session

SSL, PLUGIN = 1 << 11, 1 << 19
CAPABILITIES = 0xF7FF | PLUGIN | 1 << 21  # as servers have them, but for TLS
OK = b"\0\0\0\x02\0\0\0"


@contextmanager
def impostor(answer):
    """A port where `answer(connection, heard)` talks to each who connects; and all bytes that were heard there."""
    heard = bytearray()
    listener = socket.create_server((HOST, 0))
    held = []

    def accept():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                connection.settimeout(10)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        with suppress(OSError), connection:
            answer(connection, heard)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()


def packet(number, payload):
    """A packet of MySQL."""
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def text(*cells):
    """Cells of a row, or a list of names."""
    return b"".join(bytes([len(cell)]) + cell for cell in cells)


def greeting(plugin=b"mysql_native_password", *, tls=False):
    """What a server of MySQL says first."""
    capabilities = CAPABILITIES | (SSL if tls else 0)
    low, high = (capabilities & 0xFFFF).to_bytes(2, "little"), (capabilities >> 16).to_bytes(2, "little")
    begins = b"\x0a8.4.0\0\1\0\0\0" + b"12345678" + b"\0" + low + b"\xff\2\0" + high + b"\x15" + b"\0" * 10
    return packet(0, begins + b"abcdefghijkl\0" + plugin + b"\0")


def read(connection, heard):
    """The payload of the next packet, and its number."""
    head = exactly(connection, 4)
    payload = exactly(connection, int.from_bytes(head[:3], "little"))
    heard += head + payload
    return payload, head[3]


def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def logging_in(*answers, hello=None, tls=None):
    """A server that answers to a login packet after packet, be it asked or not."""

    def answer(connection, heard):
        connection.sendall(hello or greeting())
        _, number = read(connection, heard)
        if tls:
            connection = tls.wrap_socket(connection, server_side=True)
            _, number = read(connection, heard)
        with connection:
            for payload in answers:
                connection.sendall(packet(number + 1, payload))
                _, number = read(connection, heard)
            connection.sendall(packet(number + 1, OK))
            while True:
                asked, _ = read(connection, heard)
                connection.sendall(kept(asked) or packet(1, OK))

    return answer


def kept(asked):
    """The answer that the session is as it was set; nothing to another question."""
    if b"@@SESSION.sql_mode," not in asked:
        return b""
    values = [each.value.encode() for each in session.stated(mariadb=False, zone=None, read_timeout=60)]
    return result(text(*values), columns=len(values))


def answering(reply):
    """A server that lets everybody in, does and keeps what it is told to set, and gives its `reply` to all else."""

    def answer(connection, heard):
        connection.sendall(greeting())
        read(connection, heard)
        connection.sendall(packet(2, OK))
        while True:
            asked, _ = read(connection, heard)
            connection.sendall(packet(1, OK) if asked[1:4] == b"SET" else kept(asked) or reply)

    return answer


def saying(first, then=b""):
    """A server that says something first, maybe nothing, and then the same to all that it hears."""

    def answer(connection, heard):
        connection.sendall(first)
        while data := connection.recv(65536):
            heard += data
            connection.sendall(then)

    return answer


def result(*rows, columns=1):
    """What a statement is answered with."""
    named = text(b"def", b"", b"t", b"t", b"c", b"c") + b"\x0c\xff\0\0\1\0\0\xfd\0\0\0\0\0"
    eof = b"\xfe\0\0\2\0"
    payloads = [bytes([columns]), *[named] * columns, eof, *rows, eof]
    return b"".join(packet(number % 256, payload) for number, payload in enumerate(payloads, 1))


def server_tls(pki):
    """How a server shows its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    return context


def speaking_redis(reply):
    """A server that takes a name and a password, says that it is a master, and gives its `reply` to all else."""

    def answer(connection, heard):
        while data := connection.recv(65536):
            heard += data
            for command in re.findall(rb"\*[0-9]+\r\n\$[0-9]+\r\n([A-Z]+)\r\n(?:\$[0-9]+\r\n([A-Z]+))?", data):
                connection.sendall(b"+OK\r\n" if command[1] == b"SETNAME" else reply)

    return answer
