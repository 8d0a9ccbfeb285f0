# SPDX-License-Identifier: Apache-2.0
"""The firewall of an appliance: nftables rules that let in what `Access` and the appliance open, and nothing else."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from coppice.definition.model import OpenPort
from coppice.errors import DefinitionError
from coppice.factory.bootstrap.overlay_model import File, Part, packaged_unit, started_by

if TYPE_CHECKING:
    from coppice.definition.model import Access, Definition

RULES = "/etc/nftables.conf"
SSH_PORT = 22
VNC_PORT = 5901
WEB_CONSOLE_PORT = 9090
_UNIT = "nftables.service"
_MAX_PORT = 65535
_PROTOCOLS = frozenset({"tcp", "udp"})

_HEAD = """\
#!/usr/sbin/nft -f
# Closed but for what the appliance's definition opens. Other tables are left alone when this is loaded again.
table inet appliance
delete table inet appliance
table inet appliance {
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    # ICMP and ICMPv6, by number: a small system has no list of protocols' names.
    meta l4proto { 1, 58 } accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    udp sport 67 udp dport 68 accept
    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
"""
_TAIL = """\
  }
}
"""


def firewall(definition: Definition) -> Part:
    """Return what the firewall of ``definition`` lays over.

    Raises:
        DefinitionError: A port or a network in it is none.
    """
    link = started_by("sysinit.target", _UNIT)
    if not definition.firewall.enabled:
        return Part(entries={}, left_out=(link,))
    return Part(
        entries={RULES: File(ruleset(definition).encode(), mode=0o755), link: packaged_unit(_UNIT)},
        packages=("nftables",),
    )


def ruleset(definition: Definition) -> str:
    """Return the rules as ``nft -f`` reads them.

    Raises:
        DefinitionError: A port or a network in it is none.
    """
    rules = (_rule(port) for port in opened(definition))
    return _HEAD + "".join(f"    {rule}\n" for rule in dict.fromkeys(rules)) + _TAIL


def opened(definition: Definition) -> tuple[OpenPort, ...]:
    """Return every port that is let in: those of `Access`, then those that the appliance opens."""
    return (*_of_access(definition.access), *definition.firewall.open_ports)


def _of_access(access: Access) -> tuple[OpenPort, ...]:
    wanted = ((access.ssh, SSH_PORT), (access.vnc, VNC_PORT), (access.web_console, WEB_CONSOLE_PORT))
    return tuple(OpenPort(port=port) for is_open, port in wanted if is_open)


def _rule(port: OpenPort) -> str:
    if port.protocol not in _PROTOCOLS or not 0 < port.port <= _MAX_PORT:
        raise DefinitionError(
            f"the firewall cannot open {port.port}/{port.protocol}",
            resolution="Write ports of firewall.open as 80/tcp or 53/udp, from 1 to 65535.",
        )
    accept = f"{port.protocol} dport {port.port} accept"
    if port.source is None:
        return accept
    try:
        network = ipaddress.ip_network(port.source)
    except ValueError as problem:
        raise DefinitionError(
            f"the firewall cannot open {port.port}/{port.protocol} for {port.source[:100]!r}: {problem}",
            resolution="Write the network as CIDR, without bits set behind the prefix: 10.0.0.0/8, 2001:db8::/32.",
        ) from problem
    return f"{'ip' if network.version == 4 else 'ip6'} saddr {network} {accept}"  # noqa: PLR2004 - IPv4
