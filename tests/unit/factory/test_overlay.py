# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import (
    Access,
    Boot,
    Contextualisation,
    DefinedFile,
    Definition,
    FileSystemKind,
    Firewall,
    OpenPort,
    Services,
)
from coppice.errors import DefinitionError
from coppice.factory.bootstrap.overlay import (
    File,
    Symlink,
    check_definition,
    make_overlay,
    packages_for,
)
from coppice.factory.bootstrap.overlay_cloud import BAKED_SCRIPT, BAKED_SETTINGS, SETTINGS
from coppice.factory.bootstrap.overlay_firewall import RULES, ruleset
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit

KERNEL_OPTIONS = "console=tty0 console=ttyS0,115200"
ROOT = uuid.UUID("00000000-0000-4000-8000-000000000001")
WANTS = "/etc/systemd/system/multi-user.target.wants"
PLAIN = Definition(
    name="plain",
    path=Path("plain/appliance.toml"),
    title="De'bian }",
    description="",
    groups=(),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="bootstrap",
    packages=("jq",),
    disk_size_bytes=1 << 32,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.QCOW2,),
    user="jane",
    requirements=Requirements.from_values({}),
)


def overlay(*, private_mirror=False, **changes):
    return make_overlay(replace(PLAIN, **changes), root_uuid=ROOT, private_mirror=private_mirror)


def text_of(path, **changes):
    entry = overlay(**changes).entries[path]
    assert isinstance(entry, File)
    return entry.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/ssh/ssh_host_rsa_key.pub",
        "/etc/machine-id",
        "/etc/resolv.conf",
        "/etc/.resolv.conf.systemd-resolved.bak",
        "/etc/hostname",
        "/etc/shadow-",
        "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "/var/lib/apt/lists/mirror_dists_bookworm_InRelease",
        "/var/lib/dbus/machine-id",
        "/var/lib/systemd/random-seed",
        "/var/lib/dhcp/dhclient.leases",
        "/var/log/dpkg.log",
        "/var/log/apt/history.log",
        "/root/.bash_history",
        "/dev/null",
        "/tmp/left",  # noqa: S108 - a path of the guest
    ],
)
def test_what_identifies_the_machine_or_its_build_is_left_out(path):
    assert overlay().leaves_out(path)


@pytest.mark.parametrize(
    "path",
    [
        "/dev",
        "/tmp",  # noqa: S108 - a path of the guest
        "/etc/shadow",
        "/etc/ssh/sshd_config",
        "/etc/ssh/moduli",
        "/var/lib/apt/lists",
        "/var/log",
        "/var/log/README",
        "/var/lib/dpkg/status",
        "/etc/apt/sources.list",
        "/usr/share/doc/x/apt.log",
    ],
)
def test_what_the_system_needs_is_kept(path):
    assert not overlay().leaves_out(path)


def test_the_machine_id_is_empty_and_the_resolver_is_the_guests_own():
    assert text_of("/etc/machine-id") == ""
    assert overlay().entries["/etc/resolv.conf"] == Symlink("../run/systemd/resolve/stub-resolv.conf")
    said = overlay().entries["/etc/systemd/resolved.conf.d/10-coppice.conf"]
    assert isinstance(said, File)
    assert {b"LLMNR=no", b"MulticastDNS=no"} <= set(said.content.splitlines())


def test_cloud_init_looks_where_the_definition_says_in_its_order_on_one_line():
    def line(**changes):
        return next(line for line in text_of(SETTINGS, **changes).splitlines() if line.startswith("datasource"))

    assert line() == "datasource_list: [ NoCloud, ConfigDrive, OpenNebula, OpenStack, Ec2, None ]"
    said = Contextualisation(sources=("OpenStack", "None"))
    assert line(contextualisation=said) == "datasource_list: [ OpenStack, None ]"


@pytest.mark.parametrize("sources", [(), ("NoCloud ]\nruncmd: [evil",), ("",), ("a b",)])
def test_what_is_no_source_of_cloud_init_is_refused(sources):
    with pytest.raises(DefinitionError, match="source"):
        overlay(contextualisation=Contextualisation(sources=sources))


