"""Bytes only, no I/O: MySQL packets and binlog in, Redis commands out (`encoder`); `codec` picks the compiled twins."""
