# SPDX-License-Identifier: Apache-2.0
"""`Definition`: what a person writes to have an image built."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from pathlib import Path

    from coppice.model.image import DiskFormat
    from coppice.model.operating_system import Firmware, OperatingSystem
    from coppice.model.requirements import Requirements


class FileSystemKind(StrEnum):
    """File systems that a root can be."""

    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"


class ProvisionerKind(StrEnum):
    """What can be run in an appliance while it is built."""

    SHELL = "shell"
    PUPPET = "puppet"
    ANSIBLE = "ansible"
    CHEF = "chef"
    """Only with the builder ``packer``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The finished image that an appliance starts from: an address with what vouches for its bytes, or the catalogue.

    Attributes:
        catalogue: ``NAME`` for the newest version of an appliance of the catalogue, or ``NAME@VERSION``; empty: none.
        url: ``https``, ``http`` or ``file`` address; empty: it is in the catalogue.
        checksum: ``algorithm:hex`` of its bytes; empty: ``checksums`` has it.
        checksums: Address of a signed file with the checksums of what is in the same folder; empty: none.
        signature: Address of that file's detached signature; empty: the file itself is clear-signed.
        key: The OpenPGP keys of which one must have signed.
    """

    catalogue: str = ""
    url: str = ""
    checksum: str = ""
    checksums: str = ""
    signature: str = ""
    key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinedFile:
    """A file that is laid into the appliance.

    Attributes:
        path: Absolute, in the appliance.
        content: Its bytes; of a template, before its variables are filled in.
        mode: Permissions.
        owner: Name of the user.
        group: Name of the group.
        is_template: ``${name}`` in it stands for one of the definition's variables.
    """

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    is_template: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinedUser:
    """An account beside the one that cloud-init creates; nobody can log in to it by password.

    Attributes:
        name: Login name.
        comment: For people.
        groups: Further groups; made where they are not there.
        shell: Its shell.
        home: Its home directory; None: ``/home/NAME``.
        is_system: A service's account, without a home that is made.
        sudo: Whether it may do everything by sudo, without a password.
    """

    name: str
    comment: str = ""
    groups: tuple[str, ...] = ()
    shell: str = "/bin/bash"
    home: str | None = None
    is_system: bool = False
    sudo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Which units of systemd start by themselves.

    Attributes:
        enabled: Started at boot.
        disabled: Not started at boot.
        masked: Cannot be started at all.
    """

    enabled: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How people come in.

    Attributes:
        ssh: By SSH key.
        serial_console: A login prompt on the serial port.
        vnc: A desktop, on TCP port 5901, that asks for nothing that is baked in: its password is made at first boot.
        web_console: Cockpit, on TCP port 9090.
    """

    ssh: bool = True
    serial_console: bool = True
    vnc: bool = False
    web_console: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPort:
    """A port that the firewall lets in.

    Attributes:
        port: 1 to 65535.
        protocol: ``tcp`` or ``udp``.
        source: Only from this network, as CIDR; None: from anywhere.
    """

    port: int
    protocol: str = "tcp"
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """nftables, closed but for what `Access` and the appliance open.

    Attributes:
        enabled: Whether there is one.
        open_ports: What the appliance opens, beside `Access`.
    """

    enabled: bool = True
    open_ports: tuple[OpenPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contextualisation:
    """What cloud-init does at first boot.

    Attributes:
        sources: Where it looks for what the cloud says, in this order.
        user_data: Baked in, run before what the cloud says; None: nothing.
        guest_agent: Whether the QEMU guest agent is there.
        automatic_updates: Whether security updates are installed by themselves.
    """

    sources: tuple[str, ...] = ("NoCloud", "ConfigDrive", "OpenNebula", "OpenStack", "Ec2", "None")
    user_data: bytes | None = None
    guest_agent: bool = False
    automatic_updates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """Something that is run in the appliance while it is built, as root.

    Attributes:
        name: Order and log go by it.
        kind: What runs it.
        files: What it needs, by paths relative to its own folder; of ``shell``, one script.
        entry: Which of these is run: a script, a manifest, a playbook.
        interpreter: Of a script; empty: its first line says so.
        variables: Given to it: environment of a script, facts of Puppet, extra variables of Ansible.
        stays: Whether what runs it stays installed.
        timeout_seconds: For it.
    """

    name: str
    kind: ProvisionerKind
    files: Mapping[str, bytes]
    entry: str
    interpreter: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    stays: bool = False
    timeout_seconds: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """How it starts.

    Attributes:
        kernel_options: Added to what the builder always gives.
        menu_seconds: How long the boot menu waits.
        secure_boot: Whether UEFI starts it by the distribution's signed loader.
    """

    kernel_options: tuple[str, ...] = ()
    menu_seconds: int = 0
    secure_boot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTest:
    """A script that is run in a booted machine, as root; it passes by ending with 0.

    Attributes:
        name: For the verdict.
        script: Its content.
        timeout_seconds: For it.
    """

    name: str
    script: bytes
    timeout_seconds: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page that a booted machine must serve to who asks from outside.

    Attributes:
        name: For the verdict.
        port: Where it is asked for, by TCP.
        path: Which page.
        is_encrypted: Whether it is asked for by TLS; no certificate of a machine that was just made can be verified.
        status: That it must be answered with.
        contains: A text that it must hold; empty: any page will do.
    """

    name: str
    port: int
    path: str = "/"
    is_encrypted: bool = False
    status: int = 200
    contains: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditException:
    """Something that the audit would refuse, and that is meant to be so.

    Attributes:
        check: Name of the audit's check.
        path: Of what; may have ``*``.
        reason: Why it is no fault here.
    """

    check: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildPolicy:
    """When an appliance is built anew.

    Attributes:
        enabled: Whether it is, by itself.
        interval_days: When something changed, at the latest after so many days; security updates do not wait.
        keep_versions: How many versions stay in the catalogue.
        before_expiry_days: How long before its version expires, it is built anew whatever changed.
    """

    enabled: bool = True
    interval_days: int = 7
    keep_versions: int = 3
    before_expiry_days: int = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An appliance definition, read and validated.

    Attributes:
        name: The name of its folder; of a variant, that and its own: ``web-small``.
        path: The ``appliance.toml`` that it was read from.
        title: For people, one line.
        description: For people, a paragraph.
        groups: Categories.
        operating_system: What is built.
        suite: The distribution's name of the release (``bookworm``).
        builder: The plug-in that builds it (``bootstrap``).
        packages: Added to what the builder always installs; sorted, without duplicates.
        disk_size_bytes: Virtual size of the disk.
        firmware: What it must boot under.
        formats: What the builder writes; the first is the one that is published.
        user: The account that cloud-init creates.
        requirements: What the appliance needs.
        parent: Name of the definition whose built tree it is built upon; None: none.
        vo: The virtual organisation that it is made for; None: none.
        validity_days: How long a version is endorsed; None: as its list says.
        end_of_life: From this day on, its operating system gets no updates, and it is not built anew.
        identifier_template: Of its identifier in descriptors of the old form; COMFY's needles ``$t $v $n $g`` count.
        version_template: Of its versions, likewise; empty: the builder's own.
        snapshot: Names the state of the repositories to build from; empty: today's.
        files: Laid in, by path.
        users: Made, by name.
        services: What starts by itself.
        access: How people come in.
        firewall: What is let in.
        contextualisation: What cloud-init does.
        provisioners: Run in this order.
        file_system: Of the root.
        is_encrypted: Whether the root is to be in LUKS.
        boot: How it starts.
        tests: Run in a booted machine.
        pages: That a booted machine must serve.
        audit_exceptions: What the audit lets pass.
        rebuild: When it is built anew.
        variables: For templates and provisioners.
        platforms: Options of hypervisors, by platform (``qemu``, ``virtualbox``, ``openstack``).
        metadata: Passed untouched into the descriptor.
        variant: Which of several builds this is; empty: the only one.
        start: The finished image that it starts from; None: it starts from packages, or from its parent.
    """

    name: str
    path: Path
    title: str
    description: str
    groups: tuple[str, ...]
    operating_system: OperatingSystem
    suite: str
    builder: str
    packages: tuple[str, ...]
    disk_size_bytes: int
    firmware: tuple[Firmware, ...]
    formats: tuple[DiskFormat, ...]
    user: str
    requirements: Requirements
    parent: str | None = None
    vo: str | None = None
    validity_days: int | None = None
    end_of_life: date | None = None
    identifier_template: str = ""
    version_template: str = ""
    snapshot: str = ""
    files: tuple[DefinedFile, ...] = ()
    users: tuple[DefinedUser, ...] = ()
    services: Services = field(default_factory=Services)
    access: Access = field(default_factory=Access)
    firewall: Firewall = field(default_factory=Firewall)
    contextualisation: Contextualisation = field(default_factory=Contextualisation)
    provisioners: tuple[Provisioner, ...] = ()
    file_system: FileSystemKind = FileSystemKind.EXT4
    is_encrypted: bool = False
    boot: Boot = field(default_factory=Boot)
    tests: tuple[GuestTest, ...] = ()
    pages: tuple[Page, ...] = ()
    audit_exceptions: tuple[AuditException, ...] = ()
    rebuild: RebuildPolicy = field(default_factory=RebuildPolicy)
    variables: Mapping[str, str] = field(default_factory=dict)
    platforms: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    variant: str = ""
    start: Start | None = None

    @property
    def reference(self) -> str:
        """How commands call it: its folder's name, with its variant: ``web@small``."""
        return f"{self.path.parent.name}@{self.variant}" if self.variant else self.name

    def digest(self) -> str:
        """Return the sha256 of all that the definition says; where its file lies does not count."""
        said = {key: value for key, value in asdict(self).items() if key != "path"}
        if self.start is None:
            # Who says nothing of it is what it was before this could be said.
            del said["start"]
        if not self.pages:
            del said["pages"]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=_told).encode()).hexdigest()


def _told(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
