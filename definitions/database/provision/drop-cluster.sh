#!/bin/sh
# Installing the packages has made a cluster and a certificate; all machines would share them.
set -eu

if [ -d /etc/postgresql/15/main ]; then
    pg_dropcluster 15 main
fi
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
find /etc/ssl/certs -xtype l -delete
