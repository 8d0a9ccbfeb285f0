# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from coppice.errors import BuildError, NoSpaceError, ToolFailedError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.dpkg import read_packages
from coppice.factory.bootstrap.filesystem import free_blocks
from coppice.factory.bootstrap.parents import MAX_AGE_SECONDS, obtain_parent, parent_key
from coppice.factory.bootstrap.room import room_in_memory
from coppice.factory.bootstrap.rpm_releases import find_release
from coppice.factory.bootstrap.rpm_repositories import repositories
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.bootstrap.tree import TreeMaker

pytestmark = pytest.mark.unit

GIB = 1024**3


def test_a_mirror_brings_updates_and_security_updates_along():
    suite = find_suite("bookworm")
    assert sources(suite, "http://mirror.example/debian/") == (
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    )


def test_ubuntu_has_its_security_updates_in_the_archive_itself():
    noble = find_suite("noble")
    assert sources(noble, "http://mirror.example/ubuntu")[2] == (
        "deb http://mirror.example/ubuntu noble-security main universe"
    )
    assert {line.split()[2] for line in sources(noble, None)} == {"noble", "noble-updates", "noble-security"}


def test_each_release_has_a_kernel_and_a_resolver_of_its_own():
    assert "linux-image-cloud-amd64" in find_suite("trixie").base_packages
    assert "linux-image-virtual" in find_suite("noble").base_packages
    assert "systemd-resolved" in find_suite("noble").base_packages
    assert "systemd-resolved" not in find_suite("jammy").base_packages
    assert "systemd-resolved" not in find_suite("bullseye").base_packages


def test_packages_of_a_directory_are_copied_because_they_cannot_be_seen_from_inside():
    assert sources(find_suite("bookworm"), "file:///srv/debian")[0] == "deb copy:///srv/debian bookworm main"


@pytest.mark.parametrize(
    "mirror", ["", "--help", "mirror.example", "http://a b", "http://a\ndeb http://b", "[trusted=yes] http://a"]
)
def test_a_mirror_that_is_no_address_is_refused(mirror):
    with pytest.raises(BuildError, match="not the address"):
        sources(find_suite("bookworm"), mirror)


@pytest.mark.parametrize(
    ("mirror", "snapshot"),
    [
        ("https://me:s3cret@mirror.example/debian", "20260131T000000Z"),
        ("https://me:s3cret@mirror.example/{snapshot}", ""),
        ("https://me:s3cret@mirror.example/a b", ""),
        ("https://me:a/s3cret@mirror.example/a b", ""),
        ("https://me:a?s3cret@b@mirror.example/a b", ""),
        ("ftp:me:s3cret@mirror.example/a", ""),
        ("me:s3cret@mirror.example/a", ""),
        ("s3cret:pw@mirror.example/a", ""),
        ("scret:s3cret@mirror.example/a", ""),
        ("//me:s3cret@mirror.example/a", ""),
    ],
)
@pytest.mark.parametrize(
    ("lines", "release"), [(sources, find_suite("bookworm")), (repositories, find_release("almalinux-9"))]
)
def test_no_message_tells_the_password_of_a_mirror(mirror, snapshot, lines, release):
    with pytest.raises(BuildError) as caught:
        lines(release, mirror, snapshot)
    assert "s3cret" not in f"{caught.value.message} {caught.value.resolution} {caught.value.details}"
    assert "…@mirror.example/" in caught.value.message


def test_a_snapshot_is_a_path_of_the_archive_and_may_have_expired():
    lines = sources(find_suite("noble"), None, "20260131T000000Z")
    assert lines[0].startswith("deb [check-valid-until=no] http://snapshot.ubuntu.com/ubuntu/20260131T000000Z noble ")
    own = sources(find_suite("bookworm"), "http://mirror.example/{snapshot}/debian", "20260131T000000Z")
    assert "http://mirror.example/20260131T000000Z/debian-security bookworm-security" in own[2]


