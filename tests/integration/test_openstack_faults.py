# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong between Coppice and Glance: what is left, and that the next run converges."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.cloud.model import Audience, ImageState, Visibility
from coppice.cloud.openstack import open_openstack
from coppice.cloud.openstack.words import CONTENT, UNFINISHED, marker_properties
from coppice.cloud.properties import presentation_of
from coppice.errors import (
    ChecksumMismatchError,
    CloudAnswerError,
    CloudChecksumError,
    CloudCredentialError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageInUseError,
    CloudQuotaError,
    CloudRefusedImageError,
    CloudUnreachableError,
)
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.testing.contracts.stand import register, to_state
from coppice.testing.desired import SITE, desired_image, marker_of
from coppice.testing.fault_proxy import (
    answers_after,
    answers_before,
    cuts_after,
    cuts_answer,
    cuts_before,
    cuts_upload,
    floods,
    rewrites,
    stalls,
)
from coppice.testing.openstack_stand import OpenStackStand
from coppice.testing.server import StaticServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from _pytest.logging import LogCaptureFixture
    from _pytest.mark import ParameterSet

    from coppice.testing.fault_proxy import Fault
    from coppice.testing.openstack import OpenStack

pytestmark = [pytest.mark.integration, pytest.mark.threat("T88")]

