# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong at whichever call: the driver says so, and the next run ends as if nothing had."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.model import ImageState, Visibility
from coppice.cloud.opennebula import wire
from coppice.cloud.opennebula.failures import Failures
from coppice.cloud.opennebula.options import Placing
from coppice.cloud.opennebula.wire import connect
from coppice.cloud.properties import presentation_of
from coppice.errors import (
    CloudAnswerError,
    CloudChecksumError,
    CloudCredentialError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageBrokenError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudRefusedImageError,
    CloudTimeoutError,
    CloudUnreachableError,
)
from coppice.monitor import SILENT
from coppice.testing.contracts.stand import described, register, to_state
from coppice.testing.desired import NOW, SITE, desired_image, marker_of
from coppice.testing.opennebula.faults import Act, Copying, Fault, When
from coppice.testing.opennebula.objects import State
from coppice.testing.opennebula_stand import OpenNebulaStand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cloud.opennebula.driver import OpenNebulaCloud
    from coppice.cloud.transports.transport import Offered
    from coppice.conversion.model import ConvertedImage
    from coppice.monitor import Monitor

pytestmark = [pytest.mark.contract, pytest.mark.threat("T89")]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[OpenNebulaStand]:
    stand = OpenNebulaStand(tmp_path / "cloud", Placing(visibility=Visibility.PUBLIC, datastores=("default", "second")))
    stand.simulator.world.add_datastore("second")
    with stand.simulator:
        yield stand


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


ALWAYS = None
EVERY = [5, pytest.param(1, marks=pytest.mark.soak)]
"""Which calls a run ends at: some in each run of the tests, all in the long one."""
DESCRIBE = {
    "wrong password": (Act.REFUSE, {"code": 0x0100, "text": "User couldn't be authenticated."}, CloudCredentialError),
    "no rights": (Act.REFUSE, {"code": 0x0200, "text": "Not authorized to perform INFO."}, CloudForbiddenError),
    "internal error": (Act.REFUSE, {"code": 0x2000, "text": "Internal Error"}, CloudFaultError),
    "500": (Act.STATUS, {"code": 500}, CloudFaultError),
    "502": (Act.STATUS, {"code": 502}, CloudFaultError),
    "503": (Act.STATUS, {"code": 503}, CloudFaultError),
    "504": (Act.STATUS, {"code": 504}, CloudTimeoutError),
    "404": (Act.STATUS, {"code": 404}, CloudAnswerError),
    "cut": (Act.CUT, {}, CloudUnreachableError),
    "cut in the answer": (Act.CUT_ANSWER, {}, CloudUnreachableError),
    "100 MB": (Act.HUGE, {}, CloudAnswerError),
    "entity bomb": (Act.BOMB, {}, CloudAnswerError),
    "entity of a file": (Act.OUTSIDE, {}, CloudAnswerError),
    "no XML": (Act.GARBAGE, {}, CloudAnswerError),
    "other values": (Act.WRONG_SHAPE, {}, CloudAnswerError),
    "half a pool": (Act.HALF, {}, CloudAnswerError),
}
PASSING = ("500", "502", "503", "504", "cut", "cut in the answer")


def check_converged(stand: OpenNebulaStand, state: ImageState = ImageState.AVAILABLE) -> None:
    """Assert that there is one whole registered image in two datastores, with one VM template, and no more."""
    (image,) = stand.cloud.describe()
    assert image.ready
    assert image.drift is None
    assert image.marker.state is state
    assert len(stand.simulator.images()) == 2
    assert len(stand.simulator.templates()) == 1
    assert stand.is_listed(image) is (state is ImageState.AVAILABLE)
    assert stand.can_start(image) is (state in {ImageState.AVAILABLE, ImageState.SUPERSEDED})
    assert list(stand.transport.directory.iterdir()) == []


