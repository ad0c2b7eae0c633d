"""Whether all masters take ready-made hashes (RESTORE), and up to which size they would make the same ones."""

from typing import Any

from loader.errors import Kind, TargetError
from loader.model import Listpack, Node
from loader.redis.acl import RESTORE_RIGHT
from loader.redis.client import RedisClient
from loader.redis.errors import code_of, error_text
from loader.redis.replies import info_of
from loader.state_keys import PREFIX

SINCE = 7  # the version of Redis that reads them; Valkey says 7.2 here
USUAL = Listpack(128, 64)  # if a master does not say: no version keeps less, unless its configuration says so
QUESTIONS = (
    ("INFO", "server"),
    ("CONFIG", "GET", "hash-max-listpack-entries"),
    ("CONFIG", "GET", "hash-max-listpack-value"),
    ("RESTORE", f"{PREFIX}restore", 0, ""),  # refused in any case: for its value, or before because of the right
)


def listpack_of(target: RedisClient) -> Listpack:
    """Up to which size every master keeps a hash as a listpack; a `TargetError` if one does not take them ready-made.

    A larger row is written by HMSET, so it makes the same hash as ever.
    """
    found = [_asked(target, node) for node in target.slots.nodes]
    return Listpack(min(each.fields for each in found), min(each.longest for each in found))


def _asked(target: RedisClient, node: Node) -> Listpack:
    info, *limits, refusal = target.commands(node, QUESTIONS)
    if isinstance(info, Exception):
        raise target.error(info, node)
    version = info_of(info).get("redis_version", "0")
    if int(version.partition(".")[0]) < SINCE:
        raise TargetError(
            f"redis {node}: version {version} takes no ready-made hashes, which Redis {SINCE} does", kind=Kind.REFUSED
        )
    if isinstance(refusal, Exception) and code_of(error_text(refusal)) == "NOPERM":
        raise TargetError(f"redis {node}: the account may not send RESTORE: it lacks {RESTORE_RIGHT}", kind=Kind.ACCESS)
    fields, longest = map(_number, limits)
    return Listpack(USUAL.fields if fields is None else fields, USUAL.longest if longest is None else longest)


def _number(reply: Any) -> int | None:
    """The value that CONFIG GET tells; None if it may not be asked."""
    is_told = isinstance(reply, list) and len(reply) == 2 and reply[1].isdigit()
    return int(reply[1]) if is_told else None
