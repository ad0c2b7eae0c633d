"""Rows from MySQL to Redis: a run, its workers, retries, throttles, incremental modes, and following the binlog."""