@pytest.mark.parametrize("name", sorted(DESCRIBE))
def test_a_pool_that_cannot_be_had_whole_is_an_error_and_no_absence(stand: OpenNebulaStand, store: Path, name: str):
    register(stand, desired_image("alma"), store)
    register(stand, desired_image(), store)
    act, how, error = DESCRIBE[name]
    stand.simulator.faults.add(Fault(method="one.imagepool.info", act=act, times=ALWAYS, **how))
    with pytest.raises(error) as caught:
        stand.cloud.describe()
    assert caught.value.resolution
    assert "secret" not in f"{caught.value.message} {caught.value.details} {caught.value.context}"
    stand.simulator.faults.clear()
    assert len(stand.cloud.describe()) == 2


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_asked_again(stand: OpenNebulaStand, store: Path, name: str):
    register(stand, desired_image(), store)
    act, how, _ = DESCRIBE[name]
    stand.simulator.faults.add(Fault(method="one.imagepool.info", act=act, times=2, **how))
    (image,) = stand.cloud.describe()
    assert image.ready


def test_a_front_end_that_stays_silent_is_given_up(stand: OpenNebulaStand):
    impatient = stand.of_site(SITE, call_seconds=0.3)
    stand.simulator.faults.add(Fault(method="one.imagepool.info", act=Act.STALL, times=ALWAYS, seconds=30))
    with pytest.raises(CloudTimeoutError):
        impatient.describe()


def test_a_front_end_that_is_not_there_is_unreachable(stand: OpenNebulaStand):
    stand.simulator.stop()
    with pytest.raises(CloudUnreachableError):
        stand.cloud.describe()


