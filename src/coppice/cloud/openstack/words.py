# SPDX-License-Identifier: Apache-2.0
"""How an image is described in Glance: which words there are, and which values fit.

Names of properties are literals of this module, or the administrator's own. What a list says is a value, and only
where a property takes free text; where Nova or Glance read meaning into a value (``architecture``, ``hw_disk_bus``), it
is one of a literal table, or the property is left out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from coppice.cloud.properties import PREFIX, to_properties
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.cloud.model import OwnershipMarker, Presentation
    from coppice.model.requirements import Requirements

MAX_LENGTH = 255
"""Of a name, a property's name, and what a list says; Nova cuts properties there when it copies them."""
CONTENT = "coppice_content"
"""sha512 of the bytes that were, or are being, registered."""
UNFINISHED = "coppice_unfinished"
"""On an image from its creation until its bytes were compared."""
SITE_PROPERTIES = "coppice_properties"
"""Names of the properties that came from the settings, so that they go when they are not set any more."""
VIRTUAL_SIZE = "coppice_virtual_size"
"""Bytes of the disk that a guest sees."""
HARDWARE = "coppice_hardware"
"""What the archive says of the machine in which the image came: ``firmware/disk bus``."""
TAG = "coppice"
_GIB = 1024**3
_MAX_NUMBER = 2**31 - 1
_BMP_LIMIT = 0xFFFF

DISK_FORMATS: Mapping[DiskFormat, tuple[str, str]] = {
    **{format_: (str(format_), "bare") for format_ in DiskFormat if format_ is not DiskFormat.OVA},
    DiskFormat.OVA: ("vmdk", "ova"),
}
"""``disk_format`` and ``container_format`` of what is registered."""

GLANCES_OWN = frozenset(
    {
        *("id", "name", "status", "owner", "visibility", "protected", "tags", "checksum", "size", "virtual_size"),
        *("created_at", "updated_at", "disk_format", "container_format", "locations", "direct_url", "file", "self"),
        *("schema", "os_hidden", "os_hash_algo", "os_hash_value", "stores", "min_disk", "min_ram", "is_public"),
        *("deleted", "deleted_at", "members", "metadata", "location", "properties", "owner_id", "owner_is_tenant"),
    }
)
"""Attributes of an image that are no properties."""
_SITE_PROPERTY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,254}")

_FREE_TEXTS = {
    "description": ("vmcatcher_event_dc_description", "image_description"),
    "title": ("vmcatcher_event_dc_title",),
    "version": ("vmcatcher_event_hv_version",),
    "hypervisor": ("vmcatcher_event_hv_hypervisor",),
    "comments": ("vmcatcher_event_sl_comments",),
    "architecture": ("vmcatcher_event_sl_arch",),
    "os_kind": ("vmcatcher_event_sl_os",),
    "os_distribution": ("vmcatcher_event_sl_osname",),
    "os_version": ("vmcatcher_event_sl_osversion", "os_version"),
    "groups": ("vmcatcher_event_ad_group",),
    "minimum_cores": ("vmcatcher_event_hv_core_minimum",),
    "minimum_ram_mib": ("vmcatcher_event_hv_ram_minimum",),
    "recommended_cores": ("vmcatcher_event_ad_core_recommended",),
    "recommended_ram_mib": ("vmcatcher_event_ad_ram_recommended",),
    "mpuri": ("vmcatcher_event_ad_mpuri",),
    "base_mpuri": ("vmcatcher_event_ad_base_mpuri",),
}
"""Facts whose text is shown as it is, and as what."""
_ARCHITECTURES = {
    **{name: name for name in ("x86_64", "aarch64", "i686", "ppc64le", "s390x", "riscv64", "armv7l")},
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "i386": "i686",
}
"""Nova refuses a machine whose image has an architecture that it does not know."""
_DISTRIBUTIONS = (
    *("debian", "ubuntu", "fedora", "rhel", "centos", "almalinux", "opensuse", "sles", "arch", "gentoo", "alpine"),
    *("freebsd", "netbsd", "openbsd", "cirros", "flatcar", "coreos", "oraclelinux", "scientificlinux"),
)
_OTHER_DISTRIBUTIONS = {
    "redhatenterpriselinux": "rhel",
    "redhat": "rhel",
    "rocky": "rocky",
    "scientific": "scientificlinux",
    "oracle": "oraclelinux",
    "suselinuxenterprise": "sles",
}
_KVM = frozenset({"qemu", "kvm"})
_ALWAYS_MANAGED = frozenset(
    {
        *(name for names in _FREE_TEXTS.values() for name in names),
        *("vmcatcher_event_dc_identifier", "vmcatcher_event_il_dc_identifier", "vmcatcher_event_sl_checksum_sha512"),
        *("architecture", "os_distro", "os_type", "hypervisor_type", "provided_until", "APPLIANCE_ATTRIBUTES"),
        *("hw_firmware_type", "hw_disk_bus"),
    }
)


def is_site_property(name: str) -> bool:
    """Tell whether the settings may set a property of this name."""
    lowered = name.lower()
    taken = lowered.startswith((PREFIX, "os_glance_")) or lowered in GLANCES_OWN
    return bool(_SITE_PROPERTY.fullmatch(name)) and not taken


def fit(text: str, limit: int = MAX_LENGTH) -> str:
    """Return ``text`` as Glance takes it: characters of three bytes at most, and not too many."""
    return "".join(char if ord(char) <= _BMP_LIMIT else "\ufffd" for char in text)[:limit].rstrip()


