#!/bin/sh
# Brings both databases to the schema that this version of Temporal needs. Safe to run again.
set -eu
SQL_PASSWORD=$(cat /run/secrets/temporal-password)
export SQL_PASSWORD SQL_HOST=postgresql SQL_PORT=5432 SQL_USER=temporal SQL_PLUGIN=postgres12

update() {
    temporal-sql-tool --database "$1" setup-schema --version 0.0
    temporal-sql-tool --database "$1" update-schema --schema-name "postgresql/v12/$2"
}
update temporal temporal
update temporal_visibility visibility
