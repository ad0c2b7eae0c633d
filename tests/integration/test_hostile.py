"""Servers that want what is not theirs, or are none: they get no password, and one line tells of them."""

import hashlib
import json
import re
from collections import deque
from types import SimpleNamespace

import pytest
import redis
from nacl import bindings

from loader.config.load import Config
from loader.errors import LoaderError
from loader.model import Batch
from loader.mysql import catalog, transactions
from loader.mysql.connection import Connection
from loader.redis.acl import REDIS_RIGHTS
from loader.redis.client import RedisClient
from loader.redis.errors import NAMELESS
from loader.redis.writer import _count, _Sent
from loader.state.lock import Lock
from loader.web.health import Health
from support.command import HOST, MYSQL_PASSWORD, finish, redis_server, start
from support.impostor import (
    OK,
    answering,
    greeting,
    impostor,
    logging_in,
    packet,
    result,
    saying,
    server_tls,
    speaking_redis,
    text,
)
from support.pki import tls_options

SWITCH = b"\xfe%b\0abcdefghijklmnopqrst\0"
CACHED = b"caching_sha2_password"


def settings(port=1, target=1, **source):
    url = f"mysql://u@{HOST}:{port}/d"
    return Config.model_validate(
        {
            "version": 1,
            "source": {"url": url, "password": MYSQL_PASSWORD, "read_timeout": "5s"} | source,
            "target": {"url": f"redis://{HOST}:{target}", "timeout": "5s"},
            "jobs": {"stu": {"table": "stu"}},
        }
    )


def refusal(port, ask=lambda source: None, **source):
    """What comes of asking what answers at a port for MySQL."""
    with pytest.raises(LoaderError) as raised, Connection(settings(port, **source).source) as opened:
        ask(opened)
    assert "\n" not in str(raised.value)
    return raised.value


# the password


@pytest.mark.parametrize("way", [b"mysql_clear_password", b"dialog", b"sha256_password", b"mysql_old_password"])
@pytest.mark.parametrize("first", [False, True], ids=["switched to", "from the start"])
def test_a4_the_password_itself_is_asked_for(way, first):
    """Who asks for the password gets none, whenever it asks; the way and what to do are named."""
    hello = greeting(way) if first else None
    with impostor(logging_in(SWITCH % way, b"\1anything", hello=hello)) as (port, heard):
        error = refusal(port)

    assert way.decode() in str(error)
    assert (error.exit_code, error.transient) == (2, False)
    assert MYSQL_PASSWORD.encode() not in heard


@pytest.mark.parametrize("way", [b"mysql_clear_password", b"sha256_password"])
def test_the_password_under_tls(pki, way):
    """Under TLS it is given to a server that is verified, and to no other."""
    answer = logging_in(SWITCH % way, hello=greeting(way, tls=True), tls=server_tls(pki))
    with impostor(answer) as (port, heard):
        error = refusal(port, tls=True, tls_verify=False)
        assert (error.exit_code, MYSQL_PASSWORD.encode() in heard) == (2, False)
        Connection(settings(port, tls=True, tls_ca=str(pki / "ca.crt")).source).close()
        assert MYSQL_PASSWORD.encode() in heard


def test_allow_cleartext():
    """A config may have it given to anybody."""
    with impostor(logging_in(SWITCH % b"mysql_clear_password")) as (port, heard):
        Connection(settings(port, allow_cleartext=True).source).close()

    assert MYSQL_PASSWORD.encode() in heard


def test_a_key_that_nothing_vouches_for(monkeypatch):
    """From elsewhere the server's own key for the password is not taken: TLS, or a key in a file, is asked for."""
    monkeypatch.setattr("loader.mysql.login.LoginConnection.is_near", False)
    with impostor(logging_in(b"\1\4", b"\1no key", hello=greeting(CACHED))) as (port, heard):
        error = refusal(port)

    assert error.exit_code == 2
    assert "source.server_public_key" in str(error)
    assert b"\2" not in heard[-1:]  # by which it is asked for its key


# what no server says


