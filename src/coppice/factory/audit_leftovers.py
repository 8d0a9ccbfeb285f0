# SPDX-License-Identifier: Apache-2.0
"""Checks of what a build, or the machine that built, may leave behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coppice.factory.audit_model import Check, any_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.factory.audit_model import Subject

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_SEEDS = (
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/lib/urandom/random-seed",
    "/var/lib/random-seed",
    "/boot/efi/loader/random-seed",
    "/efi/loader/random-seed",
)
_PACKAGE_CACHES = ("/var/lib/apt/lists", "/var/cache/apt", "/var/cache/dnf", "/var/cache/yum", "/var/cache/zypp")
_LEASES = any_of(
    "/var/lib/dhcp/*",
    "/var/lib/dhcpcd/*",
    "/var/lib/NetworkManager/*.lease",
    "/var/lib/NetworkManager/secret_key",
    "/var/lib/systemd/network/*",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/iscsi/initiatorname.iscsi",
)
_HISTORIES = any_of(
    "*/.bash_history",
    "*/.zsh_history",
    "*/.python_history",
    "*/.lesshst",
    "*/.viminfo",
    "*/.wget-hsts",
    "*/.mysql_history",
    "*/.psql_history",
)
_HOMES = ("/root/", "/home/", "/var/lib/")
_TEMPORARY = ("/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys", "/root/.ansible", "/root/.puppetlabs")  # noqa: S108 - folders of the guest
_LOG_NOTES = frozenset({"README"})
_PROXY = re.compile(
    r"^\s*(?:export\s+)?[\"']?(?:(?:https?|ftp|all)_proxy\s*=\s*[\"']?\S|Acquire::\w+::Proxy\s+[\"']?(?!DIRECT)\S|"
    r"proxy\s*=\s*\S|DefaultEnvironment=.*_proxy=)",
    re.IGNORECASE | re.MULTILINE,
)
_PROXY_PLACES = any_of(
    "/etc/environment",
    "/etc/environment.d/*",
    "/etc/apt/apt.conf",
    "/etc/apt/apt.conf.d/*",
    "/etc/profile",
    "/etc/profile.d/*",
    "/etc/wgetrc",
    "/etc/pip.conf",
    "/etc/dnf/dnf.conf",
    "/etc/yum.conf",
    "/etc/systemd/system.conf",
    "/etc/systemd/system.conf.d/*",
    "/root/.profile",
    "/root/.bashrc",
)
_RESUME = re.compile(r"^\s*RESUME\s*=\s*(?!none\b|auto\b)\S", re.MULTILINE)
_BAKED_IN = ("/var/lib/cloud/seed/", *(f"/var/lib/cloud/scripts/per-{when}/" for when in ("boot", "instance", "once")))
"""Folders that whoever makes an image fills, and cloud-init never does: what a cloud hands over lies elsewhere."""


def _machine_ids(subject: Subject) -> Iterator[tuple[str, str]]:
    for path in _MACHINE_IDS:
        node = subject.tree.get(path)
        said = (subject.tree.text(path) or "").strip() if node is not None and node.is_file else ""
        if said not in {"", "uninitialized"}:
            yield path, "the number that tells one machine from another"


def _seeds(subject: Subject) -> Iterator[tuple[str, str]]:
    for path in _SEEDS:
        if subject.tree.get(path) is not None:
            yield path, "a secret that each machine makes for itself"


def _logs(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree.below("/var/log"):
        if node.is_file and node.size_bytes and node.name not in _LOG_NOTES:
            yield node.path, f"a log of {node.size_bytes} bytes"


def _cloud_state(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree.below("/var/lib/cloud"):
        if not node.is_folder and not node.path.startswith(_BAKED_IN):
            yield node.path, "what cloud-init noted in a machine: it would not set up the next one"


def _package_caches(subject: Subject) -> Iterator[tuple[str, str]]:
    for folder in _PACKAGE_CACHES:
        for node in subject.tree.below(folder):
            if not node.is_folder and node.size_bytes:
                yield node.path, "a package manager's cache"


def _leases(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        matches = _LEASES.match(node.path)
        if matches and node.is_file and node.size_bytes and node.path not in subject.ownership.packages:
            yield node.path, "what one machine was called in its network"


def _histories(subject: Subject) -> Iterator[tuple[str, str]]:
    for node in subject.tree:
        if node.path.startswith(_HOMES) and _HISTORIES.match(node.path):
            yield node.path, "what somebody typed"


def _temporary(subject: Subject) -> Iterator[tuple[str, str]]:
    for folder in _TEMPORARY:
        for node in subject.tree.below(folder):
            if node.is_file and node.size_bytes:
                yield node.path, "a file where only what runs has some"


def _resolvers(subject: Subject) -> Iterator[tuple[str, str]]:
    node = subject.tree.get("/etc/resolv.conf")
    if node is not None and node.is_file and node.size_bytes:
        yield node.path, "name servers of the network in which it was built"


def _proxies(subject: Subject) -> Iterator[tuple[str, str]]:
    declared = {file.path for file in subject.definition.files}
    for node in subject.tree.below("/"):
        is_a_place = node.is_file and _PROXY_PLACES.match(node.path)
        text = _without_comments(subject.tree.text_of(node)) if is_a_place and node.path not in declared else ""
        if _PROXY.search(text):
            yield node.path, "a proxy of the network in which it was built"


def _swaps(subject: Subject) -> Iterator[tuple[str, str]]:
    for line in (subject.tree.text("/etc/fstab") or "").splitlines():
        words = line.split("#")[0].split()
        if len(words) > 2 and words[2] == "swap":  # noqa: PLR2004 - what, where, file system
            yield "/etc/fstab", f"swap on {words[0]}, which machines made of the image do not have"
    for node in subject.tree.inside("/etc/initramfs-tools/conf.d"):
        if node.is_file and _RESUME.search(subject.tree.text_of(node)):
            yield node.path, "a place to wake up from that is another machine's: the start waits for it"
    for path in ("/swapfile", "/swap.img"):
        if subject.tree.get(path) is not None:
            yield path, "a swap file: bytes of memory of the building machine may be in it"


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", "//", ";")))


LEFTOVER_CHECKS = (
    Check(
        name="machine-id",
        finds="a machine-id that is set",
        reason="Machines with one number take each other's addresses.",
        look=_machine_ids,
    ),
    Check(
        name="seed",
        finds="random seeds and the secret of credentials of systemd",
        reason="Machines would draw the same random numbers.",
        look=_seeds,
    ),
    Check(
        name="log",
        finds="logs that are not empty",
        reason="It tells of the building machine, and grows the image.",
        look=_logs,
    ),
    Check(
        name="cloud-state",
        finds="what cloud-init noted (seeds of the appliance itself may be there)",
        reason="The first start would be taken for a later one.",
        look=_cloud_state,
    ),
    Check(
        name="package-cache",
        finds="lists, archives and caches of apt, dnf and zypper",
        reason="It is old by tomorrow, and grows the image.",
        look=_package_caches,
    ),
    Check(
        name="lease",
        finds="DHCP leases, names of network cards, the initiator name of iSCSI",
        reason="Addresses and names are each machine's own.",
        look=_leases,
    ),
    Check(
        name="history",
        finds="histories of shells and programs",
        reason="Commands may have secrets in them.",
        look=_histories,
    ),
    Check(
        name="temporary-file",
        finds="files in `/tmp`, `/var/tmp`, `/run`, `/dev`, of Ansible and Puppet in `/root`",
        reason="It was meant to be gone.",
        look=_temporary,
    ),
    Check(
        name="resolver",
        finds="a `/etc/resolv.conf` with name servers in it",
        reason="Each cloud has its own.",
        look=_resolvers,
    ),
    Check(
        name="proxy",
        finds="proxies for apt, shells and systemd that no `[[file]]` lays in",
        reason="It is not there where machines run.",
        look=_proxies,
    ),
    Check(
        name="swap",
        finds="swap in `/etc/fstab`, swap files, a place to resume from",
        reason="Machines wait for a disk that they do not have.",
        look=_swaps,
    ),
)
"""What was left behind."""