REFUSALS = {
    "no rights": (0x0200, "User [2] : Not authorized to perform CREATE IMAGE.", CloudForbiddenError),
    "quota": (
        0x0200,
        "user [3] limit of 1 reached for IMAGES quota in DATASTORE with ID: 1.",
        CloudQuotaError,
    ),
    "datastore full": (0x0800, "Not enough space in datastore", CloudQuotaError),
    "file not found": (
        0x2000,
        "Cannot parse image SIZE: cannot access '/x' (No such file or directory)",
        CloudRefusedImageError,
    ),
    "unknown type": (0x4000, "Error allocating a new image. Unknown type OS", CloudRefusedImageError),
    "internal": (0x2000, "Error inserting image in DB.", CloudFaultError),
    "locked": (0x8000, "The resource is locked.", CloudImageInUseError),
    "wrong arguments": (0x1000, "Wrong parameter", CloudAnswerError),
    "every name taken": (
        0x4000,
        "Error allocating a new image. NAME is already taken by IMAGE 0.",
        CloudNameTakenError,
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_an_image_that_is_refused_says_why_and_leaves_nothing(stand: OpenNebulaStand, store: Path, name: str):
    code, text, error = REFUSALS[name]
    fault = Fault(method="one.image.allocate", act=Act.REFUSE, times=ALWAYS, skip=1, code=code, text=text)
    stand.simulator.faults.add(fault)
    with pytest.raises(error) as caught:
        register(stand, desired_image(), store)
    assert text in caught.value.message
    assert stand.simulator.images() == []
    assert stand.simulator.templates() == []
    stand.simulator.faults.clear()
    register(stand, desired_image(), store)
    check_converged(stand)


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("act", [Act.CUT, Act.CUT_ANSWER, Act.STATUS])
@pytest.mark.parametrize("skip", [0, 1])
def test_an_allocation_of_which_the_outcome_is_unknown_is_made_once(
    stand: OpenNebulaStand, store: Path, act: Act, when: When, skip: int
):
    fault = Fault(method="one.image.allocate", act=act, when=when, code=502, skip=skip)
    stand.simulator.faults.add(fault)
    register(stand, desired_image(), store)
    check_converged(stand)


def test_a_template_of_which_the_outcome_is_unknown_is_made_once(stand: OpenNebulaStand, store: Path):
    stand.simulator.faults.add(Fault(method="one.template.allocate", act=Act.CUT, when=When.AFTER))
    register(stand, desired_image(), store)
    check_converged(stand)


def test_a_copy_that_fails_says_why_and_is_cleared_away(stand: OpenNebulaStand, store: Path):
    stand.simulator.faults.copying = Copying(error="No space left on device")
    with pytest.raises(CloudImageBrokenError, match="No space left"):
        register(stand, desired_image(), store)
    assert stand.simulator.images() == []
    stand.simulator.faults.clear()
    register(stand, desired_image(), store)
    check_converged(stand)


def test_a_copy_of_other_bytes_is_found_by_its_checksum_and_never_usable(stand: OpenNebulaStand, store: Path):
    offer = stand.transport.offer

    @contextmanager
    def offer_others(converted: ConvertedImage, monitor: Monitor) -> Iterator[Offered]:
        with offer(converted, monitor) as offered:
            path = Path(offered.path_or_url)
            path.unlink()
            path.write_bytes(b"others" * 100)
            yield offered

    stand.transport.offer = offer_others  # type: ignore[method-assign]
    with pytest.raises(CloudChecksumError):
        register(stand, desired_image(), store)
    assert stand.simulator.images() == []


def test_an_image_that_is_smaller_than_its_disk_is_refused(stand: OpenNebulaStand, store: Path):
    desired = desired_image()
    converted = stand.convert(desired, store)
    larger = replace(converted, image=replace(converted.image, virtual_size_bytes=2 * 1024**2))
    with pytest.raises(CloudChecksumError, match="2 MiB"):
        stand.cloud.register(larger, marker_of(desired), presentation_of(desired), SILENT)
    assert stand.simulator.images() == []


def test_an_image_that_stays_locked_is_given_up_and_cleared_away_by_force(stand: OpenNebulaStand, store: Path):
    impatient = stand.of_site(SITE, image_seconds=0.2)
    stand.simulator.faults.copying = Copying(held=True)
    desired = desired_image()
    with pytest.raises(CloudTimeoutError):
        impatient.register(stand.convert(desired, store), marker_of(desired), presentation_of(desired), SILENT)
    assert stand.simulator.images() == []
    stand.simulator.faults.clear()
    register(stand, desired, store)
    check_converged(stand)


def _leave_locked(stand: OpenNebulaStand, store: Path) -> ExitStack:
    """Leave what a run leaves that is killed while it waits: its image is being copied; return what ends its offer."""
    desired = desired_image()
    stack, offer = ExitStack(), stand.transport.offer

    def keep(converted: ConvertedImage, monitor: Monitor) -> AbstractContextManager[Offered]:
        return nullcontext(stack.enter_context(offer(converted, monitor)))

    stand.transport.offer = keep  # type: ignore[method-assign]
    converted = stand.convert(desired, store)
    stand.simulator.faults.copying = Copying(held=True)
    stand.simulator.faults.add(Fault(method="one.image.info", act=Act.REFUSE, times=ALWAYS, code=0x0100))
    stand.simulator.faults.add(Fault(method="one.image.delete", act=Act.REFUSE, times=ALWAYS, code=0x0100))
    with pytest.raises(CloudCredentialError):
        stand.cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    copying = stand.simulator.faults.copying
    stand.simulator.faults.clear()
    stand.simulator.faults.copying = copying
    stand.transport.offer = offer  # type: ignore[method-assign]
    return stack


def test_what_a_killed_run_left_locked_is_shown_with_its_state(stand: OpenNebulaStand, store: Path):
    _leave_locked(stand, store).close()
    (half,) = stand.cloud.describe()
    assert not half.ready
    assert half.problem is not None
    assert "LOCKED" in half.problem


def test_what_a_killed_run_left_is_awaited_when_it_is_still_being_copied(stand: OpenNebulaStand, store: Path):
    with _leave_locked(stand, store):
        numbers = [image.identifier for image in stand.simulator.images()]
        stand.simulator.faults.copying = Copying()
        register(stand, desired_image(), store)
    check_converged(stand)
    assert [image.identifier for image in stand.simulator.images()] == numbers


def test_what_is_locked_for_ever_is_made_anew(stand: OpenNebulaStand, store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("coppice.cloud.opennebula.intake.LEAST_WAIT_SECONDS", 0.05)
    _leave_locked(stand, store).close()
    numbers = {image.identifier for image in stand.simulator.images()}
    for image in stand.simulator.images():
        image.registered -= 86400
    stand.simulator.crash()
    stand.simulator.faults.clear()
    register(stand, desired_image(), store)
    check_converged(stand)
    assert not numbers & {image.identifier for image in stand.simulator.images()}


def _register(cloud: OpenNebulaCloud, stand: OpenNebulaStand, store: Path) -> None:
    register(stand, desired_image(), store)


def _update(cloud: OpenNebulaCloud, stand: OpenNebulaStand, store: Path) -> None:
    desired = desired_image(title="A better title")
    (image,) = cloud.describe()
    cloud.update_metadata(image, marker_of(desired), presentation_of(desired))


def _expire(cloud: OpenNebulaCloud, stand: OpenNebulaStand, store: Path) -> None:
    (image,) = cloud.describe()
    to_state(cloud, image, ImageState.EXPIRED)


def _supersede(cloud: OpenNebulaCloud, stand: OpenNebulaStand, store: Path) -> None:
    (image,) = cloud.describe()
    to_state(cloud, image, ImageState.SUPERSEDED)


def _reactivate(cloud: OpenNebulaCloud, stand: OpenNebulaStand, store: Path) -> None:
    (image,) = cloud.describe()
    to_state(cloud, image, ImageState.AVAILABLE, reason=None)


def _remove(cloud: OpenNebulaCloud, stand: OpenNebulaStand, store: Path) -> None:
    for image in cloud.describe():
        cloud.remove(image)


STEPS = {
    "register": (_register, None),
    "update": (_update, ImageState.AVAILABLE),
    "expire": (_expire, ImageState.AVAILABLE),
    "supersede": (_supersede, ImageState.AVAILABLE),
    "reactivate": (_reactivate, ImageState.EXPIRED),
    "remove": (_remove, ImageState.EXPIRED),
}


@pytest.mark.threat("T90")
@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_step_that_ends_at_any_call_is_ended_by_the_next_run(
    stand: OpenNebulaStand, store: Path, name: str, when: When, every: int
):
    step, before = STEPS[name]
    for skip in range(when is When.AFTER, 100, every):
        for image in stand.cloud.describe():
            stand.cloud.remove(image)
        if before is not None:
            register(stand, desired_image(), store)
        if before is ImageState.EXPIRED:
            to_state(stand.cloud, described(stand.cloud, stand.cloud.describe()[0]), before)
        # All that follows goes wrong too: as with a run that is killed there.
        stand.simulator.faults.add(Fault(method="*", act=Act.STATUS, when=when, skip=skip, times=ALWAYS, code=403))
        ended = True
        try:
            step(stand.driver, stand, store)
        except CloudError:
            ended = False
        stand.simulator.faults.clear()
        step(stand.driver, stand, store)
        if name == "remove":
            assert stand.cloud.describe() == ()
            assert (stand.simulator.images(), stand.simulator.templates()) == ([], [])
        else:
            states = {"expire": ImageState.EXPIRED, "supersede": ImageState.SUPERSEDED}
            check_converged(stand, states.get(name, ImageState.AVAILABLE))
        if ended:
            break
    assert ended


@pytest.mark.threat("T90")
@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_an_update_that_ends_at_any_call_leaves_something_to_start(
    stand: OpenNebulaStand, store: Path, when: When, every: int
):
    for skip in range(when is When.AFTER, 100, every):
        for image in stand.cloud.describe():
            stand.cloud.remove(image)
        old = register(stand, desired_image(version="1"), store)
        stand.simulator.faults.add(Fault(method="*", act=Act.STATUS, when=when, skip=skip, times=ALWAYS, code=403))
        ended = True
        try:
            register(stand, desired_image(version="2"), store)
            to_state(stand.cloud, old, ImageState.SUPERSEDED)
        except CloudError:
            ended = False
        stand.simulator.faults.clear()
        seen = stand.cloud.describe()
        assert any(stand.is_listed(image) and stand.can_start(image) for image in seen)
        if ended:
            break
    assert ended


def test_a_used_image_that_expires_is_disabled_when_its_machines_have_ended(stand: OpenNebulaStand, store: Path):
    image = register(stand, desired_image(), store)
    stand.use(image)
    expired = to_state(stand.cloud, image, ImageState.EXPIRED)
    assert expired.marker.state is ImageState.EXPIRED
    assert expired.drift is not None
    assert "1 machines" in expired.drift
    assert not stand.can_start(expired)
    assert not stand.is_listed(expired)
    with pytest.raises(CloudImageInUseError):
        stand.cloud.remove(expired)
    stand.end_use(image)
    again = stand.cloud.change_state(expired, expired.marker)
    assert again.drift is None
    assert stand.image(image).state is State.DISABLED
    stand.cloud.remove(again)
    assert stand.simulator.images() == []


def test_the_session_is_in_no_error(stand: OpenNebulaStand):
    (stand.path / "one_auth").write_text("oneadmin:canary-7f3a\n")
    with pytest.raises(CloudCredentialError) as caught:
        stand.of_site(SITE).describe()
    error = caught.value
    assert "canary" not in f"{error!r} {error.message} {error.details} {error.context} {error.__cause__}"


def test_an_image_whose_expiry_is_set_anew_keeps_what_others_wrote(stand: OpenNebulaStand, store: Path):
    image = register(stand, desired_image(), store, pin="1")
    stand.image(image).template.put("ACCOUNTING", "theirs")
    later = replace(image.marker, expires=NOW + timedelta(days=90), pin=None)
    changed = stand.cloud.change_state(image, later)
    assert changed.marker == later
    assert stand.image(image).template.first("ACCOUNTING") == "theirs"
    assert stand.image(image).template.first("MD5")


def test_what_was_pointed_at_and_never_finished_is_taken_from_users_when_it_is_revoked(
    stand: OpenNebulaStand, store: Path
):
    image = register(stand, desired_image(), store)
    for copy in stand.simulator.images():
        copy.template.put("COPPICE_UNFINISHED", "YES")
    (unfinished,) = stand.cloud.describe()
    assert not unfinished.ready
    assert stand.can_start(image)
    revoked = to_state(stand.cloud, unfinished, ImageState.REVOKED)
    assert not revoked.ready
    assert not stand.can_start(image)
    assert not stand.is_listed(image)


def test_a_front_end_that_answers_byte_by_byte_is_given_up(stand: OpenNebulaStand):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    while True:
                        connection.sendall(b"a")
                        time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        settings = stand.settings(call_seconds=0.4)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}/RPC2"
        with pytest.raises(CloudTimeoutError):
            connect(replace(settings, endpoint=endpoint), Failures("test", endpoint)).system.version()


def test_a_front_end_whose_tls_comes_byte_by_byte_is_given_up(stand: OpenNebulaStand):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    # The beginning of a handshake of 16,000 bytes.
                    for byte in b"\x16\x03\x03\x3e\x80\x02\x00\x3e\x7c\x03\x03" + bytes(16_000):
                        connection.sendall(bytes([byte]))
                        time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        settings = stand.settings(call_seconds=0.4)
        endpoint = f"https://127.0.0.1:{server.getsockname()[1]}/RPC2"
        with pytest.raises(CloudTimeoutError):
            connect(replace(settings, endpoint=endpoint), Failures("test", endpoint)).system.version()


LIES = {
    "a number that no call can name": (r"<ID>\d+</ID><UID>", "<ID>99999999999</ID><UID>"),
    "a time that no clock shows": (r"<REGTIME>\d+<", "<REGTIME>999999999999999999<"),
    "a number with 5000 digits": (r"<SIZE>\d+<", f"<SIZE>{'9' * 5000}<"),
    "a state that is none": (r"<STATE>\d+<", "<STATE>77<"),
    "everything twice": (r"(<IMAGE>.*</IMAGE>)", r"\1\1"),
    "what somebody else owns": (r"<UID>0</UID>", "<UID>5</UID>"),
}


@pytest.mark.threat("T88")
@pytest.mark.parametrize("name", sorted(LIES))
def test_a_pool_with_what_cannot_be_is_an_error_and_no_pool(
    stand: OpenNebulaStand, store: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    register(stand, desired_image(), store)
    pattern, lie = LIES[name]
    parsed = wire.parsed
    monkeypatch.setattr(
        wire, "parsed", lambda text: parsed(re.sub(pattern, lie, text, count=1) if "<IMAGE_POOL>" in text else text)
    )
    with pytest.raises(CloudAnswerError):
        stand.cloud.describe()
    assert len(stand.simulator.images()) == 2


@pytest.mark.parametrize("pool", ["one.imagepool.info", "one.templatepool.info"])
def test_half_a_pool_makes_no_second_image_nor_template(stand: OpenNebulaStand, store: Path, pool: str):
    for name in ("alma", "rocky", "debian"):
        register(stand, desired_image(name), store)
    stand.simulator.faults.add(Fault(method=pool, act=Act.HALF, times=ALWAYS))
    for name in ("alma", "rocky", "debian"):
        with suppress(CloudError):
            image = register(stand, desired_image(name), store)
            stand.cloud.change_state(image, image.marker)
    stand.simulator.faults.clear()
    assert len(stand.simulator.images()) == 6
    assert len(stand.simulator.templates()) == 3
    assert all(image.ready and image.drift is None for image in stand.cloud.describe())
