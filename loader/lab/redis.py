"""The lab's Redis or Valkey nodes, whichever is installed: starting one, sending it commands, probing it."""

import hashlib
import subprocess
from contextlib import suppress
from pathlib import Path

from loader.lab.process import HOST, Server, program, write
from loader.redis.acl import REDIS_RIGHTS, RESTORE_RIGHT

REPLY = 10  # seconds that a node has to answer

REDIS_CONF = """\
port {port}
bind 127.0.0.1
dir "{directory}"
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 5000
appendonly yes
save ""
repl-diskless-sync-delay 0
user loader on #{password_hash} ~* {rights}
"""


def server_program() -> str:
    """The path of the server."""
    return program("redis-server", "valkey-server")


def cli_program() -> str:
    """The path of the command-line client."""
    return program("redis-cli", "valkey-cli")


def command(home: Path, port: int, password: str) -> list[str]:
    """Write the configuration of a node into its directory, and return the command that starts it."""
    home.mkdir(exist_ok=True)
    conf = home / "redis.conf"
    text = REDIS_CONF.format(
        port=port,
        directory=str(home).replace("\\", "\\\\").replace('"', '\\"'),
        password_hash=hashlib.sha256(password.encode()).hexdigest(),
        rights=f"{REDIS_RIGHTS} {RESTORE_RIGHT}",
    )
    write(conf, text)
    return [server_program(), str(conf)]


def ask(node: Server, *commands: str) -> str:
    """Return what redis-cli prints for commands; the empty string when the node does not answer."""
    call = [cli_program(), "-h", HOST, "-p", str(node.port)]
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            call, input="\n".join(commands), capture_output=True, check=False, encoding="utf-8", timeout=REPLY
        )
        return done.stdout.replace("\r\n", "\n")
    return ""


def answers(node: Server) -> bool:
    """Whether this process, not another on its port, answers."""
    text = ask(node, "INFO", "PING")
    return f"process_id:{node.pid}\n" in text and text.endswith("PONG\n")
