#!/bin/sh
# Makes an authority, and one certificate of it that all servers of the playground share; does nothing if they are there.
#
#     certificates.sh DIRECTORY NAME…    # names and IP addresses of the servers
set -eu
cd "$1"
shift

DAYS=365

if [ -e server.crt ]; then
  echo "certificates: already there"
  exit
fi

names=DNS:localhost
for name in "$@"; do
  case $name in
    *[!0-9.]*) names=$names,DNS:$name ;;
    *) names=$names,IP:$name ;;
  esac
done

# A key of its own, and a certificate for it; words go to openssl.
issue() {
  name=$1
  shift
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -sha256 -days "$DAYS" \
    -keyout "$name.key" -out "$name.crt" "$@" 2>log || {
    cat log >&2
    exit 1
  }
}

issue ca -subj /CN=playground -addext keyUsage=critical,keyCertSign,cRLSign
issue server -subj /CN=server -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=$names" -CA ca.crt -CAkey ca.key
rm ca.key log
chmod 644 server.key # MySQL and Redis run as other users, and only their containers see it
echo "certificates: made for $*, valid for $DAYS days"
