"""The encoder in use: the compiled twin if it was built, else the plain one; they make the same bytes."""

from loader.wire import comparer, encoder, resp

try:
    from loader.wire._codec import Comparer, Encoder, SlotChecksums, count_replies, reads

    COMPILED = True
except ImportError:  # installed without a compiler
    Comparer, Encoder, SlotChecksums = comparer.Comparer, encoder.Encoder, comparer.SlotChecksums  # type: ignore[assignment,misc]
    count_replies, reads = resp.count_replies, resp.reads
    COMPILED = False

__all__ = ["COMPILED", "Comparer", "Encoder", "SlotChecksums", "count_replies", "reads"]
