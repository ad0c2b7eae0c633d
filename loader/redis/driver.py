"""The parts of redis-py that are used: connections, and their errors; the others take ten times as long to import."""

from loader.imports import import_bare

import_bare("redis")

from redis import exceptions  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection  # noqa: E402
from redis.retry import Retry  # noqa: E402

__all__ = ["Connection", "NoBackoff", "Retry", "SSLConnection", "UnixDomainSocketConnection", "exceptions"]