IDENTIFIER = r"/v2/images/[0-9a-f-]{36}"
CALLS = {
    "create": ("POST", r"/v2/images$"),
    "describe one": ("GET", IDENTIFIER + r"$"),
    "finish": ("PATCH", IDENTIFIER + r"$"),
    "list": ("GET", r"/v2/images\?"),
    "upload": ("PUT", IDENTIFIER + r"/file$"),
}
PASSING: dict[str, Callable[[], Fault]] = {
    "500 after it was done": lambda: answers_after(500),
    "502 before": lambda: answers_before(502, b"<html><head><title>502</title></head><body>bad gateway</body></html>"),
    "503 before": lambda: answers_before(503),
    "504 after it was done": lambda: answers_after(504),
    "connection cut after it was done": cuts_after,
    "connection cut before": cuts_before,
    "time-out after it was done": lambda: stalls(60),
    "time-out before": lambda: stalls(60, before=True),
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def stand(openstack: OpenStack) -> OpenStackStand:
    stand = OpenStackStand(openstack, "faulty", check_servers="none", timeout=20.0, attempts=3)
    stand.cloud.describe()
    openstack.faults.clear()
    return stand


def one_whole(stand: OpenStackStand) -> bool:
    (image,) = stand.cloud.describe()
    assert image.ready
    assert image.drift is None
    (there,) = stand.all_images()
    assert there["status"] == "active"
    assert there["id"] == image.cloud_identifier
    assert UNFINISHED not in there
    return stand.is_listed(image) and stand.can_start(image)


def _pairs(calls: Iterable[str], others: Iterable[Any]) -> list[ParameterSet]:
    """Return every call with every other; the gate takes each once at least, and the campaign all of them."""
    first, second = sorted(calls), sorted(others)
    most = max(len(first), len(second))
    chosen = {(first[each % len(first)], second[each % len(second)]) for each in range(most)}
    return [
        pytest.param(call, other, marks=() if (call, other) in chosen else pytest.mark.soak)
        for call in first
        for other in second
    ]


@pytest.mark.parametrize(
    ("call", "fault"), _pairs(CALLS, set(PASSING) - {"time-out after it was done", "time-out before"})
)
def test_what_passes_at_whichever_call_is_tried_again_and_makes_one_image(
    stand: OpenStackStand, store: Path, call: str, fault: str
):
    method, path = CALLS[call]
    stand.openstack.faults.add(PASSING[fault](), method=method, path=path)
    register(stand, desired_image(), store)
    assert any(asked.faulty for asked in stand.openstack.faults.asked)
    assert one_whole(stand)


@pytest.mark.parametrize("call", ["create", "upload"])
@pytest.mark.parametrize("fault", ["time-out after it was done", "time-out before"])
def test_an_answer_that_does_not_come_is_not_waited_for(openstack: OpenStack, store: Path, call: str, fault: str):
    stand = OpenStackStand(openstack, "faulty", check_servers="none", timeout=5.0, upload_timeout=5.0, attempts=3)
    stand.cloud.describe()
    method, path = CALLS[call]
    openstack.faults.add(PASSING[fault](), method=method, path=path)
    register(stand, desired_image(), store)
    assert one_whole(stand)


@pytest.mark.parametrize(("call", "status"), _pairs(CALLS, {500, 503}))
def test_what_does_not_pass_is_an_error_and_the_next_run_converges(
    stand: OpenStackStand, store: Path, call: str, status: int
):
    method, path = CALLS[call]
    stand.openstack.faults.add(answers_before(status, times=None), method=method, path=path)
    with pytest.raises(CloudFaultError) as caught:
        register(stand, desired_image(), store)
    assert caught.value.resolution
    tried = [asked for asked in stand.openstack.faults.asked if asked.faulty]
    assert len(tried) <= 12, "attempts are bounded"
    stand.openstack.faults.clear()
    assert not any(stand.is_listed(image) for image in stand.cloud.describe()), "what failed shows in no list"
    register(stand, desired_image(), store)
    assert one_whole(stand)


def test_a_connection_cut_in_mid_upload_is_tried_again(stand: OpenStackStand, store: Path):
    stand.openstack.faults.add(cuts_upload(500), method="PUT")
    register(stand, desired_image(), store)
    assert one_whole(stand)


def test_connections_that_are_always_cut_in_mid_upload_leave_nothing(stand: OpenStackStand, store: Path):
    stand.openstack.faults.add(cuts_upload(500, times=None), method="PUT")
    with pytest.raises(CloudError):
        register(stand, desired_image(), store)
    assert stand.all_images() == []


def test_a_session_that_ends_in_mid_upload_is_opened_again_once(stand: OpenStackStand, store: Path):
    stand.openstack.faults.add(answers_before(401), method="PUT")
    register(stand, desired_image(), store)
    assert one_whole(stand)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, CloudRefusedImageError),
        (401, CloudCredentialError),
        (403, CloudForbiddenError),
        (413, CloudQuotaError),
        (415, CloudRefusedImageError),
    ],
)
@pytest.mark.parametrize("call", ["create", "upload"])
def test_a_refusal_is_not_tried_again_and_leaves_nothing(
    stand: OpenStackStand, store: Path, status: int, error: type[CloudError], call: str
):
    method, path = CALLS[call]
    stand.openstack.faults.add(answers_before(status, b"Quota: no", times=None), method=method, path=path)
    with pytest.raises(error) as caught:
        register(stand, desired_image(), store)
    assert caught.value.resolution
    assert stand.all_images() == []


def test_other_bytes_than_were_sent_are_removed(stand: OpenStackStand, store: Path):
    def falsified(body: bytes) -> bytes:
        document = json.loads(body)
        if document.get("os_hash_value"):
            document["os_hash_value"] = "0" * 128
        return json.dumps(document).encode()

    stand.openstack.faults.add(rewrites(falsified, times=None), method="GET", path=IDENTIFIER + "$")
    with pytest.raises(CloudChecksumError):
        register(stand, desired_image(), store)
    assert stand.all_images() == []


def test_a_converted_image_whose_bytes_changed_is_not_registered(stand: OpenStackStand, store: Path):
    desired = desired_image()
    converted = stand.convert(desired, store)
    converted.path.write_bytes(b"x" * converted.image.size_bytes)
    with pytest.raises(ChecksumMismatchError):
        stand.cloud.register(converted, marker_of(desired), presentation_of(desired), SILENT)
    assert stand.all_images() == []


