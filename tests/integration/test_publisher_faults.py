# SPDX-License-Identifier: Apache-2.0
"""What goes wrong at real servers: each fault is a clear error, and the list that is published stays as it is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import secrets
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from coppice.errors import (
    CoppiceError,
    CredentialError,
    NoSpaceError,
    PublicationError,
    SettingsError,
    TransferError,
    UnreachableError,
)
from coppice.imagelist.place import Kind, partial_name
from coppice.imagelist.publication import PlacePublisher
from coppice.imagelist.publishers import load_publisher
from coppice.imagelist.upload import machine
from coppice.monitor import SILENT, SilentMonitor
from coppice.settings.model import PublisherSettings
from coppice.testing.authority import Authority
from coppice.testing.publishing.apache import WebDavServer
from coppice.testing.publishing.edition import Editor
from coppice.testing.publishing.openssh import SSHD, SftpServer
from coppice.testing.publishing.registry import RegistryServer
from coppice.testing.publishing.swift import BUCKET, SwiftServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.monitor import Task, Unit

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("publishers")]
NAME = "0f0c.qcow2"


def publisher_of(driver: str, options: dict[str, object]) -> PlacePublisher:
    found = load_publisher(PublisherSettings(name="here", driver=driver, options=options))
    assert isinstance(found, PlacePublisher)
    return found


class Counting(SilentMonitor):
    """Notes how far each task was when it was first told."""

    def __init__(self) -> None:
        self.first: dict[str, int] = {}

    @contextmanager
    def task(self, label: str, *, total: int | None = None, unit: Unit | None = None) -> Iterator[Task]:
        first = self.first

        class Watched:
            def advance(self, amount: int) -> None:
                first.setdefault(label, 0)

            def reach(self, amount: int, total: int | None = None) -> None:
                first.setdefault(label, amount)

            def note(self, text: str) -> None:
                pass

        yield Watched()


def dead_owner() -> str:
    ended = subprocess.Popen(["true"])
    ended.wait()
    return f"{machine()}.{ended.pid}.{secrets.token_hex(6)}"


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    return Editor(tmp_path)


# A directory.


def test_a_full_disk_keeps_the_list(tmp_path: Path, editor: Editor) -> None:
    publisher = publisher_of("directory", {"path": str(tmp_path / "public")})
    first = editor.edition(publisher, {"small.raw": editor.image("small", 100)})
    first.publish(publisher)
    second = editor.edition(publisher, {NAME: editor.image("large", 3_000_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(NoSpaceError):
            second.publish(publisher)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert publisher.published("demo") == first.signed.message
    assert publisher.place.names(Kind.IMAGE) == ("small.raw",)
    assert list((tmp_path / "public/images").iterdir()) == [tmp_path / "public/images/small.raw"]


# SFTP.


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with SftpServer(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.mark.parametrize("known", ["", "another"])
def test_a_server_whose_key_is_not_the_known_one_gets_nothing(
    sftp: SftpServer, tmp_path: Path, editor: Editor, known: str
) -> None:
    options = sftp.options(tmp_path.name)
    if known:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
        key = (tmp_path / "other.pub").read_text().split()
        known = f"[127.0.0.1]:{sftp.port} {key[0]} {key[1]}\n"
    (tmp_path / "known").write_text(known)
    publisher = publisher_of("sftp", {**options, "known_hosts": str(tmp_path / "known")})
    edition = editor.edition(publisher, {NAME: editor.image("a")})
    with pytest.raises(PublicationError, match="shows another key" if known else "is not in") as caught:
        edition.publish(publisher)
    assert "othing was sent" in str(caught.value.resolution) or "nothing was sent" in str(caught.value.resolution)
    assert (tmp_path / "known").read_text() == known
    assert not (sftp.directory / tmp_path.name).exists()


def test_a_revoked_key_is_not_overlooked(sftp: SftpServer, tmp_path: Path) -> None:
    text = (sftp.directory / "known_hosts").read_text()
    (tmp_path / "known").write_text(text + "@revoked " + text)
    with pytest.raises(SettingsError, match="revokes"):
        publisher_of("sftp", {**sftp.options("x"), "known_hosts": str(tmp_path / "known")}).published("demo")


def test_a_key_that_the_server_does_not_know_and_one_that_everybody_can_read_are_refused(
    sftp: SftpServer, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(key)], check=True)
    publisher = publisher_of("sftp", {**sftp.options("x"), "key_file": str(key)})
    with pytest.raises(PublicationError, match="does not let this user in"):
        publisher.published("demo")
    key.chmod(0o644)
    with pytest.raises(CredentialError):
        publisher.published("demo")


def test_an_encrypted_key_opens_with_its_passphrase_alone(sftp: SftpServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "open sesame", "-f", str(key)], check=True)
    authorized = sftp.directory / "authorized_keys"
    authorized.write_bytes(authorized.read_bytes() + (tmp_path / "key.pub").read_bytes())
    secret = tmp_path / "passphrase"
    for text, opens in (("open sesame\n", True), ("wrong\n", False)):
        secret.write_text(text)
        secret.chmod(0o600)
        options = {**sftp.options("x"), "key_file": str(key), "passphrase_file": str(secret)}
        if opens:
            assert publisher_of("sftp", options).published("demo") is None
        else:
            with pytest.raises(CredentialError) as caught:
                publisher_of("sftp", options).published("demo")
            assert "wrong" not in f"{caught.value.message} {caught.value.details}"
    with pytest.raises(CredentialError):
        publisher_of("sftp", {**sftp.options("x"), "key_file": str(key)}).published("demo")


def test_nobody_who_listens_and_nobody_who_speaks_ssh_are_told_apart_from_an_empty_place(sftp: SftpServer) -> None:
    with pytest.raises(UnreachableError):
        publisher_of("sftp", {**sftp.options("x"), "port": 1}).published("demo")


@pytest.mark.parametrize("right", [True, False])
def test_an_upload_over_sftp_goes_on_where_a_killed_run_stopped(
    sftp: SftpServer, tmp_path: Path, editor: Editor, right: bool
) -> None:
    publisher = publisher_of("sftp", sftp.options(tmp_path.name))
    image = editor.image("a", 2_000_000)
    data = image.read_bytes()
    images = sftp.directory / tmp_path.name / "images"
    images.mkdir(parents=True)
    left = images / partial_name(NAME, f"{hashlib.sha512(data).hexdigest()[:16]}-{dead_owner()}")
    left.write_bytes(data[:1_500_000] if right else b"x" * 1_500_000)
    edition = editor.edition(publisher, {NAME: image})
    monitor = Counting()
    publisher.publish("demo", edition.signed, edition.files, monitor)
    assert monitor.first[f"publish {NAME}"] == 1_500_000
    assert [path.name for path in images.iterdir()] == [NAME]
    assert (images / NAME).read_bytes() == data


def test_an_upload_of_a_run_that_lives_is_left_alone(sftp: SftpServer, tmp_path: Path, editor: Editor) -> None:
    publisher = publisher_of("sftp", sftp.options(tmp_path.name))
    image = editor.image("a")
    images = sftp.directory / tmp_path.name / "images"
    images.mkdir(parents=True)
    content = hashlib.sha512(image.read_bytes()).hexdigest()[:16]
    lives = images / partial_name(NAME, f"{content}-{machine()}.{os.getpid()}.{secrets.token_hex(6)}")
    lives.write_bytes(b"half")
    editor.edition(publisher, {NAME: image}).publish(publisher)
    assert lives.read_bytes() == b"half"
    os.utime(lives, (time.time() - 90_000,) * 2)
    publisher.retire(unnamed_since=datetime.now(UTC) - timedelta(days=1), monitor=SILENT)
    assert not lives.exists()


def test_a_full_disk_at_an_ssh_server_keeps_the_list(tmp_path: Path, editor: Editor) -> None:
    class Limited(SftpServer):
        def run(self, argv: Any, **how: Any) -> None:
            assert argv[0] == SSHD
            super().run(["prlimit", "--fsize=1000000", *argv], **how)

    with Limited(tmp_path / "server") as server:
        publisher = publisher_of("sftp", server.options("area"))
        first = editor.edition(publisher, {"small.raw": editor.image("small", 100)})
        first.publish(publisher)
        with pytest.raises((PublicationError, NoSpaceError, TransferError)):
            editor.edition(publisher, {NAME: editor.image("large", 3_000_000)}).publish(publisher)
        assert publisher.published("demo") == first.signed.message
        assert publisher.place.names(Kind.IMAGE) == ("small.raw",)


# WebDAV and plain PUT.


class PlainServer(ThreadingHTTPServer):
    """Takes PUT, GET, HEAD and DELETE, and does to what it is given what it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PlainHandler)
        self.held: dict[str, bytes] = {}
        self.status: Callable[[str, str], int | None] = lambda _method, _path: None
        self.keep: Callable[[bytes], bytes] = lambda data: data

    def __enter__(self) -> PlainServer:  # noqa: PYI034 - no subclass
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def options(self) -> dict[str, object]:
        url = f"http://127.0.0.1:{self.server_port}/lists"
        return {"url": url, "server": "put", "allow_private_addresses": True}


