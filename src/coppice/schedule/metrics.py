# SPDX-License-Identifier: Apache-2.0
"""Metrics: what is known of the site and of the service, as Prometheus reads it.

`METRICS` is the contract: names, labels and meanings, as ``docs/reference/metrics.md`` tells them. Values of labels
come from the settings, from fixed tables, and, in ``coppice_*_info``, from image lists: data only, cleaned and cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from coppice import __version__
from coppice.log import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from prometheus_client.core import Metric as Family

    from coppice.schedule.standing import Standing
    from coppice.schedule.tally import Counts
    from coppice.workflows.facts import CloudFacts, CurrentImage, SiteFacts

GAUGE: Final = "gauge"
COUNTER: Final = "counter"
MAX_IMAGES: Final = 20_000
"""Of how many images there are metrics one by one: those beyond are counted only."""
_MAX_LABEL_LENGTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        kind: ``gauge``, or ``counter``.
        labels: Names of its labels.
        meaning: What it tells; the unit stands in its name.
    """

    kind: str
    labels: tuple[str, ...]
    meaning: str


def _gauge(meaning: str, *labels: str) -> Metric:
    return Metric(kind=GAUGE, labels=labels, meaning=meaning)


def _counter(meaning: str, *labels: str) -> Metric:
    return Metric(kind=COUNTER, labels=labels, meaning=meaning)


_IMAGE = ("cloud", "list", "image")
METRICS: Final[Mapping[str, Metric]] = {
    "coppice_build_info": _gauge("1; the label tells which Coppice runs.", "version"),
    "coppice_ready": _gauge("1 when `/readyz` has nothing to say against the service, else 0."),
    "coppice_facts_readable": _gauge(
        "1 when the database could be read; 0: all that is not of the service is missing."
    ),
    "coppice_settings_valid": _gauge("1; 0 when the settings could not be read anew, and those from before count."),
    "coppice_settings_reloads_total": _counter("How often the settings were read anew since the service began."),
    "coppice_job_runs_total": _counter("Runs of a job that came to their end, ever.", "job"),
    "coppice_job_failures_total": _counter("Those that failed as a whole, crashed or took too long, ever.", "job"),
    "coppice_job_failing": _gauge("1 when the run that ended last failed, else 0.", "job"),
    "coppice_job_running": _gauge("1 while a run is under way, else 0.", "job"),
    "coppice_job_last_exit_code": _gauge(
        "Exit code of the run that ended last; 128 and more: ended by a signal.", "job"
    ),
    "coppice_job_last_seconds": _gauge("How long that run took.", "job"),
    "coppice_job_last_start_timestamp_seconds": _gauge("When a run last began.", "job"),
    "coppice_job_last_success_timestamp_seconds": _gauge("When a run last ended with everything done.", "job"),
    "coppice_job_next_timestamp_seconds": _gauge("When the next run begins.", "job"),
    "coppice_list_state": _gauge(
        "1 for the state in which a subscription is, 0 for the others.", "subscription", "state"
    ),
    "coppice_list_info": _gauge("1; the labels tell which list is in force.", "subscription", "list", "version"),
    "coppice_list_images": _gauge("Images that the list in force names.", "subscription"),
    "coppice_list_verified_timestamp_seconds": _gauge("When the list in force was verified first.", "subscription"),
    "coppice_list_checked_timestamp_seconds": _gauge(
        "When its source last said that this is its newest list.", "subscription"
    ),
    "coppice_list_expiry_timestamp_seconds": _gauge("When the list in force ends.", "subscription"),
    "coppice_cloud_up": _gauge("1 when the cloud answered in full when it was asked last, else 0.", "cloud"),
    "coppice_cloud_asked_timestamp_seconds": _gauge("When the cloud was asked last.", "cloud"),
    "coppice_cloud_seen_timestamp_seconds": _gauge(
        "When it last answered: what is told of its images is from then.", "cloud"
    ),
    "coppice_images": _gauge("Images of this site in a state.", "cloud", "state"),
    "coppice_images_not_ready": _gauge("Those that the cloud works on still, or was left with broken.", "cloud"),
    "coppice_images_drifted": _gauge("Those that somebody else changed in the cloud.", "cloud"),
    "coppice_images_left_out": _gauge(f"Images without metrics of their own: there are more than {MAX_IMAGES:,}."),
    "coppice_image_behind_seconds": _gauge(
        "For how long the list has named a newer version than the one that users are shown; 0: it names none.", *_IMAGE
    ),
    "coppice_image_available_timestamp_seconds": _gauge("Since when that version is shown.", *_IMAGE),
    "coppice_image_expiry_timestamp_seconds": _gauge("When that version ends, by its list's word.", *_IMAGE),
    "coppice_image_info": _gauge(
        "1; the labels tell its name in the cloud, its version, the version that its list names, and its VO.",
        *_IMAGE,
        "name",
        "version",
        "listed_version",
        "vo",
    ),
    "coppice_hook_waiting": _gauge("Events that a hook is to be told of, or told of once more.", "hook"),
    "coppice_hook_parked": _gauge("Events that were given up after too many tries.", "hook"),
    "coppice_store_files": _gauge("Files in a store of the state directory.", "store"),
    "coppice_store_bytes": _gauge("How much of the disk they take.", "store"),
    "coppice_store_free_bytes": _gauge("How much is free on that file system.", "store"),
    "coppice_events_total": _counter(
        "Events of the journal since the service began, whoever caused them.", "kind", "cloud"
    ),
    "coppice_fetched_bytes_total": _counter("Bytes of images that were fetched since the service began."),
    "coppice_registered_bytes_total": _counter("Bytes of images that were registered since then.", "cloud"),
    "coppice_action_seconds_total": _counter(
        "How long actions in a cloud took since then; by the kind of event that tells of them.", "kind", "cloud"
    ),
}
"""Name → what it is, in the order in which they are told."""


