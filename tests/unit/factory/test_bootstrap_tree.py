# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
import tarfile

import pytest

from coppice.errors import BuildError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap.builder import read_packages
from coppice.factory.bootstrap.filesystem import Population, guest_path
from coppice.factory.bootstrap.overlay import File, Overlay
from coppice.factory.bootstrap.parents import MAX_AGE_SECONDS, obtain_parent, parent_key
from coppice.factory.bootstrap.suites import find_suite, sources
from coppice.factory.bootstrap.tree import _by_line

pytestmark = pytest.mark.unit

EPOCH = 1_700_000_000
OVERLAY = Overlay(
    entries={"/etc/machine-id": File(b""), "/etc/ssh/sshd_config.d/00-coppice.conf": File(b"")}, left_out=frozenset()
)


def test_a_mirror_brings_updates_and_security_updates_along():
    suite = find_suite("bookworm")
    assert sources(suite, None) == ()
    assert sources(suite, "http://mirror.example/debian/") == (
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    )


@pytest.mark.parametrize(
    "mirror", ["", "--help", "mirror.example", "http://a b", "http://a\ndeb http://b", "[trusted=yes] http://a"]
)
def test_a_mirror_that_is_no_address_is_refused(mirror):
    with pytest.raises(BuildError, match="not the address"):
        sources(find_suite("bookworm"), mirror)


def test_an_unknown_suite_is_refused_with_those_that_are_known():
    with pytest.raises(BuildError) as caught:
        find_suite("woody")
    assert "bookworm, trixie" in (caught.value.resolution or "")


def member(name, kind=tarfile.REGTYPE, content=b"", **facts):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mtime = EPOCH - 1000
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def populate(tmp_path, *members, keep=()):
    tar = tmp_path / "tree.tar"
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    staging = tmp_path / "staging"
    staging.mkdir()
    population = Population(staging=staging, epoch=EPOCH)
    population.add_tree(tar, OVERLAY, keep)
    return population


def test_files_directories_and_links_become_commands_with_owner_mode_and_time(tmp_path):
    population = populate(
        tmp_path,
        member("./", tarfile.DIRTYPE, mode=0o755),
        member("./etc/", tarfile.DIRTYPE, mode=0o755),
        member("./etc/shadow", content=b"root:*:", mode=0o640, gid=42),
        member("./bin", tarfile.SYMTYPE, linkname="usr/bin"),
        member("./etc/twin", tarfile.LNKTYPE, linkname="./etc/shadow"),
    )
    commands = population.commands
    assert 'mkdir "/etc"' in commands
    assert 'set_inode_field "/etc" "mode" "040755"' in commands
    assert 'set_inode_field "/etc/shadow" "mode" "0100640"' in commands
    assert 'set_inode_field "/etc/shadow" "gid" "42"' in commands
    assert f'set_inode_field "/etc/shadow" "mtime" "@{EPOCH - 1000}"' in commands
    assert 'symlink "/bin" "usr/bin"' in commands
    assert 'ln "/etc/shadow" "/etc/twin"' in commands
    assert 'set_inode_field "/etc/shadow" "links_count" "2"' in commands


def test_nothing_is_younger_than_the_epoch(tmp_path):
    population = populate(tmp_path, member("./young", mtime=EPOCH + 5))
    assert not [command for command in population.commands if "/young" in command and "mtime" in command]


def test_capabilities_are_kept_and_other_attributes_are_not(tmp_path):
    capability = b"\x01\x00\x00\x02\x00 ".decode("utf-8", errors="surrogateescape")
    population = populate(
        tmp_path,
        member(
            "./ping",
            pax_headers={"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "x"},
        ),
    )
    attributes = [command for command in population.commands if command.startswith("ea_set")]
    assert len(attributes) == 1
    assert attributes[0].endswith('"/ping" "security.capability"')


def test_the_overlay_replaces_the_trees_own_file_and_makes_its_folders(tmp_path):
    population = populate(tmp_path, member("./etc/machine-id", content=b"0123"))
    writes = [command for command in population.commands if command.startswith("write") and "machine-id" in command]
    assert len(writes) == 1
    assert 'mkdir "/etc/ssh/sshd_config.d"' in population.commands
    assert population.commands.index('mkdir "/etc/ssh"') < population.commands.index('mkdir "/etc/ssh/sshd_config.d"')


def test_contents_that_were_asked_for_are_remembered(tmp_path):
    population = populate(tmp_path, member("./var/status", content=b"here"), keep=("/var/status",))
    assert population.kept == {"/var/status": b"here"}


def test_a_quote_in_a_name_is_doubled_and_a_line_break_refused(tmp_path):
    population = populate(tmp_path, member('./a"b'))
    assert any(command.endswith('"/a""b"') for command in population.commands)
    (tmp_path / "again").mkdir()
    with pytest.raises(BuildError, match="cannot be written"):
        populate(tmp_path / "again", member("./a\nrm /etc/shadow"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_outside_of_dev_are_refused(tmp_path, kind):
    with pytest.raises(BuildError, match="neither a file"):
        populate(tmp_path, member("./etc/device", kind))


def test_a_path_out_of_the_tree_is_refused():
    assert guest_path("./usr//bin/./x") == "/usr/bin/x"
    with pytest.raises(BuildError, match="leads out"):
        guest_path("./usr/../../etc/passwd")


def test_a_damaged_tree_is_a_build_error(tmp_path):
    (tmp_path / "tree.tar").write_bytes(b"nonsense" * 200)
    with pytest.raises(BuildError, match="damaged"):
        Population(staging=tmp_path, epoch=EPOCH).add_tree(tmp_path / "tree.tar", OVERLAY, ())


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
    left = tmp_path / ".coppice-key.tar-0123.partial"
    left.write_bytes(b"half")
    obtain_parent(tmp_path, "key", lambda path: path.write_bytes(b"tree"), on_wait=lambda: None)
    assert not left.exists()


def test_parents_of_other_mirrors_and_releases_are_others():
    bookworm, trixie = find_suite("bookworm"), find_suite("trixie")
    assert parent_key(bookworm, (), "b 1") != parent_key(trixie, (), "b 1")
    assert parent_key(bookworm, (), "b 1") != parent_key(bookworm, ("deb x",), "b 1")
    assert parent_key(bookworm, (), "b 1") != parent_key(bookworm, (), "b 2")


def test_progress_comes_by_line_and_bars_by_their_last_state():
    told: list[str] = []
    take = _by_line(told.append)
    for piece in ("I: one\nI: t", "wo\n", "1%\r50%\r100%\r\n", "\n", "rest"):
        take(piece)
    assert told == ["I: one", "I: two", "100%"]
