# SPDX-License-Identifier: Apache-2.0
"""Repositories of RPM packages, made up, read as the staleness of an appliance needs them; and what is not believed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.clock import SystemClock, to_rfc3339
from coppice.definition.read import read_definition
from coppice.errors import (
    BuildError,
    ChecksumMismatchError,
    DocumentError,
    FutureListError,
    OlderListError,
    StateError,
    UnreadableFileError,
    UnsignedListError,
)
from coppice.factory.bootstrap import rpm_releases
from coppice.factory.model import Package
from coppice.http import Validators
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.repodata import MadeUpAdvisory, MadeUpPackage, packer_of, primary, write_files, write_repodata
from coppice.workflows import packed_index
from coppice.workflows.index_places import Shelf, shelf_name
from coppice.workflows.rpm_repositories import RpmRepositories
from coppice.workflows.staleness import Appraiser

pytestmark = pytest.mark.unit

DEFINITIONS = Path(__file__).parents[3] / "definitions"
ALMALINUX = read_definition(DEFINITIONS / "almalinux-9")
BASE, MORE = "9/BaseOS/x86_64/os", "9/AppStream/x86_64/os"
INSTALLED = tuple(
    Package(name=name, version=version, architecture="x86_64", manager="rpm")
    for name, version in (("bash", "5.1.8-9.el9"), ("openssl", "1:3.0.7-24.el9"), ("kernel-core", "5.14.0-427.el9"))
)
NOW = 1_700_000_000


def package(name, version, **other):
    return MadeUpPackage(name=name, version=version, **other)


THERE = (package("bash", "5.1.8-9.el9"), package("kernel-core", "5.14.0-427.el9"))
NEWER = package("openssl", "1:3.0.7-27.el9")


class Mirror:
    """Two repositories laid out as AlmaLinux's."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def base(self, *packages, advisories=(), timestamp=NOW, **options):
        write_repodata(self.folder / BASE, packages, advisories, timestamp=timestamp, **options)

    def more(self, *packages, advisories=(), timestamp=NOW, **options):
        write_repodata(self.folder / MORE, packages, advisories, timestamp=timestamp, **options)


@pytest.fixture
def mirror(tmp_path):
    mirror = Mirror(tmp_path / "mirror")
    mirror.base(*THERE)
    mirror.more(package("openssl", "1:3.0.7-24.el9"))
    return mirror


@pytest.fixture
def settings(tmp_path, mirror):
    file = tmp_path / "coppice.toml"
    file.write_text(
        f'state_directory = "{tmp_path}/state"\n'
        f'[factory]\nmirror = "file://{mirror.folder}"\n[transfer]\nattempts = 1\n'
    )
    return load_settings(config=file, environ={"HOME": str(tmp_path)}, options={})


@pytest.fixture
def look(settings):
    """Look for updates, as a run that begins now does."""

    def look(packages=INSTALLED, definition=ALMALINUX):
        return RpmRepositories(settings, clock=SystemClock(), monitor=SILENT).updates(packages, definition)

    return look


def only_error(found, kind):
    _, [problem] = found
    assert type(problem) is kind
    return problem


@pytest.mark.parametrize("packed", ["gz", "xz", "zst", ""])
def test_an_update_is_found_whatever_packs_the_index(look, mirror, packed):
    assert look() == ((), ())
    mirror.more(NEWER, advisories=[MadeUpAdvisory(packages=(NEWER,), severity="Critical")], packed=packed)
    [update], errors = look()
    assert errors == ()
    assert (update.name, update.installed, update.available) == ("openssl", "1:3.0.7-24.el9", "1:3.0.7-27.el9")
    assert (update.is_security, update.severity) == (True, "critical")


def test_a_kernel_counts_like_other_packages(look, mirror):
    kernel = package("kernel-core", "5.14.0-427.13.1.el9_4")
    mirror.base(*THERE, kernel, advisories=[MadeUpAdvisory(packages=(kernel,), kind="bugfix")])
    [update], _ = look()
    assert (update.name, update.is_security) == ("kernel-core", False)


def test_without_advisories_it_is_not_known_what_is_for_security(look, mirror):
    mirror.more(NEWER, advisories=None)
    [update], errors = look()
    assert (update.is_security, errors) == (None, ())


def test_a_repository_named_so_has_security_updates(look, mirror, monkeypatch):
    release = rpm_releases.find_release("almalinux-9")
    named = replace(release, repositories=(*release.repositories, ("almalinux-security", "9/security")))
    monkeypatch.setitem(rpm_releases._RELEASES, "almalinux-9", named)
    write_repodata(mirror.folder / "9/security", [NEWER], timestamp=NOW)
    [update], errors = look()
    assert (update.is_security, errors) == (True, ())


