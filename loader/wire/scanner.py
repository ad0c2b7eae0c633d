"""The scanner of the binlog in use: the compiled twin if it was built, else the plain one; they find the same keys."""

from loader.wire import row_images

try:
    from loader.wire._binlog import KeyScanner
except ImportError:  # installed without a compiler
    KeyScanner = row_images.KeyScanner  # type: ignore[assignment,misc]

__all__ = ["KeyScanner"]
