#!/bin/sh
# What the public image's entrypoint does, as far as the stack needs it: the first start makes the
# cluster, whose superuser has the password in POSTGRES_PASSWORD_FILE; then the server runs as postgres.
set -eu
: "${POSTGRES_PASSWORD_FILE:?names no file with the password}" "${PGDATA:=/var/lib/postgresql/data}"
export PGDATA

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chown postgres "$PGDATA"
    chmod 0700 "$PGDATA"
    umask 077
    tr -d '\n' < "$POSTGRES_PASSWORD_FILE" > /tmp/password
    chown postgres /tmp/password
    su postgres -c "initdb --username=postgres --pwfile=/tmp/password \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}"
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
[ "${1:-}" = postgres ] && shift
exec su postgres -c 'exec postgres -c listen_addresses=* "$@"' -- postgres "$@"
