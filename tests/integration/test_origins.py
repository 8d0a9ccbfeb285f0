# SPDX-License-Identifier: Apache-2.0
"""The addresses that files are fetched from, against the servers that sites run."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import sys

import pytest

from coppice.cache.origin import open_origin
from coppice.cache.partial import PartialFile
from coppice.cache.transfer import fetch_file
from coppice.errors import (
    AddressRefusedError,
    CredentialError,
    HttpStatusError,
    SizeMismatchError,
    ToolMissingError,
    TransferCutError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.formats.oci import parse_reference
from coppice.http import Client, Registry
from coppice.http.access import Access
from coppice.http.message import BodyFile
from coppice.model.checksum import Checksum
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.testing import server as behave
from coppice.testing.client import loopback_client
from coppice.testing.nginx import Nginx
from coppice.testing.publishing.openssh import SftpServer
from coppice.testing.publishing.registry import RegistryServer
from coppice.testing.publishing.swift import ACCESS_KEY, BUCKET, SECRET_KEY, SwiftServer

pytestmark = pytest.mark.integration
DATA = os.urandom(5_000_000)
SIZE = len(DATA)
KEY = "images/a b.qcow2"
SITE = ()
"""Servers that the site's settings name among its mirrors."""


def site_names(monkeypatch, uri):
    monkeypatch.setattr(sys.modules[__name__], "SITE", (uri,))


class Place:
    """A server with `DATA` on it: its address, and what is needed to get at it."""

    def __init__(self, uri, accesses=(), **more) -> None:
        self.uri, self.accesses, self.more = uri, accesses, more


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    started = {}

    def server_of(kind):
        if kind not in started:
            started[kind] = kind(tmp_path_factory.mktemp(kind.__name__)).__enter__()
        return started[kind]

    yield server_of
    for server in started.values():
        server.stop()


def nginx(servers, tmp_path, monkeypatch):
    server = servers(Nginx)
    (server.directory / "www").mkdir(exist_ok=True)
    (server.directory / "www" / "x").write_bytes(DATA)
    for each in (server.directory, *server.directory.parents[:1]):
        each.chmod(0o755)
    return Place(f"http://127.0.0.1:{server.port}/x")


def registry(servers, tmp_path, monkeypatch):
    server = servers(RegistryServer)
    digest = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    reference = f"oci+http://127.0.0.1:{server.port}/vo/images@{digest}"
    client = loopback_client()
    to = Registry(client, parse_reference(reference), writes=True)
    (tmp_path / "blob").write_bytes(DATA)
    begun = to.request("POST", to.url("blobs/uploads/"), expected={202}, limit_bytes=1000)
    place = begun.header("Location")
    mark = "&" if "?" in place else "?"
    body = BodyFile(path=tmp_path / "blob", size_bytes=len(DATA))
    to.request("PUT", f"{place}{mark}digest={digest}", expected={201}, limit_bytes=1000, body=body)
    return Place(reference)


def sftp(servers, tmp_path, monkeypatch):
    server = servers(SftpServer)
    (server.directory / "a b").write_bytes(DATA)
    home = tmp_path / "home" / ".ssh"
    home.mkdir(parents=True)
    shutil.copy(server.directory / "known_hosts", home / "known_hosts")
    shutil.copy(server.directory / "user_key", home / "id_ed25519")
    (home / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(home.parent))
    site_names(monkeypatch, f"sftp://127.0.0.1:{server.port}/")
    return Place(f"sftp://{getpass.getuser()}@127.0.0.1:{server.port}{server.directory}/a%20b", home=home)


def bucket(servers, tmp_path, monkeypatch):
    server = servers(SwiftServer)
    server.client().put_object(Bucket=BUCKET, Key=KEY, Body=DATA)
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.port}")
    (tmp_path / "secret").write_text(SECRET_KEY)
    (tmp_path / "secret").chmod(0o600)
    reference = CredentialReference(kind=CredentialKind.BASIC, username=ACCESS_KEY, secret_file=tmp_path / "secret")
    return Place(f"s3://{BUCKET}/images/a%20b.qcow2", [Access(url=f"s3://{BUCKET}", credential=reference)])


PLACES = [nginx, registry, sftp, bucket]


@pytest.fixture(params=PLACES, ids=[each.__name__ for each in PLACES])
def place(request, servers, tmp_path, monkeypatch):
    return request.param(servers, tmp_path, monkeypatch)


