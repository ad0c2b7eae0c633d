"""Rows from MySQL to Redis: a run, its workers, retries, throttles and the incremental modes."""