@pytest.mark.parametrize(
    ("mirror", "snapshot", "said"),
    [
        ("http://mirror.example/debian", "20260131T000000Z", "has no snapshots by name"),
        ("http://mirror.example/{snapshot}/debian", "", "needs to be told a snapshot"),
        (None, "20260131T000000Z", "no mirror is set that has snapshots of Debian"),
        (None, "yesterday", "not the name of a snapshot"),
        (None, "20260131T000000Z/../..", "not the name of a snapshot"),
    ],
)
def test_a_snapshot_that_cannot_be_had_is_refused(mirror, snapshot, said):
    with pytest.raises(BuildError, match=said):
        sources(find_suite("bookworm"), mirror, snapshot)


def test_an_unknown_suite_is_refused_with_those_that_are_known():
    with pytest.raises(BuildError) as caught:
        find_suite("woody")
    assert "bookworm, bullseye" in (caught.value.resolution or "")
    assert "trixie" in (caught.value.resolution or "")


def machine(tmp_path, available_kib, limit=None, used=0):
    memory = tmp_path / "meminfo"
    memory.write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kib} kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    return {"memory": memory, "group": tmp_path}


def test_a_tree_stands_in_half_of_the_free_memory_where_that_is_enough(tmp_path):
    assert room_in_memory(**machine(tmp_path, 8 * 1024 * 1024)) == 4 * GIB
    assert room_in_memory(**machine(tmp_path, 1024 * 1024)) == 0
    assert room_in_memory(always=True, **machine(tmp_path, 1024 * 1024)) > GIB


def test_the_limit_of_a_container_counts_and_no_limit_does_not(tmp_path):
    assert room_in_memory(**machine(tmp_path, 64 * 1024 * 1024, limit=6 * GIB, used=GIB)) == 5 * GIB // 2
    assert room_in_memory(**machine(tmp_path, 64 * 1024 * 1024, limit=2 * GIB)) == 0
    assert room_in_memory(**machine(tmp_path, 64 * 1024 * 1024, limit="max")) == 32 * GIB


def test_free_extents_are_read_from_what_dumpe2fs_says():
    head = "Last mounted on: /\nGroup 0: (Blocks\n  Free blocks: 1-5\n"
    first = "\nGroup 0: (Blocks 0-99)\n  Free blocks: 9-12, 20\n  Free inodes: 1-4\n"
    groups = f"{first}Group 1: (Blocks 100-149)\n  Free blocks: \n"
    assert free_blocks(head + groups, 150) == [(9, 12), (20, 20)]
    # What is cut off, or has no groups, is not taken for a file system in which nothing is free.
    for cut in (head, head + groups[: groups.index("Group 1")], (head + groups)[:-16], groups.replace("Group 0", "")):
        with pytest.raises(BuildError, match="does not say where it is free"):
            free_blocks(cut, 150)


@pytest.mark.parametrize("extent", ["9-30", "12-9", "-3", "a", "9" * 30, "1-2-3"])
def test_free_extents_that_cannot_be_are_an_error(extent):
    with pytest.raises(BuildError, match="does not say where it is free"):
        free_blocks(f"\nGroup 0: (Blocks 0-29)\n  Free blocks: {extent}\n", 30)


def test_the_boot_sector_points_to_the_core_image_and_the_core_to_its_rest():
    boot, core = disks.bios_boot_code(b"\0" * 510 + b"\x55\xaa", b"\xee" * 1300)
    assert int.from_bytes(boot[0x5C:0x64], "little") == 2048
    assert boot[0x64] == 0xFF
    assert boot[0x66:0x68] == b"\x90\x90"
    assert int.from_bytes(core[500:508], "little") == 2049
    assert int.from_bytes(core[508:510], "little") == 2
    assert int.from_bytes(core[510:512], "little") == 0x820
    assert core[512:] == b"\xee" * 788


@pytest.mark.parametrize(
    ("boot", "core"),
    [(b"short", b"x" * 2000), (b"\0" * 512, b"x" * 2000), (b"\0" * 510 + b"\x55\xaa", b"x" * (2 << 20))],
)
def test_boot_code_that_cannot_be_grubs_is_refused(boot, core):
    with pytest.raises(BuildError):
        disks.bios_boot_code(boot, core)


def test_every_name_on_the_disk_follows_from_the_seed():
    assert disks.Names("a").uuid("root") == disks.Names("a").uuid("root")
    assert disks.Names("a").uuid("root") != disks.Names("b").uuid("root")
    assert disks.Names("a").uuid("root") != disks.Names("a").uuid("disk")
    assert len(disks.Names("a").volume()) == 8


