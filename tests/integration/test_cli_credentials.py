# SPDX-License-Identifier: Apache-2.0
"""A secret goes over the command line, through the database and to a server, and is found nowhere else."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys

import pytest

from coppice.testing import server as behave
from coppice.testing.authority import Authority
from coppice.testing.server import LoopbackServer
from coppice.testing.tls import server_tls

pytestmark = [pytest.mark.integration, pytest.mark.threat("T54")]
CANARY = "cAnArY-31337"
TOKEN = "Basic " + base64.b64encode(f"{CANARY}:x-oauth-basic".encode()).decode()
FORMS = [form.encode() for form in (CANARY, TOKEN.partition(" ")[2], CANARY.upper(), CANARY[::-1])]


@pytest.fixture
def authority():
    return Authority.create("Servers")


@pytest.fixture
def run(tmp_path, authority):
    authority.write_to(tmp_path)
    settings = tmp_path / "coppice.toml"
    settings.write_text(
        f'state_directory = "{tmp_path}/state"\n[transfer]\nallow_private_addresses = true\nattempts = 2\n'
    )
    said = []

    def _run(*arguments, **variables):
        command = [sys.executable, "-m", "coppice", "--config", settings, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "HOME": str(tmp_path), **variables}
        )
        said.append(done.stdout + done.stderr)
        return done.returncode, done.stdout.decode()

    yield _run
    kept = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert said
    assert kept
    assert not [form for text in said + kept for form in FORMS if form in text]


def add(run, tmp_path, authority, url, *more):
    _, _ = authority.issue("jane").write_to(tmp_path, "jane")
    return run(
        "subscription", "add", "vo", url, "--endorser-certificate", tmp_path / "jane.pem", "--anchors",
        tmp_path / "ca.pem", "--server-anchors", tmp_path / "ca.pem", *more,
    )  # fmt: skip


def meddle(talk):
    """Repeat in an error page whatever was sent."""
    page = str(dict(talk.handler.headers.items())).encode() + CANARY.encode()
    talk.whole(403, {"Content-Length": str(len(page))}, page)


def test_a_token_is_in_no_output_no_log_and_no_database(run, tmp_path, authority):
    secret = tmp_path / "token"
    secret.touch(mode=0o600)
    secret.write_text(f"{CANARY}\n")
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        url = server.set("list", behave.guarded(TOKEN, behave.serve(b"no list")))
        assert add(run, tmp_path, authority, url, "--token-file", secret)[0] == 0
        bad = [behave.guarded(TOKEN, behave.serve(b"no list")), meddle, behave.redirect("ftp://x/"), behave.raw(b"")]
        for log, behaviour in zip(("human", "json", "human", "json"), bad, strict=True):
            server.set("list", behaviour)
            assert run("-v", "--log-format", log, "subscription", "refresh", "vo")[0] in {5, 6}
        assert {request.headers["Authorization"] for request in server.requests} == {TOKEN}
        for command in ("subscription show vo", "status", "sync"):
            run("-v", "--json", *command.split())
        secret.chmod(0o644)
        code, said = run("-v", "--json", "subscription", "refresh", "vo")
        assert (code, "credential-unusable" in said, "chmod 600" in said) == (3, True, True)


def test_a_bearer_token_from_a_variable_leaves_no_trace_either(run, tmp_path, authority):
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        url = server.set("list", meddle)
        assert add(run, tmp_path, authority, url, "--bearer-variable", "LIST_TOKEN")[0] == 0
        assert run("-v", "subscription", "refresh", "vo", LIST_TOKEN=CANARY)[0] == 6
        assert run("-v", "subscription", "refresh", "vo")[0] == 3
        assert [request.headers["Authorization"] for request in server.requests] == [f"Bearer {CANARY}"]


def test_a_client_certificate_with_a_passphrase_leaves_no_trace_either(run, tmp_path, authority):
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(CANARY)
    paths = authority.issue("site").write_to(tmp_path, "site", passphrase=CANARY.encode())
    context = server_tls(tmp_path, authority, clients=authority)
    assert context.verify_mode is ssl.CERT_REQUIRED
    with LoopbackServer(tls=context) as server:
        url = server.set("list", behave.serve(b"no list"))
        options = ["--client-certificate", paths[0], "--client-key", paths[1], "--client-passphrase-file", secret]
        assert add(run, tmp_path, authority, url, *options)[0] == 0
        assert run("-v", "subscription", "refresh", "vo")[0] == 5
        assert [request.client for request in server.requests] == ["site"]
        secret.write_text("wrong")
        assert run("-v", "subscription", "refresh", "vo")[0] == 3
        assert len(server.requests) == 1