X = b"\x05\0\0\0\x0b\x08\x05\x1a\0"
HTTP = saying(b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
SSH = saying(b"SSH-2.0-OpenSSH_9.2p1\r\n")
MEMCACHED = saying(b"", b"ERROR\r\n")
SOURCES = {
    "HTTP": (HTTP, ", but an HTTP server: see source.url"),
    "SSH": (SSH, ", but an SSH server: "),
    "mail": (saying(b"220 mail.example ESMTP\r\n"), ", but a mail or FTP server: "),
    "Redis": (saying(b"", b"-NOAUTH Authentication required.\r\n"), ", but Redis: "),
    "memcached": (MEMCACHED, ", but memcached: "),
    "TLS": (saying(b"", b"\x15\x03\x01\0\x02\x02\x46"), ", but a server that speaks TLS from its first byte on: "),
    "X protocol": (saying(X), ", but MySQL's X protocol (its port is 33060, that of MySQL itself 3306): "),
    "protocol 9": (saying(packet(0, b"\x093.21.33\0\1\0\0\0abcdefgh\0")), ", but a MySQL from before 3.22, "),
    "empty packet": (saying(packet(0, b"")), " (an unreadable packet, IndexError): see source.url"),
    "half a greeting": (saying(packet(0, greeting()[4:20])), " (an unreadable packet, error): see source.url"),
    "noise": (saying(b"\xde\xad\xbe\xef" * 8), " (Packet sequence number wrong - got 239 expected 0): see source.url"),
}
TARGETS = {
    "HTTP": (HTTP, ", but an HTTP server: see target.url"),
    "SSH": (SSH, ", but an SSH server: "),
    "memcached": (MEMCACHED, ", but memcached: "),
    "MySQL": (saying(greeting(), packet(1, b"\xff\x15\x04#28000no")), ", but MySQL or MariaDB: "),
    "X protocol": (saying(X), ", but MySQL's X protocol "),
    "noise": (saying(b"\xde\xad\xbe\xef" * 8), ' (Protocol error, got "\\xde" as reply type byte): see target.url'),
}


@pytest.mark.parametrize(("answer", "who"), SOURCES.values(), ids=SOURCES.keys())
def test_a9_no_mysql(monkeypatch, answer, who):
    """Who answers in place of MySQL is named, and is a fault of the url."""
    monkeypatch.setattr("loader.mysql.login.FIRST_WORD", 0.05)
    with impostor(answer) as (port, _):
        error = refusal(port)

    assert str(error).startswith(f"mysql {HOST}:{port}: cannot connect: no MySQL server answers there{who}")
    assert (error.exit_code, error.transient) == (2, False)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(("answer", "who"), TARGETS.values(), ids=TARGETS.keys())
def test_a9_no_redis(monkeypatch, answer, who, tls):
    """Who answers in place of Redis is named, and is a fault of the url; whether TLS is asked for or not."""
    if tls and who.startswith(" ("):
        who = ""
    with impostor(answer) as (port, _):
        config = settings(target=port).target
        url = config.url.__class__(HOST, port, None, "0", None, tls=tls)
        with pytest.raises(LoaderError) as raised:
            RedisClient(config.model_copy(update={"url": url}))

    error = raised.value
    assert str(error).startswith(f"redis {HOST}:{port}: no Redis server answers there{who}" if who else "redis ")
    assert (error.exit_code, error.transient) == (2, False)


def test_a9_nobody_speaks(monkeypatch):
    """A connection that is closed without a word may be open again later, on both sides."""
    with impostor(lambda *_: None) as (port, _):
        error = refusal(port)
        with pytest.raises(LoaderError) as raised:
            RedisClient(settings(target=port).target)

    assert "cannot connect: the connection was closed without an answer: see source.url" in str(error)
    assert [(each.exit_code, each.transient) for each in (error, raised.value)] == [(4, True)] * 2


def test_a_greeting_that_ends():
    """A server that goes away in mid-greeting is told of as one that went away."""
    with impostor(lambda connection, _: connection.sendall(greeting()[:20])) as (port, _):
        error = refusal(port)

    assert str(error).endswith("(2013): see whether the server runs, and source.url")
    assert (error.exit_code, error.transient) == (4, True)


def test_ed25519():
    """MariaDB's ed25519 signs what the server says, by a key that comes of the password."""
    nonce, clamp = bytes(range(32)), bytearray(hashlib.sha512(MYSQL_PASSWORD.encode()).digest()[:32])
    clamp[0], clamp[31] = clamp[0] & 248, clamp[31] & 63 | 64
    public = bindings.crypto_scalarmult_ed25519_base_noclamp(bytes(clamp))
    with impostor(logging_in(b"\xfeclient_ed25519\0" + nonce)) as (port, heard):
        Connection(settings(port).source).close()

    (signature,) = re.findall(rb"\x40\0\0\x03(.{64})", bytes(heard), re.DOTALL)
    assert bindings.crypto_sign_open(signature + nonce, public) == nonce


COMMANDS = ["sync stu", "verify stu", "doctor", "init", "status"]


def test_a9_every_command(tmp_path):
    """Whatever is typed, who answers in place of a server is told of in a line, with the exit code of the case."""
    with impostor(HTTP) as (port, _):
        source, target = f"mysql://u@{HOST}:{port}/d", f"redis://{HOST}:{port}"
        config = {"version": 1, "source": {"url": source}, "target": {"url": target}, "jobs": {"stu": {"table": "stu"}}}
        (tmp_path / "loader.yaml").write_text(json.dumps(config))
        more = {"init": ["--source", source, "--target", target, "--table", "stu", "--output", "new.yaml"]}
        begun = {words: start(*words.split(), *more.get(words, []), cwd=tmp_path) for words in COMMANDS}
        done = {words: finish(process) for words, process in begun.items()}

    assert {words: each.code for words, each in done.items()} == dict.fromkeys(begun, 2) | {"doctor": 3}
    assert [
        words for words, each in done.items() if "an HTTP server" not in " ".join((each.out + each.err).split())
    ] == []


def test_readiness_of_what_nobody_thought_of(monkeypatch):
    """Whatever comes of asking a server, it is a reason not to be ready."""
    with impostor(HTTP) as (port, _):
        config = settings(port, port)
        assert sorted(each.partition(" ")[0] for each in Health([config.source], config.target).reasons()) == [
            "mysql",
            "redis",
        ]

    def crash(*_):
        raise IndexError("index out of range")

    monkeypatch.setattr("loader.web.health.Connection", crash)
    monkeypatch.setattr("loader.web.health.RedisClient", crash)
    assert Health([config.source], config.target).reasons() == ["IndexError: index out of range"] * 2


NONSENSE = {
    "nothing": packet(1, b""),
    "half an error": packet(1, b"\xff\x15"),
    "no number": packet(9, b"\1"),
    "OK": packet(1, OK),
    "endless cell": result(b"\xfe" + b"\xff" * 8),
    "few cells": result(text(b"a"), columns=3),
    "no cells": result(b""),
    "half an end": result(text(b"1"))[:-9] + packet(5, b"\xfe"),
}
ASKED = {
    "table": lambda source: catalog.table(source, "stu"),
    "definition": lambda source: catalog.definition(source, "stu"),
    "oldest writer": transactions.oldest_writer,
    "listing": catalog.listing,
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE.keys())
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_answers_without_sense(asked, reply):
    """Whatever is asked, an answer that MySQL does not give is one line."""
    with impostor(answering(reply)) as (port, _):
        error = refusal(port, asked)

    assert "the answer does not come from MySQL (" in str(error)
    assert error.exit_code == 1


def test_a_file_is_asked_for():
    """LOAD DATA LOCAL, in place of an answer, gets no file."""
    with impostor(answering(packet(1, b"\xfb/etc/hostname"))) as (port, heard):
        error = refusal(port, ASKED["table"])

    assert "asks for a file of this machine (LOAD DATA LOCAL), which is refused" in str(error)
    assert b"/etc" not in heard


def test_a_row_that_ends_without_sense():
    """The packet behind the last row is looked at too, and leaves nothing behind to wait for."""
    with impostor(answering(NONSENSE["half an end"])) as (port, _), Connection(settings(port).source) as source:
        stream = source.stream("SELECT 1")
        stream.fill(0)
        stream.start += 6
        with pytest.raises(LoaderError, match="the answer does not come from MySQL"):
            stream.finish()


REPLIES = [
    b":1", b"+OK", b"$-1", b"*-1", b"*0", b"*1\r\n:1", b"-", b"-MOVED", b"-MOVED 5 x", b"-ASK 5 h:99999999",
    b"$5\r\nhello", b"%1\r\n+a\r\n:1", b",1.5", b"#t", b":99999999999999999999", b"HTTP/1.1 400 Bad Request\r\n",
]  # fmt: skip


def outcome(target, *words):
    try:
        return target.ask(b"k", *words)
    except LoaderError as error:
        return error


@pytest.mark.parametrize("reply", REPLIES)
def test_replies_without_sense(reply):
    """Whatever a Redis that is none replies, to whatever it is asked, each command ends in one kind of error."""
    asked = [("HGETALL", "k"), ("GET", "k"), ("TIME",), ("SCAN", 0), ("CLUSTER", "SLOTS"), ("INFO",), ("TTL", "k")]
    with impostor(speaking_redis(reply + b"\r\n")) as (port, _):
        config = settings(target=port).target.model_copy(update={"cluster": False})
        with RedisClient(config) as target:
            outcomes = [outcome(target, *words) for words in asked]
            assert sum(isinstance(each, LoaderError) for each in outcomes) >= len(asked) - 4
            assert [each for each in outcomes if "\n" in str(each)] == []
            with pytest.raises(LoaderError):
                Lock(config, "stu", "run").take(target)


def test_an_error_that_says_nothing():
    """An empty error is one: its row is not written."""
    link = SimpleNamespace(tail=b"", awaited=deque([_Sent(Batch(b"", 1, 1), 1)]))
    (sent,) = _count(link, b"-\r\n")

    assert sent.refused == {0: NAMELESS}


def test_a_terminal_is_not_steered(tmp_path):
    """What a server says is shown with what steers a terminal written out, in text and in JSON."""
    denied = b"\xff\x15\x04#28000\x1b]0;title\x07 \xc2\x9b31m\x7f"
    (tmp_path / "loader.yaml").write_text("")
    with impostor(logging_in(denied)) as (port, _):
        url = f"mysql://u@{HOST}:{port}/d"
        (tmp_path / "loader.yaml").write_text(
            f'version: 1\nsource: {{url: "{url}"}}\ntarget: {{url: "redis://{HOST}:1"}}\njobs: {{stu: {{table: stu}}}}'
        )
        for words in (
            ["sync", "stu"],
            ["sync", "stu", "-o", "json"],
            ["doctor"],
            ["--log-format", "console", "sync", "stu"],
        ):
            process = start(*words, cwd=tmp_path)
            shown = "".join(process.communicate(timeout=60))
            assert "title" in shown
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)


