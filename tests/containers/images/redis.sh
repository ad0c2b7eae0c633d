#!/bin/sh
# As the entry of the Redis image: the server runs as its own user.
set -eu

[ "$1" = redis-server ] || exec "$@"
chown -R redis:redis .
exec setpriv --reuid=redis --regid=redis --init-groups "$@"
