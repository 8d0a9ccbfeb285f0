# SPDX-License-Identifier: Apache-2.0
"""The schema of ``coppice.toml``: every setting with its type, its default and its meaning.

The only place where a setting is declared: the loader, ``coppice config show`` and the reference page are made from it.
A key that is not declared is refused, save for what a ``[clouds.NAME]`` or ``[publishers.NAME]`` hands to its driver.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from coppice.model.identifiers import is_name
from coppice.settings.driver_sections import CloudSection, PublisherSection  # noqa: TC001 - likewise
from coppice.settings.hook_rules import hook_problem
from coppice.settings.quantities import shown
from coppice.settings.section import Section
from coppice.settings.values import (  # noqa: TC001 - pydantic reads the annotations
    BootLevelName,
    BuildPlaceName,
    CachePolicy,
    Count,
    Days,
    DeclaredFormat,
    Formats,
    HookCompatibility,
    HookKind,
    Mirrors,
    Names,
    Number,
    OptionalSeconds,
    OptionalSize,
    OptionalText,
    PathText,
    Qcow2Compression,
    Seconds,
    Share,
    Size,
    Switch,
    Words,
)

MIB = 1024**2
GIB = 1024**3
TIB = 1024**4


class FactorySection(Section):
    """How appliances are built."""

    mirror: OptionalText = Field(
        default=None, description="Package mirror to build from; when unset, the bootstrapper's own default."
    )
    keyring: OptionalText = Field(
        default=None, description="File of the keys that sign what the mirror has; when unset, the distribution's."
    )
    builds_at_once: Number = Field(
        default=2, description="How many builds run side by side; on a cluster, as many as its workers declare."
    )
    builds_on: BuildPlaceName = Field(
        default="here",
        description="Where `coppice build` and `coppice rebuild` build when `--on` does not say: `here`, in their own "
        "process, or on the workers of the Dask cluster of `[cluster]`.",
    )
    default_disk_size_bytes: OptionalSize = Field(
        default=None, description="Size of the disk of definitions that say none, and whose parents say none."
    )
    default_formats: Formats = Field(
        default=(), description="Formats of the images of such definitions; empty: qcow2. The first is published."
    )
    build_timeout_seconds: Seconds = Field(default=3600.0, description="How long one build may take.")
    boot_timeout_seconds: Seconds = Field(
        default=1800.0, description="How long one boot test may take; of a thorough one, each start."
    )
    boot_level: BootLevelName = Field(
        default="standard", description="How far boot tests go: `standard`, or `thorough` with further starts."
    )


class ClusterSection(Section):
    """The Dask cluster that builds can run on (`factory.builds_on`, `--on cluster`)."""

    scheduler: OptionalText = Field(
        default=None,
        description="Address of its scheduler: tls://host:port, or tcp://127.0.0.1:port on this machine. Whoever can "
        "speak to a scheduler can run programs on its workers, so without TLS no other machine's is used.",
    )
    ca_file: PathText = Field(
        default=None, description="Authority (PEM) of the cluster's certificates; one that signs for nothing else."
    )
    certificate_file: PathText = Field(default=None, description="This machine's certificate (PEM).")
    key_file: PathText = Field(default=None, description="The private key of this machine's certificate (PEM).")
    connect_timeout_seconds: Seconds = Field(default=10.0, description="How long to wait for the scheduler.")
    lost_seconds: Seconds = Field(
        default=60.0, description="How long a build waits for a worker that can do it, when there is none any more."
    )


class TransferSection(Section):
    """Bounds on what is fetched."""

    list_size_limit_bytes: Size = Field(default=16 * MIB, description="Largest image list that is read.")
    image_size_limit_bytes: Size = Field(
        default=64 * GIB, description="Largest image that is fetched, whatever its list says."
    )
    connect_timeout_seconds: Seconds = Field(default=10.0, description="How long to wait for a server to answer.")
    read_timeout_seconds: Seconds = Field(default=60.0, description="How long to wait for the next byte.")
    minimum_rate_bytes_per_second: Size = Field(
        default=1024, description="Slower than this, averaged over a minute, is stalled."
    )
    total_timeout_seconds: Seconds = Field(default=21600.0, description="How long one transfer may take.")
    attempts: Number = Field(default=3, description="How often a transfer is tried.")
    allow_private_addresses: Switch = Field(
        default=False,
        description="Whether servers on private and loopback addresses may be connected to.",
    )

    images_parallel: Number = Field(default=3, description="How many images are fetched at a time.")
    connections_per_host: Number = Field(default=6, description="Most connections to one server at a time.")
    ranges_per_image: Number = Field(
        default=4, description="Into how many ranges a large image is parted that comes slowly from one connection."
    )
    bandwidth_limit_bytes_per_second: OptionalSize = Field(
        default=None, description="Most bytes a second for all images together; unset: as fast as they come."
    )
    image_attempts: Number = Field(
        default=5,
        description="How many runs may be given wrong bytes for one version of an image before its list must change. "
        "Where servers only failed, it is tried again a day later.",
    )
    proxy: OptionalText = Field(
        default=None,
        description="HTTP proxy for http and https (http://host:port); variables of the environment never count.",
    )
    no_proxy: Names = Field(default=(), description="Hosts, and domains with a dot in front, that need no proxy.")
    mirrors: Mirrors = Field(
        default_factory=dict,
        description="Other places of the same files: the beginning of an address, and what to put in its stead, in "
        "order. Mirrors are asked first; what they give is verified as ever.",
    )


class ListsSection(Section):
    """Bounds on image lists; how long one may be is `transfer.list_size_limit_bytes`."""

    maximum_images: Number = Field(default=10_000, description="Most images that a list may name.")
    maximum_depth: Number = Field(default=16, description="Deepest nesting of a list's objects and arrays.")
    maximum_text_bytes: Size = Field(default=64 * 1024, description="Longest text in a list.")
    maximum_title_bytes: Size = Field(default=4096, description="Longest title in a list.")


class SubscriptionsSection(Section):
    """How subscribed lists are refreshed."""

    parallel: Number = Field(default=8, description="How many lists are fetched at a time.")
    clock_skew_seconds: Seconds = Field(
        default=300.0, description="How far in the future a list may say that it was created."
    )
    warn_list_days: Days = Field(default=7.0, description="How long before a list expires a warning is given.")
    warn_image_days: Days = Field(default=14.0, description="How long before an image expires a warning is given.")
    warn_certificate_days: Days = Field(
        default=14.0, description="How long before an endorser's certificate expires a warning is given."
    )
    warn_revocation_days: Days = Field(
        default=2.0, description="How long before a certificate revocation list expires a warning is given."
    )
    archive_keep: Number = Field(default=50, description="How many verified versions of each list are kept.")


class PublishingSection(Section):
    """How lists are published."""

    retire_images_days: Days = Field(
        default=7.0, description="How long an image file stays after no published list names it any more."
    )

    deltas: Switch = Field(default=False, description="Whether images are published with deltas.")
    delta_versions: Count = Field(
        default=3, description="From how many earlier versions of an image a patch is made; 0: none."
    )


class CacheSection(Section):
    """The verified files that this site holds."""

    fetch: CachePolicy = Field(
        default="planned",
        description="planned: what a plan for a cloud needs is fetched; all: every selected image is, which is for "
        "sites whose hooks register images.",
    )
    quota_bytes: OptionalSize = Field(
        default=None, description="Most bytes that the cache holds; unset: as much as fits on the disk."
    )
    keep_unneeded_days: Days = Field(
        default=7.0, description="How long a file stays that nothing needs any more, when room allows."
    )
    deltas: Switch = Field(default=True, description="Whether deltas are used where a list offers them.")
    verify_rate_bytes_per_second: OptionalSize = Field(
        default=None, description="How fast `coppice cache verify` reads; unset: as fast as the disk."
    )


class EventsSection(Section):
    """The journal and those who are told of it."""

    keep_days: Days = Field(default=365.0, description="How long events stay in the journal.")
    attempts: Number = Field(default=5, description="How often a hook is told of an event before it is parked.")
    retry_seconds: Seconds = Field(
        default=30.0, description="How long to wait before a hook is told once more; doubled each time."
    )


class HookSection(Section):
    """One hook: who is told of events, and how."""

    kind: HookKind = Field(description="program, webhook or file (JSON lines).")
    events: Names = Field(default=(), description="Kinds of events that it is told of; empty: all.")
    subscriptions: Names = Field(default=(), description="Only events of these subscriptions; empty: all.")
    compat: HookCompatibility = Field(
        default=None, description="vmcatcher: a program gets the environment that handlers of vmcatcher know."
    )
    command: Words = Field(default=(), description="Program and arguments; no shell reads them.")
    url: OptionalText = Field(default=None, description="Where a webhook is told (https).")
    secret_file: PathText = Field(
        default=None, description="File whose first line signs what a webhook is told (HMAC-SHA-256)."
    )
    secret_env: OptionalText = Field(default=None, description="Variable with that secret.")
    server_anchors: PathText = Field(
        default=None, description="Authorities for the webhook's server, beside the machine's."
    )
    path: PathText = Field(default=None, description="File that gets a line of JSON an event.")
    timeout_seconds: Seconds = Field(default=300.0, description="How long one call may take.")
    output_limit_bytes: Size = Field(default=64 * 1024, description="How much of a program's output is kept.")

    @model_validator(mode="after")
    def _fit_together(self) -> HookSection:
        problem = hook_problem(self)
        if problem is not None:
            raise ValueError(problem)
        return self


class ConversionSection(Section):
    """Bounds on conversion."""

    maximum_virtual_size_bytes: Size = Field(default=TIB, description="Largest disk, as a guest sees it.")
    memory_bytes: Size = Field(default=2 * GIB, description="Memory that the converter may use.")
    cpu_seconds: Number = Field(default=14400, description="Processor time that one conversion may take, in seconds.")
    timeout_seconds: Seconds = Field(default=14400.0, description="How long one conversion may take.")
    maximum_expansion: Number = Field(
        default=1000,
        description="How many bytes of a disk, or of what is unpacked, one byte of the file may stand for; "
        "1 GiB is taken in any case.",
    )
    maximum_archive_members: Number = Field(default=100, description="Most members of an archive.")
    quota_bytes: OptionalSize = Field(
        default=None,
        description="Most bytes that converted images take, but for those that a cloud needs; unset: as much as fits.",
    )
    require_cage: Switch = Field(
        default=False,
        description="Whether nothing is converted, and no finished disk looked into by the factory, where programs "
        "that read images cannot be shut in fully (`coppice doctor` says how far they can). Machines that boot images "
        "are not meant.",
    )
    declared_format: DeclaredFormat = Field(
        default="report",
        description="report: an image of another format than its list says is used and reported, unless the list says "
        "that it is raw; require: it is refused.",
    )
    qcow2_compression: Qcow2Compression = Field(
        default="zstd", description="How qcow2 images are compressed: zstd, zlib (for QEMU before 5.1) or none."
    )


class PlanSection(Section):
    """How what is registered is treated."""

    grace_days: Days = Field(
        default=7.0,
        description="How long a superseded, expired, withdrawn or revoked image stays before it is removed.",
    )
    maximum_withdrawn_share: Share = Field(
        default=0.5,
        description="A list that withdraws more than this share of its registered images is held for confirmation.",
    )
    keep_versions: Count = Field(
        default=0,
        description="How many superseded versions of an image that are whole stay in any case, the newest first.",
    )
    warn_image_days: Days = Field(default=7.0, description="How long before the end of an image it is told of.")
    clouds_at_once: Number = Field(default=4, description="How many clouds are worked on at a time.")
    images_at_once: Number = Field(default=2, description="How many images of one cloud are worked on at a time.")


class ServiceSection(Section):
    """The long-running service (`coppice run`)."""

    listen: OptionalText = Field(
        default="127.0.0.1:9477",
        description="Address and port on which metrics and health are told. There is no password: name an address "
        'that only those can reach who may know; "none" tells them nowhere.',
    )
    refresh_seconds: OptionalSeconds = Field(
        default=None, description="From one refresh of the lists to the next; unset: only as a part of sync."
    )
    sync_seconds: Seconds = Field(default=1800.0, description="From one sync to the next.")
    retire_seconds: Seconds = Field(default=3600.0, description="From one retirement to the next.")
    prune_seconds: Seconds = Field(default=86400.0, description="From one pruning of the cache to the next.")
    rebuild: Switch = Field(
        default=True, description="Whether stale appliances are looked for, and built anew, where any were built here."
    )
    rebuild_seconds: Seconds = Field(
        default=3600.0,
        description="From one look for stale appliances to the next.",
    )
    jitter: Share = Field(
        default=0.1,
        description="Share of an interval by which each run is put off at random: sites do not ask all at once.",
    )
    job_timeout_seconds: Seconds = Field(
        default=86400.0, description="How long one job may take before it is ended and counted as failed."
    )
    stop_seconds: Seconds = Field(
        default=20.0, description="How long a job that is told to stop has for it before it is ended."
    )


def _named(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"expected tables with a name each, found {shown(value)}")  # noqa: TRY004 - pydantic collects ValueError
    for name in value:
        if not is_name(name):
            raise ValueError(f"{name[:80]!r} cannot be a name: 1 to 64 characters out of a-z 0-9 . _ -")
    return value


class SettingsFile(Section):
    """The whole file."""

    state_directory: PathText = Field(
        default=None,
        description="Where Coppice keeps its files. When unset: /var/lib/coppice for root, "
        "$XDG_DATA_HOME/coppice (~/.local/share/coppice) for others.",
    )
    database_url: OptionalText = Field(
        default=None,
        description="The SQL database, as an SQLAlchemy URL without a password. When unset: "
        "SQLite in the state directory.",
    )
    definitions_directory: PathText = Field(
        default=None, description="Where definitions are looked for; when unset, those that Coppice ships."
    )
    factory: FactorySection = Field(default_factory=FactorySection, description="How appliances are built.")
    cluster: ClusterSection = Field(
        default_factory=ClusterSection, description="The Dask cluster that builds can run on."
    )
    transfer: TransferSection = Field(default_factory=TransferSection, description="Bounds on what is fetched.")
    lists: ListsSection = Field(default_factory=ListsSection, description="Bounds on image lists.")
    subscriptions: SubscriptionsSection = Field(
        default_factory=SubscriptionsSection, description="How subscribed lists are refreshed."
    )
    publishing: PublishingSection = Field(default_factory=PublishingSection, description="How lists are published.")
    cache: CacheSection = Field(default_factory=CacheSection, description="The verified files that this site holds.")
    events: EventsSection = Field(
        default_factory=EventsSection, description="The journal and those who are told of it."
    )
    conversion: ConversionSection = Field(default_factory=ConversionSection, description="Bounds on conversion.")
    plan: PlanSection = Field(default_factory=PlanSection, description="How what is registered is treated.")
    service: ServiceSection = Field(default_factory=ServiceSection, description="The long-running service.")
    clouds: Annotated[dict[str, CloudSection], BeforeValidator(_named)] = Field(
        default_factory=dict, description="Cloud targets, by name."
    )
    hooks: Annotated[dict[str, HookSection], BeforeValidator(_named)] = Field(
        default_factory=dict, description="Who is told of events, by name."
    )
    publishers: Annotated[dict[str, PublisherSection], BeforeValidator(_named)] = Field(
        default_factory=dict, description="Places to publish to, by name."
    )
