# SPDX-License-Identifier: Apache-2.0
"""What ``appliance.toml`` may hold several of: files, users, provisioners, tests, exceptions; one table each."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coppice.definition.model import ProvisionerKind  # noqa: TC001 - pydantic reads the annotations
from coppice.definition.values import (
    Account,
    CatalogueName,
    Check,
    ChecksumText,
    Content,
    GuestPath,
    ItemName,
    Kind,
    Line,
    Login,
    Mode,
    PageAddress,
    PathPattern,
    Seconds,
    SourcePath,
    Switch,
    Url,
    VariableName,
    VariableValue,
    Word,
)


def _to_kebab(name: str) -> str:
    return name.replace("_", "-")


class Section(BaseModel):
    """A table of the file; keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_to_kebab, hide_input_in_errors=True)


class StartSection(Section):
    """The finished image that the builders `image` and `prebuilt` start from; with `from`, it is the parent's."""

    catalogue: Annotated[CatalogueName, Kind("`NAME` or `NAME@VERSION`")] | None = Field(
        default=None, description="An appliance of the catalogue, its newest version or that one; this or `url`."
    )
    url: Annotated[Url, Kind("`https`, `http` or `file` address")] | None = Field(
        default=None, description="Where the image is; with `checksum`, or with `checksums` and `key`."
    )
    checksum: Annotated[ChecksumText, Kind('text: `"sha512:…"`')] | None = Field(
        default=None, description="Of the image's bytes; other bytes are refused."
    )
    checksums: Annotated[Url, Kind("`https`, `http` or `file` address")] | None = Field(
        default=None, description="A signed file with the checksums of what lies beside it, such as `SHA512SUMS`."
    )
    signature: Annotated[Url, Kind("`https`, `http` or `file` address")] | None = Field(
        default=None, description="The detached signature of that file; unset: it is clear-signed."
    )
    key: SourcePath | None = Field(
        default=None, description="The file with the OpenPGP keys of which one must have signed."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        _exactly_one(catalogue=self.catalogue, url=self.url)
        if self.url is not None:
            _exactly_one(checksum=self.checksum, checksums=self.checksums)
        elif self.checksum or self.checksums:
            message = "what is in the catalogue has its checksum there; leave checksum and checksums out"
            raise ValueError(message)
        if (self.checksums is None) != (self.key is None):
            message = "checksums and key belong together: what nobody signed, nobody vouches for"
            raise ValueError(message)
        if self.signature is not None and self.checksums is None:
            message = "signature is that of checksums, which is not given"
            raise ValueError(message)
        return self


class FileSection(Section):
    """A file that is laid into the appliance; one table a file."""

    path: GuestPath = Field(description="Where it lies in the appliance.")
    content: Content | None = Field(default=None, description="What is in it; this or `source`.")
    source: SourcePath | None = Field(default=None, description="The file that is laid in, up to 4 MiB.")
    mode: Annotated[Mode, Kind('text: `"0644"`')] = Field(default="0644", description="Permissions.")
    owner: Annotated[Account, Kind("name of a user")] = Field(default="root", description="Whose it is.")
    group: Annotated[Account, Kind("name of a group")] = Field(default="root", description="Of which group.")
    template: Switch = Field(default=False, description="Whether `${name}` in it stands for one of `[variables]`.")

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        _exactly_one(content=self.content, source=self.source)
        return self


class UserSection(Section):
    """An account beside `build.user`; nobody can log in to it by password. One table an account."""

    name: Annotated[Login, Kind("login name, not `root`")] = Field(description="Its login name.")
    comment: Annotated[str, Kind("one line")] = Field(
        default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f:]*$", description="For people; without colons."
    )
    groups: Annotated[list[Account], Kind("list of groups")] = Field(
        default=[], max_length=32, description="Further groups; made where they are not there."
    )
    shell: GuestPath = Field(default="/bin/bash", description="Its shell.")
    home: GuestPath | None = Field(default=None, description="Its home directory; unset: one under `/home`.")
    system: Switch = Field(default=False, description="Whether it is a service's, without a home that is made.")
    sudo: Switch = Field(default=False, description="Whether it may do everything by sudo, without a password.")


class ProvisionerSection(Section):
    """Something that is run in the appliance while it is built, as root; one table each, run in their order."""

    name: Annotated[ItemName, Kind("name")] = Field(description="Order and log go by it.")
    kind: ProvisionerKind = Field(description="What runs it.")
    source: SourcePath = Field(
        description="A file, or a folder with all that it needs (up to 2000 files, 32 MiB). Of a folder for `shell` "
        "without `entry`, each script is run, ordered by name."
    )
    entry: SourcePath | None = Field(
        default=None, description="What in the folder is run: a script, a manifest, a playbook. Not for a single file."
    )
    interpreter: Annotated[list[Word], Kind('list of words: `["/bin/bash", "-eu"]`')] = Field(
        default=[], max_length=16, description="Of a script; unset: its first line says so."
    )
    variables: Annotated[dict[VariableName, VariableValue], Kind("table of texts")] = Field(
        default={}, max_length=200, description="Given to it, over those of `[variables]`."
    )
    stays: Switch = Field(default=False, description="Whether what runs it stays installed.")
    timeout: Seconds = Field(default=1800.0, description="How long it may take.")


class TestSection(Section):
    """A script that is run in a booted machine, as root; it passes by ending with 0. One table each."""

    name: Annotated[ItemName, Kind("name")] = Field(description="For the verdict.")
    script: Content | None = Field(default=None, description="What is run; this or `source`.")
    source: SourcePath | None = Field(default=None, description="The file that is run, up to 256 KiB.")
    timeout: Seconds = Field(default=300.0, description="How long it may take.")

    @model_validator(mode="after")
    def _one_script(self) -> Self:
        _exactly_one(script=self.script, source=self.source)
        return self


class PageSection(Section):
    """A page that a booted machine must serve to who asks from outside, through its firewall. One table each."""

    name: Annotated[ItemName, Kind("name")] = Field(description="For the verdict.")
    address: Annotated[PageAddress, Kind("address without a host: `http://:80/`")] = Field(
        description="What is asked for. `firewall.open` must open its port; of `https`, no certificate is verified."
    )
    status: Annotated[int, Kind("number")] = Field(
        default=200, strict=True, ge=100, le=599, description="What it must be answered with."
    )
    contains: Line | None = Field(default=None, description="A text that the page must hold.")


class AuditExceptionSection(Section):
    """Something that the audit would refuse, and that is meant to be so; one table each."""

    check: Annotated[Check, Kind("name of a check")] = Field(description="Which check of the audit.")
    path: PathPattern = Field(description="Of what.")
    reason: Line = Field(description="Why it is no fault here.")


def _exactly_one(**given: str | None) -> None:
    names = " and ".join(given)
    if all(value is None for value in given.values()):
        message = f"one of {names} must be given"
        raise ValueError(message)
    if all(value is not None for value in given.values()):
        message = f"{names} are both given; keep one"
        raise ValueError(message)
