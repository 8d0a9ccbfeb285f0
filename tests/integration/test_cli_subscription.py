# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.cli.main import main

pytestmark = pytest.mark.integration

SUBJECT = "/DC=org/DC=example/CN=Jane Doe"


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "jane.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", SUBJECT),
            *("-keyout", tmp_path / "jane.key", "-out", path, "-addext", "basicConstraints=critical,CA:TRUE"),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))

    def _run(*arguments):
        code = main(["--json", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out)

    return _run


def _add(run, certificate, tmp_path):
    return run(
        "subscription", "add", "lab", f"file://{tmp_path}/none",
        "--endorser-certificate", certificate, "--anchors", certificate, "--revocation", "if-present",
    )  # fmt: skip


def test_a_subscription_takes_its_endorser_from_a_certificate_and_lives_its_life(run, certificate, tmp_path):
    code, said = _add(run, certificate, tmp_path)
    assert code == 0, said
    assert said["data"]["subscription"]["endorser_dn"] == SUBJECT
    assert said["data"]["subscription"]["endorser_ca"] == SUBJECT
    assert _add(run, certificate, tmp_path)[0] == 12
    assert [each["name"] for each in run("subscription", "list")[1]["data"]["subscriptions"]] == ["lab"]
    assert [each["name"] for each in run("status")[1]["data"]["subscriptions"]] == ["lab"]
    assert run("subscription", "show", "lab")[0] == 0
    assert run("subscription", "remove", "lab")[0] == 0
    assert run("subscription", "list")[1]["data"]["subscriptions"] == []
    assert run("subscription", "show", "lab")[0] == 12


def test_a_list_that_cannot_be_had_ends_refresh_with_its_own_code_and_shows_in_status(run, certificate, tmp_path):
    _add(run, certificate, tmp_path)
    code, said = run("subscription", "refresh", "lab")
    assert said["status"] == "error"
    assert code not in {0, 1, 70}
    assert said["data"]["lists"][0]["fresh"] is False
    assert run("status")[1]["data"]["subscriptions"][0]["last_error_code"] == said["errors"][0]["code"]


def test_an_error_among_others_says_whose_it_is(run, certificate, tmp_path):
    _add(run, certificate, tmp_path)
    _, said = run("subscription", "refresh")
    assert said["errors"][0]["message"].startswith("lab: ")
    assert said["errors"][0]["context"]["subscription"] == "lab"


@pytest.mark.parametrize(
    "words",
    [
        ("imagelist", "validate"),
        ("imagelist", "verify", "--anchors", "jane.pem", "--endorser-certificate", "jane.pem"),
        ("imagelist", "create", "general", "--from"),
    ],
)
def test_a_file_that_is_not_there_is_told_in_plain_words(run, certificate, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, said = run(*words, "gone")
    error = said["errors"][0]
    assert (code, error["message"]) == (3, "cannot read gone: No such file or directory")
    assert error["resolution"]


def test_a_subscription_without_an_endorser_is_refused_with_the_options_that_name_one(run, certificate, tmp_path):
    code, said = run("subscription", "add", "lab", "https://h.example/l", "--anchors", certificate)
    assert (code, said["errors"][0]["code"]) == (2, "usage")
    assert "--endorser-certificate" in said["errors"][0]["resolution"]
    assert not (tmp_path / "state").exists()


def test_authorities_for_servers_that_are_not_there_are_refused_when_they_are_named(run, certificate, tmp_path):
    _add(run, certificate, tmp_path)
    code, said = run("subscription", "edit", "lab", "--server-anchors", tmp_path / "nothing")
    assert (code, said["errors"][0]["code"]) == (3, "file-unreadable")
    code, said = run("subscription", "edit", "lab", "--set", f"server_anchors={tmp_path}/nothing")
    assert (code, said["errors"][0]["code"]) == (3, "file-unreadable")
    assert run("subscription", "edit", "lab", "--server-anchors", certificate)[0] == 0


def test_a_file_that_is_no_certificate_is_refused(run, certificate, tmp_path):
    (tmp_path / "bad.pem").write_text("nothing")
    code, said = run(
        "subscription", "add", "lab", "https://h.example/l",
        "--anchors", certificate, "--endorser-certificate", tmp_path / "bad.pem",
    )  # fmt: skip
    assert (code, said["errors"][0]["code"]) == (3, "file-unreadable")


def test_sync_without_a_cloud_says_how_to_set_one_up(run):
    code, said = run("sync", "--dry-run")
    assert code == 12, said["errors"]
    assert "[clouds.NAME]" in said["errors"][0]["resolution"]


def test_cloud_check_asks_a_directory_cloud(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COPPICE_CLOUDS__MAIN__DRIVER", "directory")
    monkeypatch.setenv("COPPICE_CLOUDS__MAIN__SITE", "here")
    monkeypatch.setenv("COPPICE_CLOUDS__MAIN__PATH", str(tmp_path / "cloud"))
    code, said = run("cloud", "check")
    assert code == 0, said
    assert said["data"]["clouds"] == [{"name": "main", "answers": True, "images": 0}]
    assert run("cloud", "check", "mian")[1]["errors"][0]["resolution"] == "Did you mean 'main'?"
    assert run("retire", "--dry-run")[0] == 0


def test_the_cache_is_not_pruned_while_a_list_is_not_known(run, certificate, tmp_path):
    assert run("cache", "prune")[0] == 0
    assert run("cache", "list")[1]["data"]["entries"] == []
    assert run("cache", "verify")[0] == 0
    _add(run, certificate, tmp_path)
    code, said = run("cache", "prune")
    assert (code, said["errors"][0]["code"]) == (12, "state-invalid")
    assert "'lab'" in said["errors"][0]["message"]
    assert run("image", "list")[1]["status"] == "error"


def test_a_certificate_of_an_endorser_may_be_anything_and_is_waited_for_by_nobody(run, certificate, tmp_path):
    pipe, odd = tmp_path / "pipe", tmp_path / "odd.pem"
    os.mkfifo(pipe)
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    # A version that there is not.
    odd.write_text(ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)))
    for file in (pipe, odd):
        code, said = run(
            "subscription", "add", "lab", "https://h.example/l", "--anchors", certificate,
            "--endorser-certificate", file,
        )  # fmt: skip
        assert (code, said["errors"][0]["code"]) == (3, "file-unreadable")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "lab\udcff"), (2, "usage")),
        (("add", "new", "file:///l\udcff"), (3, "input-invalid")),
        (("edit", "lab", "--set", "where=os = '\udcff'"), (3, "input-invalid")),
    ],
)
def test_an_argument_that_is_no_text_is_refused_as_such(run, certificate, tmp_path, arguments, code):
    _add(run, certificate, tmp_path)
    extra = ("--anchors", certificate, "--trust-on-first-use") if arguments[0] == "add" else ()
    ended, said = run("subscription", *arguments, *extra)
    assert (ended, said["errors"][0]["code"]) == code
