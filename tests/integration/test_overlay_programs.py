# SPDX-License-Identifier: Apache-2.0
"""What an overlay lays into an image, tried out: its firewall between two networks, its programs, its units."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import uuid
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import Access, Contextualisation, Firewall, OpenPort
from coppice.definition.read import read_definition
from coppice.factory.bootstrap.overlay import File, make_overlay
from coppice.factory.bootstrap.overlay_access import DESKTOP, PASSWORDS
from coppice.factory.bootstrap.overlay_firewall import RULES, ruleset

pytestmark = pytest.mark.integration

DEBIAN_12 = read_definition(Path(__file__).parents[2] / "definitions" / "debian-12")
PORTS = (
    OpenPort(port=80),
    OpenPort(port=5353, protocol="udp"),
    OpenPort(port=5432, source="192.0.2.0/24"),
    OpenPort(port=6000, source="198.51.100.0/24"),
    OpenPort(port=5432, source="2001:db8::/32"),
)
FULL = replace(DEBIAN_12, user="debian", access=Access(vnc=True, web_console=True), firewall=Firewall(open_ports=PORTS))
CLONE_NEWNET = 0x40000000


def overlay(definition):
    return make_overlay(definition, root_uuid=uuid.UUID(int=1), private_mirror=False).entries


@contextmanager
def pair_of_networks():
    """Yield the names of two network namespaces, a guest's (192.0.2.1) and a peer's (192.0.2.2), joined by a cable."""
    guest, peer = (f"cop-{kind}-{os.getpid()}" for kind in ("g", "p"))
    try:
        for name in (guest, peer):
            ip("netns", "add", name)
        ip("-n", guest, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer)
        for name, number in ((guest, 1), (peer, 2)):
            ip("-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield guest, peer
    finally:
        for name in (guest, peer):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(namespace, work):
    """Return what ``work`` returns in a thread of the network namespace."""
    found = []

    def enter():
        with open(f"/run/netns/{namespace}", "rb") as handle:  # noqa: PTH123 - a handle is what is wanted
            os_setns(handle.fileno())
        found.append(work())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return found[0]


def os_setns(handle):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(handle, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def listener(port):
    found = socket.create_server(("0.0.0.0", port))  # noqa: S104 - of a namespace of the test
    found.settimeout(5)
    return found


def answers(port, host="192.0.2.1"):
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def echo():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(5)
        # Type 8, its checksum, number 1.
        raw.sendto(bytes((8, 0, 0xF7, 0xFD, 0, 1, 0, 1)), ("192.0.2.1", 0))
        return raw.recv(100)[20] == 0


@pytest.mark.parametrize(
    "definition",
    [DEBIAN_12, FULL, replace(DEBIAN_12, access=Access(ssh=False))],
    ids=["plain", "full", "no-ssh"],
)
def test_nft_takes_the_rules_once_and_again(definition, tmp_path):
    rules = tmp_path / "rules"
    rules.write_text(ruleset(definition))
    subprocess.run(["nft", "-c", "-f", rules], check=True)
    with pair_of_networks() as (guest, _):
        for _ in range(2):
            subprocess.run(["ip", "netns", "exec", guest, "nft", "-f", rules], check=True)
        told = subprocess.check_output(["ip", "netns", "exec", guest, "nft", "list", "ruleset"], text=True)
    assert told.count("chain input") == 1
    assert "policy drop" in told


def test_a_port_that_is_opened_answers_and_a_closed_one_stays_closed(tmp_path):
    rules = tmp_path / "rules"
    rules.write_text(ruleset(FULL))
    ports = (22, 80, 443, 5432, 5901, 6000, 9090)
    with pair_of_networks() as (guest, peer):
        open_sockets = [inside(guest, lambda port=port: listener(port)) for port in ports]
        try:
            before = [inside(peer, lambda port=port: answers(port)) for port in ports]
            subprocess.run(["ip", "netns", "exec", guest, "nft", "-f", rules], check=True)
            after = {port: inside(peer, lambda port=port: answers(port)) for port in ports}
            itself = inside(guest, lambda: answers(443, "127.0.0.1"))
            echoed = inside(peer, echo)
        finally:
            for each in open_sockets:
                each.close()
    assert all(before)
    assert after == {22: True, 80: True, 443: False, 5432: True, 5901: True, 6000: False, 9090: True}
    assert itself
    assert echoed


def test_the_guest_can_still_call_out(tmp_path):
    rules = tmp_path / "rules"
    rules.write_text(ruleset(DEBIAN_12))
    with pair_of_networks() as (guest, peer):
        subprocess.run(["ip", "netns", "exec", guest, "nft", "-f", rules], check=True)
        server = inside(peer, lambda: listener(8080))
        try:
            assert inside(guest, lambda: answers(8080, "192.0.2.2"))
        finally:
            server.close()


@pytest.fixture
def machine(tmp_path):
    """Return what runs the password program as a booted machine would: files of its own, programs of this one."""
    for name in ("etc/issue.d", "etc/pam.d", "lib", "cloud/data", "bin"):
        (tmp_path / name).mkdir(parents=True)
    etc = tmp_path / "etc"
    for name in ("ld.so.cache", "login.defs", "nsswitch.conf", "pam.d/chpasswd", "pam.d/common-password"):
        shutil.copy(Path("/etc") / name, etc / name)
    shutil.copytree("/etc/security", etc / "security")
    shutil.copytree("/etc/alternatives", etc / "alternatives", symlinks=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\ndebian:x:1000:1000::/home/debian:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nshadow:x:42:\ndebian:x:1000:\n")
    (etc / "shadow").write_text("root:*:19000::::::\ndebian:!:19000::::::\n")
    (tmp_path / "console").touch()
    (tmp_path / "cloud/data/instance-id").write_text("i-1\n")
    fake = tmp_path / "bin/tigervncpasswd"
    fake.write_text('#!/bin/sh\n[ "$1" = -f ] && sed s/^/scrambled-/\n')
    fake.chmod(0o755)
    program = tmp_path / "program"
    entry = overlay(FULL)[PASSWORDS]
    program.write_bytes(entry.content)
    program.chmod(entry.mode)

    def start():
        argv = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--bind", tmp_path / "console", "/dev/console"]
        argv += ["--bind", etc, "/etc", "--tmpfs", "/var/lib", "--bind", tmp_path / "lib", "/var/lib/coppice"]
        argv += ["--ro-bind", tmp_path / "cloud", "/var/lib/cloud", "--ro-bind", tmp_path / "bin", "/usr/local/bin"]
        return subprocess.run([*argv, "--", program], check=False, capture_output=True, text=True)

    return start


@pytest.mark.threat("T93")
def test_passwords_are_made_once_for_each_instance_and_shown_on_its_console_alone(machine, tmp_path):
    first = machine()
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    issue = tmp_path / "etc/issue.d/80-coppice.issue"
    told = issue.read_text()
    assert (tmp_path / "console").read_text() == told
    desktop, web = (line.rpartition(" ")[2] for line in told.splitlines())
    assert (len(desktop), len(web)) == (8, 16)
    secret = tmp_path / "lib/vnc-password"
    assert secret.read_text() == f"scrambled-{desktop}\n"
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (1000, 0o600)
    assert issue.stat().st_mode & 0o077 == 0
    shadow = (tmp_path / "etc/shadow").read_text()
    assert "debian:$" in shadow
    assert web not in shadow
    assert "root:*:" in shadow
    # A restart changes nothing.
    assert machine().returncode == 0
    assert issue.read_text() == told
    assert (tmp_path / "etc/shadow").read_text() == shadow
    # A copy of the machine is another instance, where cloud-init locks the account again.
    (tmp_path / "cloud/data/instance-id").write_text("i-2\n")
    (tmp_path / "etc/shadow").write_text("root:*:19000::::::\ndebian:!$old:19000::::::\n")
    assert machine().returncode == 0
    other_desktop, other_web = (line.rpartition(" ")[2] for line in issue.read_text().splitlines())
    assert desktop != other_desktop
    assert web != other_web


def test_a_password_that_the_clouds_user_data_set_is_left_alone(machine, tmp_path):
    chosen = "root:*:19000::::::\ndebian:$6$chosen:19000::::::\n"
    (tmp_path / "etc/shadow").write_text(chosen)
    assert machine().returncode == 0
    assert (tmp_path / "etc/shadow").read_text() == chosen
    assert "Web console" not in (tmp_path / "console").read_text()


def test_without_the_account_nothing_is_made_and_the_console_says_so(machine, tmp_path):
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert machine().returncode == 1
    assert "there is no account debian" in (tmp_path / "console").read_text()
    assert list((tmp_path / "lib").iterdir()) == []


def test_every_program_is_one_that_a_shell_understands(tmp_path):
    entries = overlay(FULL)
    for path in (PASSWORDS, DESKTOP):
        place = tmp_path / "program"
        place.write_bytes(entries[path].content)
        subprocess.run(["/bin/sh", "-n", place], check=True)


def test_every_unit_is_one_that_systemd_understands(tmp_path):
    entries = overlay(FULL)
    units = {path: entry for path, entry in entries.items() if path.endswith(".service") and isinstance(entry, File)}
    assert len(units) == 2
    places = []
    for path, entry in units.items():
        place = tmp_path / Path(path).name
        # Their programs are not on this machine.
        text = entry.content.decode().replace(PASSWORDS, "/bin/true").replace(DESKTOP, "/bin/true")
        place.write_text(text.replace("User=debian", "User=root"))
        places.append(place)
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *places], check=False, capture_output=True, text=True
    )
    assert not [line for line in told.stderr.splitlines() if "coppice-" in line], told.stderr


def test_baked_settings_are_read_by_cloud_init_below_the_builders():
    definition = replace(DEBIAN_12, contextualisation=Contextualisation(user_data=b"#cloud-config\nssh_pwauth: true\n"))
    entries = overlay(definition)
    settings = sorted(path for path in entries if path.startswith("/etc/cloud/cloud.cfg.d/"))
    assert len(settings) == 2
    # The later file counts.
    assert b"ssh_pwauth: false" in entries[settings[-1]].content
    assert RULES in entries
