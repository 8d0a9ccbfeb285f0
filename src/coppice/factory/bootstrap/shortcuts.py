# SPDX-License-Identifier: Apache-2.0
"""What saves time while a release's base packages are installed, and changes nothing of what comes out: pure.

The bootstrapper filters what it extracts by starting a slow program for each package, packages make host keys that no
image keeps, and certificates are gathered twice in one run. The hooks in here have it done once, or not at all.
"""

from __future__ import annotations

_DPKG_CONFIG = "/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
"""What the bootstrapper writes of its option ``--dpkgopt``, and never keeps in an image."""
_PATHS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    # The appliance speaks C.UTF-8. What cloud-init looks up in this folder is not a translation.
    "path-exclude=/usr/share/locale/*/LC_MESSAGES/*.mo",
)
_STUB = "/usr/local/sbin/update-ca-certificates"
# dpkg is told what to leave out only once the first packages lie there, and what these brought of it is taken away.
_LEAVE_OUT = f"""\
printf '%s\\n' {" ".join(f"'{line}'" for line in _PATHS)} >> "$1{_DPKG_CONFIG}" || exit 1
find "$1/usr/share/doc" -mindepth 1 -depth '(' ! -type d ! -name copyright -o -type d -empty ')' -delete || exit 1
find "$1/usr/share/man" -mindepth 1 -delete || exit 1
find "$1/usr/share/locale" -path '*/LC_MESSAGES/*.mo' -delete"""
# A key that is there is not made.
_NO_HOST_KEYS = """\
mkdir -p "$1/etc/ssh" || exit 1
for kind in rsa ecdsa ed25519; do
  : > "$1/etc/ssh/ssh_host_${kind}_key" || exit 1
done"""
# The package gathers them without hooks when it is configured, and all of them once more at the end of the same run.
_CERTIFICATES_ONCE = f"""\
mkdir -p "$1/usr/local/sbin" || exit 1
printf '%s\\n' '#!/bin/sh' '[ "$1" != --hooksdir ] || exit 0' 'exec /usr/sbin/update-ca-certificates "$@"' \\
  > "$1{_STUB}" || exit 1
chmod 755 "$1{_STUB}\""""
_DONE = f'rm "$1{_STUB}" "$1"/etc/ssh/ssh_host_*_key'

BEFORE = (_LEAVE_OUT, _NO_HOST_KEYS, _CERTIFICATES_ONCE)
"""Hooks of mmdebstrap between extracting the first packages and installing them."""
AFTER = (_DONE,)
"""Hooks once everything is installed."""
