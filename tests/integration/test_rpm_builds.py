# SPDX-License-Identifier: Apache-2.0
"""The bootstrap builder for the RPM family: real dnf, RPM and namespaces; the repository is made here, and signed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import DefinedFile, Provisioner, ProvisionerKind
from coppice.definition.read import read_definition
from coppice.errors import AuditError, BuildError, ProvisionError
from coppice.factory import build as builds
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap import rpm_releases, supported
from coppice.factory.bootstrap.builder import BootstrapBuilder
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.evidence.inventory import read_inventory
from coppice.factory.model import BuildOptions, Package
from coppice.factory.verification import verify_build
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.testing.rpm_repository import KERNEL, HollowPackage, RpmRepository, system_packages

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[2]
RELEASE = "almalinux-9"
BASE, MORE = "9/BaseOS/x86_64/os", "9/AppStream/x86_64/os"
WEB = HollowPackage(name="web-thing", needs=("busybox",), files={"/usr/share/web/page": "first\\n"})
ANSIBLE = (
    HollowPackage(
        name="ansible-core",
        needs=("busybox", "ansible-helper"),
        files={
            "/usr/bin/ansible-playbook": "#!/bin/sh\\n. /usr/share/helper > /etc/played\\necho 'localhost : ok=1'\\n"
        },
    ),
    HollowPackage(name="ansible-helper", files={"/usr/share/helper": "echo helped\\n"}),
)
DEFINITION = replace(
    read_definition(CHECKOUT / "definitions" / RELEASE), disk_size_bytes=192 * 1024**2, packages=("web-thing",)
)
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def mirror():
    """Give a repository laid out as AlmaLinux's, with all that the release always installs."""
    # GnuPG's agent has a socket in it, whose path must be short.
    place = Path(tempfile.mkdtemp(prefix="rpm-"))
    repository = RpmRepository(place / "mirror", place / "work")
    repository.add(BASE, system_packages(rpm_releases.find_release(RELEASE).packages))
    repository.add(MORE, [WEB, *ANSIBLE])
    yield repository
    repository.close()
    shutil.rmtree(place)


@pytest.fixture
def release(mirror, monkeypatch):
    """Have the release pin the repository's key."""
    pinned = replace(rpm_releases.find_release(RELEASE), fingerprints=(mirror.fingerprint,))
    monkeypatch.setitem(rpm_releases._RELEASES, RELEASE, pinned)
    monkeypatch.setattr(supported, "_LEAST_ROOT_BYTES", 0)
    return pinned


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Give a place where base trees and packages are kept for the tests after the first."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def options(mirror, release, caches, tmp_path):
    return BuildOptions(
        mirror=f"file://{mirror.folder}",
        keyring=mirror.keyring,
        work_directory=tmp_path / "work",
        cache_directory=caches,
    )


def made(definition, tmp_path, options, **more):
    wanted = replace(options, **more)
    return builds.build(definition, root=tmp_path / "factory", options=wanted, clock=CLOCK, monitor=SILENT)


def refused(definition, tmp_path, options):
    """Return the error of a build that fails, which leaves nothing but its log."""
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BuildError) as caught:
        BootstrapBuilder().build(definition, into, options, SILENT)
    assert list((tmp_path / "work").iterdir()) == []
    assert {path.name for path in into.iterdir()} <= {"build.log", "tree"}
    return caught.value


def tree_of(result, tmp_path):
    work = tmp_path / f"look-{result.definition.name}"
    work.mkdir()
    subprocess.run(["qemu-img", "convert", "-O", "raw", result.images[0].path, work / "raw"], check=True)
    return Ext4Disk(work / "raw", disks.ROOT_START_BYTES, work)


def label_of(path, raw):
    words = ["debugfs", "-R", f"ea_get -V {path} security.selinux", f"{raw}?offset={disks.ROOT_START_BYTES}"]
    return subprocess.run(words, capture_output=True, check=True).stdout.rstrip(b"\0\n").decode()


