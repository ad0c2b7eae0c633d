"""Changes single hashes of a job under its lock: writes them from their rows, and deletes those without a row."""

from collections.abc import Collection, Iterable, Sequence

from loader.jobs.rows import JobRows
from loader.model import Acks, Reject
from loader.pipeline.transfer import to_last
from loader.wire.slots import slot_of


class HashEditor:
    """Writes and deletes hashes by their keys; each attempt looks the rows up again."""

    def __init__(self, rows: JobRows) -> None:
        self._rows = rows
        self._session = rows.session

    def reload(self, keys: Sequence[bytes]) -> tuple[Acks, list[Reject]]:
        """Write the hashes of keys from their rows as they are now; returns the acknowledgements, and all rejects."""
        session = self._session
        statement = session.plan.matching(session.lookup.condition(keys))

        def attempt() -> tuple[Acks, list[Reject]]:
            with session.writing(session.throttle.grant(), keys) as writer:
                bring = lambda: session.transfer(writer, statement)  # noqa: E731
                encoder, acks = to_last(session.plan, bring, writer, writer.drain)
            return acks, [*(reject for reject in encoder.rejects if reject.key in writer.keys), *acks.rejects]

        return session.with_retry(attempt)

    def unlink(self, keys: Sequence[bytes], moving: Collection[int] = ()) -> int:
        """Delete the hashes of those keys that have no row, looked up right before each attempt; returns how many.

        If the move of a slot was interrupted between two steps, both nodes have its keys: the keys in `moving` slots
        are deleted on both.
        """
        session = self._session

        def attempt() -> int:
            grant = session.throttle.grant()
            commands = [(key, [b"UNLINK", key]) for key in self._rows.missing(keys, counted=True)]
            session.throttle.hold(grant)
            sent = self._send(commands, grant)
            if copies := [each for each in commands if slot_of(each[0]) in moving]:
                self._send(copies, grant)
            return sent

        return session.with_retry(attempt)

    def send(self, commands: Iterable[tuple[bytes, list[bytes]]]) -> int:
        """Send single commands, each to the owner of its key; returns how many were carried out."""
        listed = list(commands)
        return self._session.with_retry(lambda: self._send(listed, self._session.throttle.grant()))

    def _send(self, commands: Sequence[tuple[bytes, list[bytes]]], grant: int) -> int:
        with self._session.writing(grant) as writer:
            writer.send_all(commands)
            sent = writer.drain()
        return sum(sent.rows.values())