class PlainHandler(BaseHTTPRequestHandler):
    server: PlainServer

    def log_message(self, *_: object) -> None:
        pass

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        status = self.server.status(self.command, self.path)
        if status == 0:
            self.rfile.read(length // 2)
            self.connection.close()
            return
        data = self.rfile.read(length)
        body = b""
        if status is None:
            status = 200
            if self.command == "PUT":
                self.server.held[self.path] = self.server.keep(data)
                status = 201
            elif self.command == "DELETE":
                self.server.held.pop(self.path, None)
            elif self.path in self.server.held:
                body = self.server.held[self.path]
            else:
                status = 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_GET = do_HEAD = do_DELETE = _do  # noqa: N815 - names of the interface


@pytest.fixture
def plain() -> Iterator[PlainServer]:
    with PlainServer() as server:
        yield server


def test_a_server_that_only_takes_put_is_published_to_and_nothing_is_ever_removed(
    plain: PlainServer, editor: Editor
) -> None:
    publisher = publisher_of("webdav", plain.options())
    editor.edition(publisher, {NAME: editor.image("a")}).publish(publisher)
    newer = editor.edition(publisher, {"other.raw": editor.image("b")})
    newer.publish(publisher)
    assert publisher.published("demo") == newer.signed.message
    assert publisher.retire(unnamed_since=datetime.now(UTC) + timedelta(days=1), monitor=SILENT) == ()
    assert f"/lists/images/{NAME}" in plain.held


@pytest.mark.parametrize(
    ("status", "words"), [(507, "is full"), (403, "does not allow it"), (413, "too large"), (500, "gave 500")]
)
@pytest.mark.parametrize("where", ["images", "demo.list", ".coppice"])
def test_a_refusal_of_the_server_is_told_and_the_list_stays(
    plain: PlainServer, editor: Editor, status: int, words: str, where: str
) -> None:
    publisher = publisher_of("webdav", plain.options())
    first = editor.edition(publisher, {"first.raw": editor.image("a")})
    first.publish(publisher)
    plain.status = lambda method, path: status if method == "PUT" and where in path else None
    with pytest.raises(PublicationError, match=words) as caught:
        editor.edition(publisher, {NAME: editor.image("b")}).publish(publisher)
    assert caught.value.context["status"] == status
    assert plain.held["/lists/demo.list"] == first.signed.message


@pytest.mark.parametrize("keep", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[::-1]])
def test_a_server_that_keeps_other_bytes_than_it_was_given_never_gets_the_list(
    plain: PlainServer, editor: Editor, keep: Callable[[bytes], bytes]
) -> None:
    publisher = publisher_of("webdav", plain.options())
    plain.keep = lambda data: keep(data) if len(data) > 100_000 else data
    with pytest.raises(PublicationError, match="other bytes"):
        editor.edition(publisher, {NAME: editor.image("a", 200_000)}).publish(publisher)
    assert "/lists/demo.list" not in plain.held
    assert f"/lists/images/{NAME}" not in plain.held


