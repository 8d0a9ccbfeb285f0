# SPDX-License-Identifier: Apache-2.0
"""Settings as the program sees them: frozen, complete, every value with its origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coppice.formats.limits import ListLimits
    from coppice.settings.clouds import CloudSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorySettings:
    """How appliances are built.

    Attributes:
        mirror: Package mirror; None: the bootstrapper's own default.
        keyring: File of the keys that sign what the mirror has; None: the distribution's.
        builds_at_once: How many builds run side by side in one process.
        builds_on: Where builds are made where nobody says: ``here`` or ``cluster``.
        default_disk_size_bytes: Of definitions that say none; None: they must.
        default_formats: Of definitions that say none; empty: as the definitions' own default.
        build_timeout_seconds: For one build.
        boot_timeout_seconds: For one boot test.
        boot_level: How far boot tests go: ``standard`` or ``thorough``.
    """

    mirror: str | None
    build_timeout_seconds: float
    boot_timeout_seconds: float
    keyring: str | None = None
    builds_at_once: int = 2
    builds_on: str = "here"
    default_disk_size_bytes: int | None = None
    default_formats: tuple[str, ...] = ()
    boot_level: str = "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """The Dask cluster that builds can run on.

    Attributes:
        scheduler: Its address, ``tls://host:port``; ``tcp://`` on this machine only. None: there is none.
        ca_file: Authority that the scheduler's and the workers' certificates come from.
        certificate_file: This machine's certificate.
        key_file: Its private key.
        connect_timeout_seconds: To reach the scheduler.
        lost_seconds: How long a build waits for a worker that can do it, when there is none any more.
    """

    scheduler: str | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    connect_timeout_seconds: float = 10.0
    lost_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """Bounds on what comes from outside.

    Attributes:
        list_size_limit_bytes: Largest image list.
        image_size_limit_bytes: Largest image, whatever its list says.
        connect_timeout_seconds: To reach a server.
        read_timeout_seconds: Without a byte.
        minimum_rate_bytes_per_second: Averaged over a minute; slower is stalled.
        total_timeout_seconds: For one transfer.
        attempts: How often a transfer is tried.
        allow_private_addresses: Whether private and loopback addresses may be connected to.
        images_parallel: How many images are fetched at a time.
        connections_per_host: Most connections to one server at a time.
        ranges_per_image: Into how many ranges a large image is parted at most.
        bandwidth_limit_bytes_per_second: For all images together; None: no limit.
        image_attempts: Runs that try to fetch one version of an image.
        proxy: ``http://host:port``; None: none.
        no_proxy: Hosts, and domains with a dot in front, that need no proxy.
        mirrors: Beginning of an address → what to put in its stead, in order.
    """

    list_size_limit_bytes: int
    image_size_limit_bytes: int
    connect_timeout_seconds: float
    read_timeout_seconds: float
    minimum_rate_bytes_per_second: int
    total_timeout_seconds: float
    attempts: int
    allow_private_addresses: bool
    images_parallel: int = 3
    connections_per_host: int = 6
    ranges_per_image: int = 4
    bandwidth_limit_bytes_per_second: int | None = None
    image_attempts: int = 5
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionsSettings:
    """How subscribed lists are refreshed.

    Attributes:
        parallel: How many lists are fetched at a time.
        clock_skew_seconds: How far in the future a list may say that it was created.
        warn_list_days: Before a list expires.
        warn_image_days: Before an image expires.
        warn_certificate_days: Before an endorser's certificate expires.
        warn_revocation_days: Before a CRL expires.
        archive_keep: Verified versions of each list that are kept.
    """

    parallel: int
    clock_skew_seconds: float
    warn_list_days: float
    warn_image_days: float
    warn_certificate_days: float
    warn_revocation_days: float
    archive_keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishingSettings:
    """How lists are published.

    Attributes:
        retire_images_days: From when no published list names an image file to its removal.
        deltas: Whether images are published with deltas.
        delta_versions: From how many earlier versions a patch is made.
    """

    retire_images_days: float
    deltas: bool = False
    delta_versions: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What the site holds.

    Attributes:
        fetch: ``planned``: what a plan needs; ``all``: every selected image.
        quota_bytes: Most bytes that the cache holds; None: as much as fits.
        keep_unneeded_days: How long a file stays that nothing needs any more.
        deltas: Whether deltas are used.
        verify_rate_bytes_per_second: How fast `coppice cache verify` reads; None: as fast as the disk.
    """

    fetch: str = "planned"
    quota_bytes: int | None = None
    keep_unneeded_days: float = 7.0
    deltas: bool = True
    verify_rate_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsSettings:
    """The journal and those who are told of it.

    Attributes:
        keep_days: How long events stay.
        attempts: How often a hook is told before the event is parked.
        retry_seconds: Before it is told once more; doubled each time.
    """

    keep_days: float = 365.0
    attempts: int = 5
    retry_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """Who is told of events, and how.

    Attributes:
        name: How commands call it.
        kind: ``program``, ``webhook`` or ``file``.
        events: Kinds of events; empty: all.
        subscriptions: Only events of these; empty: all.
        compat: ``vmcatcher``, or None.
        command: Program and arguments.
        url: Of a webhook.
        secret_file: First line signs what a webhook is told.
        secret_env: Variable with that secret.
        server_anchors: Authorities for the webhook's server, beside the machine's.
        path: File that gets a line of JSON an event.
        timeout_seconds: Of one call.
        output_limit_bytes: Of a program's output, kept.
    """

    name: str
    kind: str
    events: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    compat: str | None = None
    command: tuple[str, ...] = ()
    url: str | None = None
    secret_file: Path | None = None
    secret_env: str | None = None
    server_anchors: Path | None = None
    path: Path | None = None
    timeout_seconds: float = 300.0
    output_limit_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """How what is registered is treated.

    Attributes:
        grace_days: From superseded, expired, withdrawn or revoked to removal.
        maximum_withdrawn_share: 0 to 1.
        keep_versions: How many superseded versions of an image stay in any case.
        warn_image_days: How long before an image's end it is told of.
        clouds_at_once: How many clouds are worked on at a time.
        images_at_once: How many images of one cloud are worked on at a time.
    """

    grace_days: float
    maximum_withdrawn_share: float
    keep_versions: int = 0
    warn_image_days: float = 7.0
    clouds_at_once: int = 4
    images_at_once: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The long-running service (`coppice run`).

    Attributes:
        listen: Address and port on which metrics and health are told; None: nowhere.
        refresh_seconds: From one refresh of the lists to the next; None: only as a part of sync.
        sync_seconds: From one sync to the next.
        retire_seconds: From one retirement to the next.
        prune_seconds: From one pruning of the cache to the next.
        rebuild: Whether stale appliances are looked for, where any were built here.
        rebuild_seconds: From one look for stale appliances to the next.
        jitter: Share (0 to 1) of an interval by which each run is put off at random.
        job_timeout_seconds: How long one job may take before it is ended.
        stop_seconds: How long a job that is told to stop has for it.
    """

    listen: str | None = "127.0.0.1:9477"
    refresh_seconds: float | None = None
    sync_seconds: float = 1800.0
    retire_seconds: float = 3600.0
    prune_seconds: float = 86400.0
    rebuild: bool = True
    rebuild_seconds: float = 3600.0
    jitter: float = 0.1
    job_timeout_seconds: float = 86400.0
    stop_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionSettings:
    """Bounds on conversion.

    Attributes:
        maximum_virtual_size_bytes: Of the disk that a guest sees.
        memory_bytes: Of the converter.
        timeout_seconds: Of one conversion.
        cpu_seconds: Of one conversion.
        maximum_expansion: Bytes of a disk, or of what is unpacked, that one byte of a file may stand for.
        maximum_archive_members: Of an archive.
        quota_bytes: Most bytes that converted images take; None: no bound of its own.
        require_cage: Whether nothing is converted without a full cage.
        declared_format: ``report`` or ``require``: what follows when an image is not what its list says.
        qcow2_compression: ``zstd``, ``zlib`` or ``none``.
    """

    maximum_virtual_size_bytes: int
    memory_bytes: int
    timeout_seconds: float
    cpu_seconds: int = 4 * 3600
    maximum_expansion: int = 1000
    maximum_archive_members: int = 100
    quota_bytes: int | None = None
    require_cage: bool = False
    declared_format: str = "report"
    qcow2_compression: str = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings:
    """One place to publish to.

    Attributes:
        name: How lists refer to it.
        driver: The plug-in.
        options: The driver's own settings.
    """

    name: str
    driver: str
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one run.

    Attributes:
        state_directory: Where Coppice keeps its files; one sub-directory a stage.
        database_url: Of the one SQL database.
        definitions_directory: Where definitions are looked for; None: those that Coppice ships.
        factory: How appliances are built.
        transfer: Bounds on what comes from outside.
        lists: Bounds on image lists.
        subscriptions: How subscribed lists are refreshed.
        publishing: How lists are published.
        cache: What the site holds.
        events: The journal and those who are told of it.
        hooks: By name.
        service: The long-running service.
        cluster: The Dask cluster that builds can run on.
        conversion: Bounds on conversion.
        plan: How what is registered is treated.
        publishers: By name.
        clouds: By name.
        origins: Where each value comes from: dotted key → ``default``, a file, ``environment``, ``option``.
    """

    state_directory: Path
    database_url: str
    definitions_directory: Path | None
    factory: FactorySettings
    transfer: TransferSettings
    lists: ListLimits
    subscriptions: SubscriptionsSettings
    publishing: PublishingSettings
    conversion: ConversionSettings
    plan: PlanSettings
    publishers: Mapping[str, PublisherSettings]
    clouds: Mapping[str, CloudSettings]
    origins: Mapping[str, str]
    cache: CacheSettings = field(default_factory=CacheSettings)
    events: EventsSettings = field(default_factory=EventsSettings)
    hooks: Mapping[str, HookSettings] = field(default_factory=dict)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
