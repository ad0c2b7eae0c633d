"""What an earlier version left in Redis, in the words of this one: a run that it began is resumed, not repeated.

It is trusted as far as that version trusted it. What it did not note is not compared; the first run of this version
notes it.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from loader.records import dataclass
from loader.redis.servers import Life
from loader.state.stored_json import MOST

TYPES = "column types"


class EarlierFacts(dict[str, str]):
    """What a run was planned from: the types of columns are in lower case, members of an ENUM too."""

    def compared_with(self, now: Mapping[str, str]) -> Mapping[str, str]:
        """The facts as they are now, in the words of then if they say the same."""
        types = self.get(TYPES, "")
        return {**now, TYPES: types} if types.lower() == now.get(TYPES, "").lower() else now


@dataclass(frozen=True, slots=True)
class EarlierBaseline:
    """A baseline: of masters it has what each had thrown away, by the id of its process."""

    run: str
    facts: Mapping[str, str]
    markers: tuple[str, ...]
    evictions: Mapping[str, int]
    full: float
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lives(self) -> tuple[Life, ...]:
        """The masters' lives, whose connections were not counted: no client's id is greater than theirs."""
        return tuple(Life(process, evicted, "", 0, MOST) for process, evicted in self.evictions.items())
