# SPDX-License-Identifier: Apache-2.0
"""Checks of who could get in: passwords, keys, sudo, logins that ask nothing."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from coppice.factory.audit_model import Check, any_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.factory.audit_model import Subject
    from coppice.factory.evidence.tree import Node

_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----|-----BEGIN PGP PRIVATE KEY BLOCK-----|"
                          r"^PuTTY-User-Key-File-", re.MULTILINE)  # fmt: skip
_KEY_FILE_BYTES = 256 * 1024
_KEY_STORES = any_of("*.p12", "*.pfx", "*.jks", "*.keystore")
_KEY_FOLDERS = ("/etc", "/root", "/home", "/srv", "/opt", "/usr/local", "/var/lib", "/var/www")
_NO_KEYS_IN = ("/var/lib/dpkg/", "/var/lib/apt/", "/var/lib/rpm/")
_TRUSTED_HOSTS = ("/etc/hosts.equiv", "/etc/ssh/shosts.equiv", "/etc/shosts.equiv")
_CREDENTIALS = any_of(
    "*/.netrc",
    "*/.git-credentials",
    "*/.pgpass",
    "*/.my.cnf",
    "*/.aws/credentials",
    "*/.docker/config.json",
    "*/.config/gh/hosts.yml",
    "*/.config/openstack/clouds.yaml",
    "*/.config/containers/auth.json",
    "*/.kube/config",
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d/*",
    "/etc/openstack/clouds.yaml",
)
_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s@\"']+@", re.IGNORECASE)
_ADDRESS_FILES = ("/etc/apt/", "/etc/environment", "/etc/pip.conf", "/etc/fstab", "/etc/profile.d/", "/root/.config/")
_ADMINISTRATORS = frozenset({"root", "%sudo", "%admin", "%wheel"})
# To sudo, a number behind a # is that of an account: only the rest is a comment.
_SYSTEM_SUDO = re.compile(r"(?:Defaults|[A-Z][A-Z0-9_]*_Alias)\b|[@#]include|#(?!-?\d)")
_SUDO_INCLUDES = re.compile(r"[@#]include(?:dir)?\s+[\"']?(?!/etc/sudoers\.d/?[\"']?\s*$)\S")


def _rows(subject: Subject, path: str) -> Iterator[list[str]]:
    for line in (subject.tree.text(path) or "").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split(":")


def _passwords(subject: Subject) -> Iterator[tuple[str, str]]:
    if subject.tree.text("/etc/shadow") is None:
        yield "/etc/shadow", "it is not there: whether accounts have passwords cannot be told"
    for name, *rest in _rows(subject, "/etc/shadow"):
        password = rest[0] if rest else ""
        if password and not password.startswith(("*", "!")):
            yield "/etc/shadow", f"the account {name} has a password"
        elif re.match(r"[!*]+(?=\$|_|[./0-9A-Za-z]{13}$)", password):
            yield "/etc/shadow", f"the account {name} is locked, and its password is still there"


def _empty_passwords(subject: Subject) -> Iterator[tuple[str, str]]:
    for name, *rest in _rows(subject, "/etc/shadow"):
        if not rest or not rest[0]:
            yield "/etc/shadow", f"the account {name} needs no password"
    for name, *rest in _rows(subject, "/etc/passwd"):
        if not rest or rest[0] != "x":
            yield "/etc/passwd", f"the account {name} does not have its password in /etc/shadow"


def _second_root(subject: Subject) -> Iterator[tuple[str, str]]:
    for name, *rest in _rows(subject, "/etc/passwd"):
        if len(rest) > 1 and rest[1].lstrip("0") == "" and name != "root":
            yield "/etc/passwd", f"the account {name} is root by another name"


def _authorised_keys(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        if node.is_folder or not node.size_bytes:
            continue
        if fnmatchcase(node.name, "authorized_keys*") or fnmatchcase(node.path, "/etc/ssh/authorized_keys*/*"):
            yield node.path, "a key that lets somebody in"


def _host_keys(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree.inside("/etc/ssh"):
        if fnmatchcase(node.name, "ssh_host_*"):
            yield node.path, "an SSH host key: every machine made of the image would have the same"


def _private_keys(subject: Subject) -> Iterator[tuple[str, str]]:
    owned = subject.ownership.packages
    for folder in _KEY_FOLDERS:
        for node in subject.tree.below(folder):
            if not node.is_file or not node.size_bytes or node.path in owned or node.path.startswith(_NO_KEYS_IN):
                continue
            if fnmatchcase(node.name, "ssh_host_*"):
                continue
            if _KEY_STORES.match(node.name):
                yield node.path, "a key store"
            elif node.size_bytes <= _KEY_FILE_BYTES and _PRIVATE_KEY.search(subject.tree.text_of(node)):
                yield node.path, "a private key"


def _credentials(subject: Subject) -> Iterator[tuple[str, str]]:
    owned = subject.ownership.packages
    for node in subject.tree:
        if node.is_file and node.size_bytes and node.path not in owned:
            if _CREDENTIALS.match(node.path):
                yield node.path, "a file of credentials"
            elif node.path.startswith(_ADDRESS_FILES) and _has_password(subject, node):
                yield node.path, "an address with a password in it"


def _has_password(subject: Subject, node: Node) -> bool:
    text = subject.tree.text_of(node) if node.size_bytes <= _KEY_FILE_BYTES else ""
    return _WITH_PASSWORD.search(text) is not None


def _sudo(subject: Subject) -> Iterator[tuple[str, str]]:
    declared = {user.name for user in subject.definition.users if user.sudo} | {subject.definition.user}
    for node in (*subject.tree.inside("/etc/sudoers.d"), subject.tree.get("/etc/sudoers")):
        text = ("" if node is None else subject.text_behind(node)).replace("\\\n", " ")
        if node is None or not text:
            continue
        for line in map(str.strip, text.splitlines()):
            if not line or _SYSTEM_SUDO.match(line):
                if re.match(r"Defaults\b.*!\s*authenticate", line):
                    yield node.path, "sudo asks nobody for a password"
                if _SUDO_INCLUDES.match(line):
                    yield node.path, "sudo has rules elsewhere, which are not looked at"
                continue
            who = line.split()[0]
            without_password = "NOPASSWD" in line
            if who not in declared and (without_password or who not in _ADMINISTRATORS):
                how = "without a password " if without_password else ""
                yield node.path, f"{who} may use sudo {how}and is not declared"


def _trusted_hosts(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        if not node.is_folder and (node.path in _TRUSTED_HOSTS or node.name in {".rhosts", ".shosts"}):
            yield node.path, "hosts that are let in without being asked"


def _automatic_login(subject: Subject) -> Iterator[tuple[str, str]]:
    for folder in ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"):
        for node in subject.tree.below(folder):
            if "getty" not in node.path and "console" not in node.path:
                continue
            behind = subject.tree.find(node.path)
            if behind is not None and behind.path not in subject.ownership.packages:
                text = subject.text_behind(node)
                if re.search(r"^ExecStart=.*(?:--autologin|\s-a\s|login\s+-f|/(?:ba)?sh\b)", text, re.MULTILINE):
                    yield node.path, "a terminal that asks for no password"


ACCOUNT_CHECKS = (
    Check(
        name="empty-password",
        finds="accounts that need no password, or have one outside of `/etc/shadow`",
        reason="Anybody could log in.",
        look=_empty_passwords,
    ),
    Check(
        name="password",
        finds="password hashes in `/etc/shadow`, of locked accounts too; a missing `/etc/shadow`",
        reason="Who knows it, or finds it out, could log in to every machine.",
        look=_passwords,
    ),
    Check(
        name="second-root",
        finds="accounts with number 0 beside root",
        reason="An account with root's number is root, and is overlooked.",
        look=_second_root,
    ),
    Check(
        name="authorised-key",
        finds="`authorized_keys` anywhere",
        reason="Its owner could log in to every machine.",
        look=_authorised_keys,
    ),
    Check(
        name="host-key",
        finds="SSH host keys",
        reason="Everybody has the image, and so the key to pass for its machines.",
        look=_host_keys,
    ),
    Check(
        name="private-key",
        finds="private keys (PEM, PGP, PuTTY) and key stores in `/etc`, homes, `/srv`, `/opt`, `/usr/local`, "
        "`/var/lib`, `/var/www` that no package brought",
        reason="A key that is published is none.",
        look=_private_keys,
    ),
    Check(
        name="credential",
        finds="`.netrc`, `.git-credentials`, cloud and registry credentials, addresses with a password in them",
        reason="Whoever has the image could use it.",
        look=_credentials,
    ),
    Check(
        name="sudo",
        finds="rules of sudo for others than root, `%sudo`, the account of cloud-init and users with `sudo = true`; "
        "such without a password",
        reason="Only whom the definition names may become root.",
        look=_sudo,
    ),
    Check(
        name="trusted-host",
        finds="`.rhosts`, `.shosts`, `hosts.equiv`",
        reason="Addresses can be forged.",
        look=_trusted_hosts,
    ),
    Check(
        name="automatic-login",
        finds="terminals that log in by themselves",
        reason="A console is open to whoever reaches it.",
        look=_automatic_login,
    ),
)
"""Who could get in."""
