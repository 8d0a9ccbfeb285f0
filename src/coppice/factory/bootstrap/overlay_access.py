# SPDX-License-Identifier: Apache-2.0
"""How people come in: by SSH, the serial port, a desktop over VNC, or a web console.

Where a password is needed, it is made in the booted machine, anew for each instance, and shown on its console; none is
ever in an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.factory.bootstrap.overlay_firewall import VNC_PORT
from coppice.factory.bootstrap.overlay_model import MASK, UNITS, File, Part, own_unit, packaged_unit, started_by
from coppice.factory.bootstrap.processors import find_processor

if TYPE_CHECKING:
    from coppice.definition.model import Access, Definition
    from coppice.factory.bootstrap.overlay_model import Symlink

PASSWORDS = "/usr/libexec/coppice/instance-passwords"
DESKTOP = "/usr/libexec/coppice/desktop"
_PASSWORDS_UNIT = "coppice-passwords.service"
_DESKTOP_UNIT = "coppice-desktop.service"
_COCKPIT = "cockpit.socket"
_SSH_UNITS = ("ssh.service", "ssh.socket", "sshd.service")
_SSH_LINKS = (("multi-user.target", "ssh.service"), ("sockets.target", "ssh.socket"))
_SSH_GENERATOR = "/etc/systemd/system-generators/systemd-ssh-generator"
_COCKPIT_PACKAGES = ("cockpit-bridge", "cockpit-system", "cockpit-ws")
_DESKTOP_PACKAGES = ("icewm", "tigervnc-standalone-server", "xauth", "xfonts-base", "xterm")
# Which package has the program that writes a password file.
_VNC_PASSWORD_PACKAGES = {"bullseye": "tigervnc-common"}

_SSHD_CONFIG = b"""\
# Login by key only. The first value wins in sshd's configuration, so this file comes first.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin no
"""


def access(definition: Definition) -> Part:
    """Return what ``definition`` lays over so that people come in as it says, and not otherwise."""
    said = definition.access
    entries: dict[str, File | Symlink] = {"/etc/ssh/sshd_config.d/00-coppice.conf": File(_SSHD_CONFIG)}
    left_out: list[str] = []
    packages: list[str] = []
    if not said.ssh:
        entries |= {f"{UNITS}/{unit}": MASK for unit in _SSH_UNITS}
        entries[_SSH_GENERATOR] = MASK
        left_out += [started_by(target, unit) for target, unit in _SSH_LINKS]
    if not said.serial_console:
        port = find_processor(definition.operating_system.architecture).serial_port
        entries[f"{UNITS}/serial-getty@{port}.service"] = MASK
    cockpit_link = started_by("sockets.target", _COCKPIT)
    if said.web_console:
        entries[cockpit_link] = packaged_unit(_COCKPIT)
        packages += _COCKPIT_PACKAGES
    else:
        left_out.append(cockpit_link)
    if said.vnc:
        packages += [*_DESKTOP_PACKAGES, _VNC_PASSWORD_PACKAGES.get(definition.suite, "tigervnc-tools")]
        entries |= _desktop(definition.user)
    if said.vnc or said.web_console:
        entries |= _passwords(definition.user, said)
    return Part(entries=entries, left_out=tuple(left_out), packages=tuple(packages))


def _desktop(user: str) -> dict[str, File | Symlink]:
    return {
        DESKTOP: File(_DESKTOP_PROGRAM.encode(), mode=0o755),
        f"{UNITS}/{_DESKTOP_UNIT}": File(_DESKTOP_UNIT_FILE.format(user=user).encode()),
        started_by("multi-user.target", _DESKTOP_UNIT): own_unit(_DESKTOP_UNIT),
    }


def _passwords(user: str, said: Access) -> dict[str, File | Symlink]:
    parts = [_PASSWORDS_HEAD.format(user=user)]
    if said.vnc:
        parts.append(_FOR_DESKTOP)
    if said.web_console:
        parts.append(_FOR_WEB_CONSOLE)
    parts.append(_PASSWORDS_TAIL)
    return {
        PASSWORDS: File("".join(parts).encode(), mode=0o755),
        f"{UNITS}/{_PASSWORDS_UNIT}": File(_PASSWORDS_UNIT_FILE.encode()),
        started_by("multi-user.target", _PASSWORDS_UNIT): own_unit(_PASSWORDS_UNIT),
    }


# cloud-init makes the account before cloud-config.service runs. A login prompt shows what is in /etc/issue.d when it
# starts, so it waits.
_PASSWORDS_UNIT_FILE = f"""\
[Unit]
Description=Passwords of this instance, shown on its console
After=cloud-config.service
Wants=getty-pre.target
Before=getty-pre.target {_DESKTOP_UNIT}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={PASSWORDS}

