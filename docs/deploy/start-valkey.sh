#!/bin/sh
# Start Valkey with users.acl and the password of the broker. The ACL file itself holds no password, so by itself it
# lets nobody in; what is written here holds the password's SHA-256. Arguments are passed on to valkey-server.
set -eu
umask 077

rules=${VALKEY_RULES:-/etc/valkey/users.acl}
password=$(cat "${VALKEY_PASSWORD_FILE:-/run/secrets/redis_password}")
run=${VALKEY_RUN:-/run/valkey}

if [ "${#password}" -lt 32 ]; then
  echo "start-valkey: the password has fewer than 32 characters. Fix: openssl rand -hex 32" >&2
  exit 78
fi
digest=$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)
sed "s/^user broker .*/& #$digest/" "$rules" >"$run/users.acl"

exec valkey-server --aclfile "$run/users.acl" \
  --appendonly yes --appendfsync everysec --save '' --maxmemory-policy noeviction "$@"
