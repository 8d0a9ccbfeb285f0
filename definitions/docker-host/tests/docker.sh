#!/bin/sh
# Docker runs a container: one that is made of the machine's own shell, so that nothing is fetched.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

tries=0
until docker info >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "Docker does not answer"
    sleep 1
done
[ "$(docker info --format '{{.LoggingDriver}}')" = journald ] || fail "its settings are not in force"

libraries=$(ldd /bin/dash | grep --only-matching '/[^ ]*')
# Word by word on purpose: each is a file.
tar --create --dereference /bin/dash $libraries 2>/dev/null | docker import - coppice-test >/dev/null
said=$(docker run --rm --network none coppice-test /bin/dash -c 'echo inside')
docker image rm coppice-test >/dev/null
[ "$said" = inside ] || fail "the container said: $said"