@pytest.mark.parametrize("user", ["", "Jane", "-x", 'a"b', "x" * 33, "a\nb"])
def test_what_is_no_name_of_an_account_is_refused(user):
    with pytest.raises(DefinitionError, match="not the name of an account"):
        overlay(user=user)


def test_login_is_by_key_only_as_the_definitions_user():
    sshd = text_of("/etc/ssh/sshd_config.d/00-coppice.conf")
    assert "PasswordAuthentication no" in sshd
    assert "PermitRootLogin no" in sshd
    cloud = text_of(SETTINGS)
    assert "ssh_pwauth: false" in cloud
    assert '"name": "jane"' in cloud
    assert '"lock_passwd": true' in cloud


def test_a_sites_own_mirror_stays_its_own_affair():
    assert overlay(private_mirror=True).leaves_out("/etc/apt/sources.list")
    assert "preserve_sources_list: false" in text_of(SETTINGS, private_mirror=True)
    assert "preserve_sources_list" not in text_of(SETTINGS)


def test_baked_user_data_is_settings_below_the_builders_own_or_a_script_of_each_instance():
    settings = Contextualisation(user_data=b"#cloud-config\nruncmd: [ls]\n")
    assert text_of(BAKED_SETTINGS, contextualisation=settings).endswith("runcmd: [ls]\n")
    assert BAKED_SETTINGS < SETTINGS
    script = overlay(contextualisation=Contextualisation(user_data=b"#!/bin/sh\nls\n")).entries
    assert script[BAKED_SCRIPT] == File(b"#!/bin/sh\nls\n", mode=0o755)
    assert BAKED_SETTINGS not in script


@pytest.mark.parametrize(
    "said", [b"", b"Content-Type: multipart/mixed\n", b"#include\nhttp://x\n", b"#cloud-configs\n"]
)
def test_user_data_that_cannot_be_baked_in_is_refused(said):
    with pytest.raises(DefinitionError, match="neither a script nor"):
        overlay(contextualisation=Contextualisation(user_data=said))


def test_the_agent_and_automatic_updates_are_there_when_they_are_asked_for():
    upgrades = "/etc/apt/apt.conf.d/20auto-upgrades"
    said = Contextualisation(guest_agent=True, automatic_updates=True)
    assert {"qemu-guest-agent", "unattended-upgrades"} <= set(packages_for(replace(PLAIN, contextualisation=said)))
    assert 'Unattended-Upgrade "1"' in text_of(upgrades, contextualisation=said)
    assert not {"qemu-guest-agent", "unattended-upgrades"} & set(packages_for(PLAIN))
    # A parent may have it switched on in the tree.
    assert overlay().leaves_out(upgrades)
    assert upgrades not in overlay().entries


def test_time_is_kept_by_one_program():
    assert "systemd-timesyncd" in packages_for(PLAIN)
    assert "systemd-timesyncd" not in packages_for(replace(PLAIN, packages=("chrony",)))


def test_packages_are_sorted_and_those_of_the_definition_are_among_them():
    found = packages_for(replace(PLAIN, packages=("zsh", "jq", "nftables")))
    assert list(found) == sorted(set(found))
    assert {"zsh", "jq", "nftables"} <= set(found)


def test_the_firewall_lets_in_ssh_and_nothing_else_by_default():
    rules = [line.strip() for line in ruleset(PLAIN).splitlines() if "dport" in line]
    assert "policy drop" in ruleset(PLAIN)
    assert rules == [
        "udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        "tcp dport 22 accept",
    ]
    links = overlay().entries
    assert links["/etc/systemd/system/sysinit.target.wants/nftables.service"] == Symlink(
        "/lib/systemd/system/nftables.service"
    )
    assert "nftables" in packages_for(PLAIN)


def test_the_firewall_opens_what_access_and_the_appliance_need_once_each():
    ports = (
        OpenPort(port=80),
        OpenPort(port=80),
        OpenPort(port=53, protocol="udp"),
        OpenPort(port=5432, source="10.0.0.0/8"),
        OpenPort(port=5432, source="2001:db8::/32"),
    )
    rules = ruleset(
        replace(PLAIN, firewall=Firewall(open_ports=ports), access=Access(ssh=False, vnc=True, web_console=True))
    ).splitlines()
    assert [line.strip() for line in rules if "dport" in line][2:] == [
        "tcp dport 5901 accept",
        "tcp dport 9090 accept",
        "tcp dport 80 accept",
        "udp dport 53 accept",
        "ip saddr 10.0.0.0/8 tcp dport 5432 accept",
        "ip6 saddr 2001:db8::/32 tcp dport 5432 accept",
    ]


