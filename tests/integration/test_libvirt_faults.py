# SPDX-License-Identifier: Apache-2.0
"""A fault at each of libvirt's calls, real plans over a real libvirtd: a version can be started all the time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.clock import FixedClock
from coppice.cloud.apply import apply
from coppice.cloud.libvirt_pool import naming, session
from coppice.cloud.libvirt_pool.host import Host
from coppice.cloud.model import Desired, ImageState, Policy
from coppice.cloud.plan import plan
from coppice.errors import CoppiceError
from coppice.monitor import SILENT
from coppice.testing.contracts.stand import register
from coppice.testing.desired import NOW, content_of, desired_image, desired_list
from coppice.testing.libvirt_stand import LibvirtStand, bootable
from coppice.testing.libvirtd import library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from coppice.cloud.libvirt_pool.driver import LibvirtCloud
    from coppice.cloud.model import DesiredImage
    from coppice.conversion.model import ConvertedImage, Formats
    from coppice.monitor import Monitor
    from coppice.testing.libvirtd import Libvirtd

pytestmark = [pytest.mark.integration, pytest.mark.threat("T88"), pytest.mark.threat("T90")]

OLD, NEW = desired_image(version="1"), desired_image(version="2")
AT_ONCE = Policy(grace=timedelta(0))
MOST_RUNS = 6
MOST_CALLS = 200
"""More than an update makes."""


class KilledError(BaseException):
    """The process is not there any more."""


class Faults:
    """What goes wrong at one of libvirt's calls, and a look at the cloud before each.

    Attributes:
        calls: How many there were.
        at: At which it goes wrong; 0: at none.
        is_kill: Whether nothing is done any more from then on; else that call alone fails.
    """

    def __init__(self, look: Callable[[], None], *, at: int, is_kill: bool) -> None:
        self.calls = 0
        self.at = at
        self.is_kill = is_kill
        self._look = look

    def host(self, connection: Any, lib: Any, beat: Callable[[], None]) -> Host:
        def call() -> None:
            self.calls += 1
            self._look()
            if self.at and self.is_kill and self.calls >= self.at:
                raise KilledError
            if self.at and self.calls == self.at:
                message = "the test says so"
                raise library().libvirtError(message)
            beat()

        return Host(connection, lib, call)


class Update:
    """A site that has one version of an image, and wants the next."""

    def __init__(self, stand: LibvirtStand, store: Path) -> None:
        self.stand = stand
        self.store = store
        self.cloud: LibvirtCloud = stand.cloud
        self.clock = FixedClock(NOW + timedelta(days=1))
        register(stand, OLD, store)
        self.versions = {bootable(content_of(str(each.key), each.listed.version)): each for each in (OLD, NEW)}
        self.is_new = False

    def look(self) -> None:
        """See that whoever starts the current version gets the old one or the new one, whole, and never goes back."""
        machine = self.stand.connection.lookupByUUIDString(self.identifier)
        (disk,) = self.stand.inactive(machine).disks
        found = self.versions[Path(disk).read_bytes()]
        self.is_new = self.is_new or found is NEW
        assert (found is NEW) is self.is_new

    @property
    def identifier(self) -> str:
        """UUID of what leads to the current version."""
        return naming.current_uuid(self.cloud.site, str(OLD.key))

    def run(self) -> int:
        """Do what a run does; return how many steps its plan had."""
        registered = self.cloud.describe()
        wanted = Desired(lists=(desired_list(NEW, version="2"),))
        made = plan(wanted, registered, AT_ONCE, self.clock.now(), "test")
        result = apply(
            made,
            self.cloud,
            obtain=self._obtain,
            clock=self.clock,
            policy=AT_ONCE,
            monitor=SILENT,
            registered=registered,
        )
        failed = [each.error for each in result.results if each.error is not None and not each.skipped]
        if failed:
            raise failed[0]
        return len(made.actions)

    def converge(self) -> None:
        """Run until there is nothing to do."""
        for _ in range(MOST_RUNS):
            if self.run() == 0:
                return
        pytest.fail("there is always something to do")

    def _obtain(self, desired: DesiredImage, formats: Formats, monitor: Monitor) -> ConvertedImage:
        del formats, monitor
        return self.stand.convert(desired, self.store)


@pytest.fixture
def stand(libvirtd: Libvirtd) -> Iterator[LibvirtStand]:
    stand = LibvirtStand(libvirtd)
    yield stand
    stand.close()


def disturbed(update: Update, faults: Faults) -> bool:
    """Do a run that goes wrong; tell whether it came so far."""
    try:
        update.run()
    except (KilledError, CoppiceError):
        return True
    return faults.calls >= faults.at


@pytest.mark.parametrize("is_kill", [True, False], ids=["killed", "failed"])
@pytest.mark.parametrize("begin", [1, *(pytest.param(each, marks=pytest.mark.soak) for each in range(2, 9))])
def test_a_version_can_be_started_whatever_call_goes_wrong(
    stand: LibvirtStand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, begin: int, is_kill: bool
) -> None:
    # Each eighth call, from a first one on; all of them together are every call.
    done = 0
    for at in range(begin, MOST_CALLS, 8):
        stand.libvirtd.clear()
        update = Update(stand, tmp_path / "store")
        faults = Faults(update.look, at=at, is_kill=is_kill)
        with monkeypatch.context() as patch:
            patch.setattr(session, "Host", faults.host)
            if not disturbed(update, faults):
                break
            done += 1
            faults.at = 0
            update.converge()
        (image,) = update.cloud.describe()
        assert (image.marker.version, image.marker.state) == ("2", ImageState.AVAILABLE)
        assert image.ready
        assert image.drift is None
        assert stand.can_start(image)
        assert stand.is_listed(image)
        assert update.cloud.leftovers() == ()
        assert [path.name for path in stand.pool.iterdir()] == [stand.path(image).name]
    assert done > 1
