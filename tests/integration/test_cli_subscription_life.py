# SPDX-License-Identifier: Apache-2.0
"""Subscriptions through the command line, with the shipped defaults, against a server on loopback."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.testing.authority import Authority
from coppice.testing.server import conditional, guarded, stall
from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.testing.server import LoopbackServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Site:
    """A site, its command line, and a publisher."""

    def __init__(self, path: Path, server: LoopbackServer, capture: Any) -> None:
        self.path, self.server, self.capture = path, server, capture
        self.authority = Authority.create("Example CA")
        self.anchors = self.authority.write_to(path / "anchors")
        self.publisher = Simulator.create(self.authority, uri=server.url("/list"))
        self.publisher.add_image()
        self.certificate, _ = self.publisher.endorser.write_to(path, "jane")
        self.said: list[str] = []
        self.publish()

    def publish(self, message: bytes | None = None) -> None:
        data = self.publisher.message() if message is None else message
        self.server.set("/list", conditional(data, etag=f'"{self.publisher.version}"'))

    def run(self, *arguments: object, code: int = 0, json_form: bool = True) -> Any:
        words = [*(["--json"] if json_form else []), "subscription", *map(str, arguments)]
        got = main(words)
        out, err = self.capture.readouterr()
        self.said += [out, err]
        assert got == code, (words, out, err)
        return json.loads(out) if json_form else out

    def add(self, *more: object, code: int = 0, endorser: bool = True) -> Any:
        who = ("--endorser-certificate", self.certificate) if endorser else ()
        return self.run("add", "lab", self.publisher.uri, "--anchors", self.anchors, *who, *more, code=code)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: Any, loopback_server: LoopbackServer) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COPPICE_TRANSFER__ALLOW_PRIVATE_ADDRESSES", "true")

    class Capture:
        def readouterr(self) -> tuple[str, str]:
            out, err = capfdbinary.readouterr()
            return out.decode(), err.decode()

    return Site(tmp_path, loopback_server, Capture())


def test_a_list_lives_through_versions_that_are_archived_shown_compared_and_put_in_force(site: Site):
    site.add()
    first = site.publisher.message()
    site.publish(first)
    (row,) = site.run("refresh")["data"]["lists"]
    assert (row["state"], row["version"], row["images"]) == ("fresh", "1", 1)
    (row,) = site.run("refresh", "lab")["data"]["lists"]
    assert (row["state"], row["unchanged"]) == ("unchanged", True)
    site.publisher.version = "2"
    site.publisher.images[0]["hv:ram_minimum"] = "1024"
    site.publisher.add_image(title="Alma 9")
    site.publish()
    ahead = site.run("diff", "lab", "--fetch")["data"]["difference"]
    assert (ahead["before"], ahead["after"]) == ("1", "2")
    assert site.run("show", "lab")["data"]["subscription"]["standing"]["version"] == "1"
    site.run("refresh")
    found = site.run("diff", "lab")["data"]["difference"]
    assert {image["kind"] for image in found["images"]} == {"added", "described"}
    (described,) = [image for image in found["images"] if image["kind"] == "described"]
    assert [(each["key"], each["before"], each["after"]) for each in described["fields"]] == [
        ("hv:ram_minimum", 512, 1024)
    ]
    assert site.run("diff", "lab", "2", "1")["data"]["difference"]["after"] == "1"
    assert site.run("diff", "lab", "2")["data"]["difference"]["is_empty"] is True
    text = site.run("diff", "lab", json_form=False)
    assert "+ Alma 9" in text
    assert "hv:ram_minimum: 512 -> 1024" in text
    lists = site.run("archive", "lab")["data"]["lists"]
    assert [(each["version"], each["is_current"]) for each in lists] == [("2", True), ("1", False)]
    target = site.path / "one.smime"
    site.run("show", "lab", "--version", "1", "--raw", "--output", target)
    assert target.read_bytes() == first
    assert site.run("show", "lab", "--version", "1", "--raw", json_form=False).encode() == first
    shown = site.run("show", "lab", "--version", "1")["data"]["list"]
    assert (shown["version"], len(shown["images"])) == ("1", 1)
    assert site.run("show", "lab", "--raw", code=2)["errors"][0]["code"] == "usage"
    assert site.run("show", "lab", "--version", "9", code=12)["errors"][0]["code"] == "not-found"
    assert site.run("roll-forward", "lab")["data"]["version"] == "2"
    assert site.run("roll-forward", "lab", "--version", "1", code=5)["errors"][0]["code"] == "list-older"


@pytest.mark.threat("T33")
def test_a_floor_is_taken_back_only_when_it_is_confirmed_and_with_a_reason(site: Site):
    site.add()
    site.run("refresh")
    site.publisher.version = "999999999999999999"
    site.publish()
    (row,) = site.run("refresh")["data"]["lists"]
    assert "version-jump" in {each["kind"] for each in row["warnings"]}
    site.publisher.version = "2"
    site.publish()
    assert site.run("refresh", code=5)["errors"][0]["code"] == "list-older"
    assert site.run("reset-version", "lab", "--reason", "stolen key", code=2)["errors"][0]["code"] == "usage"
    assert site.run("reset-version", "lab", "--yes", code=2)["errors"][0]["code"] == "usage"
    assert site.run("reset-version", "lab", "--reason", " ", "--yes", code=3)["errors"][0]["code"] == "input-invalid"
    data = site.run("reset-version", "lab", "--reason", "stolen key", "--yes")["data"]
    assert data["taken_back"] == "999999999999999999"
    assert site.run("refresh")["data"]["lists"][0]["version"] == "2"


def test_endorsers_are_added_listed_and_removed_but_never_the_last(site: Site):
    site.add()
    john = site.authority.issue("John Doe")
    certificate, _ = john.write_to(site.path, "john")
    added = site.run("endorser", "add", "lab", "--endorser-certificate", certificate)
    assert "less is asked" in added["messages"][0]
    names = [each["dn"] for each in site.run("endorser", "list", "lab")["data"]["endorsers"]]
    assert names == [str(site.publisher.endorser.subject), str(john.subject)]
    site.run("refresh")
    site.publisher.endorser, site.publisher.version = john, "2"
    site.publish()
    assert site.run("refresh")["data"]["lists"][0]["version"] == "2"
    dn, ca = str(site.authority.issue("Jane Doe").subject), str(john.issuer)
    site.run("endorser", "remove", "lab", "--endorser-dn", dn, "--endorser-ca", ca)
    gone = site.run("endorser", "remove", "lab", "--endorser-dn", dn, "--endorser-ca", ca, code=12)
    assert gone["errors"][0]["code"] == "not-found"
    last = site.run("endorser", "remove", "lab", "--endorser-certificate", certificate, code=12)
    assert last["errors"][0]["code"] == "state-invalid"
    site.run("endorser", "add", "lab", "--endorser-dn", dn, code=2)
    site.run("endorser", "add", "lab", code=2)


def test_a_fingerprint_trusts_one_certificate_only(site: Site):
    from cryptography.hazmat.primitives import hashes

    fingerprint = site.publisher.endorser.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    site.add("--endorser-fingerprint", "00" * 31, code=3)
    site.add("--endorser-fingerprint", fingerprint, "--endorser-fingerprint", fingerprint, code=2)
    site.add("--endorser-fingerprint", fingerprint)
    site.run("refresh")
    site.publisher.endorser, site.publisher.version = site.authority.issue("Jane Doe"), "2"
    site.publish()
    assert site.run("refresh", code=5)["errors"][0]["code"] == "signer-not-pinned"


def test_trust_on_first_use_is_asked_for_recorded_and_used_up(site: Site):
    assert site.add(endorser=False, code=2)["errors"][0]["code"] == "usage"
    site.add("--trust-on-first-use", endorser=False)
    assert site.run("endorser", "list", "lab")["data"]["endorsers"] == []
    warnings = site.run("refresh")["data"]["lists"][0]["warnings"]
    assert "first-use" in {each["kind"] for each in warnings}
    (endorser,) = site.run("endorser", "list", "lab")["data"]["endorsers"]
    assert (endorser["dn"], endorser["first_use"]) == (str(site.publisher.endorser.subject), True)
    site.publisher.endorser, site.publisher.version = site.authority.issue("Mallory"), "2"
    site.publish()
    assert site.run("refresh", code=5)["errors"][0]["code"] == "signer-not-pinned"


def test_edit_says_what_changed_and_takes_back_what_it_gave(site: Site):
    site.add()
    changes = site.run("edit", "lab", "--set", "revocation=if-present", "--set", "os=Debian,Alma", "--arch", "x86_64")
    said = {each["field"]: each for each in changes["data"]["changes"]}
    assert said["revocation"]["weakens"] is True
    assert said["operating_systems"]["after"] == "Debian, Alma"
    assert changes["data"]["subscription"]["architectures"] == ["x86_64"]
    site.run("edit", "lab", "--set", "os=", "--set", "where=size < 4 GiB", "--set", "revocation=require")
    shown = site.run("show", "lab")["data"]["subscription"]
    assert (shown["operating_systems"], shown["where"], shown["revocation"]) == ([], "size < 4 GiB", "require")
    assert site.run("edit", "lab")["messages"] == ["Nothing was to be changed."]
    for bad, code in (
        ("revocation=never", 3), ("allow-sha1=flase", 3), ("where=size <", 3), ("anchors=", 3), ("colour=red", 2),
        ("uri", 2), ("uri=ftp://x", 3), ("images=x", 3), (f"anchors={site.path}/none", 5),
    ):  # fmt: skip
        site.run("edit", "lab", "--set", bad, code=code)
    image = site.publisher.images[0]["dc:identifier"]
    assert site.run("refuse-image", "lab", image)["data"]["subscription"]["refused"] == [image]
    assert site.run("accept-image", "lab", image.upper())["data"]["subscription"]["refused"] == []


def test_a_paused_subscription_is_left_alone_until_it_is_resumed(site: Site):
    site.add()
    site.run("refresh")
    site.run("pause", "lab")
    asked = len(site.server.requests)
    assert site.run("refresh")["data"]["lists"][0]["state"] == "paused"
    assert site.run("list")["data"]["subscriptions"][0]["standing"]["state"] == "paused"
    assert len(site.server.requests) == asked
    site.run("resume", "lab")
    assert site.run("refresh")["data"]["lists"][0]["state"] == "fresh"


def test_a_removal_can_be_tried_first(site: Site):
    site.add()
    site.run("refresh")
    tried = site.run("remove", "lab", "--dry-run")["data"]
    assert (tried["archived_lists"], tried["list_identifier"]) == (1, site.publisher.identifier)
    assert len(site.run("list")["data"]["subscriptions"]) == 1
    site.run("remove", "lab")
    assert site.run("list")["data"]["subscriptions"] == []


def test_some_that_fail_make_the_exit_code_one_and_one_that_fails_alone_its_own(site: Site):
    site.add()
    site.run(
        *("add", "dead", site.server.url("/none"), "--anchors", site.anchors),
        *("--endorser-certificate", site.certificate),
    )
    said = site.run("refresh", code=1)
    assert (said["status"], [each["state"] for each in said["data"]["lists"]]) == ("partial", ["failed", "fresh"])
    assert site.run("refresh", "dead", code=6)["status"] == "error"


@pytest.mark.threat("T93")
@pytest.mark.parametrize("form", ["token-file", "token-variable", "bearer-file", "bearer-variable", "password"])
def test_a_secret_is_shown_to_the_server_and_to_nobody_else(site: Site, monkeypatch: pytest.MonkeyPatch, form: str):
    canary = "canary-7f3a"
    secret = site.path / "secret"
    secret.write_text(f"{canary}\n")
    secret.chmod(0o600)
    monkeypatch.setenv("SITE_SECRET", canary)
    options: tuple[object, ...] = (f"--{form}", "SITE_SECRET" if form.endswith("variable") else secret)
    expected = f"Bearer {canary}"
    if form.startswith("token"):
        expected = "Basic " + base64.b64encode(f"{canary}:x-oauth-basic".encode()).decode()
    if form == "password":
        options = ("--username", "jane", "--password-file", secret)
        expected = "Basic " + base64.b64encode(f"jane:{canary}".encode()).decode()
    site.server.set("/list", guarded(expected, conditional(site.publisher.message(), etag='"1"')))
    site.add(*options)
    site.run("refresh")
    assert site.server.requests[-1].headers["Authorization"] == expected
    site.run("refresh", json_form=False)
    site.run("show", "lab", json_form=False)
    site.run("list")
    # A server that says what it was told, in an error.
    refusing = guarded(f"other {canary}", conditional(b"", etag='"x"'), challenge=f'Basic realm="{canary}"')
    site.server.set("/list", refusing)
    site.run("refresh", code=6)
    site.run("edit", "lab", "--set", "vos=x", json_form=False)
    kept = b"".join(path.read_bytes() for path in (site.path / "state").rglob("*") if path.is_file())
    for form_of_it in (canary, base64.b64encode(canary.encode()).decode()[:12], expected.split()[1]):
        assert form_of_it.encode() not in kept
        assert form_of_it not in "".join(site.said)
    if "file" in form or form == "password":
        secret.chmod(0o644)
        assert site.run("refresh", code=3)["errors"][0]["code"] == "credential-unusable"
    site.run("edit", "lab", "--no-credential")
    assert site.run("show", "lab")["data"]["subscription"]["access"] is None


def test_two_ways_to_show_who_asks_are_one_too_many(site: Site):
    for options in (
        ("--token-variable", "A", "--bearer-variable", "B"),
        ("--username", "jane"),
        ("--password-variable", "A"),
        ("--token-variable", "A", "--token-file", "b"),
        ("--client-key", "k"),
    ):
        assert site.add(*options, code=2)["errors"][0]["code"] == "usage"
    assert site.add("--token-file", site.path / "none", code=3)["errors"][0]["code"] == "credential-unusable"


def test_status_and_doctor_say_how_each_stands(site: Site):
    site.add()
    site.publisher.expires = site.publisher.created + timedelta(days=1, hours=2)
    site.publish()
    site.run("refresh")
    assert main(["--json", "status"]) == 0
    data = json.loads(site.capture.readouterr()[0])["data"]["subscriptions"]
    assert [(each["name"], each["state"], each["warnings"][0]["kind"]) for each in data] == [
        ("lab", "fresh", "list-expiring")
    ]
    main(["--json", "doctor", "--role", "site"])
    checks = json.loads(site.capture.readouterr()[0])["data"]["checks"]
    found = {each["name"]: each["verdict"] for each in checks if each["kind"] == "subscription"}
    assert found == {f"trust anchors {site.anchors}": "ok", "lab": "note"}


@pytest.mark.threat("T82")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_refresh_that_waits_for_a_silent_server_ends_at_once_when_it_is_told_to(
    site: Site, number: signal.Signals, code: int
):
    site.add()
    site.run(
        *("add", "other", site.server.url("/other"), "--anchors", site.anchors),
        *("--endorser-certificate", site.certificate),
    )
    site.server.set("/other", stall(site.publisher.message(), 10))
    argv = [sys.executable, "-m", "coppice", "--json", "subscription", "refresh"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 60
        while {each.path for each in site.server.requests} != {"/list", "/other"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while standings(site)["lab"] != "fresh":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(number)
        before = time.monotonic()
        out, err = child.communicate(timeout=30)
    assert time.monotonic() - before < 5
    assert child.returncode == code, err
    assert json.loads(out)["errors"][0]["code"] == "interrupted"
    assert b"Traceback" not in err
    assert standings(site) == {"lab": "fresh", "other": "new"}


def standings(site: Site) -> dict[str, str]:
    return {each["name"]: each["standing"]["state"] for each in site.run("list")["data"]["subscriptions"]}