def escape(text: str) -> str:
    """Return a marker's text in characters that Glance takes; `unescape` gives it back exactly."""
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    return f"\\U{ord(char):08x}" if ord(char) > _BMP_LIMIT or "\ud800" <= char <= "\udfff" else char


def unescape(text: str) -> str:
    """Return what `escape` was given; what it did not make stays as it is."""

    def plain(match: re.Match[str]) -> str:
        number = int(match[1], 16) if match[1] else ord("\\")
        return chr(number) if number <= 0x10FFFF else match[0]  # noqa: PLR2004 - the last character there is

    return re.sub(r"\\(?:U([0-9a-f]{8})|\\)", plain, text)


def marker_properties(marker: OwnershipMarker) -> dict[str, str]:
    """Return what is written for ``marker``, with what follows from it."""
    found = {key: escape(value) for key, value in to_properties(marker).items()}
    found["vmcatcher_event_dc_identifier"] = fit(marker.key.image_identifier)
    found["vmcatcher_event_il_dc_identifier"] = fit(marker.key.list_identifier)
    if marker.digest.algorithm == "sha512":
        found["vmcatcher_event_sl_checksum_sha512"] = marker.digest.hexdigest
    if marker.expires is not None:
        found["provided_until"] = marker.expires.strftime("%Y-%m-%d")
    return found


def is_marker_property(name: str) -> bool:
    """Tell whether a property follows from the marker alone."""
    kept = (CONTENT, UNFINISHED, SITE_PROPERTIES, VIRTUAL_SIZE, HARDWARE)
    return (name.startswith(PREFIX) and name not in kept) or name in {
        "vmcatcher_event_dc_identifier",
        "vmcatcher_event_il_dc_identifier",
        "vmcatcher_event_sl_checksum_sha512",
        "provided_until",
    }


def hardware_text(hardware: Requirements | None) -> str | None:
    """Return what is kept of an archive's word on the machine; None: it has none."""
    if hardware is None or (hardware.firmware is None and hardware.disk_bus is None):
        return None
    return f"{hardware.firmware or ''}/{hardware.disk_bus or ''}"


def shown_properties(presentation: Presentation, hardware: str | None) -> dict[str, str]:
    """Return the properties that show ``presentation``, those of the site included.

    Args:
        presentation: What is to be shown.
        hardware: As `hardware_text` gives it.
    """
    facts = presentation.facts
    found = {name: fit(facts[fact]) for fact, names in _FREE_TEXTS.items() if facts.get(fact) for name in names}
    found |= _known_words(facts)
    firmware, _, disk_bus = (hardware or "").partition("/")
    if firmware in {"bios", "uefi"}:
        found["hw_firmware_type"] = firmware
    if disk_bus in {"virtio", "scsi", "sata", "ide"}:
        found["hw_disk_bus"] = disk_bus
    attributes = json.dumps(
        {f"ad:{key}": facts[key] for key in ("base_mpuri", "mpuri") if facts.get(key)}, sort_keys=True
    )
    if facts.get("base_mpuri") and len(attributes) <= MAX_LENGTH:
        # cloud-info-provider reads the appliance's own address out of this.
        found["APPLIANCE_ATTRIBUTES"] = attributes
    own = {key: fit(value, 4 * MAX_LENGTH) for key, value in presentation.properties.items() if is_site_property(key)}
    if own:
        found[SITE_PROPERTIES] = ",".join(sorted(own))
    return {key: value for key, value in {**found, **own}.items() if value}


def _known_words(facts: Mapping[str, str]) -> dict[str, str]:
    found = {}
    architecture = _ARCHITECTURES.get(facts.get("architecture", "").lower())
    if architecture is not None:
        found["architecture"] = architecture
    kind = facts.get("os_kind", "").lower()
    if kind in {"linux", "windows"}:
        found["os_type"] = kind
    distribution = _distribution(facts.get("os_distribution", ""))
    if distribution:
        found["os_distro"] = distribution
    hypervisors = frozenset(re.findall(r"[a-z0-9]+", facts.get("hypervisor", "").lower()))
    if hypervisors and hypervisors <= _KVM:
        found["hypervisor_type"] = "qemu"
    return found


def _distribution(text: str) -> str:
    """Return the short name of a distribution, as libosinfo has it."""
    word = re.sub(r"[^a-z0-9]+", "", text.lower())
    for start, name in (*((name, name) for name in _DISTRIBUTIONS), *_OTHER_DISTRIBUTIONS.items()):
        if word.startswith(start):
            return name
    return word[:64]


def is_managed(name: str, properties: Mapping[str, str]) -> bool:
    """Tell whether a property of an image is this driver's to remove.

    Args:
        name: Of the property.
        properties: All that the image has.
    """
    of_site = properties.get(SITE_PROPERTIES, "").split(",")
    return name in _ALWAYS_MANAGED or name == SITE_PROPERTIES or (name in of_site and is_site_property(name))


def least_disk_gib(facts: Mapping[str, str], virtual_size_bytes: int) -> int:
    """Return ``min_disk``: what the disk needs, and at least what its list asks for."""
    wanted = max(_number(facts.get("minimum_disk_bytes")), virtual_size_bytes)
    return min(-(-wanted // _GIB), _MAX_NUMBER)


def least_ram_mib(facts: Mapping[str, str]) -> int:
    """Return ``min_ram``."""
    return min(_number(facts.get("minimum_ram_mib")), _MAX_NUMBER)


def _number(text: str | None) -> int:
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else 0
