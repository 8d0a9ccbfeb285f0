#!/bin/sh
# The page is served, without telling more than it must.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

systemctl is-active --quiet nginx.service || fail "nginx does not run"
page=$(curl --fail --silent --show-error --include --retry 10 --retry-connrefused --retry-delay 1 http://127.0.0.1/)
echo "$page" | grep --quiet "<h1>It works</h1>" || fail "another page is served: $page"
echo "$page" | grep --quiet --ignore-case "^x-content-type-options: nosniff" || fail "a header is missing: $page"
if echo "$page" | grep --quiet --ignore-case "^server: nginx/"; then
    fail "nginx tells its version"
fi
