# SPDX-License-Identifier: Apache-2.0
"""The bootstrap builder with its real tools and namespaces, but for the packages: a stand-in for mmdebstrap lays files.

Building from real packages is in ``test_factory_build.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.cli.checks import Role, Verdict, check_builds
from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.errors import BuildError, NoSpaceError
from coppice.factory.bootstrap import disk as disks
from coppice.factory.bootstrap import supported
from coppice.factory.bootstrap.builder import BootstrapBuilder
from coppice.factory.bootstrap.layers import DISK
from coppice.factory.bootstrap.listing import read_listing
from coppice.factory.evidence.ext4 import Ext4Disk
from coppice.factory.model import BuildOptions, BuildResult, Provenance
from coppice.factory.qcow2 import open_own
from coppice.factory.verification import verify_build
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[2]
DISK_BYTES = 192 * 1024**2
DEFINITION = replace(read_definition(CHECKOUT / "definitions" / "debian-12"), name="base", disk_size_bytes=DISK_BYTES)
CLOCK = SystemClock()
STAND_IN = """\
#!/bin/sh -e
# What mmdebstrap would do: a tree from nothing, or whatever the test wants done in its child's.
: <<'END'
    my $mirror = 'http://mirror.example/debian';
END
for word; do
  case "$word" in
  --variant=minbase) kind=base ;;
  --variant=custom) kind=child ;;
  */space/root) root="$word" ;;
  esac
done
[ "$(cut -d' ' -f1 /proc/self/stat)" -lt 1000 ] || exit 9
. {place}/$kind.sh
"""
BASE = """\
echo "I: making the base"
mkdir -p "$root/etc" "$root/usr/bin" "$root/usr/lib/grub/i386-pc" "$root/boot/grub/i386-pc" \\
  "$root/boot/grub/x86_64-efi" "$root/var/lib/dpkg" "$root/data" "$root/run" "$root/tmp" "$root/old"
status() { printf 'Package: %s\\nStatus: install ok installed\\nArchitecture: amd64\\nVersion: %s\\n\\n' "$1" "$2"; }
status base 1 > "$root/var/lib/dpkg/status"
{ head -c 510 /dev/zero; printf '\\125\\252'; } > "$root/usr/lib/grub/i386-pc/boot.img"
head -c 4096 /dev/zero | tr '\\0' 'x' > "$root/boot/grub/i386-pc/core.img"
head -c 4096 /dev/zero | tr '\\0' 'y' > "$root/boot/grub/x86_64-efi/core.efi"
for number in $(seq 200); do seq $number 2000 > "$root/data/$number"; done
ln "$root/data/1" "$root/data/one"
ln -s data/1 "$root/link"
echo left > "$root/tmp/left"
echo old > "$root/old/file"
echo '#!/bin/sh' > "$root/usr/bin/tool"
chmod 4755 "$root/usr/bin/tool"
chown 7:8 "$root/data/2"
echo "deb" > "$root/var/cache/apt/archives/base_1_amd64.deb"
echo "signed" > "$root/var/lib/apt/lists/mirror_dists_bookworm_InRelease"
"""
CHILD = """\
echo "I: making the child"
[ -e "$root/var/cache/apt/archives/base_1_amd64.deb" ] || exit 8
printf 'Package: more\\nStatus: install ok installed\\nArchitecture: amd64\\nVersion: 2\\n\\n' \\
  >> "$root/var/lib/dpkg/status"
