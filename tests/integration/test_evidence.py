# SPDX-License-Identifier: Apache-2.0
"""What is known of a build, from the build to the catalogue, its lists, and whoever has the image: by the commands."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coppice.cli.main import main
from coppice.clock import SystemClock
from coppice.database import Database
from coppice.definition.model import DefinedFile, Definition, Provisioner, ProvisionerKind
from coppice.factory.evidence.inventory import Inventory, InventoryFile
from coppice.factory.evidence.keeping import EVIDENCE_FILES, write_evidence
from coppice.factory.model import (
    Ancestor,
    BuildInput,
    BuildResult,
    BuiltImage,
    Outcome,
    Package,
    Provenance,
    Verdict,
)
from coppice.factory.record import FILE_NAME, write_record
from coppice.formats.cosign import authenticated
from coppice.formats.intoto import MEDIA_TYPE
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.settings.load import load_settings
from coppice.testing import images
from coppice.testing.authority import Authority, KeyType
from coppice.workflows.add import add_build

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BASE_PACKAGES = (
    Package(name="bash", version="5.2-2", architecture="amd64"),
    Package(name="openssl", version="3.0.14-1", architecture="amd64", source="openssl"),
)
WEB_PACKAGES = (
    BASE_PACKAGES[0],
    Package(name="nginx", version="1.22.1-9", architecture="amd64"),
    Package(name="openssl", version="3.0.15-1", architecture="amd64", source="openssl"),
)
DEFINITION = Definition(
    name="base",
    path=Path("/definitions/base/appliance.toml"),
    title="Base",
    description="",
    groups=("General",),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="bootstrap",
    packages=(),
    disk_size_bytes=1 << 30,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.RAW,),
    user="debian",
    requirements=Requirements(),
)
WEB = replace(
    DEFINITION,
    name="web",
    title="Web",
    parent="base",
    files=(DefinedFile(path="/etc/motd", content=b"hello"),),
    provisioners=(Provisioner(name="50-site", kind=ProvisionerKind.SHELL, files={"s": b""}, entry="s"),),
)


def inventory(*rows: tuple[str, str, str]) -> Inventory:
    """Return an inventory: of each file its path, what stands for its content, and its package."""
    files = [
        InventoryFile(
            path=path,
            mode=0o100644,
            owner=0,
            group=0,
            size_bytes=len(content),
            sha256=Checksum.of(content.encode(), "sha256").hexdigest,
            sha1="" if package else "0" * 40,
            package=package,
        )
        for path, content, package in rows
    ]
    link = InventoryFile(path="/bin", mode=0o120777, owner=0, group=0, size_bytes=7, target="usr/bin")
    return Inventory({each.path: each for each in (link, *files)})


BASE_FILES = inventory(
    ("/usr/bin/bash", "bash", "bash"),
    ("/usr/bin/openssl", "3.0.14", "openssl"),
    ("/etc/motd", "debian", "bash"),
    ("/etc/hostname", "localhost", ""),
)
WEB_FILES = inventory(
    ("/usr/bin/bash", "bash", "bash"),
    ("/usr/bin/openssl", "3.0.15", "openssl"),
    ("/usr/sbin/nginx", "nginx", "nginx"),
    ("/etc/motd", "hello", "bash"),
    ("/etc/hostname", "localhost", ""),
    ("/srv/index.html", "page", ""),
)


class Site:
    """A publisher whose builds were made by hand."""

    def __init__(self, root, capfd, key_type=KeyType.P256) -> None:
        self.root, self._captured = root, capfd
        self.state = root / "state"
        (root / "coppice.toml").write_text(
            f'state_directory = "{self.state}"\n'
            f'[publishers.web]\ndriver = "directory"\npath = "{root}/web"\nurl = "https://images.example.org"\n'
        )
        self.authority = Authority.create("Example CA")
        self.authority.write_to(root / "anchors", crl=self.authority.crl())
        self.jane = self.authority.issue("Jane", key_type=key_type)
        certificate, key = self.jane.write_to(root / "keys", "jane")
        self.run("endorser", "add", "jane", "--certificate", certificate, "--key", key, "--email", "jane@x.example")

    def run(self, *arguments, code=0):
        self._captured.readouterr()
        got = main(["--config", str(self.root / "coppice.toml"), "--json", *map(str, arguments)])
        said = json.loads(self._captured.readouterr().out)
        assert got == code, (arguments, said)
        self.messages = said["messages"]
        return said["data"] if code == 0 else said["errors"][0]

    def show(self, *arguments):
        self._captured.readouterr()
        assert main(["--config", str(self.root / "coppice.toml"), *map(str, arguments)]) == 0
        return self._captured.readouterr().out

    def build(self, definition, packages, files, *, seed, lineage=()):
        key = Checksum.of(f"{definition.name}-{seed}".encode(), "sha256").hexdigest
        directory = self.state / "factory" / "builds" / key
        directory.mkdir(parents=True)
        content = images.raw_disk() + bytes([seed]) * 512
        path = directory / f"{definition.name}.raw"
        path.write_bytes(content)
        checksum = Checksum.of(content)
        image = Image(
            format=DiskFormat.RAW, size_bytes=len(content), virtual_size_bytes=len(content), checksum=checksum
        )
        verdict = Verdict(
            gate="boot-bios", image_digest=str(checksum), outcome=Outcome.PASSED, decided_at=NOW, seconds=1.0, facts=()
        )
        result = BuildResult(
            definition=definition,
            key=key,
            directory=directory,
            images=(BuiltImage(path=path, image=image),),
            packages=packages,
            provenance=Provenance(
                definition_digest=definition.digest(),
                builder="bootstrap 2",
                tools=(("mmdebstrap", "1.3"),),
                started_at=NOW,
                seconds=60.0,
                inputs=(BuildInput(name="index bookworm", uri="http://deb.example/", digest=f"sha256:{'1' * 64}"),),
                lineage=lineage,
            ),
            verdicts=(verdict,),
            reused=False,
        )
        write_record(directory / FILE_NAME, result)
        write_evidence(directory, result, files)
        return result

    def add(self, result, version):
        file = self.root / "coppice.toml"
        settings = load_settings(config=file, environ={}, options={}, system_file=file)
        database = Database(settings.database_url)
        try:
            return add_build(result, settings=settings, database=database, clock=SystemClock(), version=version)
        finally:
            database.close()


def ancestor(result) -> Ancestor:
    return Ancestor(
        definition=result.definition.name, key=result.key, image_digest=str(result.images[0].image.checksum)
    )


@pytest.fixture
def site(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return Site(tmp_path, capfd)


@pytest.fixture
def web(site):
    base = site.build(DEFINITION, BASE_PACKAGES, BASE_FILES, seed=1)
    return site.build(WEB, WEB_PACKAGES, WEB_FILES, seed=2, lineage=(ancestor(base),)), base


def test_evidence_is_kept_with_the_version_and_outlives_the_build(site, web):
    result, base = web
    added = site.add(result, "1")
    assert added.evidence is not None
    assert {path.name for path in added.evidence.iterdir()} == set(EVIDENCE_FILES.values())
    assert [str(each) for each in added.built_on] == [ancestor(base).image_digest]
    document = json.loads((result.directory / "web-1.json").read_text())
    assert document["built_on"] == [ancestor(base).image_digest]
    assert document["gates"] == [{"name": "boot-bios", "outcome": "passed", "decided_at": "2026-11-20T12:00:00Z"}]
    assert {each["kind"] for each in document["evidence"]} == set(EVIDENCE_FILES)
    [old_form] = [path for path in result.directory.glob("web-1*.json") if path.name != "web-1.json"]
    attributes = json.loads(old_form.read_text())["attributes"]
    assert attributes["coppice_built_on"] == ancestor(base).image_digest
    assert attributes["coppice_sbom_spdx"] == str(added.evidence / "sbom.spdx.json")
    for each in document["evidence"]:
        (result.directory / each["path"]).write_bytes(b"another build")
    assert [each["name"] for each in site.run("appliance", "packages", "web")] == ["bash", "nginx", "openssl"]
    site.run("appliance", "delete", "web")
    assert not added.evidence.exists()


def test_a_list_tells_what_its_images_are_built_on(site, web):
    result, base = web
    site.add(result, "1")
    site.run("imagelist", "create", "general", "--endorser", "jane", "--publisher", "web", "--set", "title=General")
    site.run("imagelist", "add", "general", "web")
    site.run("imagelist", "publish", "general")
    [published] = (site.root / "web").glob("*general*")
    said = published.read_bytes()
    assert b'"coppice:built_on": [' in said
    assert ancestor(base).image_digest.encode() in said


def test_a_list_that_is_taken_over_keeps_what_its_images_are_built_on(site, web, tmp_path, capfd):
    result, base = web
    site.add(result, "1")
    site.run("imagelist", "create", "general", "--endorser", "jane", "--publisher", "web", "--set", "title=General")
    site.run("imagelist", "add", "general", "web")
    site.run("imagelist", "publish", "general")
    (tmp_path / "heir").mkdir()
    heir = Site(tmp_path / "heir", capfd)
    [published] = (site.root / "web").glob("*general*")
    into = ("--name", "general", "--endorser", "jane", "--publisher", "web")
    heir.run("imagelist", "import", published, *into, *trust(site))
    assert not any("taken over" in message for message in heir.messages)
    [appliance] = heir.run("appliance", "list")
    assert (appliance["built_on"], appliance["evidence"]) == ([ancestor(base).image_digest], None)


def test_evidence_that_is_not_what_its_descriptor_says_is_refused(site, web):
    result, _ = web
    site.add(result, "1")
    descriptor = result.directory / "web-1.json"
    (result.directory / "sbom.cdx.json").write_bytes(b"{}")
    refused = site.run("appliance", "add", "--descriptor", descriptor, "--name", "copy", code=7)
    assert "sbom.cdx.json" in refused["message"]


def test_what_changed_between_versions_is_told_by_package(site, web):
    result, base = web
    site.add(replace(base, definition=replace(DEFINITION, name="web")), "1")
    site.add(result, "2")
    said = site.run("appliance", "difference", "web")
    assert (said["before"], said["after"]) == ("1", "2")
    assert [(each["name"], each["change"], each["before"], each["after"]) for each in said["changes"]] == [
        ("nginx", "added", None, "1.22.1-9"),
        ("openssl", "updated", "3.0.14-1", "3.0.15-1"),
    ]
    back = site.run("appliance", "difference", "web", "2", "1")
    assert [each["change"] for each in back["changes"]] == ["removed", "downgraded"]
    assert "3.0.15-1" in site.show("appliance", "difference", "web", "1")
    assert site.run("appliance", "difference", "web", "9", code=12)["code"] == "not-found"


def test_both_bills_of_materials_are_written_as_they_were_made(site, web):
    result, _ = web
    site.add(result, "1")
    for form, name in (("cyclonedx", "sbom.cdx.json"), ("spdx", "sbom.spdx.json")):
        target = site.root / f"{form}.json"
        site.run("appliance", "sbom", "web", target, "--form", form)
        assert target.read_bytes() == (result.directory / name).read_bytes()
    told = json.loads((site.root / "cyclonedx.json").read_text())
    assert "pkg:deb/debian/nginx@1.22.1-9?arch=amd64&distro=debian-12" in [
        each.get("purl") for each in told["components"]
    ]
    assert "/srv/index.html" in [each["name"] for each in told["components"] if each["type"] == "file"]


def causes(said):
    return [
        (each["definition"], each["cause"], each["package"] and each["package"]["version"]) for each in said["origins"]
    ]


def test_why_follows_a_file_to_the_ancestor_that_put_it_there(site, web):
    result, _ = web
    site.add(result, "1")
    for path, expected in (
        ("/bin/bash", [("base", "package", "5.2-2")]),
        ("/usr/sbin/nginx", [("web", "package", "1.22.1-9")]),
        ("/usr/bin/openssl", [("web", "package", "3.0.15-1"), ("base", "package", "3.0.14-1")]),
        ("/etc/motd", [("web", "definition", None), ("base", "package", "5.2-2")]),
        ("/srv/index.html", [("web", "script", None)]),
        ("/etc/hostname", [("base", "script", None)]),
    ):
        said = site.run("appliance", "why", "web", path)
        assert causes(said) == expected, path
        assert said["lineage"] == ["web", "base"]
    assert "50-site" in site.show("appliance", "why", "web", "/srv/index.html")
    assert site.run("appliance", "why", "web", "/no/such", code=12)["message"].startswith("there is no /no/such")


def test_an_ancestor_that_was_built_anew_is_not_taken_for_the_one_that_it_was(site, web):
    result, base = web
    site.add(result, "1")
    other = replace(base.images[0].image, checksum=Checksum.of(b"other"))
    write_record(base.directory / FILE_NAME, replace(base, images=(replace(base.images[0], image=other),)))
    said = site.run("appliance", "why", "web", "/bin/bash")
    assert (said["lineage"], said["missing"]) == (["web"], "base")
    assert causes(said) == [("web", "package", "5.2-2")]
    assert "nothing is kept of the ancestor base" in site.messages[0]


def test_a_version_without_evidence_says_what_to_do(site, tmp_path):
    content = images.raw_disk()
    (tmp_path / "disk.raw").write_bytes(content)
    size = len(content)
    disk = {"path": "disk.raw", "format": "raw", "size_bytes": size, "virtual_size_bytes": size}
    document = {
        "action": "registration",
        "identifier": "foreign",
        "version": "1",
        "title": "Foreign",
        "os": {"distribution": "Debian", "version": "12"},
        "created": "2026-11-20T00:00:00Z",
        "disks": [{**disk, "sha512": Checksum.of(content).hexdigest}],
    }
    (tmp_path / "d.json").write_text(json.dumps(document))
    site.run("appliance", "add", "--descriptor", tmp_path / "d.json")
    for verb in (("packages", "foreign"), ("why", "foreign", "/x"), ("sbom", "foreign", tmp_path / "x.json")):
        refused = site.run("appliance", *verb, code=12)
        assert "how foreign 1 was built" in refused["message"]
        assert "--fresh" in refused["resolution"]


def trust(site):
    return ("--anchors", site.root / "anchors", "--endorser-certificate", site.root / "keys" / "jane.pem")


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.RSA_2048])
def test_provenance_is_signed_and_verified_against_the_image(tmp_path, capfd, monkeypatch, key_type):
    monkeypatch.setenv("HOME", str(tmp_path))
    site = Site(tmp_path, capfd, key_type)
    result = site.build(DEFINITION, BASE_PACKAGES, BASE_FILES, seed=1)
    site.add(result, "1")
    signed = tmp_path / "base.dsse.json"
    site.run("appliance", "sign-provenance", "base", "--endorser", "jane", "--to", signed)
    said = site.run("appliance", "verify-provenance", signed, *trust(site), "--file", result.images[0].path)
    assert said["definition"] == "base"
    assert said["definition_digest"] == DEFINITION.digest()
    assert said["subjects"] == [{"name": "base.raw", "digest": str(result.images[0].image.checksum)}]
    assert said["inputs"] == ["index bookworm"]
    statement = json.loads(base64.b64decode(json.loads(signed.read_text())["payload"]))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["predicate"]["runDetails"]["metadata"] == {
        "invocationId": result.key,
        "startedOn": "2026-11-20T12:00:00Z",
        "finishedOn": "2026-11-20T12:01:00Z",
    }


def test_openssl_takes_the_signature_for_what_it_is(site, web, tmp_path):
    result, _ = web
    site.add(result, "1")
    signed = tmp_path / "web.dsse.json"
    site.run("appliance", "sign-provenance", "web", "--endorser", "jane", "--to", signed)
    envelope = json.loads(signed.read_text())
    payload = base64.b64decode(envelope["payload"])
    (tmp_path / "message").write_bytes(authenticated(MEDIA_TYPE, payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    public = site.jane.certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    argv = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"]
    assert subprocess.run(argv, cwd=tmp_path, check=False, capture_output=True).returncode == 0


def test_provenance_that_is_not_what_it_should_be_is_refused(site, web, tmp_path):
    result, base = web
    site.add(result, "1")
    signed = tmp_path / "web.dsse.json"
    site.run("appliance", "sign-provenance", "web", "--endorser", "jane", "--to", signed)
    whole = json.loads(signed.read_text())

    def verify(document, code, *more):
        (tmp_path / "x.json").write_text(document if isinstance(document, str) else json.dumps(document))
        return site.run("appliance", "verify-provenance", tmp_path / "x.json", *(more or trust(site)), code=code)

    assert verify(whole, 7, *trust(site), "--file", base.images[0].path)["code"] == "image-checksum"
    payload = base64.b64decode(whole["payload"]).replace(b'"web.raw"', b'"bad.raw"')
    changed = {**whole, "payload": base64.b64encode(payload).decode()}
    assert verify(changed, 5)["code"] == "list-tampered"
    other = site.authority.issue("Joe")
    others = {**whole["signatures"][0], "certificate": other.certificate.public_bytes(Encoding.PEM).decode()}
    assert verify({**whole, "signatures": [others]}, 5)["code"] == "list-tampered"
    assert verify({**whole, "signatures": whole["signatures"] * 2}, 5)["code"] == "list-signer-count"
    assert verify({**whole, "signatures": []}, 5)["code"] == "list-signer-count"
    assert verify({**whole, "payloadType": "text/plain"}, 3)["code"] == "document-invalid"
    assert verify({**whole, "payload": "%%%"}, 3)["code"] == "document-invalid"
    assert verify("[]", 3)["code"] == "document-invalid"
    joe, _ = other.write_to(tmp_path / "keys", "joe")
    wrong = ("--anchors", site.root / "anchors", "--endorser-certificate", joe)
    assert verify(whole, 5, *wrong)["code"] == "signer-not-pinned"
    Authority.create("Another CA").write_to(tmp_path / "elsewhere")
    nobody = ("--anchors", tmp_path / "elsewhere", "--endorser-certificate", site.root / "keys" / "jane.pem")
    assert verify(whole, 5, *nobody)["code"] == "signer-untrusted"
    assert verify(whole, 5, "--anchors", site.root / "anchors")["code"] == "endorser-unknown"
    site.authority.revoke(site.jane.certificate)
    site.authority.write_to(site.root / "anchors", crl=site.authority.crl())
    assert verify(whole, 5)["code"] == "signer-revoked"


def test_nothing_is_signed_with_a_certificate_that_is_not_valid(site, web):
    result, _ = web
    site.add(result, "1")
    now = datetime.now(UTC)
    old = site.authority.issue("Old")
    certificate, key = old.write_to(site.root / "keys", "old")
    site.run("endorser", "add", "old", "--certificate", certificate, "--key", key, "--email", "o@x.example")
    dates = {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)}
    site.authority.issue("Old", key=old.key, **dates).write_to(site.root / "keys", "old")
    refused = site.run("appliance", "sign-provenance", "web", "--endorser", "old", code=5)
    assert refused["code"] == "signer-expired"


def test_the_first_version_has_none_before(site, web):
    site.add(web[1], "1")
    assert "first version" in site.run("appliance", "difference", "base", code=12)["message"]
