#!/bin/sh
# As the entry of the MySQL image: the first time, makes the database and runs the files that are mounted for it.
set -eu

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

step_down() {
  exec setpriv --reuid=mysql --regid=mysql --init-groups "$@"
}

[ "$1" = mysqld ] || exec "$@"
chown mysql:mysql "$data"
if [ ! -d "$data/mysql" ]; then
  (step_down "$@" --datadir="$data" --initialize-insecure)
  (step_down "$@" --datadir="$data" --socket="$socket" --skip-networking) &
  server=$!
  until mysql --user=root --socket="$socket" --execute='SELECT 1' >/dev/null 2>&1; do
    kill -0 "$server"
    sleep 0.2
  done
  mysql --user=root --socket="$socket" <<END
CREATE DATABASE $MYSQL_DATABASE;
ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
CREATE USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
END
  export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"
  for file in /docker-entrypoint-initdb.d/*.sql; do
    mysql --user=root --socket="$socket" "$MYSQL_DATABASE" <"$file"
  done
  mysql --user=root --socket="$socket" --execute=SHUTDOWN
  unset MYSQL_PWD
  wait "$server"
fi
step_down "$@" --datadir="$data" --socket="$socket"
