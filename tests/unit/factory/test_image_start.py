# SPDX-License-Identifier: Apache-2.0
"""What the builders image and prebuilt refuse, and what they lay over an image; nothing is run."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from coppice.definition.model import (
    Access,
    Boot,
    DefinedFile,
    DefinedUser,
    FileSystemKind,
    Firewall,
    Provisioner,
    ProvisionerKind,
    Services,
    Start,
)
from coppice.definition.read import read_definition
from coppice.errors import BuildError, DefinitionError
from coppice.factory.bootstrap.dpkg import STATUS
from coppice.factory.bootstrap.listing import Kind
from coppice.factory.bootstrap.listing import Node as Listed
from coppice.factory.bootstrap.suites import find_suite
from coppice.factory.evidence.tree import GuestTree, Node
from coppice.factory.image_start import builder as image_builder
from coppice.factory.image_start import supported
from coppice.factory.image_start.layer import ImageLayerMaker, is_left_alone
from coppice.factory.image_start.overlay import overlay_of, packages_of, with_own
from coppice.factory.image_start.release import check_release
from coppice.factory.model import BuildOptions, Package
from coppice.factory.prebuilt import builder as prebuilt_builder
from coppice.factory.prebuilt import claims
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Architecture

pytestmark = pytest.mark.unit

START = Start(url="https://images.example.org/i.qcow2", checksum=f"sha512:{'0' * 128}")
SHIPPED = read_definition(Path(__file__).parents[3] / "definitions" / "debian-12")
OWN = replace(SHIPPED, name="own", start=START)
OPTIONS = BuildOptions(mirror="http://mirror.example/debian", starts=object())
SCRIPT = Provisioner(name="say", kind=ProvisionerKind.SHELL, files={"s": b"#!/bin/sh\n"}, entry="s")
SYSTEM = OWN.operating_system


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"formats": (DiskFormat.VHDX,)}, "vhdx"),
        ({"suite": "nonsense"}, "nonsense"),
        ({"operating_system": replace(SYSTEM, architecture=Architecture.AARCH64.value)}, "aarch64"),
        ({"boot": Boot(menu_seconds=3)}, "boot loader"),
        ({"file_system": FileSystemKind.XFS}, "xfs"),
        ({"is_encrypted": True}, "encrypted"),
        ({"platforms": {"qemu": {"a": 1}}}, "hypervisors"),
        ({"start": None}, "none is named"),
        ({"parent": "other"}, "of which there is no build"),
        ({"packages": ("linux-image-amd64",)}, "kernel and boot loader"),
        ({"packages": ("grub-pc",)}, "kernel and boot loader"),
        ({"provisioners": (replace(SCRIPT, kind=ProvisionerKind.CHEF),)}, "chef"),
    ],
)
def test_what_the_image_builder_does_not_do_is_refused(changes, said):
    supported.check_supported(OWN, OPTIONS)
    with pytest.raises(BuildError) as caught:
        supported.check_supported(replace(OWN, **changes), OPTIONS)
    assert said in caught.value.message
    assert caught.value.resolution


@pytest.mark.parametrize("path", ["/etc/hostname", "/etc/apt/sources.list", "/etc/machine-id", "/var/lib/cloud/x"])
def test_a_file_that_would_be_passed_over_is_refused(path):
    with pytest.raises(DefinitionError, match="cannot be laid in"):
        supported.check_supported(replace(OWN, files=(DefinedFile(path=path, content=b""),)), OPTIONS)


def test_a_unit_that_access_switches_is_not_for_services():
    unit = next(path for path in overlay_of(OWN).entries if ".wants/" in path).rpartition("/")[2]
    with pytest.raises(DefinitionError, match="not for services"):
        supported.check_supported(replace(OWN, services=Services(disabled=(unit,))), OPTIONS)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"packages": ("jq",)}, "build.packages"),
        ({"files": (DefinedFile(path="/etc/x", content=b""),)}, "[[file]]"),
        ({"users": (DefinedUser(name="worker"),)}, "[[user]]"),
        ({"services": Services(enabled=("x.service",))}, "[services]"),
        ({"provisioners": (SCRIPT,)}, "[[provisioner]]"),
        ({"contextualisation": replace(OWN.contextualisation, user_data=b"#!/bin/sh\n")}, "user-data"),
        ({"boot": Boot(secure_boot=True)}, "[boot]"),
        ({"snapshot": "20260101T000000Z"}, "build.snapshot"),
        ({"parent": "other"}, "from"),
        ({"start": None}, "[start]"),
        ({"formats": (DiskFormat.VHDX,)}, "build.formats"),
    ],
)
def test_what_would_be_written_into_a_prebuilt_image_is_refused(changes, key):
    plain = replace(OWN, packages=())
    claims.check_supported(plain, OPTIONS)
    with pytest.raises(BuildError) as caught:
        claims.check_supported(replace(plain, **changes), OPTIONS)
    assert key in f"{caught.value.message} {caught.value.resolution}"


def tree(*paths):
    nodes = {path: Node(path=path, inode=number, mode=stat.S_IFLNK | 0o777) for number, path in enumerate(paths)}
    return GuestTree(nodes, lambda _node: b"")


def installed(*names):
    return [Package(name=name, version="1", architecture="amd64") for name in names]


WANTED = "/etc/systemd/system/sysinit.target.wants/nftables.service"


def test_what_is_said_of_an_image_is_held_against_it():
    there = installed("cloud-init", "openssh-server")
    claims.check_claims(OWN, there, tree(WANTED), OWN.disk_size_bytes)
    wrong = (
        (OWN, there, tree(), "firewall.enabled"),
        (OWN, installed("cloud-init"), tree(WANTED), "access.ssh"),
        (OWN, installed("openssh-server"), tree(WANTED), "cloud-init"),
        (replace(OWN, access=Access(web_console=True)), there, tree(WANTED), "access.web-console"),
    )
    for definition, packages, found, key in wrong:
        with pytest.raises(BuildError) as caught:
            claims.check_claims(definition, packages, found, OWN.disk_size_bytes)
        assert key in caught.value.message
    with pytest.raises(BuildError, match="disk has 512 bytes"):
        claims.check_claims(OWN, there, tree(WANTED), 512)
    claims.check_claims(replace(OWN, firewall=Firewall(enabled=False)), there, tree(), OWN.disk_size_bytes)


def test_an_image_for_another_processor_than_said_is_refused():
    there = [*installed("cloud-init", "openssh-server"), Package(name="dpkg", version="1", architecture="arm64")]
    with pytest.raises(BuildError, match=r"operating-system\.architecture is x86_64, and the image is for arm64"):
        claims.check_claims(OWN, there, tree(WANTED), OWN.disk_size_bytes)
    own = replace(OWN, operating_system=replace(SYSTEM, architecture=Architecture.AARCH64.value))
    claims.check_claims(own, there, tree(WANTED), OWN.disk_size_bytes)
    claims.check_claims(OWN, installed("cloud-init", "openssh-server", "dpkg"), tree(WANTED), OWN.disk_size_bytes)


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", True),
        ('VERSION_CODENAME="bookworm"\n', True),
        ("ID=none\n", False),
        ("", False),
        ("VERSION_CODENAME=trixie\n", False),
        ("VERSION_CODENAME='noble'\r\n", False),
        ("VERSION_CODENAME=bookworm\nVERSION_CODENAME=trixie\n", False),
    ],
)
def test_an_image_of_another_release_than_said_is_refused(said, is_right):
    nodes = {
        "/etc/os-release": Node(
            path="/etc/os-release", inode=1, mode=stat.S_IFLNK | 0o777, target="../usr/lib/os-release"
        ),
        "/usr/lib/os-release": Node(path="/usr/lib/os-release", inode=2, mode=stat.S_IFREG | 0o644, size_bytes=1),
    }
    found = GuestTree(nodes, lambda _node: said.encode())
    if is_right:
        check_release(OWN, found, "i.qcow2")
        return
    said_or_not = r"(says that it is of (trixie|noble)|does not say of which release it is)"
    with pytest.raises(BuildError, match=rf"i\.qcow2 {said_or_not}, and own is of bookworm"):
        check_release(OWN, found, "i.qcow2")


def test_both_builders_hold_the_release_against_what_the_image_says(monkeypatch):
    nodes = {path: Node(path=path, inode=1, mode=stat.S_IFREG | 0o644) for path in ("/etc/os-release", STATUS)}
    found = GuestTree(nodes, lambda _node: b"VERSION_CODENAME=trixie\n")
    start = SimpleNamespace(raw=Path("i.raw"), name="i.qcow2")
    for module in (image_builder, prebuilt_builder):
        monkeypatch.setattr(module, "find_root", lambda _raw: SimpleNamespace(start_bytes=0))
    monkeypatch.setattr(prebuilt_builder, "check_clean", lambda *_arguments: None)
    monkeypatch.setattr(prebuilt_builder, "Ext4Disk", lambda *_arguments: SimpleNamespace(tree=lambda: found))
    with pytest.raises(BuildError, match="of trixie"):
        prebuilt_builder._looked_into(OWN, start, Path())
    monkeypatch.setattr(image_builder._Run, "_sized", lambda _self, root: root)
    content = SimpleNamespace(tree=found, status=b"Package: base\n")
    monkeypatch.setattr(image_builder, "read_content", lambda *_arguments: content)
    task = SimpleNamespace(note=lambda _text: None)
    with pytest.raises(BuildError, match="of trixie"):
        image_builder._Run(definition=OWN, options=OPTIONS, work=Path(), start=start, task=task, log=None).change()


def test_kernels_and_boot_loaders_are_known_by_their_names():
    alone = ("linux-image-cloud-amd64", "linux-headers-6.1", "grub-efi-amd64-signed", "grub2-common", "shim-signed")
    assert all(is_left_alone(name) for name in alone)
    # Ubuntu's have names that bring the others.
    assert all(is_left_alone(name) for name in ("linux-generic", "linux-virtual-hwe-24.04", "linux-kvm", "linux-aws"))
    assert not any(is_left_alone(name) for name in ("linux-libc-dev", "linux-base", "nginx", "memtest86+"))


def test_access_firewall_and_cloud_init_are_laid_over_an_image_and_nothing_of_its_disk():
    entries = overlay_of(OWN).entries
    assert entries["/etc/machine-id"].content == b""
    assert any("nftables" in path for path in entries)
    assert not {"/etc/fstab", "/boot/grub/grub.cfg", "/etc/hosts", "/etc/default/grub"} & entries.keys()
    assert set(packages_of(replace(OWN, packages=("jq",)))) > {"jq"}


def test_the_sources_of_an_image_are_its_own_but_for_what_the_definition_brings():
    def file(text):
        return Listed(kind=Kind.FILE, digest=text)

    before = {"/etc/hostname": file("theirs"), "/etc/apt/sources.list.d/a.list": file("theirs")}
    after = {
        "/etc/hostname": file("ours"),
        "/etc/apt/sources.list": file("ours"),
        "/etc/apt/sources.list.d/new.list": file("new"),
        "/etc/other": file("ours"),
    }
    found = with_own(OWN, before, after)
    assert {path: node.digest for path, node in found.items()} == {
        "/etc/hostname": "theirs",
        "/etc/apt/sources.list.d/a.list": "theirs",
        "/etc/apt/sources.list.d/new.list": "new",
        "/etc/other": "ours",
    }
    stated = DefinedFile(path="/etc/apt/sources.list.d/a.list", content=b"")
    after["/etc/apt/sources.list.d/a.list"] = file("stated")
    found = with_own(replace(OWN, files=(stated,)), before, after)
    assert found["/etc/apt/sources.list.d/a.list"].digest == "stated"


def test_the_images_own_sources_are_hidden_by_a_program_that_sees_nothing_but_the_image(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(ImageLayerMaker, "_make", lambda _self, _layers, *options, **_more: seen.extend(options))
    maker = ImageLayerMaker(
        suite=find_suite("bookworm"), sources=(), work=tmp_path, timeout_seconds=1, on_output=lambda _: None
    )
    maker.make_over(tmp_path / "layer", ("jq",), None, lambda: None)
    (hook,) = [each.partition("=")[2] for each in seen if each.startswith("--setup-hook=")]
    assert hook.startswith('chroot "$1" ')
    assert '"$1"/' not in hook