def client(**changed) -> Client:
    changed = {"mirrors": {"https://images.example.org/": SITE}, **changed}
    return loopback_client(read_timeout_seconds=20.0, rate_window_seconds=20.0, **changed)


def fetch(place, path, *, taken_up=b"", size=SIZE, **changed):
    with PartialFile(path) as partial:
        if taken_up:
            partial.append(taken_up)
        return fetch_file(
            [place.uri],
            size_bytes=size,
            partial=partial,
            client=client(**changed),
            accesses=place.accesses,
            expected=Checksum.of(DATA),
        )


def test_a_file_is_fetched_whole(place, tmp_path):
    assert fetch(place, tmp_path / "x").fetched_bytes == len(DATA)
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.threat("T46")
def test_a_file_is_gone_on_with(place, tmp_path):
    transfer = fetch(place, tmp_path / "x", taken_up=DATA[:2_000_001])
    assert (transfer.fetched_bytes, transfer.taken_up_bytes) == (len(DATA) - 2_000_001, 2_000_001)
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.threat("T50")
def test_a_splice_is_noticed_and_fetched_anew(place, tmp_path):
    assert fetch(place, tmp_path / "x", taken_up=bytes(1000)).fetched_bytes == 2 * len(DATA) - 1000
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.threat("T49")
def test_another_size_than_the_signed_one_is_refused(place, tmp_path):
    with pytest.raises((TransferTooLargeError, SizeMismatchError)):
        fetch(place, tmp_path / "x", size=len(DATA) - 1)
    with pytest.raises((TransferTooLargeError, SizeMismatchError, TransferCutError)):
        fetch(place, tmp_path / "y", size=len(DATA) + 1)


def test_parts_are_read_in_order_and_those_that_touch_together(place):
    got = {}
    ranges = [(0, 10), (10, 1), (1000, 70_000), (len(DATA) - 5, 5)]
    with open_origin(place.uri, client=client(), accesses=place.accesses) as origin:
        size = origin.read_ranges(ranges, size_bytes=len(DATA), sink=got.__setitem__)
        assert origin.read(123_456, 1000, size_bytes=len(DATA)) == DATA[123_456:124_456]
    assert size == sum(length for _, length in ranges)
    assert all(DATA[at : at + len(piece)] == piece for at, piece in got.items())
    assert sum(map(len, got.values())) == size


@pytest.mark.threat("T50")
def test_parts_of_a_file_of_another_size_are_refused(place):
    with (
        open_origin(place.uri, client=client(), accesses=place.accesses) as origin,
        pytest.raises((TransferCutError, HttpStatusError)),
    ):
        origin.read(len(DATA) - 10, 20, size_bytes=len(DATA) + 10)


def test_what_is_not_there_is_an_error(place, tmp_path):
    place.uri = place.uri[:-3] + "000" if place.uri.startswith("oci") else place.uri + "yz"
    with pytest.raises((HttpStatusError, UnreachableError)):
        fetch(place, tmp_path / "x")


@pytest.mark.threat("T53")
def test_private_addresses_need_the_setting_whatever_the_kind(place, tmp_path):
    with pytest.raises(AddressRefusedError):
        fetch(place, tmp_path / "x", allow_private_addresses=False)


