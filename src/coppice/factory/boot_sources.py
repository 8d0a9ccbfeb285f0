# SPDX-License-Identifier: Apache-2.0
"""The sources of cloud-init's data that a boot test serves: disks as clouds attach them, and a metadata service.

Each hands over the same: an instance's name, one SSH key, and a script. What differs is how a cloud is recognised.
"""

from __future__ import annotations

import base64
import json
import shlex
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import NAMESPACE_DNS, uuid5

from coppice.atomic import write_text
from coppice.factory import boot_metadata
from coppice.factory.machine import GUEST_MAC, Identity, Network
from coppice.factory.seed import make_disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST_NAME = "boot-test"
_SERVICE_PREFIX = "169.254.169"
_EC2_VERSIONS = ("2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest")
_ZONE = "boot-test-1a"
_OPENSTACK_VERSIONS = ("2018-08-27", "latest")


class Source(StrEnum):
    """Sources that can be served here, by cloud-init's names."""

    NO_CLOUD = "NoCloud"
    CONFIG_DRIVE = "ConfigDrive"
    OPEN_NEBULA = "OpenNebula"
    OPEN_STACK = "OpenStack"
    EC2 = "Ec2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What is handed over.

    Attributes:
        instance: The machine's name; another one is another machine.
        public_key: That may log in.
        script: Run at first boot.
    """

    instance: str
    public_key: str
    script: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What of it the machine is made with.

    Attributes:
        seed: A disk; None: there is none.
        network: With the metadata service, where there is one.
        identity: What the machine says of itself.
    """

    seed: Path | None = None
    network: Network = field(default_factory=Network)
    identity: Identity = field(default_factory=Identity)


def served_sources(names: tuple[str, ...]) -> tuple[Source, ...]:
    """Return those of ``names`` that can be served here, in their order."""
    return tuple(Source(name) for name in names if name in set(Source))


def serve(source: Source, handed: Handed, work: Path) -> Served:
    """Make in ``work`` what a machine needs to find ``handed`` by ``source``.

    Raises:
        BootTestError: It could not be made.
        StorageError: It could not be written.
    """
    match source:
        case Source.NO_CLOUD:
            return Served(seed=make_disk(work, label="CIDATA", files=no_cloud_files(handed)))
        case Source.CONFIG_DRIVE:
            return Served(seed=make_disk(work, label="CONFIG-2", files=config_drive_files(handed)))
        case Source.OPEN_NEBULA:
            return Served(seed=make_disk(work, label="CONTEXT", files=open_nebula_files(handed)))
        case Source.OPEN_STACK:
            return _by_service(open_stack_pages(handed), Identity(product="OpenStack Nova"), work)
        case Source.EC2:
            # Amazon's machines are known by a UUID that begins with these letters.
            uuid = f"ec2{str(uuid5(NAMESPACE_DNS, handed.instance))[3:]}"
            return _by_service(ec2_pages(handed), Identity(uuid=uuid), work)


def no_cloud_files(handed: Handed) -> dict[str, bytes]:
    """Return the files of a NoCloud disk."""
    told = {
        "instance-id": handed.instance,
        "local-hostname": HOST_NAME,
        "public-keys": [handed.public_key.strip()],
    }
    return {"meta-data": _json(told).encode(), "user-data": handed.script.encode()}


def config_drive_files(handed: Handed) -> dict[str, bytes]:
    """Return the files of OpenStack's disk."""
    return {
        "openstack/latest/meta_data.json": _open_stack_meta_data(handed).encode(),
        "openstack/latest/user_data": handed.script.encode(),
    }


def open_nebula_files(handed: Handed) -> dict[str, bytes]:
    """Return the files of OpenNebula's disk: variables for a shell, the network's among them."""
    network = Network()
    said = {
        "ETH0_MAC": GUEST_MAC,
        "ETH0_IP": network.guest,
        "ETH0_MASK": "255.255.255.0",
        "ETH0_GATEWAY": f"{network.prefix}.2",
        "ETH0_DNS": f"{network.prefix}.3",
        "SET_HOSTNAME": HOST_NAME,
        "SSH_PUBLIC_KEY": handed.public_key.strip(),
        "USER_DATA": base64.b64encode(handed.script.encode()).decode("ascii"),
        "USER_DATA_ENCODING": "base64",
        "VMID": handed.instance,
    }
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in said.items())
    return {"context.sh": f"# Context variables of a boot test\n{lines}".encode()}


