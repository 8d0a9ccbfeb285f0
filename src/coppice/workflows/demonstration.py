# SPDX-License-Identifier: Apache-2.0
"""One appliance lives its whole life: built, tested, published, subscribed to, registered, replaced, expired, removed.

Everything is done by the functions that the commands call, in a directory of its own, with a throw-away authority and a
server on loopback. The only thing that is not as in production is the clock, which this demonstration moves ahead.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from coppice.cloud.model import ImageState
from coppice.cloud.steps import ActionKind
from coppice.errors import StateError
from coppice.factory.boot_model import promise_of
from coppice.workflows.add import add_build
from coppice.workflows.build import boot_everywhere, build_appliance, no_parents
from coppice.workflows.publish import publish
from coppice.workflows.retire import retire
from coppice.workflows.scene import LIST, SITE_CLOUD, Scene
from coppice.workflows.sync import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from coppice.cloud.model import RegisteredImage
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildResult, BuiltImage, Verdict
    from coppice.monitor import Monitor
    from coppice.workflows.converge import SyncReport
    from coppice.workflows.scene import Attack

ONE_PACKAGE_MORE = "jq"
_PAST_GRACE = timedelta(days=8)
_PAST_LIST_EXPIRY = timedelta(days=22)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the demonstration that has been taken.

    Attributes:
        title: What was done.
        said: What was seen.
        at: When, by the demonstration's clock.
        seconds: How long it took, by the machine's clock.
        bytes_moved: Bytes that were written or transferred.
    """

    title: str
    said: tuple[str, ...]
    at: datetime
    seconds: float
    bytes_moved: int


