# SPDX-License-Identifier: Apache-2.0
"""Appliances of the RPM family keep fresh: real repositories of signed packages, and a builder that stands in."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.test_rebuild import StandIn, definition, empty_database, site  # noqa: F401 - fixtures

from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.errors import HttpStatusError, TamperedListError, UnsignedListError, UntrustedSignerError
from coppice.factory.bootstrap import rpm_releases
from coppice.factory.model import Package
from coppice.factory.staleness import Choice, Trigger
from coppice.formats.rpm_version import RpmVersion
from coppice.model.operating_system import OperatingSystem
from coppice.monitor import SILENT
from coppice.settings.load import load_settings
from coppice.testing.behaviours import conditional, status
from coppice.testing.openpgp import GnuPg
from coppice.testing.repodata import MadeUpAdvisory, MadeUpPackage
from coppice.testing.rpm_repository import HollowPackage, RpmRepository
from coppice.testing.server import LoopbackServer
from coppice.workflows.rpm_repositories import RpmRepositories

pytestmark = pytest.mark.integration

RELEASE = "almalinux-9"
ALMALINUX = read_definition(Path(__file__).parents[2] / "definitions" / RELEASE)
BASE, MORE = "9/BaseOS/x86_64/os", "9/AppStream/x86_64/os"
FIRST = {"openssl": "3.0.1-1", "jq": "1.6-1"}
FIXED = MadeUpAdvisory(packages=(MadeUpPackage(name="openssl", version="3.0.2-1"),), severity="Critical")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def mirror_once():
    # GnuPG's agent has a socket in it, whose path must be short.
    place = Path(tempfile.mkdtemp(prefix="rpm-"))
    repository = RpmRepository(place / "mirror", place / "work")
    repository.add(BASE, [HollowPackage(name="openssl", version="3.0.1")])
    repository.add(MORE, [HollowPackage(name="jq", version="1.6")])
    for where in (BASE, MORE):
        repository.advise(where, [])
        repository.sign_index(where)
    yield repository
    repository.close()
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def pinned(mirror_once, monkeypatch):
    """Have the release pin the repository's key."""
    release = replace(rpm_releases.find_release(RELEASE), fingerprints=(mirror_once.fingerprint,))
    monkeypatch.setitem(rpm_releases._RELEASES, RELEASE, release)
    return release


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


def installed(versions=FIRST):
    return tuple(
        Package(name=name, version=version, architecture="x86_64", manager="rpm") for name, version in versions.items()
    )


def look(settings):
    updates, errors = RpmRepositories(settings, clock=SystemClock(), monitor=SILENT).updates(installed(), ALMALINUX)
    return {each.name: (each.available, each.is_security) for each in updates}, [type(each) for each in errors]


def index_of(mirror, where=BASE):
    return mirror.folder / where / "repodata" / "repomd.xml"


@pytest.fixture
def rpm_site(site, monkeypatch):  # noqa: F811 - the fixture of that name
    """Have the builder that stands in install RPM packages."""
    build = StandIn.build

    def build_of_rpms(self, *words):
        output = build(self, *words)
        return replace(output, packages=installed(StandIn.installed))

    monkeypatch.setattr(StandIn, "build", build_of_rpms)
    monkeypatch.setattr(StandIn, "installed", dict(FIRST))
    system = OperatingSystem(kind="Linux", distribution="AlmaLinux", version="9", architecture="x86_64")
    rpm = {"suite": RELEASE, "operating_system": system}
    site.definitions = {"base": definition("base", **rpm), "web": definition("web", "base", **rpm)}
    return site


def test_a_security_update_of_an_rpm_is_noticed_built_tested_and_published_the_children_after_their_parent(rpm_site):
    site, mirror = rpm_site, rpm_site.mirror  # noqa: F811 - as above
    site.add("base", "web")
    before = site.desk.listed()
    assert site.choices() == {"base": Choice.FRESH, "web": Choice.FRESH}
    site.desk.clock.advance(DAY)
    mirror.add(BASE, [HollowPackage(name="openssl", version="3.0.2")])
    mirror.advise(BASE, [FIXED])
    mirror.sign_index(BASE)
    looked = site.rebuild(dry_run=True)
    assert StandIn.built == []
    assert [each.decision.triggers for each in looked.appraisals] == [(Trigger.SECURITY,), (Trigger.SECURITY,)]
    assert looked.appraisals[0].decision.reasons == ("1 package with security updates, up to critical: openssl",)
    StandIn.installed["openssl"] = "3.0.2-1"
    report = site.rebuild()
    assert (StandIn.built, report.errors) == (["base", "web"], ())
    assert all(each.is_done and each.result.is_new for each in report.ended)
    after = site.desk.listed()
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)
    assert set(site.choices().values()) == {Choice.FRESH}
    # Who answers in its name without its key is not believed, and nothing is taken for fresh.
    index_of(mirror).with_name("repomd.xml.asc").unlink()
    report = site.rebuild()
    assert {each.decision.choice for each in report.appraisals} == {Choice.UNKNOWN}
    assert [type(problem) for problem in report.errors] == [UnsignedListError]


@pytest.mark.threat("T35")
def test_an_index_that_was_changed_after_it_was_signed_is_not_believed(settings, mirror):
    assert look(settings) == ({}, [])
    document = index_of(mirror).read_bytes()
    index_of(mirror).write_bytes(document.replace(b"<revision>", b"<revision>1"))
    assert look(settings) == ({}, [TamperedListError])


