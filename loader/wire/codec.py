"""The classes in use: the compiled twins if they were built, else the plain ones; they make the same bytes."""

from loader.wire import comparer, encoder, resp, row_images

try:
    from loader.wire._binlog import KeyScanner
    from loader.wire._codec import Comparer, Encoder, SlotChecksums, count_replies, reads

    COMPILED = True
except ImportError:  # installed without a compiler
    Comparer, Encoder, SlotChecksums = comparer.Comparer, encoder.Encoder, comparer.SlotChecksums  # type: ignore[assignment,misc]
    KeyScanner = row_images.KeyScanner  # type: ignore[assignment,misc]
    count_replies, reads = resp.count_replies, resp.reads
    COMPILED = False

__all__ = ["COMPILED", "Comparer", "Encoder", "KeyScanner", "SlotChecksums", "count_replies", "reads"]