@pytest.mark.parametrize(
    "port",
    [
        OpenPort(port=0),
        OpenPort(port=65536),
        OpenPort(port=80, protocol="tcp dport 1-65535 accept #"),
        OpenPort(port=80, source="10.0.0.1/8"),
        OpenPort(port=80, source="0/0 accept; #"),
    ],
)
def test_what_is_no_port_or_network_opens_nothing(port):
    with pytest.raises(DefinitionError, match="cannot open"):
        overlay(firewall=Firewall(open_ports=(port,)))


def test_without_a_firewall_there_is_no_rule_and_no_link_even_of_a_parents():
    bare = overlay(firewall=Firewall(enabled=False))
    assert RULES not in bare.entries
    assert bare.leaves_out("/etc/systemd/system/sysinit.target.wants/nftables.service")
    assert "nftables" not in packages_for(replace(PLAIN, firewall=Firewall(enabled=False)))


def test_without_ssh_it_cannot_be_started_by_any_unit():
    shut = overlay(access=Access(ssh=False))
    for unit in ("ssh.service", "ssh.socket", "sshd.service"):
        assert shut.entries[f"/etc/systemd/system/{unit}"] == Symlink("/dev/null")
    assert shut.leaves_out(f"{WANTS}/ssh.service")
    assert not overlay().leaves_out(f"{WANTS}/ssh.service")
    assert "dport 22" not in ruleset(replace(PLAIN, access=Access(ssh=False)))


def test_a_login_prompt_on_the_serial_port_is_there_unless_it_is_not_wanted():
    serial = "/etc/systemd/system/serial-getty@ttyS0.service"
    assert overlay(access=Access(serial_console=False)).entries[serial] == Symlink("/dev/null")
    assert not overlay().leaves_out(serial)


@pytest.mark.threat("T93")
def test_a_desktop_has_a_password_that_is_made_in_the_machine():
    made = overlay(access=Access(vnc=True))
    unit = made.entries["/etc/systemd/system/coppice-desktop.service"]
    assert isinstance(unit, File)
    assert b"User=jane\n" in unit.content
    assert made.entries[f"{WANTS}/coppice-desktop.service"] == Symlink("/etc/systemd/system/coppice-desktop.service")
    program = text_of("/usr/libexec/coppice/instance-passwords", access=Access(vnc=True))
    assert "/dev/urandom" in program
    assert "chpasswd" not in program
    assert {"tigervnc-standalone-server", "tigervnc-tools"} <= set(
        packages_for(replace(PLAIN, access=Access(vnc=True)))
    )
    assert "tigervnc-common" in packages_for(replace(PLAIN, suite="bullseye", access=Access(vnc=True)))


def test_a_web_console_is_started_by_its_socket_and_only_where_it_is_wanted():
    link = "/etc/systemd/system/sockets.target.wants/cockpit.socket"
    wanted = Access(web_console=True)
    assert overlay(access=wanted).entries[link] == Symlink("/lib/systemd/system/cockpit.socket")
    assert "chpasswd" in text_of("/usr/libexec/coppice/instance-passwords", access=wanted)
    assert "cockpit-ws" in packages_for(replace(PLAIN, access=wanted))
    # A package starts it by itself, and a parent's tree may have it.
    assert overlay().leaves_out(link)
    assert link not in overlay().entries
    assert "/usr/libexec/coppice/instance-passwords" not in overlay().entries


def test_the_boot_menu_starts_the_root_file_system_with_both_consoles_and_no_title_breaks_it():
    menu = text_of("/boot/grub/grub.cfg")
    assert f"linux /vmlinuz root=UUID={ROOT} ro {KERNEL_OPTIONS}\n" in menu
    assert "menuentry 'De bian  '" in menu
    assert "set timeout=0" in menu


