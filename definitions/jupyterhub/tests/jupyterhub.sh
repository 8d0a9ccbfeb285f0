#!/bin/sh
# The hub answers over TLS, and the kernel of a notebook computes.
set -eu

fail() {
    echo "$1" >&2
    exit 1
}

tries=0
until said=$(curl --fail --silent --cacert /etc/jupyterhub/tls/certificate.pem https://localhost/hub/api/); do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || fail "JupyterHub does not answer"
    sleep 1
done
echo "$said" | grep --quiet '"version"' || fail "it answers: $said"

sum=$(python3 -c 'import numpy, pandas, scipy, matplotlib; print(int(numpy.arange(5).sum()))')
[ "$sum" = 10 ] || fail "NumPy says $sum"
