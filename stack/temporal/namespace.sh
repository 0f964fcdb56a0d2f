#!/bin/sh
# Has the namespace, and the search attributes by which deployments are found. Safe to run again.
set -eu
: "${TEMPORAL_ADDRESS:?}" "${TEMPORAL_NAMESPACE:?}" "${RETENTION:?}"

temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" > /dev/null 2>&1 ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"

# The server needs some seconds until all its parts know a new namespace.
tries=0
until known=$(temporal operator search-attribute list); do
    tries=$((tries + 1))
    [ "$tries" -lt 30 ] || exit 1
    sleep 1
done
for name in DeployInstance DeployImage DeployTrigger DeployStep; do
    case "$known" in
        *"$name"*) ;;
        *) temporal operator search-attribute create --name "$name" --type Keyword ;;
    esac
done
