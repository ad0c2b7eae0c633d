"""Redis: connections, topology, pipelined writes and checks. Only this package imports redis-py."""
