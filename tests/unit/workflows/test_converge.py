# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.cloud.memory import MemoryCloud
from coppice.cloud.model import Desired
from coppice.cloud.observations import Observations
from coppice.cloud.revocations import Revocations, Target
from coppice.database import Database
from coppice.errors import CloudError, LockedError, UnreachableError
from coppice.events.journal import Journal
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.desired import NOW, SITE, converted_image, desired_image, desired_list
from coppice.workflows.cloud_lock import cloud_lock
from coppice.workflows.converge import CloudReport, SyncReport, _CloudRun, converge
from coppice.workflows.converge import Site as ConvergeSite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from coppice.cloud.model import DesiredImage, RegisteredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

pytestmark = pytest.mark.unit
GRACE = timedelta(days=7)


def settings_in(path: Path) -> Settings:
    file = path / "coppice.toml"
    file.write_text(f'state_directory = "{path}/state"\n[plan]\ngrace_days = {GRACE.days}\n')
    return load_settings(config=file, environ={}, options={}, system_file=file)


class SilentCloud(MemoryCloud):
    def describe(self) -> tuple[RegisteredImage, ...]:
        raise CloudError("no answer")


class Site:
    def __init__(self, path: Path) -> None:
        self.store = path
        self.database = Database(f"sqlite:///{path}/c.db")
        self.journal = Journal(self.database)
        self.clock = FixedClock(NOW)
        self.clouds = {"b": MemoryCloud("b", SITE), "a": SilentCloud("a", SITE)}
        self.broken = ""
        self.settings = settings_in(path)
        self.late: list[str] = []
        self.waits: list[list[str]] = []
        self.on_wait: list[Callable[[], object]] = []

    def obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        if self.broken and desired.listed.title.startswith(self.broken):
            raise UnreachableError("no route")
        return converted_image(desired, self.store)

    def run(self, *images: DesiredImage, dry_run: bool = False) -> tuple[CloudReport, ...]:
        return converge(
            Desired(lists=(desired_list(*images),)),
            self.clouds,
            ConvergeSite(settings=self.settings, database=self.database, clock=self.clock, monitor=SILENT),
            supplies=self,
            dry_run=dry_run,
        )

    def want(self, images: Iterable[DesiredImage], formats: Formats) -> None:
        pass

    def is_here(self, image: DesiredImage, formats: Formats) -> bool:
        return image.listed.title not in self.late

    def end(self) -> None:
        pass

    def await_any(self, images: Sequence[DesiredImage], formats: Formats, stop: threading.Event) -> None:
        self.waits.append([image.listed.title for image in images])
        for each in self.on_wait:
            each()
        self.late.pop()

    def told(self) -> list[str]:
        return [str(event.kind) for event in self.journal.events() if not str(event.kind).startswith("Cloud")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.database.close()


def test_a_cloud_that_fails_does_not_stop_the_others_and_is_told(site: Site):
    first, second = site.run(desired_image())
    assert (first.cloud, type(first.error), first.plan) == ("a", CloudError, None)
    assert (second.cloud, second.error) == ("b", None)
    assert len(site.clouds["b"].describe()) == 1
    failure = SyncReport(refreshed=None, unreadable=(), clouds=(first, second)).failure()
    assert failure is not None
    assert failure.exit_code == 1
    assert failure.details == "no answer"


def test_a_run_in_which_all_goes_well_has_no_failure(site: Site):
    del site.clouds["a"]
    assert SyncReport(refreshed=None, unreadable=(), clouds=site.run(desired_image())).failure() is None


def test_a_dry_run_gives_the_plan_and_changes_nothing(site: Site):
    report = site.run(desired_image(), dry_run=True)[1]
    assert report.plan is not None
    assert len(report.plan.actions) == 1
    assert report.applied is None
    assert site.clouds["b"].describe() == ()
    assert site.told() == []


def test_what_happened_is_in_the_journal_in_its_order(site: Site):
    site.run(desired_image(version="1"))
    site.run(desired_image(version="2"))
    site.clock.advance(GRACE)
    site.run(desired_image(version="2"))
    assert site.told() == ["ImageRegistered", "ImageRegistered", "ImageSuperseded", "ImageRemoved"]
    event = next(each for each in site.journal.events() if str(each.kind) == "ImageSuperseded")
    assert event.subject == f"b:{desired_image().key}"
    assert event.facts["version"] == "1"


class CuttingCloud(MemoryCloud):
    """Ends the run right after it did something."""

    cuts = False

    def _cut(self) -> None:
        if self.cuts:
            raise KeyboardInterrupt

    def register(self, *arguments: Any, **options: Any) -> Any:
        done = super().register(*arguments, **options)
        self._cut()
        return done

    def change_state(self, *arguments: Any, **options: Any) -> Any:
        done = super().change_state(*arguments, **options)
        self._cut()
        return done

    def remove(self, *arguments: Any, **options: Any) -> Any:
        super().remove(*arguments, **options)
        self._cut()


@pytest.mark.threat("T79")
def test_what_a_killed_run_did_is_told_by_the_next_one_and_what_it_did_not_is_not(site: Site):
    site.clouds = {"b": (cloud := CuttingCloud("b", SITE))}

    def cut(*images: DesiredImage) -> None:
        cloud.cuts = True
        with pytest.raises(KeyboardInterrupt):
            site.run(*images)
        cloud.cuts = False

    cut(desired_image(version="1"))
    assert site.told() == []
    site.run(desired_image(version="1"))
    assert site.told() == ["ImageRegistered"]
    assert site.journal.events()[0].facts["learned"]
    assert site.journal.events()[0].cloud == "b"
    cut(desired_image(version="2"))
    # Its successor is registered, the flip was not done: it is told when it is.
    site.run(desired_image(version="2"))
    assert site.told() == ["ImageRegistered", "ImageRegistered", "ImageSuperseded"]
    site.clock.advance(GRACE)
    cut(desired_image(version="2"))
    site.run(desired_image(version="2"))
    assert site.told()[3:] == ["ImageRemoved"]
    site.run(desired_image(version="2"))
    assert len(site.told()) == 4


def test_a_failure_is_an_event_and_what_was_not_tried_for_it_is_none(site: Site):
    site.run(desired_image(version="1"))
    site.broken = "debian"
    report = site.run(desired_image(version="2"))[1]
    assert site.told() == ["ImageRegistered", "ImageFailed"]
    errors = SyncReport(refreshed=None, unreadable=(), clouds=(report,)).errors
    assert [type(error) for error in errors] == [UnreachableError]


def test_what_is_held_is_a_failure_once_a_list(site: Site):
    names = ("x", "y", "z")
    site.run(*(desired_image(name) for name in names))
    report = site.run(desired_image("x"))[1]
    errors = SyncReport(refreshed=None, unreadable=(), clouds=(report,)).errors
    assert [error.code for error in errors] == ["plan-deletion-cap"]


def available(cloud: MemoryCloud) -> dict[str, str]:
    return {f"{each.name.split()[0]} {each.marker.version}": str(each.marker.state) for each in cloud.describe()}


def test_what_needs_no_image_is_done_before_an_image_is_waited_for_and_the_cloud_is_not_locked_meanwhile(site: Site):
    site.clouds = {"b": (cloud := MemoryCloud("b", SITE))}
    site.run(desired_image("x"), desired_image("y"))
    site.late = ["x image"]
    seen: list[dict[str, str]] = []

    def look() -> None:
        with cloud_lock(site.settings, "b"):
            seen.append(available(cloud))

    site.on_wait = [look]
    (report,) = site.run(desired_image("x", version="2"), desired_image("y", version="2"))
    assert seen == [{"x 1": "available", "y 1": "superseded", "y 2": "available"}]
    assert site.waits == [["x image"]]
    assert available(cloud) == {
        "x 1": "superseded",
        "x 2": "available",
        "y 1": "superseded",
        "y 2": "available",
    }
    assert report.applied is not None
    assert [each.error for each in report.applied.results] == [None] * 4
    assert site.told().count("ImageSuperseded") == 2


def test_what_somebody_revokes_while_an_image_is_waited_for_is_never_registered(site: Site):
    site.clouds = {"b": (cloud := MemoryCloud("b", SITE))}
    site.late = ["debian image"]
    wanted = desired_image()

    def revoke() -> None:
        Revocations(site.database).make(Target(digest=wanted.listed.checksum), reason="stolen", at=NOW)

    site.on_wait = [revoke]
    site.run(wanted)
    assert cloud.describe() == ()


def test_what_failed_is_not_tried_again_in_the_same_run(site: Site):
    site.clouds = {"b": MemoryCloud("b", SITE)}
    site.late, site.broken = ["x image"], "y"
    (report,) = site.run(desired_image("x"), desired_image("y"))
    assert report.applied is not None
    assert sorted(str(type(each.error).__name__) for each in report.applied.results) == [
        "NoneType",
        "UnreachableError",
    ]
    assert site.told().count("ImageFailed") == 1


def test_a_version_that_cannot_be_revoked_keeps_no_newer_one_waiting_for_ever(site: Site):
    class Refusing(MemoryCloud):
        def change_state(self, *arguments: Any, **options: Any) -> Any:
            raise CloudError("refused")

    site.clouds = {"b": (cloud := Refusing("b", SITE))}
    site.run(old := desired_image(version="1"))
    Revocations(site.database).make(Target(digest=old.listed.checksum), reason="stolen", at=NOW)
    site.late = ["debian image"]
    (report,) = site.run(desired_image(version="2"))
    assert site.waits == [["debian image"]]
    assert report.applied is not None
    assert [str(each.error) for each in report.applied.results] == ["refused", "None"]
    assert [each.marker.version for each in cloud.describe()] == ["1", "2"]


@pytest.mark.threat("T84")
def test_a_cloud_that_another_run_changes_is_told_and_the_others_are_brought_up_to_date(site: Site):
    site.clouds = {"a": MemoryCloud("a", SITE), "b": MemoryCloud("b", SITE)}
    with cloud_lock(site.settings, "a"):
        first, second = site.run(desired_image())
    assert isinstance(first.error, LockedError)
    assert first.error.message.startswith("cloud a: another run is at work")
    assert (second.error, len(site.clouds["b"].describe())) == (None, 1)


class Defective(MemoryCloud):
    def describe(self) -> tuple[RegisteredImage, ...]:
        raise ZeroDivisionError


@pytest.mark.threat("T91")
def test_a_defect_in_one_driver_is_raised_after_the_other_clouds_are_brought_up_to_date(site: Site):
    site.clouds = {"a": Defective("a", SITE), "b": MemoryCloud("b", SITE)}
    with pytest.raises(ZeroDivisionError):
        site.run(desired_image())
    assert len(site.clouds["b"].describe()) == 1


def test_clouds_are_worked_on_side_by_side(site: Site):
    both = threading.Barrier(2)

    class Meeting(MemoryCloud):
        def register(self, *arguments: Any, **options: Any) -> Any:
            both.wait(20)
            return super().register(*arguments, **options)

    site.clouds = {"a": Meeting("a", SITE), "b": Meeting("b", SITE)}
    assert [report.error for report in site.run(desired_image())] == [None, None]


def test_what_a_cloud_was_seen_to_have_is_kept_as_it_is_after_the_run(site: Site):
    site.run(desired_image())
    failing, fine = Observations(site.database).all()
    assert (failing.cloud, failing.error_code, failing.at) == ("a", "cloud-failed", None)
    assert (fine.cloud, fine.images) == ("b", site.clouds["b"].describe())
    assert [str(event.kind) for event in site.journal.events()].count("CloudFailed") == 1
    site.run(desired_image())
    site.clouds["a"] = MemoryCloud("a", SITE)
    site.run(desired_image())
    kinds = [str(event.kind) for event in site.journal.events()]
    assert (kinds.count("CloudFailed"), kinds.count("CloudRecovered")) == (1, 1)


@pytest.mark.threat("T82")
def test_an_interrupted_run_begins_nothing_more_and_waits_shortly_for_what_is_at_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(MemoryCloud):
        def register(self, *arguments: Any, **options: Any) -> Any:
            begun.set()
            assert go_on.wait(20)
            return super().register(*arguments, **options)

    site.clouds = {"b": (cloud := Slow("b", SITE))}
    site.settings = replace(site.settings, plan=replace(site.settings.plan, images_at_once=1))

    def cut() -> None:
        assert begun.wait(20)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    await_end = _CloudRun.await_end

    def awaited(run: _CloudRun, until: float) -> None:
        go_on.set()
        await_end(run, until + 20)

    monkeypatch.setattr(_CloudRun, "await_end", awaited)
    threading.Thread(target=cut).start()
    with pytest.raises(KeyboardInterrupt):
        site.run(desired_image("a"), desired_image("b"))
    assert len(cloud.describe()) == 1
    site.run(desired_image("a"), desired_image("b"))
    assert len(cloud.describe()) == 2


@pytest.mark.threat("T79")
def test_a_killed_run_that_only_confirmed_an_image_anew_is_told_of_by_the_next_one(site: Site):
    class Cut(MemoryCloud):
        cuts = False

        def update_metadata(self, *arguments: Any, **options: Any) -> Any:
            done = super().update_metadata(*arguments, **options)
            if self.cuts:
                raise KeyboardInterrupt
            return done

    site.clouds = {"b": (cloud := Cut("b", SITE))}
    site.run(desired_image())
    cloud.cuts = True
    with pytest.raises(KeyboardInterrupt):
        site.run(desired_image(list_version="2"))
    cloud.cuts = False
    site.run(desired_image(list_version="2"))
    assert site.told() == ["ImageRegistered", "ImageUpdated"]


def test_an_image_that_comes_while_a_round_is_at_work_is_registered_in_the_same_run(site: Site):
    site.clouds = {"b": (cloud := MemoryCloud("b", SITE))}
    site.late = ["x image"]
    asked: list[str] = []

    def is_here(image: DesiredImage, formats: Formats) -> bool:
        # It comes right after the round has looked for it.
        asked.append(image.listed.title)
        return image.listed.title != "x image" or asked.count("x image") > 1

    site.is_here = is_here  # type: ignore[method-assign]
    site.run(desired_image("x"), desired_image("y"))
    assert available(cloud) == {"x 1": "available", "y 1": "available"}
