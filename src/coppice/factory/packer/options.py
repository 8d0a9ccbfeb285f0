# SPDX-License-Identifier: Apache-2.0
"""What a definition may say in ``[platform.qemu]`` and ``[platform.virtualbox]`` for the builder ``packer``.

A key that is not known is refused, never ignored.
"""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from coppice.errors import DefinitionError
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition

_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.:-]*/[^\s\x00-\x1f\x7f@\"'\\]*")
_DURATION = r"[1-9]\d{0,4}(?:ms|s|m)"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._ -]{0,127}"
_CHECKSUMS = frozenset({"sha256", "sha384", "sha512"})
MOST_COMMANDS = 100


class Platform(StrEnum):
    """Where Packer makes the disk."""

    QEMU = "qemu"
    VIRTUALBOX = "virtualbox"
    OPENSTACK = "openstack"


class Installer(StrEnum):
    """Which unattended installer is on the medium, by what answers its questions."""

    PRESEED = "preseed"
    AUTOINSTALL = "autoinstall"
    KICKSTART = "kickstart"
    AUTOYAST = "autoyast"


def _address(text: str) -> str:
    if _WEB_ADDRESS.fullmatch(text):
        return text
    parts = text.split("/")
    if text.startswith("/") and all(each not in {"", ".", ".."} for each in parts[1:]) and text.isprintable():
        return text
    message = f"neither an address (http://, https://) nor an absolute path: {text[:140]!r}"
    raise ValueError(message)


def _web(text: str) -> str:
    if not _WEB_ADDRESS.fullmatch(text):
        message = f"not an address (http://, https://): {text[:140]!r}"
        raise ValueError(message)
    return text


def _checksum(text: str) -> str:
    checksum = Checksum.parse(text)
    if checksum.algorithm not in _CHECKSUMS:
        message = f"not a checksum that Packer compares: {checksum.algorithm}; one of {', '.join(sorted(_CHECKSUMS))}"
        raise ValueError(message)
    return str(checksum)


def _typed(text: str) -> str:
    if not text.isprintable() or len(text) > 2000:  # noqa: PLR2004 - a bound
        message = "what is typed at start is a list of texts of up to 2000 characters, without control characters"
        raise ValueError(message)
    return text


_Address = Annotated[str, AfterValidator(_address)]
_Digest = Annotated[str, AfterValidator(_checksum)]
_Duration = Annotated[str, Field(pattern=f"^{_DURATION}$")]
_Name = Annotated[str, Field(pattern=f"^{_NAME}$")]
_Commands = Annotated[list[Annotated[str, AfterValidator(_typed)]], Field(max_length=MOST_COMMANDS)]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
        hide_input_in_errors=True,
    )


class MachineOptions(_Table):
    """What both kinds of machines have: what they start from, and how they are driven."""

    iso_url: _Address | None = Field(default=None, description="The installation medium: an address, or a path.")
    iso_checksum: _Digest | None = Field(default=None, description="Its checksum: `sha256:…`, `sha512:…`.")
    installer: Literal["preseed", "autoinstall", "kickstart", "autoyast"] | None = Field(
        default=None, description="What is on it; unset: what the distribution has."
    )
    install_url: Annotated[str, AfterValidator(_web)] | None = Field(
        default=None, description="Where a kickstart installs from, when the medium has no packages."
    )
    boot_command: _Commands | None = Field(
        default=None, description="What is typed when the medium starts; unset: what is usual for its installer."
    )
    boot_wait: _Duration = Field(default="10s", description="How long before that.")
    memory_mib: Annotated[int, Field(ge=256, le=1024 * 1024)] = Field(
        default=2048, description="Memory of the machine in which it is built, in MiB."
    )
    cores: Annotated[int, Field(ge=1, le=256)] = Field(default=2, description="Its processor cores.")
    login_timeout: _Duration = Field(default="60m", description="How long until one can log in to it by SSH.")

    @property
    def has_medium(self) -> bool:
        """Whether an installer is started."""
        return self.iso_url is not None


class QemuOptions(MachineOptions):
    """``[platform.qemu]``."""

    disk: _Address | None = Field(default=None, description="The disk to start from, in place of a medium: a path.")
    disk_checksum: _Digest | None = Field(default=None, description="Its checksum: `sha256:…`, `sha512:…`.")
    disk_format: Literal["qcow2", "raw"] = Field(default="qcow2", description="What it is.")
    boot_key_interval: _Duration = Field(default="100ms", description="How long between two keys.")
    machine_type: Literal["pc", "q35"] = Field(default="q35", description="The kind of the machine.")

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.iso_url is not None and self.disk is not None:
            message = "iso-url and disk are both given; keep one"
            raise ValueError(message)
        _both(("iso-url", self.iso_url), ("iso-checksum", self.iso_checksum))
        _both(("disk", self.disk), ("disk-checksum", self.disk_checksum))
        if self.disk is not None and not self.disk.startswith("/"):
            message = "disk is not an absolute path; what lies elsewhere is fetched by the builder image"
            raise ValueError(message)
        return self


