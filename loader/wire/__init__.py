"""Bytes only, no I/O: MySQL row packets in, Redis commands out, and the compiled twin."""