def test_a_connection_that_is_cut_in_the_middle_of_a_put_keeps_the_list(plain: PlainServer, editor: Editor) -> None:
    publisher = publisher_of("webdav", plain.options())
    first = editor.edition(publisher, {"first.raw": editor.image("a")})
    first.publish(publisher)
    plain.status = lambda method, path: 0 if method == "PUT" and "images" in path else None
    with pytest.raises(TransferError):
        editor.edition(publisher, {NAME: editor.image("b", 5_000_000)}).publish(publisher)
    assert plain.held["/lists/demo.list"] == first.signed.message


def test_a_listing_that_is_no_listing_is_an_error_and_not_an_empty_place(plain: PlainServer) -> None:
    publisher = publisher_of("webdav", {**plain.options(), "server": "webdav"})
    with pytest.raises(PublicationError):
        publisher.place.names(Kind.IMAGE)


@pytest.mark.parametrize(("password", "lets_in"), [("secret", True), ("guess", False), (None, False)])
def test_a_webdav_server_lets_in_who_has_the_password(
    tmp_path: Path, editor: Editor, password: str | None, lets_in: bool
) -> None:
    class Guarded(WebDavServer):
        password = "secret"  # noqa: S105 - a test's

    with Guarded(tmp_path / "server") as server:
        options = server.options("area")
        if password is not None:
            (tmp_path / "password").write_text(password)
            (tmp_path / "password").chmod(0o600)
            options |= {"username": "jane", "password_file": str(tmp_path / "password")}
        publisher = publisher_of("webdav", options)
        edition = editor.edition(publisher, {NAME: editor.image("a")})
        if lets_in:
            edition.publish(publisher)
            assert publisher.published("demo") == edition.signed.message
        else:
            with pytest.raises(PublicationError, match="does not know who asks") as caught:
                edition.publish(publisher)
            assert "guess" not in f"{caught.value.message} {caught.value.details} {caught.value.context}"


