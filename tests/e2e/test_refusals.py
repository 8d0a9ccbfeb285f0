# SPDX-License-Identifier: Apache-2.0
"""Lists that must not be believed, and servers that give none: refused by name, and nothing is changed."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from coppice.testing.authority import Authority, KeyType, make_key
from coppice.testing.forgery import as_multipart, as_opaque, as_pem, craft
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


def crafted(site, **crafting):
    return as_opaque(craft(site.publisher.payload(version="3"), site.publisher.endorser, **crafting))


def no_signer(site):
    return crafted(site, no_signer=True)


def two_signers(site):
    return crafted(site, more_signers=[site.authority.issue("Mallory")])


def two_contents(site):
    body = site.publisher.payload(version="3").replace(b"\n", b"\r\n")
    return as_multipart(body, craft(body, site.publisher.endorser, embedded=b"{}"))


def no_signed_attributes(site):
    return crafted(site, signed_attributes=False)


def attribute_twice(site):
    return crafted(site, doubled_attribute="message_digest")


def digest_of_long_ago(site):
    return crafted(site, digest="sha1")


def truncated(site):
    return site.publisher.message(version="3")[:2000]


def slash_in_a_name(site):
    pairs = [(NameOID.DOMAIN_COMPONENT, "org"), (NameOID.DOMAIN_COMPONENT, "example/CN=Jane Doe")]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])
    return site.publisher.message(version="3", signer=site.authority.issue("", subject=name))


def below_an_end_entity(site):
    jane = site.publisher.endorser
    below = Authority(identity=replace(jane, chain=(jane.certificate,)))
    proxy = replace(below.issue("Jane Doe"), chain=(jane.certificate,))
    return site.publisher.message(version="3", signer=proxy)


def image_twice(site):
    images = site.publisher.document()["hv:imagelist"]["hv:images"]
    return site.publisher.message(payload=changed(site.publisher, hv_images=images * 2))


def json_with_a_key_twice(site):
    text = site.publisher.payload(version="3").replace(b'"hv:version"', b'"hv:version": "4", "hv:version"', 1)
    return site.publisher.message(payload=text)


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
        pytest.param(no_signer, "list-signer-count", marks=pytest.mark.threat("T7")),
        pytest.param(two_contents, "list-signature-form", marks=pytest.mark.threat("T8")),
        pytest.param(two_signers, "list-signer-count", marks=pytest.mark.threat("T9")),
        pytest.param(no_signed_attributes, "list-signature-form", marks=pytest.mark.threat("T10")),
        pytest.param(attribute_twice, "list-signature-form", marks=pytest.mark.threat("T10")),
        pytest.param(digest_of_long_ago, "list-signature-weak", marks=pytest.mark.threat("T11")),
        pytest.param(truncated, "list-signature-form", marks=pytest.mark.threat("T12")),
        pytest.param(slash_in_a_name, "signer-not-pinned", marks=pytest.mark.threat("T16")),
        pytest.param(below_an_end_entity, "signer-untrusted", marks=pytest.mark.threat("T22")),
        pytest.param(image_twice, "list-malformed", marks=pytest.mark.threat("T42")),
        pytest.param(json_with_a_key_twice, "list-malformed", marks=pytest.mark.threat("T77")),
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


@pytest.mark.threat("T21")
@pytest.mark.parametrize(
    ("crl", "code"),
    [
        ({"last_update": -10, "next_update": -1}, "revocation-expired"),
        ({"key": True}, "revocation-forged"),
    ],
    ids=["expired", "forged"],
)
def test_a_revocation_list_that_is_no_good_refuses_and_changes_nothing(settled, crl, code):
    now = datetime.now(UTC)
    changes = {name: now + timedelta(days=days) for name, days in crl.items() if name != "key"}
    bad = settled.authority.crl(**changes, **({"key": make_key()} if "key" in crl else {}))
    try:
        settled.authority.write_to(settled.anchors, crl=bad)
        settled.publish(settled.publisher.message(version="3"))
        refused(settled, code, 5)
    finally:
        settled.authority.write_to(settled.anchors)


@pytest.mark.threat("T24")
def test_an_attackers_root_among_the_machines_own_is_not_trusted(settled):
    attacker = Authority.create("Attacker CA")
    attacker.write_to(settled.root / "machine")
    signer = attacker.issue("Jane Doe")
    settled.publish(settled.publisher.message(version="3", signer=signer))
    before = settled.snapshot()
    environ = {"SSL_CERT_FILE": str(settled.root / "machine/ca.pem"), "SSL_CERT_DIR": str(settled.root / "machine")}
    ended = settled.sync(environ=environ)
    assert (ended.code, ended.codes) == (5, ["signer-untrusted"])
    assert settled.snapshot() == before


@pytest.mark.threat("T23")
def test_a_folder_without_a_usable_authority_is_refused_by_name(settled, tmp_path):
    (tmp_path / "list").write_bytes(settled.publisher.message())
    (tmp_path / "anchors").mkdir()
    (tmp_path / "anchors/ca.pem").write_text("no certificate")
    named = ("--endorser-certificate", settled.root / "jane.pem")
    ended = settled.run("--json", "imagelist", "verify", tmp_path / "list", "--anchors", tmp_path / "anchors", *named)
    assert (ended.code, ended.codes) == (5, ["trust-anchor"])


@pytest.mark.threat("T29")
def test_an_older_list_is_refused_when_the_cache_is_gone_and_after_subscribing_anew(template, tmp_path):
    site = template.copy_to(tmp_path / "site")
    site.next_version()
    site.publish()
    site.synced()
    old = site.publisher.message(version="1")
    shutil.rmtree(site.state / "cache")
    site.publish(old)
    assert site.sync().codes == ["list-older"]
    site.ok("subscription", "remove", "demo")
    site.subscribe()
    ended = site.run("--json", "subscription", "refresh")
    assert (ended.code, ended.codes) == (5, ["list-older"])


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
        (error,) = ended.said["errors"]
        assert error["message"].startswith(f"{error['context']['subscription']}: list "), error
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


@pytest.mark.threat("T1")
@pytest.mark.threat("T2")
@pytest.mark.threat("T3")
@pytest.mark.threat("T4")
def test_every_form_of_a_good_list_is_followed_and_shown(site):
    payloads = iter(site.publisher.payload(version=str(version)) for version in range(3, 9))
    strong = site.authority.issue("Jane Doe", key_type=KeyType.P384)
    forms = [
        lambda payload: site.publisher.message(payload=payload),
        lambda payload: site.publisher.message(payload=payload).replace(b"\r\n", b"\n"),
        lambda payload: as_multipart(payload, craft(payload, site.publisher.endorser, detached=True)),
        lambda payload: as_opaque(craft(payload, strong, digest="sha384")),
        lambda payload: as_pem(craft(payload, site.publisher.endorser)),
        lambda payload: craft(payload, site.publisher.endorser, digest="sha512", chunk_bytes=1000),
    ]
    for form, payload in zip(forms, payloads, strict=True):
        site.publish(form(payload))
        assert site.ok("subscription", "refresh")["lists"][0]["fresh"]
    row = site.ok("subscription", "refresh")["lists"][0]
    assert row["version"] == "8"
    assert row["expires"] == f"{site.publisher.expires:%Y-%m-%dT%H:%M:%SZ}"
    shown = site.run("subscription", "show", "demo").stdout
    for fact in ("8", str(site.publisher.endorser.subject), str(site.publisher.endorser.issuer)):
        assert fact in shown
    assert site.images() == {("Debian 12", "1"): "available"}


@pytest.mark.threat("T43")
def test_a_list_that_says_it_lives_elsewhere_is_followed_where_it_was_subscribed_to(site):
    site.publish(site.publisher.message(payload=changed(site.publisher, hv_uri="https://elsewhere.example.org/list")))
    ended = site.synced()
    assert any("elsewhere.example.org" in message for message in ended.said["messages"])
    assert site.ok("subscription", "show", "demo")["subscription"]["uri"] == site.publisher.uri


@pytest.mark.threat("T33")
def test_a_leap_of_the_version_is_followed_and_said(site):
    site.publish(site.publisher.message(version=str(10**18)))
    ended = site.run("--json", "subscription", "refresh")
    assert ended.code == 0
    assert any("jumped" in message for message in ended.said["messages"])


@pytest.mark.threat("T41")
def test_an_image_identifier_that_two_lists_use_is_two_images(site, kit):
    other = Simulator.create(
        site.authority, endorser=site.publisher.endorser, uri=site.server.url("/others/other.list")
    )
    image = other.add_image(title="Another", data=kit.tiny_qcow2(site.root, seed=12))
    image["dc:identifier"] = site.first["dc:identifier"]
    for name, data in other.files.items():
        site.server.set(f"/others/images/{name}", serve(data))
    site.server.set("/others/other.list", serve(other.message()))
    site.subscribe("other", uri=other.uri)
    site.synced()
    assert site.images() == {("Debian 12", "1"): "available", ("Another", "1"): "available"}
    other.version, other.images = "2", []
    other.add_image(title="Third", data=kit.tiny_qcow2(site.root, seed=13))
    for name, data in other.files.items():
        site.server.set(f"/others/images/{name}", serve(data))
    site.server.set("/others/other.list", serve(other.message()))
    site.sync()
    assert site.images()["Debian 12", "1"] == "available"


def test_the_refusal_is_said_to_people_as_well_in_one_clear_message(site):
    site.publish(older(site))
    ended = site.run("sync")
    assert ended.code == 5
    assert "error[list-older]: demo: the list has version 1; 2 was verified before" in ended.stderr
    assert "hint: " in ended.stderr
    assert site.ok("status")["subscriptions"][0]["last_error_code"] == "list-older"
