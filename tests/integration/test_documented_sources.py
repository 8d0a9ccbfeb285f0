# SPDX-License-Identifier: Apache-2.0
"""The commands of the page on other sources, as they stand there, at a loopback server with documents of that shape."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cli.main import main
from coppice.testing import streams
from coppice.testing.nginx import Nginx
from coppice.testing.openpgp import GnuPg

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "follow-other-sources.md"
NOW = datetime.now(UTC).replace(microsecond=0)


class Publishers:
    """A server with what Ubuntu, Fedora, Debian and LXD publish, made up."""

    def __init__(self, directory: Path, gnupg: GnuPg) -> None:
        self.server = Nginx(directory / "nginx")
        self.gnupg = gnupg
        self.key = gnupg.make_key()
        self.keyring = directory / "keyring.gpg"

    def publish(self) -> None:
        self.keyring.write_bytes(self.gnupg.export(self.key))
        self.publish_ubuntu()
        self.publish_lxd()
        self.publish_noble()
        self.publish_fedora()
        self.publish_debian()

    def publish_ubuntu(self) -> None:
        found = {
            f"com.ubuntu.cloud:server:{release}:{arch}": streams.ubuntu_product(
                release, arch, {"20261101": b"old", "20261120": b"new"}
            )
            for release in ("noble", "jammy")
            for arch in ("amd64", "arm64")
        }
        name, path = "com.ubuntu.cloud:released:download", "streams/v1/com.ubuntu.cloud:released:download.sjson"
        at = NOW - timedelta(hours=2)
        products = streams.products(name, found, updated=at)
        index = streams.index({name: streams.entry(path, products, updated=at)}, updated=at)
        for place, document in ((path, products), ("streams/v1/index.sjson", index)):
            self.server.put(f"releases/{place}", self.gnupg.clear_sign(streams.written(document), self.key))

    def publish_lxd(self) -> None:
        product = streams.lxd_product("Alpine", "3.22", "amd64", {"20261120_13:00": b"vm"})
        products = streams.products("images", {"alpine:3.22:amd64:default": product}, updated=None)
        index = streams.index({"images": streams.entry("streams/v1/images.json", products, updated=None)}, updated=None)
        self.server.put("streams/v1/images.json", streams.written(products))
        self.server.put("streams/v1/index.json", streams.written(index))

    def publish_noble(self) -> None:
        lines = b""
        for arch in ("amd64", "arm64"):
            name, data = f"noble-server-cloudimg-{arch}.img", arch.encode()
            self.server.put(f"noble/current/{name}", data)
            lines += f"{hashlib.sha256(data).hexdigest()} *{name}\n".encode()
        self.server.put("noble/current/SHA256SUMS", lines)
        self.server.put("noble/current/SHA256SUMS.gpg", self.gnupg.sign_detached(lines, self.key))

    def publish_fedora(self) -> None:
        for release in ("42", "43"):
            name = f"Fedora-Cloud-Base-Generic-{release}-1.6.x86_64.qcow2"
            digest = hashlib.sha256(release.encode()).hexdigest()
            text = f"# {name}: 2 bytes\nSHA256 ({name}) = {digest}\n".encode()
            place = f"releases/{release}/Cloud/x86_64/images/Fedora-Cloud-{release}-1.6-x86_64-CHECKSUM"
            self.server.put(place, self.gnupg.clear_sign(text, self.key))
        self.server.put("releases/test/README", b"-")

    def publish_debian(self) -> None:
        for build in ("20261101-2280", "20261119-2300"):
            name = f"debian-13-generic-amd64-{build}.qcow2"
            self.server.put(f"images/trixie/{build}/{name}", build.encode())
            line = f"{hashlib.sha512(build.encode()).hexdigest()}  {name}\n"
            self.server.put(f"images/trixie/{build}/SHA512SUMS", line.encode())
        self.server.put("images/trixie/latest/README", b"-")


@pytest.fixture(scope="module")
def publishers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishers]:
    directory = tmp_path_factory.mktemp("publishers")
    with GnuPg() as gnupg:
        found = Publishers(directory, gnupg)
        with found.server:
            found.publish()
            yield found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COPPICE_STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("COPPICE_TRANSFER__ALLOW_PRIVATE_ADDRESSES", "true")

    def _run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["--json", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return _run


def documented(publishers: Publishers, name: str) -> list[str]:
    """Return the words of the page's command that subscribes to ``name``, its addresses those of the server here."""
    page = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(rf"^coppice (subscription add {name} .*)$", page, re.MULTILINE)
    line = re.sub(r"https://[a-z.-]+\.example\.org", publishers.server.url("").rstrip("/"), line)
    return shlex.split(re.sub(r"/etc/coppice/[a-z-]+\.gpg", str(publishers.keyring), line))


