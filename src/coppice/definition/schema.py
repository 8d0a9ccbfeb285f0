# SPDX-License-Identifier: Apache-2.0
"""The schema of ``appliance.toml``: what a person may write, and what each value must look like.

Keys are written with hyphens. A key that is not known is refused, never ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from coppice.model.identifiers import is_name
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Architecture, Firmware

MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([KMGT]i?B|B)")
_UNITS = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": TIB,
}
# Debian's own grammar for package names: what starts with a letter or digit can never be taken for an option.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SUITE = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def parse_size(value: object) -> int:
    """Return the number of bytes in ``value``: a whole number of bytes, or text such as ``"8 GiB"``.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        message = f'not a size: {str(value)[:80]!r}; write bytes as a number, or text such as "8 GiB"'
        raise ValueError(message)
    size = float(match[1]) * _UNITS[match[2]] if "." in match[1] else int(match[1]) * _UNITS[match[2]]
    if size != int(size):
        message = f"not a whole number of bytes: {value!r}"
        raise ValueError(message)
    return int(size)


def _whole_mib(size_bytes: int) -> int:
    if size_bytes % MIB:
        message = f"not a whole number of MiB: {size_bytes} bytes"
        raise ValueError(message)
    return size_bytes


def _package(name: str) -> str:
    if not _PACKAGE.fullmatch(name):
        message = f"not a Debian package name: {name[:140]!r} (a-z 0-9 + - . only, the first a letter or digit)"
        raise ValueError(message)
    return name


def _builder(name: str) -> str:
    if not is_name(name):
        message = f"not the name of a builder: {name[:140]!r}"
        raise ValueError(message)
    return name


def _user(name: str) -> str:
    if not _USER.fullmatch(name) or name == "root":
        message = f"not a login name: {name[:140]!r} (a lower-case letter, then letters, digits, - and _; not root)"
        raise ValueError(message)
    return name


def _suite(name: str) -> str:
    if not _SUITE.fullmatch(name):
        message = f"not the name of a release: {name[:140]!r} (such as bookworm)"
        raise ValueError(message)
    return name


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        message = "has a line break or a control character"
        raise ValueError(message)
    return text


def _lines(text: str) -> str:
    if _CONTROL_BUT_LINES.search(text):
        message = "has a control character"
        raise ValueError(message)
    return text


_Line = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_one_line)
]
_Paragraph = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=8000), AfterValidator(_lines)
]
_DiskBytes = Annotated[int, BeforeValidator(parse_size), Field(ge=512 * MIB, le=64 * TIB), AfterValidator(_whole_mib)]
_RamBytes = Annotated[int, BeforeValidator(parse_size), Field(ge=64 * MIB, le=64 * TIB), AfterValidator(_whole_mib)]
_Cores = Annotated[int, Field(strict=True, ge=1, le=4096)]
_Package = Annotated[str, AfterValidator(_package)]


def _to_kebab(name: str) -> str:
    return name.replace("_", "-")


class Section(BaseModel):
    """A table of the file; keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_to_kebab, hide_input_in_errors=True)


class ApplianceSection(Section):
    """``[appliance]``: what people read about it."""

    title: _Line
    description: _Paragraph
    groups: list[_Line] = Field(default=[], max_length=32)


class OperatingSystemSection(Section):
    """``[operating-system]``: what is built."""

    kind: Literal["Linux"] = "Linux"
    distribution: _Line
    version: _Line
    suite: Annotated[str, AfterValidator(_suite)]
    architecture: Architecture = Architecture.X86_64


class BuildSection(Section):
    """``[build]``: how it is built, and what comes out."""

    builder: Annotated[str, AfterValidator(_builder)] = "bootstrap"
    packages: list[_Package] = Field(default=[], max_length=1000)
    disk_size: _DiskBytes
    firmware: list[Firmware] = Field(default=[Firmware.BIOS, Firmware.UEFI], min_length=1)
    formats: list[DiskFormat] = Field(default=[DiskFormat.QCOW2], min_length=1)
    user: Annotated[str, AfterValidator(_user)]


class RequirementsSection(Section):
    """``[requirements]``: what a machine must have to run it."""

    minimum_cores: _Cores = 1
    minimum_ram: _RamBytes | None = None
    minimum_disk: _DiskBytes | None = None
    recommended_cores: _Cores | None = None
    recommended_ram: _RamBytes | None = None

    @model_validator(mode="after")
    def _recommended_is_not_less(self) -> Self:
        if self.recommended_cores is not None and self.recommended_cores < self.minimum_cores:
            message = "recommended-cores is less than minimum-cores"
            raise ValueError(message)
        if (
            self.recommended_ram is not None
            and self.minimum_ram is not None
            and self.recommended_ram < self.minimum_ram
        ):
            message = "recommended-ram is less than minimum-ram"
            raise ValueError(message)
        return self


class DefinitionFile(Section):
    """A whole ``appliance.toml``."""

    appliance: ApplianceSection
    operating_system: OperatingSystemSection
    build: BuildSection
    requirements: RequirementsSection = RequirementsSection()

    @model_validator(mode="after")
    def _disk_fits(self) -> Self:
        asked = self.requirements.minimum_disk
        if asked is not None and asked < self.build.disk_size:
            message = "requirements.minimum-disk is less than build.disk-size: the image would not fit"
            raise ValueError(message)
        return self


SECTIONS: dict[str, type[Section]] = {
    "": DefinitionFile,
    "appliance": ApplianceSection,
    "operating-system": OperatingSystemSection,
    "build": BuildSection,
    "requirements": RequirementsSection,
}