@pytest.mark.parametrize(
    "fault",
    [
        lambda: cuts_answer(40, times=None),
        lambda: floods(100 * 1024**2, times=None),
        lambda: rewrites(lambda body: body[:30], times=None),
        lambda: rewrites(lambda _: b"[" * 100_000, times=None),
        lambda: rewrites(lambda _: b'{"images": [{"id": "../../servers"}]}', times=None),
        lambda: rewrites(lambda _: b'{"images": 7}', times=None),
        lambda: rewrites(lambda _: b"[]", times=None),
    ],
    ids=["cut", "100 MB", "half a document", "deep", "an identifier that leads elsewhere", "a number", "no object"],
)
def test_a_list_that_is_not_whole_is_an_error_and_no_absence(
    stand: OpenStackStand, store: Path, fault: Callable[[], Fault]
):
    register(stand, desired_image(), store)
    stand.openstack.faults.add(fault(), method="GET", path=r"/v2/images\?")
    with pytest.raises(CloudError):
        stand.cloud.describe()
    stand.openstack.faults.clear()
    assert one_whole(stand)


def test_a_page_that_does_not_say_that_another_follows_is_not_believed_to_be_the_last(
    stand: OpenStackStand, store: Path
):
    images = {register(stand, desired_image(name), store).cloud_identifier for name in ("a", "b", "c")}

    def halved(body: bytes) -> bytes:
        document = json.loads(body)
        document.pop("next", None)
        document["images"] = document["images"][:1]
        return json.dumps(document).encode()

    stand.openstack.faults.add(rewrites(halved, times=None), method="GET", path=r"/v2/images\?")
    assert {image.cloud_identifier for image in stand.cloud.describe()} == images


def test_a_page_that_comes_again_is_an_error(stand: OpenStackStand, store: Path):
    register(stand, desired_image(), store)
    pages: list[bytes] = []

    def repeated(body: bytes) -> bytes:
        pages.append(body)
        whole = [page for page in pages if json.loads(page)["images"]]
        return whole[0] if whole else body

    stand.openstack.faults.add(rewrites(repeated, times=None), method="GET", path=r"/v2/images\?")
    with pytest.raises(CloudAnswerError, match="two pages"):
        stand.cloud.describe()


def test_an_image_of_another_project_with_this_sites_marker_is_not_ours(stand: OpenStackStand, store: Path):
    forged = marker_properties(marker_of(desired_image()))
    identifier = stand.make({"name": "forged", "visibility": "shared", **forged}, person="bob")
    ours = stand.openstack.project("alpha")
    stand.openstack.ask("bob", "POST", f"/v2/images/{identifier}/members", {"member": ours})
    stand.openstack.ask("alice", "PUT", f"/v2/images/{identifier}/members/{ours}", {"status": "accepted"})
    assert stand.cloud.describe() == ()
    image = register(stand, desired_image(), store)
    with pytest.raises(CloudError):
        stand.cloud.remove(replace(image, cloud_identifier=identifier))
    assert stand.image(identifier, "bob") is not None


def test_an_image_that_its_store_needs_still_is_in_use(stand: OpenStackStand, store: Path):
    image = register(stand, desired_image(), store)
    stand.openstack.faults.add(answers_before(409, b"Image is in use"), method="DELETE")
    with pytest.raises(CloudImageInUseError):
        stand.cloud.remove(image)
    stand.cloud.remove(image)
    assert stand.cloud.describe() == ()


@pytest.mark.parametrize("status", ["queued", "saving", "importing"])
def test_an_image_that_got_stuck_is_recognised_and_made_anew(stand: OpenStackStand, store: Path, status: str):
    image = register(stand, desired_image(), store)
    stand.openstack.glance.execute("UPDATE images SET status = ? WHERE id = ?", status, image.cloud_identifier)
    (stuck,) = stand.cloud.describe()
    assert not stuck.ready
    assert stuck.problem is not None
    assert status in stuck.problem
    register(stand, desired_image(), store)
    assert one_whole(stand)


