"""The encoder in use: the compiled twin where it was built, else the plain one; they make the same bytes."""

from loader import frames

try:
    from loader._frames import Encoder, count_replies

    COMPILED = True
except ImportError:  # installed without a compiler
    Encoder, count_replies = frames.Encoder, frames.count_replies  # type: ignore[assignment,misc]
    COMPILED = False

__all__ = ["COMPILED", "Encoder", "count_replies"]
