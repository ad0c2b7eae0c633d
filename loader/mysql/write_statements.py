"""Whether a statement that runs in MySQL may write rows, judging by its text only. Pure.

Any statement may write unless it certainly only reads. A stored function may write too, so a SELECT counts as reading
only if each function that it calls is one of MySQL's own that is listed here. While a function or a trigger runs, MySQL
may show the statement inside: a DO, a SET or a SELECT INTO, which therefore may be part of a write.
"""

import re
from collections.abc import Sequence

from loader.config.statement import Token, tokens_of

EXECUTED = re.compile(r"/\*M?!\d*(.*?)\*/", re.DOTALL)  # a comment that some versions execute
QUERIES = frozenset({"select", "values", "table"})
TELLS = frozenset({"show", "use", "help"})  # and nothing else
EXPLAINS = frozenset({"explain", "describe", "desc"})
ALTERS = frozenset({"insert", "replace", "update", "delete", "call", "load", "set", "do"})
FILES = frozenset({"outfile", "dumpfile"})
_GRAMMAR = """
against all and any as between binary by case char cube decimal distinct distinctrow div else except exists for from
group having in index intersect interval is join key lateral like limit match mod not numeric on or order over
partition regexp rlike rollup row select some straight_join then union using values varchar when where with xor
"""
GRAMMAR = frozenset(_GRAMMAR.split())
_FUNCTIONS = """
abs adddate ascii avg benchmark bit_and bit_or bit_xor cast ceil ceiling char_length coalesce concat concat_ws
connection_id convert convert_tz count crc32 cume_dist curdate current_date current_time current_timestamp
current_user curtime database date date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear
dense_rank elt exp extract field find_in_set first_value floor format from_days from_unixtime greatest group_concat
grouping hex hour if ifnull inet_aton inet_ntoa instr isnull json_array json_arrayagg json_contains json_extract
json_length json_object json_objectagg json_table json_unquote json_value lag last_day last_insert_id last_value
lcase lead least left length ln locate log log10 log2 lower lpad ltrim makedate max md5 microsecond mid min minute
mod month monthname name_const now nth_value ntile nullif ord percent_rank position pow power quarter quote rand
rank regexp_like regexp_replace regexp_substr repeat replace reverse right round row_number rpad rtrim schema second
sha1 sha2 sign sleep space sqrt std stddev stddev_pop stddev_samp str_to_date strcmp subdate substr substring
substring_index sum sysdate time time_format time_to_sec timediff timestamp timestampadd timestampdiff to_days
to_seconds trim truncate ucase unhex unix_timestamp upper user utc_date utc_time utc_timestamp var_pop var_samp
variance version week weekday weekofyear year yearweek
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())


def may_write(sql: str) -> bool:
    """Whether a statement may write, with comments that only some versions execute read in both ways."""
    return not all(_reads(tokens_of(text)) for text in {sql, EXECUTED.sub(r" \1 ", sql)})


def _reads(tokens: Sequence[Token]) -> bool:
    words = [token.word for token in tokens]
    verb = next((place for place, token in enumerate(tokens) if token.text != "("), len(tokens))
    first, second = [*words[verb : verb + 2], "", ""][:2]
    if first == "with":
        return _reads_only(tokens) and _main(tokens[verb:]) in QUERIES
    if first == "set" and second == "statement":  # of MariaDB: settings for one statement
        return "for" in words and _reads(tokens[words.index("for") + 1 :])
    if first == "analyze" or (first in EXPLAINS and second == "analyze"):
        place = next((place for place, word in enumerate(words) if word in QUERIES | ALTERS | {"with"}), len(words))
        return _reads(tokens[place:])
    return first in TELLS | EXPLAINS or (first in QUERIES and _reads_only(tokens))


def _main(tokens: Sequence[Token]) -> str:
    """The verb after the common table expressions."""
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if not depth and token.word in QUERIES | ALTERS:
            return token.word
    return ""


def _reads_only(tokens: Sequence[Token]) -> bool:
    """Whether a query calls nothing that may write, and stores its result nowhere."""
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.text in {"'", '"', "`"} or (token.text == "/" and after is not None and after.text == "*"):
            return False  # never closed: anything may follow
        if token.word == "into" and (after is None or after.word not in FILES):
            return False
        if after is not None and after.text == "(":
            is_qualified = before is not None and before.text == "."
            known = token.word in GRAMMAR | FUNCTIONS and not is_qualified
            if not known and (token.kind in {"word", "name", "text"} or token.text in {"?", "$"}):
                return False
    return True
