"""What people and programs are told of a job that was followed."""

from typing import TYPE_CHECKING, Any

from loader.state.position import FollowedPosition
from loader.words import counted

if TYPE_CHECKING:
    from loader.jobs.follow import Followed


def position_document(position: FollowedPosition) -> dict[str, Any]:
    """A position of the binlog in JSON."""
    return {"file": position.file, "offset": position.offset, "gtids": position.gtids}


def followed_document(followed: "Followed") -> dict[str, Any]:
    """The JSON document of how far a job was followed, `loader.follow/v1`."""
    return {
        "schema": "loader.follow/v1",
        "job": followed.job,
        "position": position_document(followed.position),
        "lag_seconds": round(followed.lag, 3),
        "lag_bytes": followed.lag_bytes,
        "changes": followed.changes,
        "keys": followed.keys,
        "written": followed.written,
        "deleted": followed.deleted,
    }


def followed_text(followed: "Followed") -> str:
    """The same for people."""
    counts = f"{counted(followed.changes, 'change')}, {followed.written:,} written, {followed.deleted:,} deleted"
    return f"{followed.job}: followed to {followed.position.text}: {counts}"