class Demonstration:
    """The steps, one after the other.

    Args:
        directory: Where all of it lies; builds and boot verdicts in it are kept for the next time.
        definition: What is built.
        monitor: Where progress is told.
        boot: Start machines from the images; without it, the tests of what boots are left out, and said to be.
        find: Returns the definitions that it is built upon.
    """

    def __init__(
        self,
        directory: Path,
        definition: Definition,
        *,
        monitor: Monitor,
        boot: bool = True,
        find: Callable[[str], Definition] = no_parents,
    ) -> None:
        self.directory = directory
        self._definition = definition
        self._find = find
        self._monitor = monitor
        self._boot = boot
        self._stack = ExitStack()

    def run(self) -> Iterator[Step]:
        """Take the steps; yield each when it has been taken.

        Raises:
            CoppiceError: A step failed; what was made so far stays for inspection.
            StateError: What a step showed is not what it should show.
        """
        with self._stack:
            self._scene = self._stack.enter_context(Scene.prepare(self.directory))
            yield self._take("Prepare a publisher, an endorser and a site", self._prepare)
            yield self._take("Build version 1", lambda: self._build("1", self._definition))
            yield self._take("Sign and publish version 1", self._publish)
            yield self._take("Subscribe, pinning the endorser", self._subscribe)
            yield self._take("Sync: verify, fetch, convert, register", lambda: self._sync({"1": ImageState.AVAILABLE}))
            yield self._take("Start the registered image", self._start_registered)
            yield self._take("Build version 2, one package more", lambda: self._build("2", self._with_one_more()))
            yield self._take("Sign and publish version 2", self._publish)
            yield self._take("Sync: register 2, then hide 1", self._replace_version)
            for attack in self._scene.attacks():
                yield self._take(attack.title, partial(self._withstand, attack))
            yield self._take("8 days on: version 1 is past its grace period", self._remove_superseded)
            yield self._take("22 more days on, nothing heard: the list expires", self._expire)
            yield self._take("The publisher is back and signs anew", self._come_back)

    def _take(self, title: str, action: Callable[[], tuple[list[str], int]]) -> Step:
        started = time.monotonic()
        said, bytes_moved = action()
        return Step(
            title=title,
            said=tuple(said),
            at=self._scene.clock.now(),
            seconds=time.monotonic() - started,
            bytes_moved=bytes_moved,
        )

    def _prepare(self) -> tuple[list[str], int]:
        scene = self._scene
        subject = scene.make_endorser()
        return [
            f"endorser {subject}",
            f"publisher serves {scene.url} from {scene.web_directory}",
            f"site {scene.site_settings.clouds[SITE_CLOUD].site} with the cloud {scene.cloud_directory}",
        ], 0

    def _with_one_more(self) -> Definition:
        packages = tuple(sorted({*self._definition.packages, ONE_PACKAGE_MORE}))
        return replace(self._definition, packages=packages)

    def _build(self, version: str, definition: Definition) -> tuple[list[str], int]:
        result = build_appliance(
            definition,
            settings=self._scene.publisher_settings,
            database=self._scene.publisher_database,
            clock=self._scene.clock,
            monitor=self._monitor,
            boot=self._boot,
            find=self._find,
        )
        add_build(
            result,
            settings=self._scene.publisher_settings,
            database=self._scene.publisher_database,
            clock=self._scene.clock,
            version=version,
            untested=not self._boot,
        )
        self._scene.endorse(definition.name)
        return _about_build(result), 0 if result.reused else result.images[0].image.size_bytes

    def _publish(self) -> tuple[list[str], int]:
        report = publish(
            LIST,
            settings=self._scene.publisher_settings,
            database=self._scene.publisher_database,
            clock=self._scene.clock,
            monitor=self._monitor,
        )
        self._scene.remember(report.publication)
        content = report.signed.content
        return [
            f"list version {content.version}, valid until {content.validity.expires:%Y-%m-%d}",
            f"signed by {report.signed.signer}",
            report.publication.list_uri,
        ], report.publication.bytes_written

    def _subscribe(self) -> tuple[list[str], int]:
        subscription = self._scene.subscribe()
        return [
            f"only {subscription.trust.endorsers[0].subject} is believed",
            f"certified by {subscription.trust.endorsers[0].issuer}, revocation lists required",
        ], 0

    def _sync(self, expected: dict[str, ImageState]) -> tuple[list[str], int]:
        report = self._run_sync()
        if report.errors:
            raise report.errors[0]
        self._expect(expected)
        return self._registered_lines(), _bytes_registered(report)

    def _run_sync(self) -> SyncReport:
        return sync(
            settings=self._scene.site_settings,
            database=self._scene.site_database,
            clock=self._scene.clock,
            monitor=self._monitor,
            clouds=self._scene.clouds(),
            client=self._scene.client(),
        )

    def _start_registered(self) -> tuple[list[str], int]:
        if not self._boot:
            return ["left out, as asked"], 0
        image = self._scene.registered_file(self._registered()[0])
        verdicts = boot_everywhere(
            image,
            firmware=self._definition.firmware,
            # Its own tests ran when it was built.
            promise=replace(promise_of(self._definition), tests=()),
            settings=self._scene.publisher_settings,
            clock=self._scene.clock,
            monitor=self._monitor,
        )
        return [str(image.path), *map(_about_verdict, verdicts)], 0

    def _replace_version(self) -> tuple[list[str], int]:
        return self._sync({"1": ImageState.SUPERSEDED, "2": ImageState.AVAILABLE})

    def _withstand(self, attack: Attack) -> tuple[list[str], int]:
        before = self._scene.fingerprint()
        with self._scene.under(attack.act):
            report = self._run_sync()
        codes = [error.code for error in report.errors]
        if codes != [attack.code]:
            raise StateError(f"the attack should have been refused as {attack.code}, and was answered by {codes}")
        if self._scene.fingerprint() != before:
            raise StateError("an attack changed what is registered")
        return [f"refused as {attack.code}; nothing changed", report.errors[0].message], 0

    def _remove_superseded(self) -> tuple[list[str], int]:
        self._scene.clock.advance(_PAST_GRACE)
        report = retire(
            settings=self._scene.site_settings,
            database=self._scene.site_database,
            clock=self._scene.clock,
            monitor=self._monitor,
            clouds=self._scene.clouds(),
        )
        if report.errors:
            raise report.errors[0]
        self._expect({"2": ImageState.AVAILABLE})
        return ["the clock was moved by hand; production has no way to do that", *self._registered_lines()], 0

    def _expire(self) -> tuple[list[str], int]:
        self._scene.clock.advance(_PAST_LIST_EXPIRY)
        with self._scene.under(self._scene.silence):
            self._run_sync()
        self._expect({"2": ImageState.EXPIRED})
        return [
            "nothing new may start from it; it is not removed before its grace is over",
            *self._registered_lines(),
        ], 0

    def _come_back(self) -> tuple[list[str], int]:
        identifier = self._registered()[0].cloud_identifier
        self._publish()
        said, fetched = self._sync({"2": ImageState.AVAILABLE})
        if self._registered()[0].cloud_identifier != identifier:
            raise StateError("the image came back under another identifier")
        return ["the same image, under the same identifier", *said], fetched

    def _registered(self) -> tuple[RegisteredImage, ...]:
        return self._scene.cloud.describe()

    def _expect(self, expected: dict[str, ImageState]) -> None:
        found = {image.marker.version: image.marker.state for image in self._registered()}
        if found != expected:
            raise StateError(f"the cloud should have {expected}, and has {found}")

    def _registered_lines(self) -> list[str]:
        return [f"{image.name}: version {image.marker.version}, {image.marker.state}" for image in self._registered()]


def _bytes_registered(report: SyncReport) -> int:
    results = [result for cloud in report.clouds if cloud.applied is not None for result in cloud.applied.results]
    return sum(
        result.action.desired.listed.size_bytes
        for result in results
        if result.action.kind is ActionKind.REGISTER and result.action.desired is not None and result.error is None
    )


def _about_build(result: BuildResult) -> list[str]:
    built: BuiltImage = result.images[0]
    return [
        f"{built.path.name}: {built.image.format}, {len(result.packages)} packages"
        + (", found in the cache" if result.reused else ""),
        *(_about_verdict(verdict) for verdict in result.verdicts),
    ]


def _about_verdict(verdict: Verdict) -> str:
    facts = dict(verdict.facts)
    detail = f", cloud-init {facts['cloud-init']}, SSH by key" if "cloud-init" in facts else ""
    return f"{verdict.gate} {verdict.outcome}{detail} ({verdict.seconds:.0f} s on {verdict.decided_at:%Y-%m-%d %H:%M})"