def test_an_image_whose_run_was_killed_before_its_bytes_were_compared_is_finished_without_an_upload(
    stand: OpenStackStand, store: Path
):
    image = register(stand, desired_image(), store)
    stand.patch(image.cloud_identifier, UNFINISHED, "yes")
    stand.patch(image.cloud_identifier, "os_hidden", value=True)
    (half,) = stand.cloud.describe()
    assert not half.ready
    stand.openstack.faults.clear()
    again = register(stand, desired_image(), store)
    assert again.cloud_identifier == image.cloud_identifier
    assert not [asked for asked in stand.openstack.faults.asked if asked.method == "PUT"]
    assert one_whole(stand)


def test_an_image_with_other_bytes_than_its_property_says_is_made_anew(stand: OpenStackStand, store: Path):
    image = register(stand, desired_image(), store)
    stand.patch(image.cloud_identifier, CONTENT, f"sha512:{'0' * 128}")
    (rotten,) = stand.cloud.describe()
    assert not rotten.ready
    register(stand, desired_image(), store)
    assert one_whole(stand)


def test_wrong_credentials_are_told_and_change_nothing(stand: OpenStackStand, store: Path):
    wrong = open_openstack(stand.openstack.settings("wrong", site=SITE), ())
    with pytest.raises(CloudCredentialError) as caught:
        wrong.describe()
    assert caught.value.resolution
    assert "wrong-password" not in str(caught.value.as_dict())


def test_a_reader_may_look_and_not_register(openstack: OpenStack, stand: OpenStackStand, store: Path):
    reader = OpenStackStand(openstack, "rita")
    assert reader.cloud.describe() == ()
    with pytest.raises(CloudForbiddenError):
        register(reader, desired_image(), store)
    assert stand.all_images() == []


def test_keystone_that_fails_is_tried_again_and_then_an_error(openstack: OpenStack):
    stand = OpenStackStand(openstack, "faulty", check_servers="none", attempts=2, timeout=7.0)
    openstack.keystone_faults.add(answers_before(503, times=None))
    with pytest.raises(CloudError) as caught:
        stand.cloud.describe()
    assert caught.value.resolution
    openstack.keystone_faults.clear()
    assert stand.cloud.describe() == ()


def test_a_glance_that_does_not_run_is_no_matter_of_the_credentials(openstack: OpenStack, caplog: LogCaptureFixture):
    stand = OpenStackStand(openstack, "faulty", check_servers="none", attempts=1, timeout=7.0)
    openstack.faults.add(cuts_before(times=None))
    with pytest.raises(CloudUnreachableError, match="the address in the catalogue") as caught:
        stand.cloud.describe()
    assert "runs" in (caught.value.resolution or "")
    assert caplog.records == []
    openstack.faults.clear()
    assert stand.cloud.describe() == ()


def test_an_application_credential_does_all_that_a_password_does(openstack: OpenStack, store: Path):
    stand = OpenStackStand(openstack, "credential")
    image = register(stand, desired_image(), store)
    assert one_whole(stand)
    stand.cloud.remove(to_state(stand.cloud, image, ImageState.WITHDRAWN))
    assert stand.cloud.describe() == ()