def test_packages_of_the_rpm_family_become_an_image_that_says_what_is_in_it(tmp_path, options, mirror):
    result = made(DEFINITION, tmp_path, options)
    assert Package(name="web-thing", version="1.0-1", architecture="x86_64", manager="rpm", licence="Apache-2.0") in (
        result.packages
    )
    assert "gpg-pubkey" not in {package.name for package in result.packages}
    disk = tree_of(result, tmp_path)
    tree = disk.tree()
    assert tree.text("/usr/share/web/page") == "first\n"
    assert tree.text("/etc/script-ran") == "1970\n"
    assert (tree.get("/vmlinuz").target, tree.get("/initrd.img").target) == (
        f"boot/vmlinuz-{KERNEL}",
        f"boot/initramfs-{KERNEL}.img",
    )
    assert tree.find("/vmlinuz").is_file
    assert tree.find("/initrd.img").is_file
    assert "linux /vmlinuz root=UUID=" in (tree.text("/boot/grub/grub.cfg") or "")
    assert '"groups": ["adm", "systemd-journal", "wheel"]' in (tree.text("/etc/cloud/cloud.cfg.d/99-coppice.cfg") or "")
    assert tree.get("/etc/systemd/system/sysinit.target.wants/coppice-firewall.service").is_link
    assert tree.get("/etc/resolv.conf") is None
    assert not [node.path for node in tree.below("/var/cache/dnf")]
    assert "pkg:rpm/almalinux/web-thing@1.0-1?arch=x86_64&distro=almalinux-9" in (
        (result.directory / "sbom.cdx.json").read_text()
    )
    owner = read_inventory(result.directory).find("/usr/share/web/page")
    assert owner is not None
    assert owner.package == "web-thing"
    index = (mirror.folder / MORE / "repodata" / "repomd.xml").read_bytes()
    wanted = f"sha256:{hashlib.sha256(index).hexdigest()}"
    assert [(each.name, each.digest, each.uri) for each in result.provenance.inputs][1:] == [
        ("index appstream", wanted, "")
    ]
    raw = tmp_path / f"look-{DEFINITION.name}" / "raw"
    labels = {path: label_of(path, raw) for path in ("/etc/shadow", "/usr/bin/sh", "/usr/bin", "/boot/grub/grub.cfg")}
    assert labels == {
        "/etc/shadow": "system_u:object_r:shadow_t:s0",
        "/usr/bin/sh": "system_u:object_r:bin_t:s0",
        "/usr/bin": "system_u:object_r:bin_t:s0",
        "/boot/grub/grub.cfg": "system_u:object_r:default_t:s0",
    }
    # RPM itself agrees with what was read of its record.
    record = tmp_path / "record"
    record.mkdir()
    (record / "rpmdb.sqlite").write_bytes(disk.content(tree.find("/var/lib/rpm/rpmdb.sqlite")))
    query = ["rpm", f"--dbpath={record}", "-qa", "--queryformat=%{name} %{version}-%{release}\\n"]
    said = subprocess.check_output(query, text=True)
    assert sorted(line for line in said.splitlines() if "gpg-pubkey" not in line) == sorted(
        f"{each.name} {each.version}" for each in result.packages
    )


def test_a_child_adds_to_its_parents_tree_what_its_scripts_and_files_say(tmp_path, options):
    parent = made(replace(DEFINITION, name="parent", packages=()), tmp_path, options)
    script = b"#!/bin/sh\necho done by $who > /etc/provisioned\n"
    child = replace(
        DEFINITION,
        name="child",
        parent="parent",
        files=(DefinedFile(path="/etc/motd", content=b"hello\n", mode=0o640, group="wheel"),),
        provisioners=(
            Provisioner(
                name="note",
                kind=ProvisionerKind.SHELL,
                files={"note.sh": script},
                entry="note.sh",
                variables={"who": "it"},
            ),
            Provisioner(name="play", kind=ProvisionerKind.ANSIBLE, files={"site.yml": b"[]\n"}, entry="site.yml"),
        ),
    )
    result = made(child, tmp_path, options, ancestors=(parent,))
    tree = tree_of(result, tmp_path).tree()
    assert tree.text("/etc/provisioned") == "done by it\n"
    # What runs a playbook is there while it runs, and gone afterwards with all that it needed.
    assert tree.text("/etc/played") == "helped\n"
    assert tree.get("/usr/bin/ansible-playbook") is None
    assert tree.get("/usr/share/helper") is None
    motd = tree.get("/etc/motd")
    assert (motd.mode & 0o7777, motd.group) == (0o640, 10)
    assert {each.name for each in result.packages} - {each.name for each in parent.packages} == {"web-thing"}
    assert result.provenance.lineage[0].definition == "parent"


@pytest.mark.soak
def test_a_second_build_of_rpms_from_nothing_gives_the_same_bytes(tmp_path, options):
    first = made(replace(DEFINITION, formats=(DiskFormat.RAW,)), tmp_path, options)
    found = verify_build(first, options=options, monitor=SILENT)
    assert found.differing == ()
    assert found.is_identical


