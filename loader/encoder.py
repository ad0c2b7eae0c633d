"""The encoder in use: the compiled twin where it was built, else the plain one; they make the same bytes."""

from loader import frames

try:
    from loader._frames import Comparer, Encoder, Tally, count_replies, reads

    COMPILED = True
except ImportError:  # installed without a compiler
    Comparer, Encoder, Tally = frames.Comparer, frames.Encoder, frames.Tally  # type: ignore[assignment,misc]
    count_replies, reads = frames.count_replies, frames.reads
    COMPILED = False

__all__ = ["COMPILED", "Comparer", "Encoder", "Tally", "count_replies", "reads"]