def test_of_modules_it_is_told_that_it_is_not_known(look, mirror):
    mirror.more(package("nodejs", "1:20-1.module+el9+2"))
    node = Package(name="nodejs", version="1:18-1.module+el9+1", architecture="x86_64", manager="rpm")
    problem = only_error(look((*INSTALLED, node)), StateError)
    assert "modules" in problem.message
    assert "nodejs" in problem.message


def test_an_installed_version_that_is_none_is_told(look):
    odd = Package(name="odd", version="1 2", architecture="x86_64", manager="rpm")
    assert "odd" in only_error(look((*INSTALLED, odd)), StateError).message


def test_what_a_repository_says_in_an_odd_way_of_a_package_hides_no_update_of_another(look, mirror):
    odd = primary((NEWER, package("new", "1-1", obsoletes=("bash",)))).replace(b'"bash"/>', b'"bash" flags="LT"/>')
    write_files(mirror.folder / MORE, {"primary": ("repodata/primary.xml", odd)}, timestamp=NOW)
    [update], [problem] = look()
    assert update.name == "openssl"
    assert "odd way: bash" in problem.message


def test_repositories_of_another_release_are_told(look):
    others = [replace(each, name=f"other-{each.name}") for each in INSTALLED]
    assert "do not have most of its packages" in only_error(look(others), StateError).message


def test_what_is_known_of_one_repository_counts_though_another_is_silent(look, mirror):
    mirror.more(NEWER)
    (mirror.folder / BASE / "repodata" / "repomd.xml").unlink()
    [update], [problem] = look()
    assert update.name == "openssl"
    assert type(problem) is UnreadableFileError


@pytest.mark.threat("T35")
def test_an_index_that_is_older_than_one_that_was_seen_is_not_believed(look, mirror):
    look()
    mirror.more(NEWER, timestamp=NOW - 1)
    problem = only_error(look(), OlderListError)
    assert "AlmaLinux 9 appstream" in problem.message
    [noted] = re.findall(r"remove (/\S+)\.$", problem.resolution)
    assert json.loads(Path(noted).read_text())["date"] == to_rfc3339(datetime.fromtimestamp(NOW, UTC))
    mirror.more(NEWER, timestamp=NOW)
    assert look()[1] == ()


@pytest.mark.threat("T35")
def test_an_index_counts_as_seen_though_what_it_vouches_for_is_damaged(look, mirror):
    files = {"primary": ("repodata/p.xml", primary([NEWER])), "updateinfo": ("repodata/u.xml", b"<updates>")}
    write_files(mirror.folder / MORE, files, timestamp=NOW + 1)
    only_error(look(), DocumentError)
    mirror.more(NEWER, timestamp=NOW)
    only_error(look(), OlderListError)
    mirror.more(NEWER, timestamp=NOW + 1)
    assert look()[1] == ()


@pytest.mark.parametrize(
    "address",
    [
        "https://mirror.example/alma/",
        "https://mirror.example/alma",
        "https://mirror.example/alma//",
        "https://me:secret@mirror.example/alma/",
        "https://me:se@cret@Mirror.example/alma/",
    ],
)
def test_what_is_kept_of_a_repository_outlives_a_new_password(address):
    assert shelf_name(address) == "https://mirror.example/alma/"


def test_paths_are_no_user_information():
    assert shelf_name("file:///srv/a@b/") == "file:///srv/a@b/"
    assert shelf_name("https://mirror.example/a@b") == "https://mirror.example/a@b/"


def test_what_is_noted_leaves_what_is_kept_as_it_is(tmp_path):
    shelf = Shelf(tmp_path, "name", index="index")
    shelf.note(date="1")
    assert (shelf.document(), shelf.fact("date")) == (None, "1")
    shelf.keep(b"one", Validators(etag='"e"'), set(), date="1", signed="yes")
    shelf.note(date="2")
    assert (shelf.document(), shelf.validators().etag) == (b"one", '"e"')
    assert (shelf.fact("date"), shelf.fact("signed")) == ("2", "yes")


@pytest.mark.threat("T35")
def test_an_index_of_the_future_is_not_believed_and_shuts_nothing_out(look, mirror):
    mirror.more(NEWER, timestamp=99_999_999_999)
    assert "5138" in only_error(look(), FutureListError).message
    mirror.more(NEWER, timestamp=NOW)
    [update], errors = look()
    assert (update.name, errors) == ("openssl", ())