STATUS = b"""\
Package: jq
Status: install ok installed
Architecture: amd64
Version: 1.6-2

Package: bash
Status: hold ok installed
Architecture: amd64
Description: shell
 Version: not this
Version: 5.2-1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def test_installed_packages_are_read_by_name_and_removed_ones_passed_over():
    assert [(package.name, package.version) for package in read_packages(STATUS)] == [
        ("bash", "5.2-1"),
        ("jq", "1.6-2"),
    ]


def test_a_half_installed_package_fails_the_build():
    with pytest.raises(BuildError, match="jq is not properly installed"):
        read_packages(STATUS.replace(b"install ok installed", b"install ok half-configured"))


def test_a_source_package_is_named_where_it_is_another():
    said = STATUS.replace(b"Version: 1.6-2\n", b"Version: 1.6-2+b1\nSource: jq-src (1.6-2)\n")
    packages = {package.name: package for package in read_packages(said)}
    assert (packages["jq"].source, packages["jq"].source_version) == ("jq-src", "1.6-2")
    assert (packages["bash"].source, packages["bash"].source_version) == ("", "")


def test_a_parent_is_made_once_and_again_when_it_is_old(tmp_path):
    made = []

    def make(path):
        made.append(path)
        path.write_bytes(b"tree")

    path, new = obtain_parent(tmp_path, "key", make, on_wait=lambda: None)
    assert new
    assert obtain_parent(tmp_path, "key", make, on_wait=lambda: None) == (path, False)
    old = path.stat().st_mtime - MAX_AGE_SECONDS - 1
    os.utime(path, (old, old))
    assert obtain_parent(tmp_path, "key", make, on_wait=lambda: None) == (path, True)
    assert len(made) == 2


def test_a_parent_that_could_not_be_made_leaves_nothing(tmp_path):
    def make(path):
        path.write_bytes(b"half")
        raise BuildError("no")

    with pytest.raises(BuildError):
        obtain_parent(tmp_path, "key", make, on_wait=lambda: None)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


def test_the_half_made_parent_of_a_killed_run_is_swept(tmp_path):
    left = tmp_path / ".coppice-key.tar.zst-0123.partial"
    left.write_bytes(b"half")
    obtain_parent(tmp_path, "key", lambda path: path.write_bytes(b"tree"), on_wait=lambda: None)
    assert not left.exists()


def test_parents_of_other_mirrors_and_releases_are_others():
    bookworm, trixie = find_suite("bookworm"), find_suite("trixie")
    assert parent_key(bookworm, (), "b 1") != parent_key(trixie, (), "b 1")
    assert parent_key(bookworm, (), "b 1") != parent_key(bookworm, ("deb x",), "b 1")
    assert parent_key(bookworm, (), "b 1") != parent_key(bookworm, (), "b 2")
    assert parent_key(bookworm, (), "b 1", "k 1") != parent_key(bookworm, (), "b 1", "k 2")


def test_packages_and_indices_that_were_long_not_fetched_are_forgotten_with_old_trees(tmp_path):
    old_package, new_package = tmp_path / "packages" / "debian" / "a.deb", tmp_path / "packages" / "debian" / "b.deb"
    old_package.parent.mkdir(parents=True)
    for path in (old_package, new_package):
        path.write_bytes(b"deb")
    long_ago = old_package.stat().st_mtime - MAX_AGE_SECONDS - 2 * 24 * 3600
    os.utime(old_package, (long_ago, long_ago))
    obtain_parent(tmp_path, "key", lambda path: path.write_bytes(b"tree"), on_wait=lambda: None)
    assert not old_package.exists()
    assert new_package.exists()


def test_the_default_mirror_is_the_bootstrappers_own(tmp_path, monkeypatch):
    program = tmp_path / "mmdebstrap"
    program.write_text("#!/usr/bin/perl\n    my $mirror    = 'http://mirror.example/debian';\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sources(find_suite("bookworm"), None) == (
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    )
    program.write_text("#!/usr/bin/perl\n")
    with pytest.raises(BuildError, match="does not say where"):
        sources(find_suite("bookworm"), None)


def test_each_kind_of_processors_has_a_kernel_and_a_loader_of_its_own():
    arm = find_suite("bookworm", "aarch64")
    assert {"linux-image-cloud-arm64", "grub-efi-arm64-bin"} <= set(arm.base_packages)
    assert not {"linux-image-cloud-amd64", "grub-pc-bin", "grub-efi-amd64-bin"} & set(arm.base_packages)
    assert {"grub-pc-bin", "grub-efi-amd64-bin"} <= set(find_suite("bookworm").base_packages)
    assert parent_key(arm, (), "b 1") != parent_key(find_suite("bookworm"), (), "b 1")


def hooks_of(monkeypatch, make, **facts):
    """Return the hooks that make GRUB's images, of what ``make`` does with a maker."""
    told = []
    monkeypatch.setattr(TreeMaker, "_make", lambda _self, _layers, *options, **_: told.extend(options))
    maker = TreeMaker(
        suite=find_suite("bookworm"),
        sources=(),
        work=Path("/nowhere"),
        timeout_seconds=1,
        on_output=lambda _text: None,
        **facts,
    )
    make(maker)
    return [option for option in told if "grub-mkimage" in option]