class VirtualBoxOptions(MachineOptions):
    """``[platform.virtualbox]``."""

    guest_os_type: _Name = Field(default="Linux26_64", description="VirtualBox's name of the system.")
    hard_drive_interface: Literal["ide", "sata", "scsi"] = Field(default="sata", description="How the disk is joined.")

    @model_validator(mode="after")
    def _medium(self) -> Self:
        if self.iso_url is None:
            message = "iso-url is missing: under VirtualBox, an installer is started"
            raise ValueError(message)
        _both(("iso-url", self.iso_url), ("iso-checksum", self.iso_checksum))
        return self


class OpenStackOptions(_Table):
    """``[platform.openstack]``."""

    cloud: _Name = Field(description="Which cloud of `clouds.yaml`; what logs in stands there, never here.")
    source_image_name: _Name | None = Field(default=None, description="The image to start from, by its name.")
    source_image: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{32,36}$")] | None = Field(
        default=None, description="The same, by its identifier."
    )
    flavor: _Name = Field(description="How large the server is.")
    networks: Annotated[list[_Name], Field(max_length=16)] = Field(default=[], description="Networks that it is in.")
    floating_ip_network: _Name | None = Field(default=None, description="Where it gets an address to log in to.")
    security_groups: Annotated[list[_Name], Field(max_length=16)] = Field(default=[], description="Of the server.")
    availability_zone: _Name | None = Field(default=None, description="Where it runs.")
    login_timeout: _Duration = Field(default="30m", description="How long until one can log in to it by SSH.")

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.source_image is None) == (self.source_image_name is None):
            message = "one of source-image and source-image-name must be given"
            raise ValueError(message)
        return self


PlatformOptions = QemuOptions | VirtualBoxOptions | OpenStackOptions
"""What one platform was told."""

SCHEMAS: dict[Platform, type[QemuOptions | VirtualBoxOptions | OpenStackOptions]] = {
    Platform.QEMU: QemuOptions,
    Platform.VIRTUALBOX: VirtualBoxOptions,
    Platform.OPENSTACK: OpenStackOptions,
}


def read_options(definition: Definition) -> PlatformOptions:
    """Return what ``definition`` says of the platform that it is built on; QEMU where it names none.

    Raises:
        DefinitionError: It names several platforms, one that there is not, or a key or value that cannot be.
    """
    named = sorted(definition.platforms)
    if len(named) > 1:
        raise DefinitionError(
            f"{definition.name}: the builder packer makes one disk on one platform, and here are {', '.join(named)}",
            resolution="Keep one [platform.*]; put the others into variants of the definition.",
        )
    if named and named[0] not in {each.value for each in Platform}:
        near = difflib.get_close_matches(named[0], [each.value for each in Platform], n=1)
        raise DefinitionError(
            f"{definition.name}: the builder packer has no platform {named[0]!r}",
            resolution=f"Did you mean {near[0]}?" if near else f"There are {', '.join(Platform)}.",
        )
    platform = Platform(named[0]) if named else Platform.QEMU
    said = definition.platforms.get(platform.value, {})
    schema = SCHEMAS[platform]
    try:
        return schema.model_validate(dict(said))
    except ValidationError as problem:
        raise _refusal(definition.path, platform, schema, problem) from problem


def platform_of(options: PlatformOptions) -> Platform:
    """Return which platform ``options`` are of."""
    return next(platform for platform, schema in SCHEMAS.items() if isinstance(options, schema))


def _both(first: tuple[str, str | None], second: tuple[str, str | None]) -> None:
    if (first[1] is None) != (second[1] is None):
        given, missing = (first[0], second[0]) if second[1] is None else (second[0], first[0])
        message = f"{given} is given without {missing}: nothing is started whose bytes are not known"
        raise ValueError(message)


def _refusal(path: Path, platform: Platform, schema: type[BaseModel], problem: ValidationError) -> DefinitionError:
    known = [field.alias or name for name, field in schema.model_fields.items()]
    lines = []
    for each in problem.errors():
        place = ".".join(str(part) for part in each["loc"])
        where = f"platform.{platform}.{place}" if place else f"platform.{platform}"
        if each["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place, known, n=1)
            lines.append(f"{where}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
        else:
            lines.append(f"{where}: {each['msg'].removeprefix('Value error, ')}")
    return DefinitionError(
        f"{path}: {lines[0]}",
        details="\n".join(lines),
        resolution=f"Correct [platform.{platform}]. Its keys: {', '.join(known)}.",
        context={"path": str(path), "problems": lines},
    )