class Exposition:
    """Puts values to the metrics of `METRICS`; those without a value are not told."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in METRICS}

    def set(self, name: str, value: float | datetime | None, *labels: str) -> None:
        """Give a metric its value, for these values of its labels; None: it has none."""
        if value is None:
            return
        number = value if isinstance(value, (int, float)) else value.timestamp()
        if len(labels) != len(METRICS[name].labels):
            message = f"{name} has the labels {METRICS[name].labels}, and was given {len(labels)}"
            raise ValueError(message)
        self._values[name][tuple(_cleaned(label) for label in labels)] = float(number)

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have a value, then those of this process, as `prometheus_client` writes them."""
        from prometheus_client import ProcessCollector
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, values in self._values.items():
            metric = METRICS[name]
            if not values:
                continue
            make = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            family = make(name, metric.meaning, labels=metric.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
        yield from ProcessCollector(registry=None).collect()


def service_metrics(told: Exposition, standing: Standing, *, ready: bool) -> None:
    """Tell of the service itself; the database is not asked."""
    told.set("coppice_build_info", 1, __version__)
    told.set("coppice_ready", ready)
    told.set("coppice_settings_valid", standing.settings_error is None)
    told.set("coppice_settings_reloads_total", standing.reloads)
    for name, record in sorted(standing.records.items()):
        told.set("coppice_job_runs_total", record.runs, name)
        told.set("coppice_job_failures_total", record.failures, name)
        told.set("coppice_job_failing", record.is_failing, name)
        told.set("coppice_job_last_exit_code", record.exit_code, name)
        told.set("coppice_job_last_seconds", record.seconds, name)
        told.set("coppice_job_last_start_timestamp_seconds", record.started_at, name)
        told.set("coppice_job_last_success_timestamp_seconds", record.succeeded_at, name)
    for name in sorted({*standing.records, *standing.next_at, *standing.running}):
        told.set("coppice_job_running", name in standing.running, name)
        told.set("coppice_job_next_timestamp_seconds", standing.next_at.get(name), name)


def site_metrics(told: Exposition, facts: SiteFacts, now: datetime) -> None:
    """Tell of lists, clouds, images, hooks and stores."""
    for each in facts.lists:
        for state in type(each.state):
            told.set("coppice_list_state", state is each.state, each.name, str(state))
        if each.version is not None:
            told.set("coppice_list_info", 1, each.name, each.list_identifier or "", each.version)
        told.set("coppice_list_images", each.images, each.name)
        told.set("coppice_list_verified_timestamp_seconds", each.verified_at, each.name)
        told.set("coppice_list_checked_timestamp_seconds", each.checked_at, each.name)
        told.set("coppice_list_expiry_timestamp_seconds", each.expires, each.name)
    for cloud in facts.clouds:
        _cloud_metrics(told, cloud)
    _images_metrics(told, facts, now)
    for hook in facts.hooks:
        told.set("coppice_hook_waiting", hook.behind + hook.waiting, hook.name)
        told.set("coppice_hook_parked", hook.parked, hook.name)
    for store in facts.stores:
        told.set("coppice_store_files", store.files, store.name)
        told.set("coppice_store_bytes", store.size_bytes, store.name)
        told.set("coppice_store_free_bytes", store.free_bytes, store.name)


def tally_metrics(told: Exposition, counts: Counts) -> None:
    """Tell what was counted since the service began."""
    for (kind, cloud), number in sorted(counts.events.items()):
        told.set("coppice_events_total", number, kind, cloud)
    told.set("coppice_fetched_bytes_total", counts.fetched_bytes)
    for cloud, size in sorted(counts.registered_bytes.items()):
        told.set("coppice_registered_bytes_total", size, cloud)
    for (kind, cloud), seconds in sorted(counts.seconds.items()):
        told.set("coppice_action_seconds_total", seconds, kind, cloud)


def _cloud_metrics(told: Exposition, cloud: CloudFacts) -> None:
    name = cloud.seen.cloud
    told.set("coppice_cloud_up", cloud.seen.error_code is None, name)
    told.set("coppice_cloud_asked_timestamp_seconds", cloud.seen.tried_at, name)
    told.set("coppice_cloud_seen_timestamp_seconds", cloud.seen.at, name)
    for state, number in sorted(cloud.states.items()):
        told.set("coppice_images", number, name, str(state))
    told.set("coppice_images_not_ready", cloud.not_ready, name)
    told.set("coppice_images_drifted", cloud.drifted, name)


def _images_metrics(told: Exposition, facts: SiteFacts, now: datetime) -> None:
    current = [image for cloud in facts.clouds for image in cloud.current]
    # Those that are behind go first: where there are too many, they are the ones to know of.
    current.sort(key=lambda each: each.behind_since is None)
    for each in current[:MAX_IMAGES]:
        _image_metrics(told, each, now)
    told.set("coppice_images_left_out", max(0, len(current) - MAX_IMAGES))


def _image_metrics(told: Exposition, each: CurrentImage, now: datetime) -> None:
    marker = each.image.marker
    labels = (each.image.cloud, str(marker.key.list_identifier), str(marker.key.image_identifier))
    if each.listed_version is not None:
        behind = 0.0 if each.behind_since is None else max(0.0, (now - each.behind_since).total_seconds())
        told.set("coppice_image_behind_seconds", behind, *labels)
    told.set("coppice_image_available_timestamp_seconds", marker.state_since, *labels)
    told.set("coppice_image_expiry_timestamp_seconds", marker.expires, *labels)
    more = (each.image.name, marker.version, each.listed_version or "", marker.vo or "")
    told.set("coppice_image_info", 1, *labels, *more)


def _cleaned(label: str) -> str:
    return escape(label)[:_MAX_LABEL_LENGTH]