def test_grub_reads_btrfs_where_the_root_is_of_it_and_the_base_of_all_appliances_stays_as_it_is(monkeypatch):
    for make in (TreeMaker.make_base, lambda maker: maker.make_child((), (), None)):
        plain = hooks_of(monkeypatch, make)
        assert len(plain) == 2
        assert not any("btrfs" in hook for hook in plain)
    assert hooks_of(monkeypatch, TreeMaker.make_base, root_modules=("btrfs",)) == hooks_of(
        monkeypatch, TreeMaker.make_base
    )
    with_btrfs = hooks_of(monkeypatch, lambda maker: maker.make_child((), (), None), root_modules=("btrfs",))
    assert [hook.endswith(" gzio btrfs") for hook in with_btrfs] == [True, True]


def test_the_keys_of_a_mirror_are_laid_where_the_package_managers_own_user_can_read_them(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    keyring = private / "site.gpg"
    keyring.write_bytes(b"keys")
    keyring.chmod(0o600)
    (tmp_path / "work").mkdir()
    maker = TreeMaker(
        suite=find_suite("bookworm"),
        sources=(),
        work=tmp_path / "work",
        timeout_seconds=1,
        on_output=lambda _text: None,
        keyring=keyring,
    )
    copy = maker._readable(keyring)
    assert (copy.parent, copy.suffix, copy.read_bytes()) == (tmp_path / "work", ".gpg", b"keys")
    assert copy.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("address", "is_kept"), [("https://user:secret@mirror.example/debian", False), ("https://mirror.example/d", True)]
)
def test_a_mirrors_password_is_in_no_layer(tmp_path, monkeypatch, address, is_kept):
    from coppice.factory.bootstrap import inside

    started = []
    monkeypatch.setattr(inside, "run", lambda argv, **_: started.append([str(word) for word in argv]))
    inside.make(
        inside.Order(
            space=str(tmp_path),
            memory_bytes=0,
            layers=(),
            command=("mmdebstrap",),
            arguments=(f"deb {address} bookworm main",),
            output=str(tmp_path / "tree.tar"),
            facts=str(tmp_path / "facts"),
            packages=None,
            lists=None,
            epoch=0,
            seconds=1,
            is_mapped=False,
        )
    )
    assert [words[0] for words in started] == ["mmdebstrap", "tar"]
    assert ("--exclude=./etc/apt/sources.list" in started[1]) is not is_kept


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("tar: usr/bin/x: Cannot write: No space left on device", NoSpaceError),
        # What tar says of an archive that it writes.
        (
            "tar: tree.tar: Wrote only 4096 of 10240 bytes\ntar: Error is not recoverable: exiting now",
            NoSpaceError,
        ),
        ("E: Unable to locate package nothing-like-it", BuildError),
    ],
)
def test_a_full_disk_is_told_from_other_failures_in_all_the_words_that_programs_have_for_it(tmp_path, said, kind):
    maker = TreeMaker(
        suite=find_suite("bookworm"), sources=(), work=tmp_path, timeout_seconds=1, on_output=lambda _text: None
    )
    error = maker._failed(ToolFailedError("mmdebstrap ended with status 2", details=said))
    assert type(error) is kind
    assert (str(tmp_path) in error.message) == (kind is NoSpaceError)
