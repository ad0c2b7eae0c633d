"""What the loader's account in Redis has to be allowed, and how to ask whether it is. Pure."""

from collections.abc import Collection, Mapping, Sequence

# All that the loader's account may do in Redis; docs/security.md tells people the same.
REDIS_RIGHTS = (
    "+hmset +hset +hget +hdel +hgetall +hlen +hscan +expire +pexpire +persist +ttl +pttl +exists +type +unlink +del"
    " +get +set +eval +scan +randomkey +dbsize +wait +asking +cluster|slots +cluster|nodes +cluster|info +info +time"
    " +ping +select +client|id +client|setname +client|kill +client|list +lpush +ltrim +lrange"
)

# Commands that name no key; all others of the rights do.
KEYLESS = frozenset({"eval", "scan", "randomkey", "dbsize", "wait", "asking", "info", "time", "ping", "select"})

ASKED_SINCE = 7  # the version of Redis whose scripts may ask what their account may do
# ARGV: commands as JSON. Gives the places of those that the account may not send, negative where there is no such
# command; none of them is run.
REFUSED = """#!lua flags=no-writes,allow-stale
local refused = {}
for place, words in ipairs(cjson.decode(ARGV[1])) do
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if not known then refused[#refused + 1] = -place elseif not allowed then refused[#refused + 1] = place end
end
return refused
"""

Question = tuple[str, str]  # a right, and the key pattern with which it is needed, empty where there is no key


def questions(patterns: Mapping[str, str]) -> dict[Question, list[str]]:
    """The commands by which to ask for each right; `patterns` are by what keys that fit them begin with."""
    asked: dict[Question, list[str]] = {}
    for right in REDIS_RIGHTS.split():
        words = right[1:].split("|")
        if _is_keyless(right):
            asked[right, ""] = [*words, "", "0"] if right == "+eval" else words
        else:
            asked |= {(right, pattern): [*words, f"{prefix}0"] for prefix, pattern in patterns.items()}
    return asked


def lacking_words(refused: Collection[Question], patterns: Sequence[str]) -> tuple[str, ...]:
    """What ACL SETUSER has to add so that nothing is refused.

    A right that is refused with every pattern is what lacks, but for patterns that are refused with every right.
    """
    rights = REDIS_RIGHTS.split()
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
    """Whether a command names no key."""
    return "|" in right or right[1:] in KEYLESS
