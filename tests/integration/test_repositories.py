# SPDX-License-Identifier: Apache-2.0
"""Package repositories as ``apt-ftparchive`` makes them, read without building; and what must not be believed."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coppice.clock import FixedClock, SystemClock
from coppice.errors import (
    ChecksumMismatchError,
    DocumentError,
    ExpiredListError,
    KeyringError,
    OlderListError,
    SignerExpiredError,
    TamperedListError,
    TransferError,
    UnreadableFileError,
    UnsignedListError,
    UntrustedSignerError,
)
from coppice.factory.model import Package
from coppice.factory.staleness import find_updates
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.behaviours import conditional
from coppice.testing.openpgp import GnuPg
from coppice.testing.repodata import packer_of
from coppice.testing.repository import PackageMirror
from coppice.testing.server import LoopbackServer
from coppice.workflows.packed_index import unpacked
from coppice.workflows.repositories import Repositories, Source, parse_source

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def gnupg():
    with GnuPg() as found:
        yield found


@pytest.fixture(scope="module")
def key(gnupg):
    return gnupg.make_key("Archive")


@pytest.fixture(scope="module")
def mirror_once(gnupg, key, tmp_path_factory):
    mirror = PackageMirror(tmp_path_factory.mktemp("mirror"), gnupg, key)
    mirror.main.add("openssl", "3.0.1-1")
    mirror.main.add("jq", "1.6-2")
    mirror.security.add("openssl", "3.0.1-1+deb12u1")
    mirror.publish()
    return mirror


@pytest.fixture
def mirror(mirror_once, tmp_path):
    return mirror_once.copy(tmp_path / "mirror")


@pytest.fixture
def settings(tmp_path, mirror):
    file = tmp_path / "coppice.toml"
    file.write_text(
        f'state_directory = "{tmp_path}/state"\n'
        f'[factory]\nmirror = "{mirror.uri}"\nkeyring = "{mirror.keyring}"\n[transfer]\nattempts = 1\n'
    )
    return load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})


def read(settings, suite="bookworm", uri=None, clock=None, **words):
    source = Source(uri=uri or settings.factory.mirror, suite=suite, components=("main",))
    reader = Repositories(settings, clock=clock or SystemClock(), monitor=SILENT)
    return reader.read(source, **{"architecture": "amd64", "distribution": "Debian", **words})


@pytest.mark.parametrize("scheme", ["file://", "file:", "copy:", "copy://"])
def test_a_repository_says_what_it_has_and_whether_that_is_for_security(settings, mirror, scheme):
    uri = f"{scheme}{mirror.folder}/debian"
    main = read(settings, uri=uri)
    assert (main.versions, main.is_security) == ({"jq": "1.6-2", "openssl": "3.0.1-1"}, False)
    security = read(settings, "bookworm-security", f"{uri}-security")
    assert (security.versions, security.is_security) == ({"openssl": "3.0.1-1+deb12u1"}, True)
    assert read(settings, "bookworm-updates", uri=uri).versions == {}


def test_an_index_that_somebody_else_signed_is_not_believed(settings, mirror, gnupg):
    mallory = gnupg.make_key("Mallory")
    mirror.main.publish(key=mallory)
    with pytest.raises(UntrustedSignerError):
        read(settings)


def test_an_index_that_was_changed_after_it_was_signed_is_not_believed(settings, mirror):
    file = mirror.main.folder / "InRelease"
    file.write_bytes(file.read_bytes().replace(b"Label: Debian", b"Label: Debiaan"))
    with pytest.raises(TamperedListError):
        read(settings)


def test_an_index_without_signature_is_not_believed(settings, mirror):
    (mirror.main.folder / "InRelease").write_bytes(b"Origin: Debian\n")
    with pytest.raises(UnsignedListError):
        read(settings)


def test_one_good_signature_is_enough_beside_those_of_other_keys(settings, mirror, gnupg, key):
    file = mirror.main.folder / "InRelease"
    text = b"\n".join(file.read_bytes().split(b"\n\n", 1)[1].split(b"\n-----BEGIN")[0].splitlines()) + b"\n"
    file.write_bytes(gnupg.clear_sign(text, gnupg.make_key("Next year's"), key))
    assert read(settings).versions["jq"] == "1.6-2"
    other = gnupg.make_key("Also known")
    mirror.keyring.write_bytes(gnupg.export(key, other))
    file.write_bytes(gnupg.clear_sign(text, key, other))
    assert read(settings).versions["jq"] == "1.6-2"


def test_a_key_that_has_expired_vouches_for_nothing(settings, mirror, gnupg):
    then = datetime.now(UTC) - timedelta(days=10)
    old = gnupg.make_key("Old", expires="2d", at=then)
    mirror.keyring.write_bytes(gnupg.export(old))
    file = mirror.main.folder / "InRelease"
    text = b"\n".join(file.read_bytes().split(b"\n\n", 1)[1].split(b"\n-----BEGIN")[0].splitlines()) + b"\n"
    file.write_bytes(gnupg.clear_sign(text, old, at=then))
    with pytest.raises(SignerExpiredError):
        read(settings)


def test_an_index_that_has_run_out_is_not_believed(settings, mirror):
    mirror.main.publish(valid=timedelta(days=7))
    assert read(settings).versions
    later = FixedClock(datetime.now(UTC) + timedelta(days=8))
    with pytest.raises(ExpiredListError, match="bookworm"):
        read(settings, clock=later)


def test_an_index_that_is_older_than_one_that_was_seen_is_not_believed(settings, mirror):
    before = (mirror.main.folder / "InRelease").read_bytes()
    mirror.main.publish(at=datetime.now(UTC) + timedelta(seconds=90))
    read(settings)
    (mirror.main.folder / "InRelease").write_bytes(before)
    with pytest.raises(OlderListError):
        read(settings)


def test_an_index_counts_as_seen_although_what_it_vouches_for_could_not_be_read(settings, mirror):
    before = (mirror.main.folder / "InRelease").read_bytes()
    mirror.main.publish(at=datetime.now(UTC) + timedelta(seconds=90))
    for file in (mirror.main.folder / "main").rglob("*"):
        if file.is_file():
            file.write_bytes(bytes([*file.read_bytes()[:-1], 0]))
    with pytest.raises(ChecksumMismatchError):
        read(settings)
    (mirror.main.folder / "InRelease").write_bytes(before)
    with pytest.raises(OlderListError):
        read(settings)


def test_an_index_of_another_suite_is_not_believed_though_its_signature_is_good(settings, mirror):
    # By it, there would be no security updates.
    security = mirror.security.folder
    shutil.rmtree(security)
    shutil.copytree(mirror.main.folder, security)
    with pytest.raises(DocumentError, match=r"is that of bookworm$"):
        read(settings, "bookworm-security", f"{mirror.uri}-security")


def test_packages_that_the_index_does_not_vouch_for_are_refused(settings, mirror):
    for file in (mirror.main.folder / "main").rglob("*"):
        if file.is_file():
            file.write_bytes(bytes([*file.read_bytes()[:-1], 0]))
    with pytest.raises(ChecksumMismatchError):
        read(settings)


def test_an_index_without_the_architecture_is_no_answer(settings):
    with pytest.raises(DocumentError, match="binary-arm64"):
        read(settings, architecture="arm64")


def test_a_folder_without_a_repository_is_no_answer(settings):
    with pytest.raises(UnreadableFileError):
        read(settings, "trixie")


def test_where_no_keyring_is_set_and_none_is_installed_nothing_is_believed(settings):
    silent = replace(settings, factory=replace(settings.factory, keyring=None))
    with pytest.raises(KeyringError, match="NoSuch"):
        read(silent, distribution="NoSuch")


def test_without_by_hash_packages_are_read_at_their_own_name(settings, mirror):
    mirror.main.publish(by_hash=False)
    assert not (mirror.main.folder / "main" / "binary-amd64" / "by-hash").exists()
    assert read(settings).versions["jq"] == "1.6-2"


def test_over_http_an_unchanged_index_is_fetched_once_and_its_packages_too(settings, mirror, tmp_path):
    with LoopbackServer() as server:
        for file in mirror.main.folder.rglob("*"):
            if file.is_file():
                where = f"/debian/{file.relative_to(mirror.folder / 'debian')}"
                server.set(where, conditional(file.read_bytes(), etag='"1"'))
        own = replace(settings, factory=replace(settings.factory, mirror=server.url("/debian")))
        assert read(own).versions["jq"] == "1.6-2"
        assert read(own).versions["jq"] == "1.6-2"
        asked = [request.path for request in server.requests]
        assert len([path for path in asked if path.endswith("InRelease")]) == 2
        assert len([path for path in asked if "by-hash" in path]) == 1


def test_a_mirror_that_does_not_answer_is_told_of_once_a_run(settings):
    own = replace(settings, factory=replace(settings.factory, mirror="http://127.0.0.1:9/debian"))
    reader = Repositories(own, clock=SystemClock(), monitor=SILENT)
    source = Source(uri="http://127.0.0.1:9/debian", suite="bookworm", components=("main",))
    with pytest.raises(TransferError) as first:
        reader.read(source, architecture="amd64", distribution="Debian")
    with pytest.raises(TransferError) as second:
        reader.read(source, architecture="amd64", distribution="Debian")
    assert second.value is first.value


@pytest.mark.threat("T65")
@pytest.mark.parametrize("name", ["Packages.xz", "Packages.gz", "primary.xml.zst", "Packages"])
def test_what_unpacks_to_too_much_or_not_at_all_is_refused(name):
    zeros = bytes(4 * 1024 * 1024)
    pack = packer_of(name.rpartition(".")[2])
    assert sum(map(len, unpacked(pack(zeros), name))) == len(zeros)
    with pytest.raises(DocumentError, match="more than"):
        list(unpacked(pack(zeros), name, limit_bytes=len(zeros) - 1))
    if name != "Packages":
        for wrong in (pack(zeros)[:-20], b"no such thing", pack(zeros) + b"more"):
            with pytest.raises(DocumentError):
                list(unpacked(wrong, name))


def test_a_line_of_sources_is_read_with_or_without_options():
    plain = parse_source("deb http://mirror.example/debian bookworm main contrib")
    assert (plain.uri, plain.suite, plain.components) == (
        "http://mirror.example/debian",
        "bookworm",
        ("main", "contrib"),
    )
    assert parse_source("deb [signed-by=/a.gpg arch=amd64] copy:/srv/debian/ bookworm main").uri == "copy:/srv/debian"
    for wrong in ("", "deb http://mirror.example", "deb-src http://m.example x main", "deb http://m.example ../x main"):
        with pytest.raises(DocumentError):
            parse_source(wrong)


def apt_says(mirror, installed, folder):
    """Return what the real apt would upgrade, by name: the version, and whether the security archive has it."""
    for name in ("etc/apt.conf.d", "state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(
        "".join(
            f"deb [signed-by={mirror.keyring}] {uri} {suite} main\n"
            for uri, suite in (
                (mirror.uri, "bookworm"),
                (mirror.uri, "bookworm-updates"),
                (f"{mirror.uri}-security", "bookworm-security"),
            )
        )
    )
    (folder / "status").write_text(
        "".join(
            f"Package: {each.name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {each.version}\n"
            "Maintainer: Test <test@example.org>\nDescription: a package of a test\n\n"
            for each in installed
        )
    )
    options = {
        "Dir::Etc": f"{folder}/etc",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::State": f"{folder}/state",
        "Dir::State::status": f"{folder}/status",
        "Dir::Cache": f"{folder}/cache",
        "APT::Sandbox::User": "root",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", *words, "update"], check=True, capture_output=True, timeout=60)
    listed = subprocess.check_output(
        ["apt", *words, "list", "--upgradable"], stderr=subprocess.DEVNULL, text=True, timeout=60
    )
    found = re.findall(r"^(\S+?)/(\S+) (\S+) \S+ \[upgradable", listed, re.MULTILINE)
    return {name: (version, "security" in suites) for name, suites, version in found}


def test_what_has_updates_is_what_apt_would_upgrade(settings, mirror, tmp_path):
    chance = random.Random(7)  # noqa: S311 - a test must run the same way each time
    versions = ["1.0-1", "1.0-1+b1", "1.0-1+deb12u1", "1.0-2~rc1", "1.0-10", "1:0.9-1", "1.0~beta-1", "1.0-1.1"]
    names = [f"package-{number}" for number in range(12)]
    for suite in mirror.suites:
        for name in chance.sample(names, 7):
            suite.add(name, chance.choice(versions))
        suite.publish(at=datetime.now(UTC) + timedelta(seconds=60))
    installed = [Package(name=name, version=chance.choice(versions), architecture="amd64") for name in names]
    base = mirror.uri
    known = [
        read(settings, "bookworm", base),
        read(settings, "bookworm-updates", base),
        read(settings, "bookworm-security", f"{base}-security"),
    ]
    ours = {each.name: each for each in find_updates(installed, known)}
    theirs = apt_says(mirror, installed, tmp_path / "apt")
    assert {name: each.available for name, each in ours.items()} == {name: each[0] for name, each in theirs.items()}
    # What apt takes from there is a security update; so is what a higher version elsewhere brings along.
    assert {name for name, (_, is_security) in theirs.items() if is_security} <= {
        name for name, each in ours.items() if each.is_security
    }
    assert 3 < len(theirs) < len(names)