seq 3000 > "$root/usr/bin/more"
seq 4000 > "$root/data/100"
rm "$root/data/50" "$root/data/one"
rm -r "$root/old"
mkdir "$root/old"
echo new > "$root/old/other"
chmod 600 "$root/data/3"
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a stand-in for mmdebstrap first in PATH; return where its scripts are."""
    place = tmp_path / "stand-in"
    place.mkdir()
    (place / "mmdebstrap").write_text(STAND_IN.format(place=place))
    (place / "mmdebstrap").chmod(0o755)
    (place / "base.sh").write_text(BASE)
    (place / "child.sh").write_text(CHILD)
    # The trees of these tests are small, and so are their disks.
    monkeypatch.setattr(supported, "_LEAST_ROOT_BYTES", 0)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def made(tmp_path, definition=DEFINITION, name="one", **options):
    """Build ``definition``; return it as a result that others can be built upon."""
    into = tmp_path / name
    into.mkdir()
    wanted = BuildOptions(work_directory=tmp_path / "work", cache_directory=tmp_path / "caches", **options)
    output = BootstrapBuilder().build(definition, into, wanted, SILENT)
    return BuildResult(
        definition=definition,
        key=hashlib.sha256(name.encode()).hexdigest(),
        directory=into,
        images=output.images,
        packages=output.packages,
        provenance=Provenance(
            definition_digest="", builder="bootstrap", tools=(), started_at=CLOCK.now(), seconds=0, inputs=output.inputs
        ),
        verdicts=(),
        reused=False,
        tree=output.tree,
    )


def raw_of(result, place):
    image = result.images[0]
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.path, place], check=True)
    return place


def tree_of(result, tmp_path):
    work = tmp_path / f"look-{result.directory.name}"
    work.mkdir()
    disk = Ext4Disk(raw_of(result, work / "raw"), disks.ROOT_START_BYTES, work)
    return {node.path: node for node in disk.tree()}, disk


CHILD_OF_BASE = replace(DEFINITION, name="child", parent="base", packages=("more",))


def test_a_child_has_what_it_changed_and_everything_else_of_its_parent(tmp_path, stand_in):
    parent = made(tmp_path)
    child = made(tmp_path, CHILD_OF_BASE, "two", ancestors=(parent,))
    assert [package.name for package in parent.packages] == ["base"]
    assert [package.name for package in child.packages] == ["base", "more"]
    before, _ = tree_of(parent, tmp_path)
    after, disk = tree_of(child, tmp_path)
    assert before.keys() - after.keys() == {"/data/50", "/data/one", "/old/file"}
    assert after.keys() - before.keys() == {"/usr/bin/more", "/old/other"}
    assert disk.content(after["/data/100"]).endswith(b"\n4000\n")
    assert disk.content(after["/data/1"]).startswith(b"1\n2\n")
    assert (after["/data/3"].mode & 0o7777, after["/usr/bin/tool"].mode & 0o7777) == (0o600, 0o4755)
    place = f"{tmp_path}/look-two/raw?offset={disks.ROOT_START_BYTES}"
    said = subprocess.check_output(["debugfs", "-R", "stat /data/2", place], stderr=subprocess.DEVNULL, text=True)
    assert "User:     7   Group:     8" in said
    assert list((tmp_path / "work").iterdir()) == []
    assert "/tmp/left" not in after  # noqa: S108 - a path of the guest
    layers = {path: node.layer for path, node in read_listing(child.tree / DISK).items()}
    assert (layers["/data/1"], layers["/data/100"], layers["/etc/fstab"]) == (0, max(layers.values()), -1)


def test_the_blocks_of_a_parent_stay_where_they_are_and_nothing_of_what_went_is_left(tmp_path, stand_in):
    (stand_in / "base.sh").write_text(BASE + 'printf "%4096s" taken-away-later > "$root/data/50"\n')
    parent = made(tmp_path)
    child = made(tmp_path, CHILD_OF_BASE, "two", ancestors=(parent,))
    old, new = (raw_of(each, tmp_path / f"{each.definition.name}.raw") for each in (parent, child))
    changed = written = 0
    with old.open("rb") as first, new.open("rb") as second:
        while block := first.read(4096):
            written += bool(block.strip(b"\0"))
            changed += block != second.read(4096)
    assert 0 < changed < written * 0.15
    assert b"taken-away-later" in old.read_bytes()
    assert b"taken-away-later" not in new.read_bytes()
    assert subprocess.run(["e2fsck", "-fn", f"{new}?offset={disks.ROOT_START_BYTES}"], check=False).returncode == 0


def test_a_child_can_have_a_larger_disk_and_a_child_of_its_own_without_the_first_parent(tmp_path, stand_in):
    parent = made(tmp_path)
    larger = replace(CHILD_OF_BASE, disk_size_bytes=256 * 1024**2)
    child = made(tmp_path, larger, "two", ancestors=(parent,))
    assert child.images[0].image.virtual_size_bytes == 256 * 1024**2
    (stand_in / "child.sh").write_text('rm "$root/usr/bin/more"\n')
    for layer in parent.tree.iterdir():
        layer.unlink()
    grandchild = made(tmp_path, replace(larger, name="third", parent="child"), "three", ancestors=(child, parent))
    after, _ = tree_of(grandchild, tmp_path)
    assert "/usr/bin/more" not in after
    assert "/old/other" in after
    assert grandchild.provenance.inputs[0].name == "parent child"
    assert grandchild.provenance.inputs[0].digest == str(child.images[0].image.checksum)


def test_a_second_build_gives_the_same_bytes_in_every_format(tmp_path, stand_in):
    every = (DiskFormat.QCOW2, DiskFormat.RAW, DiskFormat.VMDK, DiskFormat.VDI, DiskFormat.VHD, DiskFormat.OVA)
    first = made(tmp_path, replace(DEFINITION, formats=every))
    assert [built.image.format for built in first.images] == list(every)
    options = BuildOptions(work_directory=tmp_path / "work", cache_directory=tmp_path / "caches")
    found = verify_build(first, options=options, monitor=SILENT)
    assert found.is_identical
    assert found.is_compared
    assert len(found.digests) == len(every)
    raw = next(built.path for built in first.images if built.image.format is DiskFormat.RAW)
    for built in first.images[:-1]:
        assert subprocess.run(["qemu-img", "compare", "-q", raw, built.path], check=False).returncode == 0


def test_a_second_build_that_differs_names_the_file(tmp_path, stand_in):
    (stand_in / "base.sh").write_text(BASE + 'date +%N > "$root/etc/stamp"\n')
    first = made(tmp_path)
    options = BuildOptions(work_directory=tmp_path / "work", cache_directory=tmp_path / "caches")
    found = verify_build(first, options=options, monitor=SILENT)
    assert not found.is_identical
    assert found.differing == ("/etc/stamp",)


def test_packages_and_indices_are_kept_for_the_next_build_and_told_by_digest(tmp_path, stand_in):
    first = made(tmp_path, mirror="http://mirror.example/debian")
    kept = sorted(path.name for path in (tmp_path / "caches").rglob("*") if path.is_file())
    assert "base_1_amd64.deb" in kept
    assert "mirror_dists_bookworm_InRelease" in kept
    assert not [name for name in kept if name.endswith(".partial")]
    index = next(each for each in first.provenance.inputs if each.name == "index bookworm")
    assert index.digest == "sha256:" + hashlib.sha256(b"signed\n").hexdigest()
    # The address of a site's own mirror is nobody else's affair.
    assert index.uri == ""
    listing = read_listing(first.tree / DISK)
    assert not [path for path in listing if path.startswith(("/var/cache/apt/", "/var/lib/apt/lists/"))]


def test_what_apt_makes_of_the_indices_is_kept_with_them_and_both_with_their_times(tmp_path, stand_in):
    making = """\