# TLS and rights


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"tls_ca": "server.key"}, "tls_ca: {}/server.key holds no certificate of an authority in PEM form"),
        ({"tls_cert": "client.crt"}, "tls_key: {}/client.crt holds no key: name the file that does"),
        ({"tls_cert": "client.crt", "tls_key": "server.key"}, "tls_key: {}/server.key is not the key of tls_cert"),
        (
            {"tls_cert": "client.key", "tls_key": "client.key"},
            "tls_cert: {}/client.key holds no certificate in PEM form",
        ),
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_files_that_do_not_do(pki, tmp_path, side, files, told):
    """A file of TLS that does not hold what it should is named by its key, before anything is connected to."""
    urls = {"source": "mysql://u@127.0.0.1:1/d", "target": "rediss://127.0.0.1:1"}
    config = {name: {"url": url} for name, url in urls.items()} | {"version": 1, "jobs": {"stu": {"table": "stu"}}}
    config[side] |= {name: str(pki / file) for name, file in files.items()}
    settings = Config.model_validate(config)
    with pytest.raises(LoaderError) as raised:
        _ = Connection(settings.source) if side == "source" else RedisClient(settings.target)

    assert (raised.value.exit_code, str(raised.value)) == (2, f"{side}.{told.format(pki)}")


def test_a_certificate_is_wanted(pki, tmp_path):
    """A Redis that asks for a certificate says so, and so does the loader."""

    def mine(port):
        files = {"ssl_certfile": pki / "client.crt", "ssl_keyfile": pki / "client.key", "ssl_ca_certs": pki / "ca.crt"}
        return redis.Redis(HOST, port, ssl=True, **files)

    with redis_server(tmp_path, *tls_options(pki, "yes"), answers=mine) as port:
        target = settings().target.model_copy(update={"tls_ca": pki / "ca.crt"})
        address = target.url.__class__(HOST, port, None, "0", None, tls=True)
        with pytest.raises(LoaderError, match="wants a certificate that it trusts: see tls_cert and tls_key") as raised:
            RedisClient(target.model_copy(update={"url": address}))

    assert raised.value.exit_code == 2


