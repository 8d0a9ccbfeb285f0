# SPDX-License-Identifier: Apache-2.0
"""The options of the driver, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from coppice.cloud.libvirt_pool.definition import USER_NETWORK
from coppice.errors import SettingsError

if TYPE_CHECKING:
    from coppice.settings.clouds import CloudSettings
    from coppice.settings.driver_options import Options

OPTIONS = frozenset({"uri", "pool", "hypervisor", "network", "verify", "timeout"})
DEFAULT_URI = "qemu:///system"
DEFAULT_POOL = "default"
DEFAULT_CALL_SECONDS = 120.0
_HYPERVISORS = ("auto", "kvm", "qemu")
_OPEN_TRANSPORTS = frozenset({"tcp"})
_POOL_NAME = re.compile(r"[^/\s\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Where images lie, and what their machines are like.

    Attributes:
        pool: The storage pool.
        pools: All that images can lie in: what the settings name for some VO, too.
        hypervisor: ``kvm``, ``qemu``, or ``auto``: the best that there is.
        network: One of libvirt's networks, or a word of `coppice.cloud.libvirt_pool.definition`.
        verify: Whether what was sent is read back and compared.
    """

    pool: str
    pools: tuple[str, ...] = ()
    hypervisor: str = "auto"
    network: str = USER_NETWORK
    verify: bool = True


def read_uri(options: Options, where: str) -> str:
    """Return the URI of the libvirt; one over SSH never asks for a password.

    Raises:
        SettingsError: It is not of QEMU's driver, or sends everything in the open.
    """
    uri = options.text("uri", DEFAULT_URI)
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if driver != "qemu":
        raise SettingsError(
            f"{where}.uri: {uri!r} is not of QEMU's driver",
            resolution=f"Write for example: {DEFAULT_URI}, qemu:///session, qemu+ssh://user@host/system",
        )
    if transport in _OPEN_TRANSPORTS:
        raise SettingsError(
            f"{where}.uri: {uri!r} sends everything in the open, and knows nobody",
            resolution="Use qemu+ssh://user@host/system or qemu+tls://host/system.",
        )
    if parts.password:
        raise SettingsError(
            f"{where}.uri has a password in it",
            resolution="Use an SSH key without a passphrase: qemu+ssh://user@host/system?keyfile=/path",
        )
    if transport in {"ssh", "libssh", "libssh2"} and "no_tty" not in parse_qs(parts.query):
        return f"{uri}{'&' if parts.query else '?'}no_tty=1"
    return uri


def read_placing(settings: CloudSettings, options: Options) -> Placing:
    """Return where images lie.

    Raises:
        SettingsError: An option is wrong, or asks for what libvirt cannot do.
    """
    where = f"clouds.{settings.name}"
    _refuse_audiences(settings, where)
    pool = _pool(options.text("pool", DEFAULT_POOL), f"{where}.pool")
    pools = {pool}
    for vo, said in settings.vos.items():
        if len(said.datastores) > 1:
            raise SettingsError(
                f"{where}.vos.{vo}.datastores names {len(said.datastores)} pools",
                resolution="An image lies in one pool of a libvirt: name one.",
            )
        pools |= {_pool(each, f"{where}.vos.{vo}.datastores") for each in said.datastores}
    return Placing(
        pool=pool,
        pools=tuple(sorted(pools)),
        hypervisor=options.choice("hypervisor", _HYPERVISORS),
        network=options.text("network", USER_NETWORK),
        verify=options.switch("verify", default=True),
    )


def _refuse_audiences(settings: CloudSettings, where: str) -> None:
    asked = [("visibility", settings.visibility)]
    for vo, said in settings.vos.items():
        asked += [(f"vos.{vo}.visibility", said.visibility), (f"vos.{vo}.members", ",".join(said.members))]
    for key, value in asked:
        if value and value != "public":
            raise SettingsError(
                f"{where}.{key}: libvirt cannot tell people apart; who may use it sees every image",
                resolution="Remove it, and leave out by `exclude` or `only_vos` what is not for all who use it.",
            )


def _pool(name: str, where: str) -> str:
    if not _POOL_NAME.fullmatch(name):
        raise SettingsError(f"{where}: {name!r} cannot be the name of a storage pool")
    return name