lists="$root/var/lib/apt/lists/mirror_dists_bookworm_InRelease" index="$root/var/cache/apt/index/srcpkgcache.bin"
touch -d @1234567890 "$lists"
echo index > "$index"
touch -d @1234567899 "$index"
"""
    (stand_in / "base.sh").write_text(BASE + making)
    parent = made(tmp_path)
    (index,) = (tmp_path / "caches").rglob("srcpkgcache.bin")
    (lists,) = (tmp_path / "caches").rglob("mirror_dists_bookworm_InRelease")
    assert int(lists.stat().st_mtime) == 1234567890
    assert index.read_text() == "index\n"
    (stand_in / "child.sh").write_text(CHILD + '[ -s "$root/var/cache/apt/index/srcpkgcache.bin" ] || exit 7\n')
    child = made(tmp_path, CHILD_OF_BASE, "two", ancestors=(parent,))
    assert not [path for path in read_listing(child.tree / DISK) if path.startswith("/var/cache/apt/")]


def test_a_child_has_its_parents_compressed_clusters_and_need_not_make_them_again(tmp_path, stand_in):
    parent = made(tmp_path)
    child = made(tmp_path, CHILD_OF_BASE, "two", ancestors=(parent,))
    with parent.images[0].path.open("rb") as old, child.images[0].path.open("rb") as new:
        before, after = open_own(old), open_own(new)
        assert before is not None
        assert after is not None
        frames = {number: after.frame_of(number) for number in after.written()}
        same = [number for number, frame in frames.items() if frame and frame == before.frame_of(number)]
    assert len(same) > len(frames) / 2
    assert len(same) < len(frames)


def test_a_step_that_fails_says_why_keeps_the_log_and_leaves_nothing(tmp_path, stand_in):
    (stand_in / "base.sh").write_text('echo "E: Unable to locate package nonsense"\nexit 100\n')
    with pytest.raises(BuildError, match="bootstrapping bookworm failed") as caught:
        made(tmp_path)
    assert "Unable to locate package nonsense" in (caught.value.details or "")
    assert "Unable to locate package nonsense" in (tmp_path / "one" / "build.log").read_text()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_root_that_is_too_small_is_told_as_that(tmp_path, stand_in):
    (stand_in / "base.sh").write_text(BASE + 'head -c 150000000 /dev/urandom > "$root/data/huge"\n')
    with pytest.raises(NoSpaceError, match="root file system") as caught:
        made(tmp_path)
    assert "disk-size" in (caught.value.resolution or "")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_parents_image_that_changed_is_not_built_upon(tmp_path, stand_in):
    parent = made(tmp_path)
    with parent.images[0].path.open("r+b") as stream:
        stream.seek(parent.images[0].image.size_bytes - 10)
        stream.write(b"\xff")
    with pytest.raises(BuildError, match="not what it was"):
        made(tmp_path, CHILD_OF_BASE, "two", ancestors=(parent,))


KILLED = textwrap.dedent(
    """\
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import test_bootstrap_builds as tests
    tests.supported._LEAST_ROOT_BYTES = 0
    tests.made(Path(sys.argv[1]), name=sys.argv[2])
    """
)


def kill_at(tmp_path, seconds, name):
    """Start a build, kill it after ``seconds``; return whether it was still at work."""
    code = KILLED.format(tests=str(Path(__file__).parent))
    argv = [sys.executable, "-c", code, str(tmp_path), name]
    child = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(CHECKOUT / "src")})
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return True
    return False


def left_over(tmp_path):
    """Return what runs or is mounted for the builds of ``tmp_path``."""
    mark = str(tmp_path).encode()
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.parent.name != str(os.getpid()):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            running += [words] if mark in words else []
    return running + [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(tmp_path) in line]


@pytest.mark.threat("T79")
@pytest.mark.threat("T82")
@pytest.mark.parametrize("points", [pytest.param(4, id="few"), pytest.param(24, id="many", marks=pytest.mark.soak)])
def test_a_build_that_is_killed_leaves_no_process_and_no_mount_and_the_next_one_is_whole(tmp_path, stand_in, points):
    (stand_in / "base.sh").write_text(BASE + "sleep 0.5\n")
    # A build that was killed late leaves its base, which the next one brings up to date: there is nothing newer.
    (stand_in / "child.sh").write_text("")
    started = time.monotonic()
    whole = made(tmp_path, name="whole")
    took = time.monotonic() - started + 0.5
    for path in (tmp_path / "caches").glob("*.tar.zst"):
        path.unlink()
    for point in range(points):
        kill_at(tmp_path, took * (point + 1) / (points + 1), f"killed-{point}")
        deadline = time.monotonic() + 5
        while left_over(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left_over(tmp_path) == []
    again = made(tmp_path, name="again")
    assert again.images[0].image.checksum == whole.images[0].image.checksum
    # Whether the base is made or found is nothing that the bytes tell.
    found = made(tmp_path, name="found")
    assert len(list(found.tree.glob("*.tar.zst"))) == 2
    assert found.images[0].image.checksum == whole.images[0].image.checksum
    for path in (tmp_path / "work").iterdir():
        # What a killed run left is young yet; it is swept later, as every dead run's.
        assert path.name.startswith("coppice-work-")
    assert json.dumps([each.digest for each in again.provenance.inputs])


def test_the_doctor_says_whether_this_user_can_build(monkeypatch):
    found = check_builds(Role.ALL)
    assert (found.verdict, found.found) == (Verdict.OK, "as root" if os.geteuid() == 0 else "in a user namespace")
    monkeypatch.setattr("coppice.factory.bootstrap.tree.own_namespaces", lambda **_: ("false",))
    assert check_builds(Role.ALL).verdict is Verdict.MISSING
    assert check_builds(Role.SITE).verdict is Verdict.NOTE
    assert "/etc/subuid" in (check_builds(Role.ALL).remedy or "")