def test_an_account_that_must_use_tls(tmp_path):
    """Where the server has TLS and the account may REQUIRE it, that is said after the password, which doctor doubts."""
    denied = b"\xff\x15\x04#28000Access denied for user 'u'@'h' (using password: YES)"
    with impostor(logging_in(denied, hello=greeting(tls=True))) as (port, _):
        without = refusal(port)
        source = {"url": f"mysql://u@{HOST}:{port}/d", "password": "x"}
        config = {
            "version": 1,
            "source": source,
            "target": {"url": f"redis://{HOST}:1"},
            "jobs": {"stu": {"table": "t"}},
        }
        (tmp_path / "loader.yaml").write_text(json.dumps(config))
        found = finish(start("doctor", "-o", "json", cwd=tmp_path)).document["checks"]
    with impostor(logging_in(denied)) as (other, _):
        plain = refusal(other)

    password = "see the user in source.url, and source.password; or the account"  # the likely cause first
    assert str(without).endswith(f"{password} has REQUIRE SSL: set source.tls")
    assert str(plain).endswith(f"{password} needs TLS, which this server does not offer")
    (login,) = [each for each in found if each["check"] == "mysql.login"]
    assert login["seen"].startswith("is source.password right?")
    assert login["fix"] == f"mysql -h {HOST} -P {port} -u u -p -e 'SELECT 1'"


def test_a_right_that_the_lock_lacks(tmp_path):
    """A script may lack a right of its own: the command is named, not only that it is a script."""
    with redis_server(tmp_path) as port, redis.Redis(HOST, port) as node:
        node.execute_command("ACL", "SETUSER", "default", "-@all", *REDIS_RIGHTS.split(), "-pexpire", "+info")
        with (
            RedisClient(settings(target=port).target) as target,
            pytest.raises(LoaderError, match="NOPERM a script may not send PEXPIRE: see the user") as raised,
        ):
            Lock(settings(target=port).target, "stu", "run").take(target)

    assert raised.value.exit_code == 2
