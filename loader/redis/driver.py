"""The parts of redis-py that are used: connections, and their errors; the others take ten times as long to import."""

from loader.imports import import_bare, late_names

import_bare("redis")

with late_names("asyncio", "IncompleteReadError", "Lock", "StreamReader"):  # for its other half
    from redis import exceptions
    from redis.backoff import NoBackoff
    from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
    from redis.retry import Retry

__all__ = ["Connection", "NoBackoff", "Retry", "SSLConnection", "UnixDomainSocketConnection", "exceptions"]