def test_lists_are_moved_into_place_where_that_is_wanted(tmp_path: Path, editor: Editor) -> None:
    with WebDavServer(tmp_path / "server") as server:
        publisher = publisher_of("webdav", {**server.options("area"), "replace_lists": "move"})
        for _ in range(2):
            edition = editor.edition(publisher, {NAME: editor.image("a")})
            edition.publish(publisher) if publisher.published("demo") is None else None
        (server.public / "area" / "images" / partial_name(NAME, "left")).write_bytes(b"half")
        publisher.place.sweep(older_than_seconds=0)
        assert server.leftovers("area") == []
        assert publisher.published("demo") is not None


# S3.


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    with SwiftServer(tmp_path_factory.mktemp("swift")) as server:
        yield server


def test_wrong_keys_and_a_bucket_that_is_not_there_are_refused(swift: SwiftServer, tmp_path: Path) -> None:
    wrong = tmp_path / "secret"
    wrong.write_text("guess")
    wrong.chmod(0o600)
    with pytest.raises(PublicationError, match="does not allow it") as caught:
        publisher_of("s3", {**swift.options("x"), "secret_key_file": str(wrong)}).published("demo")
    assert "guess" not in f"{caught.value.message} {caught.value.details}"
    with pytest.raises(PublicationError):
        publisher_of("s3", {**swift.options("x"), "bucket": "nowhere"}).place.names(Kind.IMAGE)
    with pytest.raises(UnreachableError):
        publisher_of("s3", {**swift.options("x"), "endpoint": "http://127.0.0.1:1"}).published("demo")


def test_an_upload_in_parts_goes_on_with_the_parts_that_are_there(
    swift: SwiftServer, tmp_path: Path, editor: Editor
) -> None:
    area = tmp_path.name.replace("_", "-")
    publisher = publisher_of("s3", swift.options(area))
    image = editor.image("a", 11_000_000)
    data, part = image.read_bytes(), 5 * 1024 * 1024
    client, key = swift.client(), f"{area}/images/{NAME}"
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    for number, piece in ((1, data[:part]), (2, b"x" * part)):
        client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=piece)
    sent: list[int] = []
    place: Any = publisher.place
    call = place._bucket.call

    def counted(method: str, doing: str, **arguments: Any) -> Any:
        if method == "upload_part":
            sent.append(arguments["PartNumber"])
        return call(method, doing, **arguments)

    place._bucket.call = counted
    editor.edition(publisher, {NAME: image}).publish(publisher)
    assert sent == [2, 3]
    assert swift.fetch(publisher.image_uri(NAME)) == data
    assert swift.leftovers(area) == []


def test_an_upload_in_parts_that_nobody_goes_on_with_is_aborted_after_a_day(swift: SwiftServer, tmp_path: Path) -> None:
    area = tmp_path.name.replace("_", "-")
    publisher = publisher_of("s3", swift.options(area))
    swift.client().create_multipart_upload(Bucket=BUCKET, Key=f"{area}/images/{NAME}")
    publisher.place.sweep(older_than_seconds=24 * 3600)
    assert len(swift.leftovers(area)) == 1
    # Swift rounds the instant up to a whole second.
    publisher.place.sweep(older_than_seconds=-2)
    assert swift.leftovers(area) == []