[Install]
WantedBy=multi-user.target
"""

_DESKTOP_UNIT_FILE = f"""\
[Unit]
Description=Desktop on TCP port {VNC_PORT}
Requires={_PASSWORDS_UNIT}
After={_PASSWORDS_UNIT} cloud-config.service network.target

[Service]
User={{user}}
PAMName=login
RuntimeDirectory=coppice-desktop
RuntimeDirectoryMode=0700
ExecStart={DESKTOP}
Restart=on-failure
RestartSec=2

[Install]
WantedBy=multi-user.target
"""

_DESKTOP_PROGRAM = f"""\
#!/bin/sh
# An X server that is seen over VNC alone, with a desktop in it, as the user whose password file it has.
set -eu
umask 077
cd "$HOME"
export XAUTHORITY="$RUNTIME_DIRECTORY/authority"
cookie=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')
xauth -q -f "$XAUTHORITY" add :1 . "$cookie"
Xtigervnc :1 -rfbport {VNC_PORT} -auth "$XAUTHORITY" -nolisten tcp -geometry 1280x800 -depth 24 \\
  -desktop "$(hostname)" -SecurityTypes TLSVnc,VncAuth -PasswordFile /var/lib/coppice/vnc-password &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
tries=0
while [ ! -S /tmp/.X11-unix/X1 ]; do
  kill -0 "$server"
  tries=$((tries + 1))
  [ "$tries" -lt 120 ]
  sleep 1
done
export DISPLAY=:1
# Leaving the desktop starts a new one; the unit ends with the server.
while kill -0 "$server" 2>/dev/null; do
  icewm-session || true
  sleep 1
done
wait "$server"
"""

_PASSWORDS_HEAD = """\
#!/bin/sh
# Once for each instance: a copy of a machine gets passwords of its own.
set -eu
umask 077
user='{user}'
state=/var/lib/coppice
issue=/etc/issue.d/80-coppice.issue
instance=$(cat /var/lib/cloud/data/instance-id 2>/dev/null || cat /etc/machine-id)
if [ "$(cat "$state/instance" 2>/dev/null || true)" = "$instance" ]; then
  exit 0
fi
if ! getent passwd "$user" > /dev/null; then
  echo "there is no account $user, so nobody can come in as $user" > /dev/console
  exit 1
fi
random() {{
  LC_ALL=C tr -dc 'A-HJ-NP-Za-km-z2-9' < /dev/urandom | head -c "$1"
}}
install -d -m 0711 "$state"
install -d -m 0755 /etc/issue.d
new=$(mktemp "$state/issue.XXXXXX")
"""

# VNC knows no more than 8 characters of a password.
_FOR_DESKTOP = f"""\
password=$(random 8)
printf '%s\\n' "$password" | tigervncpasswd -f > "$state/vnc-password.new"
chown "$user:" "$state/vnc-password.new"
mv "$state/vnc-password.new" "$state/vnc-password"
printf 'Desktop of %s by VNC, port {VNC_PORT}, password: %s\\n' "$user" "$password" >> "$new"
"""

_FOR_WEB_CONSOLE = """\
case "$(getent shadow "$user" | cut -d: -f2)" in
  '!'*|'*'*|'')
    password=$(random 16)
    printf '%s:%s\\n' "$user" "$password" | chpasswd
    printf 'Web console, port 9090, account %s, password: %s\\n' "$user" "$password" >> "$new"
    ;;
esac
"""

_PASSWORDS_TAIL = """\
cat "$new" > /dev/console || true
mv "$new" "$issue"
printf '%s\\n' "$instance" > "$state/instance"
"""