@pytest.mark.parametrize(
    ("name", "basis", "titles"),
    [
        ("ubuntu", "openpgp", {"ubuntu 24.04 LTS amd64 disk1.img", "ubuntu 22.04 LTS amd64 disk1.img"}),
        ("lxd", "transport", {"Alpine 3.22 default amd64 disk-kvm.img"}),
        ("noble", "openpgp", {"Ubuntu 24.04 (x86_64)", "Ubuntu 24.04 (aarch64)"}),
        ("fedora", "openpgp", {"Fedora-Cloud-Base-Generic-43-1.6.x86_64.qcow2"}),
        ("trixie", "transport", {"debian-13-generic-amd64-20261119-2300.qcow2"}),
    ],
)
def test_the_commands_of_the_page_do_what_it_says(
    run: Any, publishers: Publishers, name: str, basis: str, titles: set[str]
):
    code, said = run(*documented(publishers, name))
    assert code == 0, said
    code, said = run("subscription", "refresh", name)
    assert code == 0, said
    code, said = run("subscription", "archive", name)
    assert code == 0, said
    assert f'"{basis}"' in json.dumps(said)
    code, said = run("image", "list")
    assert code == 0, said
    assert titles == {title for title in titles if title in json.dumps(said)}
    assert run("subscription", "refresh", name, "--force")[0] == 0


@pytest.mark.threat("T6")
@pytest.mark.parametrize("name", ["ubuntu", "noble", "fedora"])
def test_unsigned_and_tampered_documents_are_refused_by_the_commands_too(run: Any, publishers: Publishers, name: str):
    assert run(*documented(publishers, name))[0] == 0
    files = {
        "ubuntu": "releases/streams/v1/com.ubuntu.cloud:released:download.sjson",
        "noble": "noble/current/SHA256SUMS",
        "fedora": "releases/43/Cloud/x86_64/images/Fedora-Cloud-43-1.6-x86_64-CHECKSUM",
    }
    place = files[name]
    good = (publishers.server.root / place).read_bytes()
    digest = re.search(rb"[0-9a-f]{64}", good)
    assert digest is not None
    try:
        publishers.server.put(place, good.replace(digest[0], b"0" * 64))
        code, said = run("subscription", "refresh", name)
        assert (code, said["errors"][0]["code"]) == (5, "list-tampered")
        if name != "noble":
            publishers.server.put(place, good[good.index(b"\n\n") + 2 : good.index(b"-----BEGIN PGP SIG")])
            code, said = run("subscription", "refresh", name)
            assert (code, said["errors"][0]["code"]) == (5, "list-unsigned")
    finally:
        publishers.server.put(place, good)


def test_nothing_is_believed_that_nobody_signed_unless_somebody_says_so(run: Any, publishers: Publishers):
    for name in ("lxd", "trixie"):
        words = documented(publishers, name)
        at = words.index("--trust")
        code, said = run(*words[:at], *words[at + 2 :])
        assert code == 3, said
        assert "trust=transport" in said["errors"][0]["resolution"]


def test_an_image_whose_file_comes_late_is_listed_when_it_is_there_and_stays(run: Any, publishers: Publishers):
    path = publishers.server.root / "noble/current/noble-server-cloudimg-arm64.img"
    data = path.read_bytes()
    path.unlink()
    assert run(*documented(publishers, "noble"))[0] == 0

    def listed() -> int:
        return json.dumps(run("image", "list")[1]).count('"Ubuntu 24.04 (')

    assert run("subscription", "refresh", "noble")[0] == 0
    assert listed() == 1
    path.write_bytes(data[:3])
    assert run("subscription", "refresh", "noble")[0] == 0
    path.write_bytes(data)
    assert run("subscription", "refresh", "noble")[0] == 0
    assert listed() == 2
    assert f'"size_bytes": {len(data)}' in json.dumps(run("image", "list")[1])


@pytest.mark.threat("T19")
def test_a_list_by_another_key_than_the_one_that_is_named_now_is_trusted_no_more(run: Any, publishers: Publishers):
    other = publishers.gnupg.make_key("New")
    good = publishers.keyring.read_bytes()
    assert run(*documented(publishers, "fedora"))[0] == 0
    assert run("subscription", "refresh", "fedora")[0] == 0
    try:
        publishers.keyring.write_bytes(publishers.gnupg.export(publishers.key, other))
        assert run("subscription", "refresh", "fedora")[0] == 0
        assert run("subscription", "edit", "fedora", "--option", f"signer={'A' * 40}")[0] != 0
        assert run("subscription", "edit", "fedora", "--option", f"signer={other.fingerprint}")[0] == 0
        code, said = run("subscription", "refresh", "fedora")
        assert (code, said["errors"][0]["code"]) == (5, "signer-not-pinned")
    finally:
        publishers.keyring.write_bytes(good)
