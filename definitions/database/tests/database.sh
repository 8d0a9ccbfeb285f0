#!/bin/sh
# The cluster of this machine answers, keeps what it is told, and asks whoever comes over the network for a password.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

tries=0
until runuser --user postgres -- pg_isready --quiet; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "PostgreSQL does not answer"
    sleep 1
done

say() {
    runuser --user postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --command "$1"
}

say "create table coppice_test (number integer); insert into coppice_test values (17)"
[ "$(say "select number from coppice_test")" = 17 ] || fail "what was written is not there"
say "drop table coppice_test"

[ "$(say "show listen_addresses")" = "*" ] || fail "it does not listen on the network"
[ "$(say "show ssl")" = on ] || fail "it does not speak TLS"
[ "$(say "show data_checksums")" = on ] || fail "blocks have no checksums"
if psql --no-password --host 127.0.0.1 --username postgres --command "select 1" 2>/dev/null; then
    fail "it lets people in from the network without a password"
fi