def open_stack_pages(handed: Handed) -> dict[str, str]:
    """Return the pages of OpenStack's metadata service, with those that it has in Amazon's form."""
    pages = ec2_pages(handed)
    pages["/openstack"] = "\n".join(_OPENSTACK_VERSIONS)
    for version in _OPENSTACK_VERSIONS:
        pages[f"/openstack/{version}"] = "meta_data.json\nuser_data"
        pages[f"/openstack/{version}/meta_data.json"] = _open_stack_meta_data(handed)
        pages[f"/openstack/{version}/user_data"] = handed.script
    return pages


def ec2_pages(handed: Handed) -> dict[str, str]:
    """Return the pages of Amazon's metadata service."""
    guest = Network(prefix=_SERVICE_PREFIX).guest
    card = f"network/interfaces/macs/{GUEST_MAC}"
    values = {
        "ami-id": "ami-00000000",
        "hostname": HOST_NAME,
        "instance-id": handed.instance,
        "instance-type": "boot.test",
        "local-hostname": HOST_NAME,
        "local-ipv4": guest,
        "public-keys/0/openssh-key": handed.public_key.strip(),
        "placement/availability-zone": _ZONE,
        f"{card}/device-number": "0",
        f"{card}/interface-id": "eni-00000000",
        f"{card}/local-ipv4s": guest,
        f"{card}/mac": GUEST_MAC,
        f"{card}/subnet-ipv4-cidr-block": f"{_SERVICE_PREFIX}.0/24",
    }
    pages = {"": "\n".join(_EC2_VERSIONS)}
    for version in _EC2_VERSIONS:
        pages[f"/{version}"] = "dynamic\nmeta-data\nuser-data"
        pages[f"/{version}/user-data"] = handed.script
        pages |= {f"/{version}/meta-data{path}": text for path, text in _tree(values).items()}
        # A list of keys has their names besides their numbers.
        pages[f"/{version}/meta-data/public-keys"] = "0=boot-test"
        # Asked for at each stage; while it is not there, again and again.
        identity = {"dynamic/instance-identity/document": _instance_identity(handed)}
        pages |= {f"/{version}{path}": text for path, text in _tree(identity).items() if path}
    return pages


def _instance_identity(handed: Handed) -> str:
    return _json(
        {
            "availabilityZone": _ZONE,
            "imageId": "ami-00000000",
            "instanceId": handed.instance,
            "instanceType": "boot.test",
            "region": _ZONE[:-1],
        }
    )


def _tree(values: Mapping[str, str]) -> dict[str, str]:
    folders: dict[str, set[str]] = {}
    for path in values:
        words = path.split("/")
        for depth, word in enumerate(words):
            folder = "".join(f"/{each}" for each in words[:depth])
            folders.setdefault(folder, set()).add(word if depth == len(words) - 1 else f"{word}/")
    listed = {folder: "\n".join(sorted(names)) for folder, names in folders.items()}
    return listed | {f"/{path}": value for path, value in values.items()}


def _open_stack_meta_data(handed: Handed) -> str:
    return _json(
        {
            "uuid": str(uuid5(NAMESPACE_DNS, handed.instance)),
            "hostname": HOST_NAME,
            "name": HOST_NAME,
            "public_keys": {"boot-test": handed.public_key.strip()},
            "availability_zone": "nova",
        }
    )


def _by_service(pages: dict[str, str], identity: Identity, work: Path) -> Served:
    told = work / "metadata.json"
    write_text(told, _json(pages))
    # By the file's name, without anything of the environment: it starts for each connection, and so has to be quick.
    command = (sys.executable, "-I", "-S", boot_metadata.__file__, str(told))
    return Served(network=Network(prefix=_SERVICE_PREFIX, service=command), identity=identity)


def _json(value: object) -> str:
    return json.dumps(value) + "\n"