@pytest.mark.threat("T35")
def test_what_somebody_else_signed_is_not_believed_where_a_pinned_key_had_signed(settings, mirror):
    with GnuPg() as gnupg:
        mallory = gnupg.make_key("Mallory")
        signed = gnupg.sign_detached(index_of(mirror).read_bytes(), mallory)
    signature = index_of(mirror).with_name("repomd.xml.asc")
    own = signature.read_bytes()
    signature.write_bytes(signed)
    # Of a repository that was never signed by a pinned key, it is as good as no signature: it is as it always was.
    assert look(settings) == ({}, [])
    signature.write_bytes(own)
    assert look(settings) == ({}, [])
    signature.write_bytes(signed)
    assert look(settings) == ({}, [UntrustedSignerError])


def test_over_http_an_unchanged_index_is_fetched_once_and_its_packages_too(settings, mirror):
    with LoopbackServer() as server:
        for file in mirror.folder.rglob("repodata/*"):
            server.set(f"/{file.relative_to(mirror.folder)}", conditional(file.read_bytes(), etag='"1"'))
        own = replace(settings, factory=replace(settings.factory, mirror=server.url("")))
        assert look(own) == ({}, [])
        assert look(own) == ({}, [])
        asked = [request.path for request in server.requests]
        assert len([path for path in asked if path.endswith("repomd.xml")]) == 4
        assert len([path for path in asked if "-primary.xml" in path]) == 2
        # A server that fails says nothing of whether there is a signature.
        server.set(f"/{BASE}/repodata/repomd.xml.asc", status(503))
        assert look(own) == ({}, [HttpStatusError])
        server.set(f"/{BASE}/repodata/repomd.xml.asc", status(404))
        assert look(own) == ({}, [UnsignedListError])


def test_a_password_in_the_address_of_a_mirror_is_not_told(settings):
    mirror = "https://somebody:hunter2@127.0.0.1:9/alma"
    own = replace(settings, factory=replace(settings.factory, mirror=mirror))
    _, problems = RpmRepositories(own, clock=SystemClock(), monitor=SILENT).updates(installed(), ALMALINUX)
    assert len(problems) == 2
    assert "hunter2" not in "".join(str(each.as_dict()) for each in problems)


def test_the_order_of_versions_is_rpms_own():
    chance = random.Random(7)  # noqa: S311 - a test must run the same way each time
    parts = ["".join(chance.choices("0019aabZ.~^_+", k=chance.randint(1, 7))) for _ in range(600)]
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    asked = ",".join(f"rpm.vercmp('{one}','{other}')" for one, other in pairs)
    said = subprocess.check_output(
        ["rpm", "--eval", f"%{{lua:print(table.concat({{{asked}}}, ' '))}}"], text=True, timeout=60
    )
    ours = [(RpmVersion(one) > RpmVersion(other)) - (RpmVersion(one) < RpmVersion(other)) for one, other in pairs]
    assert ours == [int(each) for each in said.split()]
    assert set(ours) == {-1, 0, 1}


@pytest.mark.soak
def test_what_has_updates_is_what_dnf_would_upgrade(settings, mirror, tmp_path):
    newer = [
        HollowPackage(name="openssl", version="3.0.2"),
        HollowPackage(name="kept", version="2.0~rc1"),
        HollowPackage(name="moved", version="2.0", architecture="noarch"),
    ]
    older = [
        HollowPackage(name="kept", version="2.0"),
        HollowPackage(name="moved", version="1.0"),
        HollowPackage(name="jq", version="1.5"),
    ]
    packages = RpmRepository(tmp_path / "old", Path(tempfile.mkdtemp(prefix="rpm-")))
    packages.add_unsigned("all", [*older, HollowPackage(name="openssl", version="3.0.1")])
    root = tmp_path / "root"
    (root / "var/lib/rpm").mkdir(parents=True)
    rpms = sorted((packages.folder / "all").glob("*.rpm"))
    words = ["rpm", f"--root={root}", "-i", "--justdb", "--nodeps", "--noscripts", "--nosignature", *rpms]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    packages.close()
    mirror.add(BASE, newer)
    mirror.advise(BASE, [FIXED])
    mirror.sign_index(BASE)
    configuration = tmp_path / "dnf.conf"
    configuration.write_text(
        "[main]\nplugins=0\ncachedir=/cache\n"
        + "".join(f"[r{number}]\nname=r\nbaseurl={mirror.uri}/{where}\n" for number, where in enumerate((BASE, MORE)))
    )
    dnf = ["dnf", "-q", f"--config={configuration}", f"--installroot={root}", "--releasever=9", "--setopt=reposdir=/no"]
    listed = subprocess.run([*dnf, "check-update"], check=False, capture_output=True, text=True, timeout=120)
    theirs = {
        line.split()[0].rpartition(".")[0]: line.split()[1] for line in listed.stdout.splitlines() if line.strip()
    }
    said = subprocess.check_output([*dnf, "updateinfo", "list", "--security"], text=True, timeout=120)
    known = {"openssl": "3.0.1-1", "kept": "2.0-1", "moved": "1.0-1", "jq": "1.5-1"}
    updates, errors = RpmRepositories(settings, clock=SystemClock(), monitor=SILENT).updates(
        installed(known), ALMALINUX
    )
    assert errors == ()
    assert {each.name: each.available for each in updates} == theirs
    assert set(theirs) == {"openssl", "moved", "jq"}
    assert [each.name for each in updates if each.is_security] == ["openssl"]
    assert "openssl-3.0.2-1.x86_64" in said
