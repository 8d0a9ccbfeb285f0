# SPDX-License-Identifier: Apache-2.0
"""Lists that must not be believed, and servers that give none: refused by name, and nothing is changed."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from coppice.testing.authority import Authority
from coppice.testing.server import LoopbackServer, cut, serve, status
from coppice.testing.simulator import Simulator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def settled(kit, tmp_path_factory, shared_server):
    site = kit.Site(tmp_path_factory.mktemp("refusals") / "site", shared_server)
    site.subscribe()
    site.synced()
    assert site.images() == {("Debian 12", "1"): "available"}
    return site


def changed(publisher, **fields):
    """Return the content of the next list version, with some keys of the list replaced."""
    document = publisher.document()
    document["hv:imagelist"] |= {"hv:version": "3"}
    document["hv:imagelist"] |= {key.replace("_", ":"): value for key, value in fields.items()}
    return json.dumps(document).encode()


def tampered(site):
    return site.publisher.message(version="3").replace(b"Example list", b"Exanple list", 1)


def unsigned(site):
    return site.publisher.payload(version="3")


def wrong_signer(site):
    return site.publisher.message(version="3", signer=site.authority.issue("Mallory"))


def expired(site):
    now = datetime.now(UTC)
    dates = {"created": now - timedelta(days=29), "expires": now - timedelta(minutes=1)}
    written = {f"dc_date_{key}": f"{value:%Y-%m-%dT%H:%M:%SZ}" for key, value in dates.items()}
    return site.publisher.message(payload=changed(site.publisher, **written))


def from_the_future(site):
    created = datetime.now(UTC) + timedelta(hours=1)
    return site.publisher.message(payload=changed(site.publisher, dc_date_created=f"{created:%Y-%m-%dT%H:%M:%SZ}"))


def older(site):
    return site.publisher.message(version="1")


def same_version_other_content(site):
    return site.publisher.message(payload=changed(site.publisher, hv_version="2", dc_title="Another title"))


def untrusted_authority(site):
    stranger = Authority.create("Example CA").issue("Jane Doe")
    return site.publisher.message(version="3", signer=stranger)


def expired_signer(site):
    now = datetime.now(UTC)
    past = site.authority.issue("Jane Doe", not_before=now - timedelta(days=90), not_after=now - timedelta(days=1))
    return site.publisher.message(version="3", signer=past)


def not_for_signing(site):
    return site.publisher.message(version="3", signer=site.authority.issue("Jane Doe", key_usage=("key_encipherment",)))


def another_list(site):
    other = Simulator.create(site.authority, endorser=site.publisher.endorser, uri=site.publisher.uri)
    return other.message(version="3")


def another_endorser_named(site):
    mallory = Simulator.create(site.authority, endorser=site.authority.issue("Mallory"), uri=site.publisher.uri)
    endorser = mallory.document()["hv:imagelist"]["hv:endorser"]
    return site.publisher.message(payload=changed(site.publisher, hv_endorser=endorser))


def empty_body(site):
    return b""


def refused(site, code, exit_code):
    """Sync; it must fail with ``code``, and nothing must have changed: what was available still is."""
    before = site.snapshot()
    ended = site.sync()
    assert (ended.code, ended.codes) == (exit_code, [code]), ended
    assert ended.said["status"] == "error"
    assert site.snapshot() == before


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(tampered, "list-tampered", marks=pytest.mark.threat("T5")),
        pytest.param(unsigned, "list-unsigned", marks=pytest.mark.threat("T6")),
        pytest.param(wrong_signer, "signer-not-pinned", marks=pytest.mark.threat("T13")),
        pytest.param(expired, "list-expired"),
        pytest.param(from_the_future, "list-from-future", marks=pytest.mark.threat("T32")),
        pytest.param(older, "list-older", marks=pytest.mark.threat("T29")),
        pytest.param(same_version_other_content, "list-changed", marks=pytest.mark.threat("T30")),
        pytest.param(untrusted_authority, "signer-untrusted", marks=pytest.mark.threat("T17")),
        pytest.param(expired_signer, "signer-expired", marks=pytest.mark.threat("T18")),
        pytest.param(not_for_signing, "signer-usage", marks=pytest.mark.threat("T22")),
        pytest.param(another_list, "list-identifier-mismatch", marks=pytest.mark.threat("T39")),
        pytest.param(another_endorser_named, "list-endorser-mismatch", marks=pytest.mark.threat("T14")),
        pytest.param(empty_body, "list-unsigned"),
    ],
)
def test_a_list_that_breaks_a_rule_is_refused_by_its_own_code_and_changes_nothing(settled, make, code):
    settled.publish(make(settled))
    refused(settled, code, 5)


@pytest.mark.threat("T19")
def test_a_revoked_signer_is_refused_and_what_was_believed_of_it_is_hidden(settled):
    serial = settled.publisher.endorser.certificate.serial_number
    settled.authority.revoke(settled.publisher.endorser.certificate)
    try:
        settled.authority.write_to(settled.anchors)
        settled.publish(settled.publisher.message(version="3"))
        ended = settled.sync()
        assert (ended.code, ended.codes) == (1, ["signer-revoked"]), ended
        assert settled.images() == {("Debian 12", "1"): "withdrawn"}
    finally:
        del settled.authority.revoked[serial]
        settled.authority.write_to(settled.anchors)
    settled.publish()
    settled.synced()
    assert settled.images() == {("Debian 12", "1"): "available"}


@pytest.mark.threat("T21")
def test_a_missing_revocation_list_is_refused_and_changes_nothing(settled):
    (settled.anchors / "ca.crl.pem").unlink()
    try:
        settled.publish(settled.publisher.message(version="3"))
        refused(settled, "revocation-unknown", 5)
    finally:
        settled.authority.write_to(settled.anchors)


@pytest.mark.threat("T35")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status(503, b"later"), "source-status"),
        (cut(b"x" * 5000, 100), "transfer-cut"),
    ],
    ids=["503", "cut"],
)
def test_a_server_that_does_not_give_the_list_changes_nothing(settled, answer, code):
    settled.server.set("/lists/demo.list", answer)
    refused(settled, code, 6)


def test_after_all_of_them_the_good_list_and_its_next_version_are_followed(settled):
    before = settled.snapshot()
    settled.publish()
    assert settled.synced().data["clouds"][0]["plan"]["actions"] == []
    assert settled.snapshot() == before
    settled.next_version()
    settled.publish()
    assert [action["kind"] for action in settled.synced().data["clouds"][0]["plan"]["actions"]] == ["update-metadata"]
    assert settled.images() == {("Debian 12", "1"): "available"}


@contextmanager
def a_server_that_comes_back(site):
    port = site.server.port
    site.server.stop()
    try:
        yield
    finally:
        site.server = LoopbackServer(port=port).start()


@pytest.mark.threat("T35")
def test_a_refused_connection_changes_nothing_until_the_server_is_back(kit, tmp_path):
    site = kit.Site(tmp_path / "site", LoopbackServer().start())
    try:
        site.subscribe()
        site.synced()
        with a_server_that_comes_back(site):
            refused(site, "source-unreachable", 6)
        site.publish()
        assert site.synced().data["clouds"][0]["plan"]["actions"] == []
    finally:
        site.server.stop()


@pytest.mark.threat("T38")
def test_a_valid_list_without_images_is_held_and_nothing_is_taken_away(site):
    before = site.snapshot()
    kept = site.publisher.images[:]
    site.publisher.images.clear()
    site.next_version()
    site.publish()
    for _ in range(2):
        ended = site.sync()
        assert ended.code != 0
        assert ended.codes == ["plan-deletion-cap"]
        after = site.snapshot()
        assert after["cloud"] == before["cloud"]
        assert after["cache"] == before["cache"]
        assert site.images() == {("Debian 12", "1"): "available"}
    site.publisher.images.extend(kept)
    site.next_version()
    site.publish()
    site.synced()
    assert site.images() == {("Debian 12", "1"): "available"}


@pytest.mark.threat("T5")
def test_while_one_list_is_refused_the_others_are_followed(site, kit):
    other = Simulator.create(
        site.authority, endorser=site.publisher.endorser, uri=site.server.url("/others/other.list")
    )
    other.add_image(title="Alma 9", data=kit.tiny_qcow2(site.root, seed=9))
    for name, data in other.files.items():
        site.server.set(f"/others/images/{name}", serve(data))
    site.server.set("/others/other.list", serve(other.message()))
    site.subscribe("other", uri=other.uri)
    site.publish(tampered(site))
    ended = site.sync()
    assert ended.code != 0
    assert ended.said["status"] == "partial"
    assert ended.codes == ["list-tampered"]
    assert site.images() == {("Debian 12", "1"): "available", ("Alma 9", "1"): "available"}


def test_the_refusal_is_said_to_people_as_well_in_one_clear_message(site):
    site.publish(older(site))
    ended = site.run("sync")
    assert ended.code == 5
    assert "error[list-older]: the list has version 1; 2 was verified before" in ended.stderr
    assert "hint: " in ended.stderr
    assert site.ok("status")["subscriptions"][0]["last_error_code"] == "list-older"