@pytest.mark.soak
def test_an_update_in_the_repository_is_in_the_next_build(tmp_path, options, mirror):
    definition = replace(DEFINITION, name="updated")
    own = tmp_path / "mirror"
    shutil.copytree(mirror.folder, own)
    mine = replace(options, mirror=f"file://{own}")
    first = made(definition, tmp_path, mine)
    newer = RpmRepository.__new__(RpmRepository)
    newer.__dict__ |= {**mirror.__dict__, "folder": own}
    newer.add(MORE, [replace(WEB, version="1.1", files={"/usr/share/web/page": "second\\n"})])
    second = builds.build(definition, root=tmp_path / "factory", options=mine, clock=CLOCK, monitor=SILENT, fresh=True)
    assert {each.version for each in first.packages if each.name == "web-thing"} == {"1.0-1"}
    assert {each.version for each in second.packages if each.name == "web-thing"} == {"1.1-1"}


@pytest.mark.threat("T94")
def test_no_package_without_a_good_signature_is_installed(tmp_path, options, mirror):
    own = tmp_path / "mirror"
    shutil.copytree(mirror.folder, own)
    bare = RpmRepository.__new__(RpmRepository)
    bare.__dict__ |= {**mirror.__dict__, "folder": own}
    bare.add_unsigned(MORE, [HollowPackage(name="nobodys-thing")])
    problem = refused(
        replace(DEFINITION, packages=("nobodys-thing",)), tmp_path, replace(options, mirror=f"file://{own}")
    )
    assert "nobodys-thing" in (problem.details or "")
    assert "is not signed" in (problem.details or "")


@pytest.mark.soak
def test_a_package_that_was_changed_after_it_was_signed_is_not_installed(tmp_path, options, mirror):
    own = tmp_path / "mirror"
    shutil.copytree(mirror.folder, own)
    path = own / MORE / "web-thing-1.0-1.x86_64.rpm"
    data = bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)
    # Whoever serves it makes an index that goes with it.
    subprocess.run(["createrepo_c", "--quiet", own / MORE], check=True)
    problem = refused(DEFINITION, tmp_path, replace(options, mirror=f"file://{own}"))
    assert "web-thing" in (problem.details or "")


def test_a_package_that_there_is_not_and_a_mirror_that_does_not_answer_are_told(tmp_path, options):
    problem = refused(replace(DEFINITION, packages=("no-such-thing",)), tmp_path, options)
    assert "No match for argument: no-such-thing" in (problem.details or "")
    shutil.rmtree(tmp_path / "into")
    problem = refused(DEFINITION, tmp_path, replace(options, mirror="http://127.0.0.1:9/almalinux"))
    assert "Failed to download metadata for repo 'baseos'" in (problem.details or "")


def test_another_key_than_the_pinned_one_is_no_key(tmp_path, options, release, monkeypatch):
    monkeypatch.setitem(rpm_releases._RELEASES, RELEASE, replace(release, fingerprints=("0" * 40,)))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BuildError, match="no key here that signs the packages of AlmaLinux 9") as caught:
        BootstrapBuilder().build(DEFINITION, into, options, SILENT)
    assert "0" * 40 in (caught.value.details or "")
    assert list(into.iterdir()) == []


@pytest.mark.soak
def test_the_audit_of_an_rpm_image_sees_what_is_not_as_its_package_brought_it(tmp_path, options):
    script = b"#!/bin/sh\necho other > /usr/share/web/page\nrm /usr/bin/dracut\n"
    meddling = Provisioner(name="meddle", kind=ProvisionerKind.SHELL, files={"meddle.sh": script}, entry="meddle.sh")
    with pytest.raises(AuditError) as caught:
        made(replace(DEFINITION, name="meddled", provisioners=(meddling,)), tmp_path, options)
    found = {(each["check"], each["path"]) for each in caught.value.context["findings"]}
    assert {("modified-file", "/usr/share/web/page"), ("modified-file", "/usr/bin/dracut")} <= found


@pytest.mark.soak
def test_a_script_that_fails_in_a_tree_of_rpms_is_told_with_the_end_of_its_log(tmp_path, options):
    failing = Provisioner(
        name="fail", kind=ProvisionerKind.SHELL, files={"fail.sh": b"#!/bin/sh\necho alas\nexit 3\n"}, entry="fail.sh"
    )
    with pytest.raises(ProvisionError, match="fail failed") as caught:
        made(replace(DEFINITION, name="failing", provisioners=(failing,)), tmp_path, options)
    assert "alas" in (caught.value.details or "")
