"""The rights that the loader's account needs in Redis, and how to check them. Pure."""

from collections.abc import Collection, Mapping, Sequence

# All that the loader's account may do in Redis; docs/security.md has the same list.
REDIS_RIGHTS = (
    "+hmset +hset +hget +hdel +hgetall +hlen +hscan +expire +pexpire +persist +ttl +pttl +exists +type +unlink +del"
    " +get +set +eval +scan +randomkey +dbsize +wait +asking +cluster|slots +cluster|nodes +cluster|info +info +time"
    " +ping +select +client|id +client|setname +client|kill +client|list +lpush +ltrim +lrange"
)

RESTORE_RIGHT = "+restore"  # for jobs that write ready-made hashes

# Commands without a key; all others of the rights have one.
KEYLESS = frozenset({"eval", "scan", "randomkey", "dbsize", "wait", "asking", "info", "time", "ping", "select"})

# The words that some commands need after their key, or their name: newer servers check no command that is too short.
MORE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("hmset", "hset", "restore"), ("0", "")),
    **dict.fromkeys(("hget", "hdel", "hscan", "expire", "pexpire", "set", "lpush"), ("0",)),
    **dict.fromkeys(("ltrim", "lrange", "wait"), ("0", "0")),
    **dict.fromkeys(("scan", "select", "client|setname", "client|kill"), ("0",)),
    "eval": ("", "0"),
}

ASKED_SINCE = 7  # the version of Redis from which scripts can check their account's rights
# ARGV: commands as JSON. Returns the positions of those that the account may not send, negative if there is no such
# command; none of them is run.
REFUSED = """#!lua flags=no-writes,allow-stale
local refused = {}
for place, words in ipairs(cjson.decode(ARGV[1])) do
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if not known then refused[#refused + 1] = -place elseif not allowed then refused[#refused + 1] = place end
end
return refused
"""

Question = tuple[str, str]  # a right, and the key pattern with which it is needed, empty if there is no key


def questions(patterns: Mapping[str, str], rights: str = REDIS_RIGHTS) -> dict[Question, list[str]]:
    """The commands with which to check each right; `patterns` are by the prefixes of keys that match them."""
    asked: dict[Question, list[str]] = {}
    for right in rights.split():
        words, more = right[1:].split("|"), MORE.get(right[1:], ())
        if _is_keyless(right):
            asked[right, ""] = [*words, *more]
        else:
            asked |= {(right, pattern): [*words, f"{prefix}0", *more] for prefix, pattern in patterns.items()}
    return asked


def lacking_words(
    refused: Collection[Question], patterns: Sequence[str], needed: str = REDIS_RIGHTS
) -> tuple[str, ...]:
    """The rights that ACL SETUSER must add so that nothing is refused.

    A right that is refused with every pattern is missing, unless those patterns are refused with every right.
    """
    rights = needed.split()
    keyed = {right for right in rights if not _is_keyless(right)}
    by_pattern: dict[str, set[str]] = {pattern: set() for pattern in patterns}
    for right, pattern in refused:
        by_pattern.setdefault(pattern, set()).add(right)
    by_pattern.pop("", None)
    known = [found for found in by_pattern.values() if found != keyed]
    common = set.intersection(*known) if known else set()
    lacking = common | {right for right, pattern in refused if not pattern}
    narrow = [pattern for pattern, found in by_pattern.items() if found == keyed or found - common]
    return (*narrow, *(right for right in rights if right in lacking))


def _is_keyless(right: str) -> bool:
    """Whether a command has no key."""
    return "|" in right or right[1:] in KEYLESS