@pytest.mark.threat("T35")
def test_an_index_that_must_be_signed_and_is_not_is_not_believed(look, mirror, monkeypatch):
    # What somebody signed whose key is not here is as good as not signed, ...
    keyless = replace(rpm_releases.find_release("almalinux-9"), key_names=())
    monkeypatch.setitem(rpm_releases._RELEASES, "almalinux-9", keyless)
    (mirror.folder / MORE / "repodata" / "repomd.xml.asc").write_text("signed, they say")
    assert look() == ((), ())
    # ... until its makers promise to sign.
    promised = replace(keyless, signs_indices=True)
    monkeypatch.setitem(rpm_releases._RELEASES, "almalinux-9", promised)
    _, problems = look()
    assert [type(each) for each in problems] == [UnsignedListError, BuildError]


def test_a_file_that_the_index_does_not_vouch_for_is_refused(look, mirror):
    path = mirror.folder / MORE / "repodata" / "primary.xml.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    only_error(look(), ChecksumMismatchError)
    path.write_bytes(path.read_bytes() + b"more")
    only_error(look(), ChecksumMismatchError)


@pytest.mark.threat("T65")
@pytest.mark.parametrize("packed", ["gz", "xz", "zst", ""])
def test_what_unpacks_to_too_much_is_refused(look, mirror, packed, monkeypatch):
    monkeypatch.setattr(packed_index.unpacked, "__kwdefaults__", {"limit_bytes": 100_000})
    document = primary(THERE).replace(b"</metadata>", b" " * 200_000 + b"</metadata>")
    place = f"repodata/primary.xml.{packed}"
    write_files(mirror.folder / MORE, {"primary": (place, packer_of(packed)(document))}, timestamp=NOW)
    assert "unpacks to more than" in only_error(look(), DocumentError).message


@pytest.mark.threat("T65")
@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        ("primary", b'<!DOCTYPE m [<!ENTITY a "aaaa">]><metadata>&a;</metadata>', "document type"),
        ("updateinfo", b'<!DOCTYPE u SYSTEM "file:///etc/passwd"><updates/>', "document type"),
        ("primary", b"<html>Sign in</html>", "another document"),
        ("primary", b"", "no element found"),
    ],
)
def test_a_hostile_file_of_an_index_is_refused(look, mirror, kind, content, why):
    files = {"primary": ("repodata/primary.xml", primary([NEWER])), kind: (f"repodata/{kind}.xml", content)}
    write_files(mirror.folder / MORE, files, timestamp=NOW)
    assert why in only_error(look(), DocumentError).message


def test_an_index_without_packages_is_no_answer(look, mirror):
    write_files(mirror.folder / MORE, {"updateinfo": ("repodata/u.xml", b"<updates/>")}, timestamp=NOW)
    assert "names no packages" in only_error(look(), DocumentError).message


def test_what_was_read_and_what_failed_is_told_once_a_run(settings, mirror):
    (mirror.folder / BASE / "repodata" / "repomd.xml").unlink()
    reader = RpmRepositories(settings, clock=SystemClock(), monitor=SILENT)
    (first,), (second,) = (reader.updates(INSTALLED, ALMALINUX)[1] for _ in range(2))
    assert first is second


def test_where_no_repository_could_be_read_nothing_is_known_and_in_part_is_known_in_part(look, mirror):
    (mirror.folder / BASE / "repodata" / "repomd.xml").unlink()
    assert look()[0] == ()
    for index in mirror.folder.rglob("repomd.xml"):
        index.unlink()
    known, errors = look()
    assert known is None
    assert len(errors) > 1


@pytest.mark.parametrize(
    ("suite", "architecture"), [("almalinux-8", "x86_64"), ("opensuse-leap-15.6", "x86_64"), ("almalinux-9", "aarch64")]
)
def test_where_the_packages_of_a_release_are_is_told_as_unknown_where_nobody_knows(look, suite, architecture):
    system = replace(ALMALINUX.operating_system, architecture=architecture)
    known, [problem] = look(definition=replace(ALMALINUX, suite=suite, operating_system=system))
    assert known is None
    assert suite in problem.message


def test_a_plain_http_mirror_is_not_asked(settings):
    own = replace(settings, factory=replace(settings.factory, mirror="http://mirror.example/alma"))
    known, [problem] = RpmRepositories(own, clock=SystemClock(), monitor=SILENT).updates(INSTALLED, ALMALINUX)
    assert known is None
    assert type(problem) is BuildError


def test_appliances_of_the_rpm_family_are_judged_by_their_repositories(settings, mirror):
    mirror.more(NEWER)
    appraiser = Appraiser(settings=settings, database=None, clock=SystemClock(), monitor=SILENT, find=None)
    [update], errors = appraiser.updates(INSTALLED, ALMALINUX)
    assert (update.name, errors) == ("openssl", ())
    assert appraiser.updates(INSTALLED, replace(ALMALINUX, snapshot="20260131")) == ((), ())
