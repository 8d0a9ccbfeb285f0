# SPDX-License-Identifier: Apache-2.0
"""Checks of what answers from outside: sshd, services that listen, and where packages come from later."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from coppice.factory.audit_model import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.factory.audit_model import Subject
    from coppice.factory.evidence.tree import Node

_SSHD_WANTED = {
    "passwordauthentication": {"no"},
    "kbdinteractiveauthentication": {"no"},
    "permitrootlogin": {"no", "prohibit-password", "without-password"},
    "permitemptypasswords": {"no"},
}
# What OpenSSH does when nothing is written.
_SSHD_DEFAULTS = {
    "passwordauthentication": "yes",
    "kbdinteractiveauthentication": "yes",
    "permitrootlogin": "prohibit-password",
    "permitemptypasswords": "no",
}
_SSHD_CONFIG = "/etc/ssh/sshd_config"
_SSHD_OPENS = re.compile(
    r"^[ \t]*(?:Port[\s=]+(?!22[ \t]*$)|ListenAddress[\s=]+(?:\[[^\]\n]*\]|[^\s:\[\]]+):(?!22[ \t]*$)|"
    r"(?:AuthorizedKeysCommand|TrustedUserCAKeys)[\s=]+(?!none[ \t]*$)|"
    r"AuthorizedKeysFile[\s=]+(?!(?:\"?(?:%h/)?\.ssh/authorized_keys2?\"?[ \t]*)+$|none[ \t]*$))",
    re.MULTILINE | re.IGNORECASE,
)
_MAX_INCLUDES = 64
_UNIT_FOLDERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_WANTED_IN = ("*.wants", "*.requires", "*.upholds")
_LISTEN = re.compile(r"^Listen(?:Stream|Datagram)\s*=\s*(\S+)\s*$", re.MULTILINE)
_PORT = re.compile(r"(?:(.*):)?(\d{1,5})")
_RC_FOLDERS = re.compile(r"/etc/rc[2345S]\.d/S\d\d(.+)")
_LISTENERS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("ssh", (22,)),
    ("sshd", (22,)),
    ("dropbear", (22,)),
    ("cockpit", (9090,)),
    ("*vnc*", (5901, 5900)),
    ("xrdp*", (3389,)),
    ("apache2", (80, 443)),
    ("httpd", (80, 443)),
    ("nginx", (80, 443)),
    ("lighttpd", (80, 443)),
    ("haproxy", (80, 443)),
    ("squid", (3128,)),
    ("tomcat*", (8080,)),
    ("jupyterhub", (8000, 443)),
    ("mariadb", (3306,)),
    ("mysql", (3306,)),
    ("postgresql*", (5432,)),
    ("mongod*", (27017,)),
    ("redis*", (6379,)),
    ("memcached", (11211,)),
    ("elasticsearch", (9200,)),
    ("rabbitmq-server", (5672,)),
    ("exim4", (25,)),
    ("postfix*", (25,)),
    ("sendmail", (25,)),
    ("dovecot", (143, 993)),
    ("rpcbind", (111,)),
    ("nfs-server", (2049,)),
    ("nfs-kernel-server", (2049,)),
    ("smbd", (445,)),
    ("nmbd", (137,)),
    ("avahi-daemon", (5353,)),
    ("cups", (631,)),
    ("bind9", (53,)),
    ("named", (53,)),
    ("dnsmasq", (53,)),
    ("unbound", (53,)),
    ("vsftpd", (21,)),
    ("proftpd", (21,)),
    ("tftpd-hpa", (69,)),
    ("telnetd*", (23,)),
    ("inetd", (23,)),
    ("inetutils-inetd", (23,)),
    ("openbsd-inetd", (23,)),
    ("xinetd", (23,)),
    ("rsync", (873,)),
    ("snmpd", (161,)),
    ("slapd", (389, 636)),
    ("zabbix-agent*", (10050,)),
    ("*node-exporter", (9100,)),
)
"""Services that listen to the network when they are installed as they come, and on which ports."""
_LOOPBACK = ("127.", "[::1]", "::1", "localhost")
# All the words that apt, and dnf, take for yes and no.
_YES = r"(?:yes|true|with|on|enable|0*[1-9]\d*)\b"
_NO = r"(?:no|false|without|off|disable|0+)\b"
_INSECURE = re.compile(
    r"(?:AllowUnauthenticated|AllowInsecureRepositories|AllowWeakRepositories|AllowDowngradeToInsecureRepositories)"
    rf"\s+[\"']?{_YES}|Verify-(?:Peer|Host)\s+[\"']?{_NO}",
    re.IGNORECASE,
)
_TRUSTED = re.compile(rf"\[[^\]]*\b(?:trusted|allow-insecure|allow-weak)={_YES}[^\]]*\]", re.IGNORECASE)
_TRUSTED_FIELD = re.compile(rf"^(?:Trusted|Allow-Insecure|Allow-Weak)\s*:\s*{_YES}", re.IGNORECASE | re.MULTILINE)
_LOCAL_SOURCE = re.compile(
    r"^\s*(?:deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?|URIs\s*:.*?)(?:file|copy|cdrom):", re.IGNORECASE | re.MULTILINE
)
# Not repo_gpgcheck: of most distributions' indices nobody has a signature, and their own files say so.
_RPM_UNSIGNED = re.compile(rf"^\s*(?:gpgcheck|localpkg_gpgcheck|sslverify)\s*=\s*{_NO}", re.IGNORECASE | re.MULTILINE)


def sshd_settings(subject: Subject) -> dict[str, str]:
    """Return the settings of sshd that matter here, as sshd itself would read them: the first value wins."""
    found: dict[str, str] = {}
    _read_sshd(subject, subject.tree.text(_SSHD_CONFIG) or "", found, _MAX_INCLUDES)
    return {name: found.get(name, default) for name, default in _SSHD_DEFAULTS.items()}


def _read_sshd(subject: Subject, text: str, found: dict[str, str], includes: int) -> None:
    for keyword, values in _sshd_lines(text):
        if keyword == "match":
            # What follows holds for some connections only.
            return
        if keyword == "include":
            for node in _included(subject, values) if includes else ():
                _read_sshd(subject, subject.tree.text(node.path) or "", found, includes - 1)
        else:
            found.setdefault(keyword, values[0].strip('"').lower())


def _sshd_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        words = line.split("#")[0].replace("=", " ", 1).split()
        if len(words) > 1:
            keyword = words[0].lower()
            is_old = keyword == "challengeresponseauthentication"
            yield "kbdinteractiveauthentication" if is_old else keyword, words[1:]


def _opened_for_some(text: str) -> Iterator[str]:
    """Give what blocks, which hold for some connections only, say and should not."""
    is_inside = False
    for keyword, values in _sshd_lines(text):
        is_inside = is_inside or keyword == "match"
        value = values[0].strip('"').lower()
        if is_inside and value not in _SSHD_WANTED.get(keyword, {value}):
            yield f"sshd has {keyword} {value} for some connections"


def _included(subject: Subject, patterns: list[str]) -> Iterator[Node]:
    for pattern in patterns:
        folder, _, name = pattern.rpartition("/")
        folder = folder if folder.startswith("/") else f"/etc/ssh/{folder}".rstrip("/")
        yield from (node for node in subject.tree.inside(folder) if fnmatchcase(node.name, name))


def _sshd(subject: Subject) -> Iterator[tuple[str, str]]:
    if subject.tree.find(_SSHD_CONFIG) is None:
        if subject.definition.access.ssh:
            yield _SSHD_CONFIG, "it is not there, and access by SSH is declared"
        return
    found = sshd_settings(subject)
    for name, wanted in _SSHD_WANTED.items():
        if found[name] not in wanted:
            yield _SSHD_CONFIG, f"sshd has {name} {found[name]}, not {' or '.join(sorted(wanted))}"
    declared = {file.path for file in subject.definition.files}
    main = subject.tree.find(_SSHD_CONFIG)
    for node in [*([main] if main is not None else []), *subject.tree.inside("/etc/ssh/sshd_config.d")]:
        text = "" if node.path in declared else subject.text_behind(node)
        yield from ((node.path, what) for what in _opened_for_some(text))
        if _SSHD_OPENS.search(text):
            yield node.path, "sshd listens elsewhere, or lets in by other keys, than the definition says"


def enabled_units(subject: Subject) -> dict[str, str]:
    """Return the units that start by themselves, and what in the image says so."""
    tree = subject.tree
    masked = {node.name for node in tree.inside(_UNIT_FOLDERS[0]) if node.is_link and node.target == "/dev/null"}
    units: dict[str, str] = {}
    for folder in _UNIT_FOLDERS:
        for group in tree.inside(folder):
            if group.is_folder and any(fnmatchcase(group.name, pattern) for pattern in _WANTED_IN):
                units |= {node.name: node.path for node in tree.inside(group.path) if not node.is_folder}
    for node in tree.below("/etc"):
        match = _RC_FOLDERS.fullmatch(node.path)
        # systemd starts a script of old only where there is no unit of its name.
        if match and not any(tree.find(f"{folder}/{match[1]}.service") for folder in _UNIT_FOLDERS):
            units.setdefault(f"{match[1]}.service", node.path)
    return {unit: path for unit, path in units.items() if unit not in masked}


def _listeners(subject: Subject) -> Iterator[tuple[str, str]]:
    declared_ports = _declared_ports(subject)
    declared_units = set(subject.definition.services.enabled)
    for unit, path in enabled_units(subject).items():
        stem, _, kind = unit.rpartition(".")
        if unit in declared_units or stem in declared_units:
            continue
        if kind == "socket":
            ports = tuple(_socket_ports(subject, unit))
            if any(port not in declared_ports for port in ports):
                yield path, f"{unit} listens on port {', '.join(map(str, ports))}, which is not declared"
            continue
        name = stem.partition("@")[0]
        ports = next((ports for pattern, ports in _LISTENERS if fnmatchcase(name, pattern)), ())
        if kind == "service" and ports and not declared_ports.intersection(ports):
            yield path, f"{unit} starts by itself and listens (port {ports[0]}), which is not declared"


def _declared_ports(subject: Subject) -> set[int]:
    access = subject.definition.access
    ports = {each.port for each in subject.definition.firewall.open_ports}
    for is_declared, own in ((access.ssh, {22}), (access.vnc, {5900, 5901}), (access.web_console, {9090})):
        ports |= own if is_declared else set()
    return ports


def _socket_ports(subject: Subject, unit: str) -> Iterator[int]:
    tree = subject.tree
    texts = [tree.text(f"{folder}/{unit}") for folder in _UNIT_FOLDERS]
    found = [next((text for text in texts if text is not None), "")]
    found += [subject.text_behind(node) for folder in _UNIT_FOLDERS for node in tree.inside(f"{folder}/{unit}.d")]
    for place in (place for text in found for place in _LISTEN.findall(text)):
        match = _PORT.fullmatch(place)
        if match and not (match[1] or "").startswith(_LOOPBACK):
            yield int(match[2])


def _package_sources(subject: Subject) -> Iterator[tuple[str, str]]:
    tree = subject.tree
    main = tree.find("/etc/apt/sources.list")
    for node in [*([main] if main is not None else []), *tree.inside("/etc/apt/sources.list.d")]:
        lines = subject.text_behind(node).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        if _TRUSTED.search(text) or _TRUSTED_FIELD.search(text):
            yield node.path, "a source whose packages are taken without a signature"
        if _LOCAL_SOURCE.search(text):
            yield node.path, "a source that is a folder of the building machine"
    for node in tree.below("/etc/apt"):
        if "apt.conf" in node.path and _INSECURE.search(subject.text_behind(node)):
            yield node.path, "apt is told to take packages without a good signature"
    for folder in ("/etc/yum.repos.d", "/etc/dnf"):
        for node in tree.below(folder):
            if _RPM_UNSIGNED.search(subject.text_behind(node)):
                yield node.path, "packages are taken without a good signature"


NETWORK_CHECKS = (
    Check(
        name="sshd",
        finds="sshd that takes passwords or lets root in by one; other ports or ways in than the definition lays in; a "
        "missing sshd where `access.ssh` is on",
        reason="Passwords are guessed; keys are not.",
        look=_sshd,
    ),
    Check(
        name="listening-service",
        finds="units that start by themselves and listen, and are neither in `access`, nor in `firewall.open`, nor in "
        "`services.enabled`",
        reason="What nobody asked for should not answer.",
        look=_listeners,
    ),
    Check(
        name="package-source",
        finds="sources that are trusted without a signature, or are a folder; settings that take unsigned packages",
        reason="Whoever is on the way could put in another package.",
        look=_package_sources,
    ),
)
"""What answers, and what is asked."""