def test_boot_options_stand_in_the_menu_and_in_what_writes_it_anew():
    boot = Boot(kernel_options=("quiet", "net.ifnames=0"), menu_seconds=5)
    assert f"{KERNEL_OPTIONS} quiet net.ifnames=0\n" in text_of("/boot/grub/grub.cfg", boot=boot)
    assert "set timeout=5" in text_of("/boot/grub/grub.cfg", boot=boot)
    defaults = text_of("/etc/default/grub", boot=boot)
    assert f'GRUB_CMDLINE_LINUX="{KERNEL_OPTIONS} quiet net.ifnames=0"' in defaults
    assert "GRUB_TIMEOUT=5" in defaults


@pytest.mark.parametrize("option", ["", "a b", 'a"b', "$(reboot)", "a;b", "a\nb", "init={x}"])
def test_what_is_no_option_of_the_kernel_is_refused(option):
    with pytest.raises(DefinitionError, match="not an option of the kernel"):
        overlay(boot=Boot(kernel_options=(option,)))


def test_a_menu_that_waits_for_days_is_refused():
    with pytest.raises(DefinitionError, match="cannot wait"):
        overlay(boot=Boot(menu_seconds=-1))


def test_the_root_file_system_is_mounted_as_what_it_is():
    assert text_of("/etc/fstab") == f"UUID={ROOT} / ext4 defaults,errors=remount-ro 0 1\n"
    assert text_of("/etc/fstab", file_system=FileSystemKind.XFS) == f"UUID={ROOT} / xfs defaults 0 0\n"
    assert text_of("/etc/fstab", file_system=FileSystemKind.BTRFS) == f"UUID={ROOT} / btrfs defaults 0 0\n"


def test_what_a_root_of_btrfs_grows_by_is_installed_with_it_alone():
    assert "btrfs-progs" in packages_for(replace(PLAIN, file_system=FileSystemKind.BTRFS))
    assert "btrfs-progs" not in packages_for(PLAIN)


def test_secure_boot_brings_the_signed_programs_along():
    assert {"grub-efi-amd64-signed", "shim-signed"} <= set(packages_for(replace(PLAIN, boot=Boot(secure_boot=True))))
    assert "shim-signed" not in packages_for(PLAIN)


def test_the_first_serial_port_of_a_machine_for_arm_is_another_and_its_menu_is_shown_by_uefi():
    system = replace(PLAIN.operating_system, architecture="aarch64")
    menu = text_of("/boot/grub/grub.cfg", operating_system=system)
    assert "console=tty0 console=ttyAMA0,115200\n" in menu
    assert "serial --unit" in text_of("/boot/grub/grub.cfg")
    assert "serial --unit" not in menu
    assert 'GRUB_TERMINAL="console"\n' in text_of("/etc/default/grub", operating_system=system)
    shut = overlay(access=Access(serial_console=False), operating_system=system)
    assert shut.entries["/etc/systemd/system/serial-getty@ttyAMA0.service"] == Symlink("/dev/null")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/nftables.conf", "the builder writes it"),
        ("/boot/grub/grub.cfg", "the builder writes it"),
        ("/etc/ssh/ssh_host_rsa_key", "never kept"),
        ("/tmp/x", "never kept"),  # noqa: S108 - a path of the guest
    ],
)
def test_a_file_that_would_not_arrive_is_refused(path, why):
    with pytest.raises(DefinitionError, match=why):
        check_definition(replace(PLAIN, files=(DefinedFile(path=path, content=b""),)))


@pytest.mark.parametrize(
    "services",
    [
        Services(masked=("nftables",)),
        Services(disabled=("nftables.service",)),
        Services(enabled=("cockpit.socket",)),
    ],
)
def test_services_cannot_say_otherwise_than_access_and_firewall(services):
    with pytest.raises(DefinitionError, match="not for services to say"):
        check_definition(replace(PLAIN, services=services))


def test_ssh_cannot_be_started_where_access_shuts_it():
    shut = replace(PLAIN, access=Access(ssh=False), services=Services(enabled=("ssh",)))
    with pytest.raises(DefinitionError, match=r"whether ssh\.service starts"):
        check_definition(shut)


def test_files_and_services_that_can_be_honoured_pass():
    check_definition(
        replace(
            PLAIN,
            files=(DefinedFile(path="/etc/motd", content=b"hi"),),
            services=Services(enabled=("ssh",), masked=("apt-daily.timer",)),
        )
    )