def test_the_keys_of_a_bucket_come_from_the_usual_places_too(servers, tmp_path, monkeypatch):
    place = bucket(servers, tmp_path, monkeypatch)
    place.accesses = [Access(url="https://lists.example.org/x", credential=place.accesses[0].credential)]
    with pytest.raises(HttpStatusError):
        fetch(place, tmp_path / "x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with pytest.raises(HttpStatusError):
        # A bucket that only a list names learns nothing of them.
        fetch(place, tmp_path / "x")
    site_names(monkeypatch, f"s3://{BUCKET}/pub")
    fetch(place, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.threat("T54")
def test_wrong_keys_are_refused_and_neither_they_nor_the_signature_are_told(servers, tmp_path, monkeypatch):
    place = bucket(servers, tmp_path, monkeypatch)
    (tmp_path / "secret").write_text("sesame-open")
    with pytest.raises(HttpStatusError) as caught:
        fetch(place, tmp_path / "x")
    said = repr(caught.value.as_dict())
    assert "sesame" not in said
    assert "Signature=" not in said.replace("Signature=…", "")


@pytest.mark.parametrize("alter", ["missing", "other", "revoked"])
def test_an_ssh_server_whose_key_is_not_known_is_told_nothing(servers, tmp_path, monkeypatch, alter):
    place = sftp(servers, tmp_path, monkeypatch)
    known = place.more["home"] / "known_hosts"
    text = known.read_text()
    if alter == "missing":
        known.unlink()
    elif alter == "other":
        shutil.copy(servers(SftpServer).directory / "user_key.pub", known)
        kind, key = known.read_text().split()[:2]
        known.write_text(f"{text.split()[0]} {kind} {key}\n")
    else:
        known.write_text(f"@revoked {text}{text}")
    with pytest.raises((UnreachableError, CredentialError), match="key"):
        fetch(place, tmp_path / "x")


@pytest.mark.threat("T54")
def test_nobody_logs_in_at_an_ssh_server_that_only_a_list_names(servers, tmp_path, monkeypatch):
    place = sftp(servers, tmp_path, monkeypatch)
    site_names(monkeypatch, place.uri.replace("127.0.0.1", "localhost"))
    with pytest.raises(CredentialError, match="because a list says so"):
        fetch(place, tmp_path / "x")


def test_a_user_whom_the_ssh_server_does_not_know_is_not_let_in(servers, tmp_path, monkeypatch):
    place = sftp(servers, tmp_path, monkeypatch)
    (place.more["home"] / "id_ed25519").unlink()
    with pytest.raises(UnreachableError, match="does not let"):
        fetch(place, tmp_path / "x")


@pytest.mark.parametrize(("module", "uri"), [("boto3", "s3://bucket/x"), ("paramiko", "sftp://127.0.0.1/x")])
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, module, uri):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolMissingError, match=module):
        fetch(Place(uri), tmp_path / "x")


@pytest.mark.parametrize(
    "uri",
    [
        "s3:///x", "s3://bucket", "s3://bucket/", "s3://b@d/x", "s3://bucket/x?versionId=1", "sftp://h", "sftp:///x",
        "sftp://u:p@h/x", "sftp://h:99999/x", "oci://h/r:tag", "oci://h", "oci://h/r@sha256:12", "oci://h/R@x",
    ],
)  # fmt: skip
def test_an_address_that_is_none_of_its_kind_is_refused(uri):
    with pytest.raises(AddressRefusedError) as caught:
        open_origin(uri, client=client())
    assert ":p@" not in caught.value.message


def test_a_host_that_registries_are_at_is_asked_for_a_token_once(loopback_server, tmp_path):
    realm = loopback_server.set("token", behave.serve(b'{"token": "abc"}'))
    challenge = f'Bearer realm="{realm}",service="x"'
    digest = hashlib.sha256(DATA).hexdigest()
    path = f"v2/vo/images/blobs/sha256:{digest}"
    loopback_server.set(path, behave.guarded("Bearer abc", behave.Ranged(data=DATA, cut_after=2_000_000), challenge))
    place = Place(f"oci+http://127.0.0.1:{loopback_server.port}/vo/images@sha256:{digest}")
    assert fetch(place, tmp_path / "x").fetched_bytes == len(DATA)
    assert [request.path for request in loopback_server.requests].count(
        "/token?service=x&scope=repository%3Avo%2Fimages%3Apull"
    ) == 1


@pytest.mark.threat("T54")
def test_the_token_of_a_registry_stays_there_when_the_blob_lies_elsewhere(loopback_server, tmp_path):
    digest = hashlib.sha256(DATA).hexdigest()
    with behave.LoopbackServer() as storage:
        target = storage.set("blob", behave.Ranged(data=DATA, cut_after=2_000_000))
        realm = loopback_server.set("token", behave.serve(b'{"token": "abc"}'))
        loopback_server.set(
            f"v2/vo/images/blobs/sha256:{digest}",
            behave.guarded("Bearer abc", behave.redirect(target, 307), f'Bearer realm="{realm}",service="x"'),
        )
        fetch(Place(f"oci+http://127.0.0.1:{loopback_server.port}/vo/images@sha256:{digest}"), tmp_path / "x")
        assert [request.headers.get("Range") for request in storage.requests][:2] == [
            None,
            f"bytes=2000000-{len(DATA) - 1}",
        ]
        assert all("Authorization" not in request.headers for request in storage.requests)