def test_credentials_by_reference_do_without_clouds_yaml(openstack: OpenStack, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("alice-password\n")
    secret.chmod(0o600)
    settings = openstack.settings("alice", site=SITE)
    login = {"auth_url": openstack.keystone.auth_url, "username": "alice", "password_file": str(secret)}
    options = {**login, "project_name": "alpha", "region": "one", "retry_delay": 0.01}
    openstack.forget_all()
    assert open_openstack(replace(settings, options=options), ()).describe() == ()


@pytest.mark.parametrize("transport", ["glance-direct", "web-download"])
def test_images_are_imported_and_compared(openstack: OpenStack, store: Path, tmp_path: Path, transport: str):
    served = tmp_path / "served"
    served.mkdir()
    options: dict[str, object] = {"transport": transport}
    if transport == "web-download":
        url = f"http://127.0.0.1:{openstack.web_port}/"
        options |= {"web_directory": str(served), "web_url": url}
    stand = OpenStackStand(openstack, "faulty", check_servers="none", **options)
    with StaticServer(served, openstack.web_port):
        register(stand, desired_image(), store)
    assert one_whole(stand)
    assert list(served.iterdir()) == []


def test_an_import_of_what_it_is_not_said_to_be_is_refused_and_leaves_nothing(openstack: OpenStack, store: Path):
    stand = OpenStackStand(openstack, "faulty", check_servers="none", transport="glance-direct", import_timeout=60)
    desired = desired_image()
    converted = stand.convert(desired, store)
    lying = replace(converted, image=replace(converted.image, format=DiskFormat.QCOW2))
    with pytest.raises(CloudError):
        stand.cloud.register(lying, marker_of(desired), presentation_of(desired), SILENT)
    assert stand.all_images() == []


def test_a_file_that_is_not_what_it_is_said_to_be_is_refused_by_glance(stand: OpenStackStand, store: Path):
    desired = desired_image()
    converted = stand.convert(desired, store)
    lying = replace(converted, image=replace(converted.image, format=DiskFormat.QCOW2))
    with pytest.raises(CloudRefusedImageError):
        stand.cloud.register(lying, marker_of(desired), presentation_of(desired), SILENT)
    assert stand.all_images() == []


def test_members_see_a_shared_image_when_it_was_accepted_for_them(openstack: OpenStack, store: Path):
    stand = OpenStackStand(openstack, accept_members=True)
    gamma = openstack.project("gamma")
    desired = desired_image()
    audience = Audience(visibility=Visibility.SHARED, members=(gamma, openstack.project("beta")))
    shown = replace(presentation_of(desired), audience=audience)
    stand.cloud.register(stand.convert(desired, store), marker_of(desired), shown, SILENT)
    # Alice is a member of gamma too, and not of beta.
    assert [image["name"] for image in openstack.ask("gus", "GET", "/v2/images")[1]["images"]] == [shown.name]
    assert openstack.ask("bob", "GET", "/v2/images")[1]["images"] == []


def test_public_images_need_an_administrator(stand: OpenStackStand, store: Path):
    desired = desired_image()
    shown = replace(presentation_of(desired), audience=Audience(visibility=Visibility.PUBLIC))
    with pytest.raises(CloudForbiddenError):
        stand.cloud.register(stand.convert(desired, store), marker_of(desired), shown, SILENT)
    assert stand.all_images() == []
    shown = replace(shown, audience=Audience(visibility=Visibility.COMMUNITY))
    stand.cloud.register(stand.convert(desired, store), marker_of(desired), shown, SILENT)
    (image,) = stand.cloud.describe()
    assert stand.visibility_of(image) is Visibility.COMMUNITY


def test_protection_is_set_and_lifted_where_the_settings_ask_for_it(openstack: OpenStack, store: Path):
    stand = OpenStackStand(openstack, protected=True)
    image = register(stand, desired_image(), store)
    there = stand.image(image.cloud_identifier)
    assert there is not None
    assert there["protected"] is True
    other = open_openstack(openstack.settings("alice", site=SITE), ())
    with pytest.raises(CloudForbiddenError, match="protected"):
        other.remove(image)
    stand.cloud.remove(image)
    assert stand.all_images() == []


def test_describing_takes_as_many_requests_for_many_images_as_for_one(stand: OpenStackStand, store: Path):
    register(stand, desired_image(), store)
    stand.openstack.faults.clear()
    stand.cloud.describe()
    for_one = len(stand.openstack.faults.asked)
    for number in range(40):
        fields = marker_properties(marker_of(desired_image(f"image {number}")))
        stand.make({"name": f"image {number}", "os_hidden": True, **fields})
    stand.openstack.faults.clear()
    assert len(stand.cloud.describe()) == 41
    assert len(stand.openstack.faults.asked) <= for_one + 1