# OCI registries.


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


def repository(tmp_path: Path) -> str:
    return tmp_path.name.lower().replace("_", "-").strip("-")


def test_what_is_pushed_is_an_artifact_that_oras_pulls(
    registry: RegistryServer, tmp_path: Path, editor: Editor
) -> None:
    from oras.client import OrasClient

    publisher = publisher_of("oci", registry.options(repository(tmp_path)))
    image = editor.image("a", 2_500_000)
    edition = editor.edition(publisher, {NAME: image})
    edition.publish(publisher)
    client = OrasClient(hostname=f"127.0.0.1:{registry.port}", insecure=True)
    base = f"127.0.0.1:{registry.port}/images/{repository(tmp_path)}"
    identifier = edition.signed.content.images[0].identifier
    for tag in (f"image-{NAME}", f"newest-{identifier}"):
        out = tmp_path / tag
        client.pull(target=f"{base}:{tag}", outdir=str(out))
        assert (out / NAME).read_bytes() == image.read_bytes()
    manifest = client.get_manifest(f"{base}:image-{NAME}")
    assert manifest["layers"][0]["mediaType"] == "application/x-qemu-disk"
    assert manifest["annotations"]["org.openstack.glance.disk_format"] == "qcow2"
    assert manifest["annotations"]["eu.egi.cloud.tag"] == edition.signed.content.images[0].version


def test_the_moving_tag_follows_the_list_while_the_others_stay(
    registry: RegistryServer, tmp_path: Path, editor: Editor
) -> None:
    publisher = publisher_of("oci", registry.options(repository(tmp_path)))
    first = editor.edition(publisher, {"one.raw": editor.image("a")})
    first.publish(publisher)
    second = editor.edition(publisher, {"two.raw": editor.image("b")})
    same = first.signed.content.images[0].identifier
    place: Any = publisher.place
    place.put(
        "two.raw", second.files["two.raw"], place._prepared["two.raw"].facts, None, Counting().task("x").__enter__()
    )
    place.announce({"two.raw": first.signed.content.images[0]})
    tags = {tag: place._repository.manifest(tag)[1] for tag in place._repository.tags()}
    assert tags[f"newest-{same}"] == tags["image-two.raw"] != tags["image-one.raw"]


def test_an_upload_to_a_registry_goes_on_where_a_killed_run_stopped(
    registry: RegistryServer, tmp_path: Path, editor: Editor
) -> None:
    publisher = publisher_of("oci", registry.options(repository(tmp_path)))
    image = editor.image("a", 2_500_000)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    place: Any = publisher.place
    begun = place._repository.begin()
    reply = place._repository._ask(
        "PATCH",
        begun,
        expected=(202,),
        body=image.read_bytes()[: 1024 * 1024],
        headers={"Content-Type": "application/octet-stream", "Content-Range": f"0-{1024 * 1024 - 1}"},
    )
    location = place._repository._location(reply, begun)
    note = {"at": datetime.now(UTC).isoformat(), "location": location}
    place.replace(Kind.NOTE, f"upload-{digest[:32]}-{dead_owner()}", json.dumps(note).encode())
    monitor = Counting()
    edition = editor.edition(publisher, {NAME: image})
    publisher.publish("demo", edition.signed, edition.files, monitor)
    assert monitor.first[f"publish {NAME}"] == 1024 * 1024
    assert registry.fetch(publisher.image_uri(NAME)) == image.read_bytes()
    assert registry.leftovers(repository(tmp_path)) == []


def test_a_registry_that_deletes_nothing_is_published_to_again_and_again(tmp_path: Path, editor: Editor) -> None:
    class Keeping(RegistryServer):
        deletes = False

    with Keeping(tmp_path / "server") as server:
        publisher = publisher_of("oci", server.options("area"))
        for name in ("one.raw", "two.raw", "one.raw"):
            files = {name: tmp_path / name if (tmp_path / name).exists() else editor.image(name)}
            edition = editor.edition(publisher, files)
            edition.publish(publisher)
            assert publisher.published("demo") == edition.signed.message
        with pytest.raises(PublicationError, match="does not let"):
            publisher.retire(unnamed_since=datetime.now(UTC) + timedelta(days=1), monitor=SILENT)


