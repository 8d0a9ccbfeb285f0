# SPDX-License-Identifier: Apache-2.0
"""The schema of ``appliance.toml``: what a person may write, what each value must look like, and what it means.

Keys are written with hyphens. A key that is not known is refused, never ignored. The reference page and the JSON Schema
are made from this.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coppice.definition.model import FileSystemKind
from coppice.definition.schema_items import (
    AuditExceptionSection,
    FileSection,
    PageSection,
    ProvisionerSection,
    Section,
    StartSection,
    TestSection,
    UserSection,
)
from coppice.definition.values import (
    BuilderName,
    Content,
    Cores,
    Day,
    Days,
    DiskBytes,
    Free,
    KernelOption,
    Kind,
    Line,
    Login,
    Package,
    Paragraph,
    ParentName,
    PlatformName,
    Port,
    RamBytes,
    Snapshot,
    SourcePath,
    Suite,
    Switch,
    Template,
    Unit,
    VariableName,
    VariableValue,
    VariantName,
    parse_open_port,
    parse_page,
)
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Architecture, Firmware

Datasource = Literal[
    "NoCloud",
    "ConfigDrive",
    "OpenNebula",
    "OpenStack",
    "Ec2",
    "CloudStack",
    "Azure",
    "GCE",
    "Oracle",
    "VMware",
    "OVF",
    "None",
]


class ApplianceSection(Section):
    """What people read about it, and for how long and for whom it is made."""

    title: Line = Field(description="For people, one line.")
    description: Paragraph = Field(description="For people, what it is for.")
    groups: Annotated[list[Line], Kind("list of categories, up to 32")] = Field(
        default=[], max_length=32, description="Categories."
    )
    vo: Line | None = Field(default=None, description="The virtual organisation that it is made for.")
    validity_days: Days | None = Field(default=None, description="How long a version is endorsed.")
    identifier: Template | None = Field(
        default=None, description="Identifier of the appliance in descriptors of the old form."
    )
    version: Template | None = Field(default=None, description="How its versions are called.")


class OperatingSystemSection(Section):
    """What is built."""

    kind: Literal["Linux"] = Field(default="Linux", description="The family.")
    distribution: Line = Field(description="`Debian` …")
    version: Line = Field(description="`12` …")
    suite: Annotated[Suite, Kind("one word")] = Field(
        description="The distribution's name of the release: `bookworm` …"
    )
    architecture: Architecture = Field(default=Architecture.X86_64, description="The processor's.")
    end_of_life: Day | None = Field(
        default=None, description="From this day on there are no updates, and it is not built anew."
    )


class BuildSection(Section):
    """How it is built, and what comes out."""

    builder: Annotated[BuilderName, Kind("name of a builder")] = Field(
        default="bootstrap", description="The plug-in that builds it."
    )
    packages: Annotated[list[Package], Kind("list of packages, up to 1000")] = Field(
        default=[], max_length=1000, description="Added to what the builder always installs."
    )
    disk_size: DiskBytes = Field(description="Size of the disk that a guest sees, 512 MiB to 64 TiB.")
    firmware: Annotated[list[Firmware], Kind("list out of `bios`, `uefi`")] = Field(
        default=[Firmware.BIOS, Firmware.UEFI], min_length=1, max_length=8, description="What it must boot under."
    )
    formats: Annotated[list[DiskFormat], Kind("list of disk formats")] = Field(
        default=[DiskFormat.QCOW2],
        min_length=1,
        max_length=32,
        description="What is written; the first is the one that is published.",
    )
    user: Annotated[Login, Kind("login name, not `root`")] = Field(description="The account that cloud-init creates.")
    snapshot: Annotated[Snapshot, Kind("one word")] | None = Field(
        default=None, description="Names the state of the repositories to build from; unset: today's."
    )
    file_system: FileSystemKind = Field(default=FileSystemKind.EXT4, description="Of the root.")
    encrypted: Switch = Field(
        default=False,
        description="Whether the root is to be in LUKS. No builder that comes with Coppice makes such: an image would "
        "hold its own key.",
    )


class RequirementsSection(Section):
    """What a machine must have to run it."""

    minimum_cores: Cores = Field(default=1, description="Processor cores.")
    minimum_ram: RamBytes | None = Field(default=None, description="Memory.")
    minimum_disk: DiskBytes | None = Field(
        default=None, description="The root disk; not less than `build.disk-size`, which it is when unset."
    )
    recommended_cores: Cores | None = Field(default=None, description="Not less than `minimum-cores`.")
    recommended_ram: RamBytes | None = Field(default=None, description="Not less than `minimum-ram`.")

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


_Units = Annotated[list[Unit], Kind("list of units"), Field(max_length=200)]


class ServicesSection(Section):
    """Which units of systemd start by themselves."""

    enabled: _Units = Field(default=[], description="Started at boot.")
    disabled: _Units = Field(default=[], description="Not started at boot.")
    masked: _Units = Field(default=[], description="Cannot be started at all.")


class AccessSection(Section):
    """How people come in."""

    ssh: Switch = Field(default=True, description="By SSH key.")
    serial_console: Switch = Field(default=True, description="A login prompt on the serial port.")
    vnc: Switch = Field(
        default=False, description="A desktop on TCP port 5901; its password is made at first boot, none is baked in."
    )
    web_console: Switch = Field(default=False, description="Cockpit, on TCP port 9090.")


class FirewallSection(Section):
    """What is let in, beside what `[access]` opens."""

    enabled: Switch = Field(default=True, description="Whether there is a firewall.")
    open: Annotated[list[Port], Kind('list: `"80/tcp"`, `"10.0.0.0/8 5432/tcp"`')] = Field(
        default=[], max_length=200, description="Ports that the appliance opens, to all or to one network."
    )


class ContextualisationSection(Section):
    """What cloud-init does at first boot."""

    sources: Annotated[list[Datasource], Kind("list of data sources")] = Field(
        default=["NoCloud", "ConfigDrive", "OpenNebula", "OpenStack", "Ec2", "None"],
        min_length=1,
        max_length=32,
        description="Where it looks for what the cloud says, in this order.",
    )
    user_data: Content | None = Field(
        default=None, description="Baked in, run before what the cloud says; this or `user-data-file`."
    )
    user_data_file: SourcePath | None = Field(default=None, description="The file with it, up to 256 KiB.")
    guest_agent: Switch = Field(default=False, description="Whether the QEMU guest agent is there.")
    automatic_updates: Switch = Field(
        default=False, description="Whether security updates are installed by themselves."
    )

    @model_validator(mode="after")
    def _one_user_data(self) -> Self:
        if self.user_data is not None and self.user_data_file is not None:
            message = "user-data and user-data-file are both given; keep one"
            raise ValueError(message)
        return self


class BootSection(Section):
    """How it starts."""

    kernel_options: Annotated[list[KernelOption], Kind("list of words")] = Field(
        default=[], max_length=64, description="Added to what the builder always gives."
    )
    menu_seconds: Annotated[int, Kind("whole number, up to 300")] = Field(
        default=0, strict=True, ge=0, le=300, description="How long the boot menu waits."
    )
    secure_boot: Switch = Field(
        default=False, description="Whether UEFI starts it by the distribution's signed loader."
    )


class RebuildSection(Section):
    """When it is built anew."""

    enabled: Switch = Field(default=True, description="Whether it is, by itself.")
    interval_days: Days = Field(
        default=7,
        description="When something changed, at the latest after so many days; security updates do not wait.",
    )
    keep_versions: Annotated[int, Kind("whole number, 1 to 1000")] = Field(
        default=3, strict=True, ge=1, le=1000, description="How many versions stay in the catalogue."
    )
    before_expiry_days: Annotated[int, Kind("whole number, up to 3660")] = Field(
        default=14,
        strict=True,
        ge=0,
        le=3660,
        description="How long before its version expires it is built anew, whatever changed.",
    )


class DefinitionFile(Section):
    """A whole ``appliance.toml``, with what its parents say."""

    parent: Annotated[ParentName, Kind("name of a definition, or `NAME@VARIANT`")] | None = Field(
        default=None, alias="from", description="What it is built upon, and whose values it has where it says nothing."
    )
    appliance: ApplianceSection
    operating_system: OperatingSystemSection
    build: BuildSection
    start: StartSection | None = None
    requirements: RequirementsSection = RequirementsSection()
    files: list[FileSection] = Field(default=[], alias="file", max_length=500)
    users: list[UserSection] = Field(default=[], alias="user", max_length=100)
    services: ServicesSection = ServicesSection()
    access: AccessSection = AccessSection()
    firewall: FirewallSection = FirewallSection()
    contextualisation: ContextualisationSection = ContextualisationSection()
    provisioners: list[ProvisionerSection] = Field(default=[], alias="provisioner", max_length=100)
    boot: BootSection = BootSection()
    tests: list[TestSection] = Field(default=[], alias="test", max_length=100)
    pages: list[PageSection] = Field(default=[], alias="page", max_length=100)
    audit_exceptions: list[AuditExceptionSection] = Field(default=[], alias="audit-exception", max_length=200)
    rebuild: RebuildSection = RebuildSection()
    variables: Annotated[dict[VariableName, VariableValue], Kind("text each")] = Field(
        default={}, max_length=200, description="For templates and provisioners, by name."
    )
    platforms: Annotated[dict[PlatformName, Free], Kind("a table each")] = Field(
        default={}, alias="platform", max_length=16, description="Options of a hypervisor, by its name."
    )
    metadata: Annotated[Free, Kind("anything")] = Field(default={}, description="Passed untouched into the descriptor.")
    variants: Annotated[dict[VariantName, Free], Kind("a table each")] = Field(
        default={},
        max_length=32,
        description="Further builds of this definition, by name; each says what differs, as a child does.",
    )

    @model_validator(mode="after")
    def _pages_are_let_in(self) -> Self:
        opened = {port.port for port in map(parse_open_port, self.firewall.open) if port.protocol == "tcp"}
        for page in self.pages:
            _, port, _ = parse_page(page.address)
            if self.firewall.enabled and port not in opened:
                message = f'the page {page.name} cannot be seen from outside: add "{port}/tcp" to firewall.open'
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _disk_fits(self) -> Self:
        asked = self.requirements.minimum_disk
        if asked is not None and asked < self.build.disk_size:
            message = "requirements.minimum-disk is less than build.disk-size: the image would not fit"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _units_are_one_thing(self) -> Self:
        said: dict[str, str] = {}
        for kind in ("enabled", "disabled", "masked"):
            for unit in dict.fromkeys(getattr(self.services, kind)):
                if unit in said:
                    message = (
                        f"services: {unit} is both {said[unit]} and {kind}; where a parent says one of them, give "
                        f"the list anew: {said[unit]} = {{ replace = [...] }}"
                    )
                    raise ValueError(message)
                said[unit] = kind
        return self