class TokenService(ThreadingHTTPServer):
    """Gives tokens to who has the password, as registries' token services do."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.authority = Authority.create("Token CA")
        self.identity = self.authority.issue("tokens")
        self.scopes: list[list[str]] = []

    def __enter__(self) -> TokenService:  # noqa: PYI034 - no subclass
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def token(self, scopes: list[str]) -> str:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        access = []
        for scope in scopes:
            kind, name, actions = scope.rsplit(":", 2)
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        der = self.identity.certificate.public_bytes(serialization.Encoding.DER)
        head = {"alg": "ES256", "typ": "JWT", "x5c": [base64.b64encode(der).decode()]}
        body = {"iss": "tests", "aud": "registry", "sub": "jane", "exp": now + 60, "nbf": now - 5, "iat": now}
        signed = b".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
            for part in (head, {**body, "jti": secrets.token_hex(8), "access": access})
        )
        key: Any = self.identity.key
        signature = b"".join(
            number.to_bytes(32, "big") for number in decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        )
        return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


class TokenHandler(BaseHTTPRequestHandler):
    server: TokenService

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        self.server.scopes.append(scopes)
        knows = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"jane:secret").decode()
        body = json.dumps({"token": self.server.token(scopes)} if knows else {}).encode()
        self.send_response(200 if knows else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(("password", "lets_in"), [("secret", True), ("guess", False)])
def test_a_registry_that_wants_tokens_gets_them(tmp_path: Path, editor: Editor, password: str, lets_in: bool) -> None:
    from cryptography.hazmat.primitives import serialization

    with TokenService(tmp_path) as service:
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(service.identity.certificate.public_bytes(serialization.Encoding.PEM))

        class Guarded(RegistryServer):
            extra = (
                f"auth:\n  token:\n    realm: http://127.0.0.1:{service.server_port}/token\n"
                f"    service: registry\n    issuer: tests\n    rootcertbundle: {bundle}\n"
            )

        (tmp_path / "password").write_text(password)
        (tmp_path / "password").chmod(0o600)
        with Guarded(tmp_path / "server") as server:
            options = server.options("area")
            options |= {"username": "jane", "password_file": str(tmp_path / "password")}
            options |= {"token_server": f"http://127.0.0.1:{service.server_port}"}
            publisher = publisher_of("oci", options)
            edition = editor.edition(publisher, {NAME: editor.image("a", 1_500_000)})
            if lets_in:
                edition.publish(publisher)
                assert publisher.published("demo") == edition.signed.message
                assert any("push" in scope for scopes in service.scopes for scope in scopes)
            else:
                with pytest.raises(CoppiceError) as caught:
                    edition.publish(publisher)
                assert "guess" not in f"{caught.value.message} {caught.value.details}"


def test_a_registry_that_knows_passwords_lets_in_who_has_one(tmp_path: Path, editor: Editor) -> None:
    import bcrypt

    users = tmp_path / "users"
    users.write_bytes(b"jane:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")

    class Guarded(RegistryServer):
        extra = f"auth:\n  htpasswd:\n    realm: lists\n    path: {users}\n"

    with Guarded(tmp_path / "server") as server:
        for password, lets_in in (("secret", True), ("guess", False)):
            (tmp_path / "password").write_text(password)
            (tmp_path / "password").chmod(0o600)
            options = server.options("area")
            options |= {"username": "jane", "password_file": str(tmp_path / "password")}
            publisher = publisher_of("oci", options)
            if lets_in:
                editor.edition(publisher, {NAME: editor.image("a")}).publish(publisher)
            else:
                with pytest.raises(PublicationError, match="does not let this user in"):
                    publisher.published("demo")


def test_an_upload_is_never_sent_to_another_server(plain: PlainServer, registry: RegistryServer) -> None:
    publisher = publisher_of("oci", registry.options("x"))
    place: Any = publisher.place
    with pytest.raises(PublicationError, match="wants to be written at"):
        place._repository._own(f"http://127.0.0.1:{plain.server_port}/v2/x/blobs/uploads/1", place._repository.url)
