# SPDX-License-Identifier: Apache-2.0
"""The same image built by kiwi, from PyPI: what a finished tool of others needs for the same packages.

It needs root, a loop device and Debian's package ``rsync``; what is missing is told by name. Packages, sources and the
size of the disk are those of the build that it is compared with. What is kiwi's own way is left as it is: its initial
file system is made by dracut instead of initramfs-tools (the two exclude each other), and it boots by BIOS alone, which
is less than is asked of ours. To its good are packages that lie ready, files without documentation as in ours, and work
in memory.

Nothing of it outlives it, whatever happens: it runs in namespaces of its own, where the kernel ends and unmounts
everything with their first process, and that one dies with this program. What kiwi writes beside its target (keyrings,
the state of dpkg) it writes into copies there. A loop device is marked to be detached as soon as nothing has it open.
That is what a small ``losetup`` before the real one in ``PATH`` does; and a ``partx`` does not mind that the kernel has
found the partitions already.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

VERSION = "11.1.6"
SECONDS = 1800.0
OWN_SPACE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Before a command: it ends when this program does, and all that it started or mounted with it."""
_ENDING_SECONDS = 20.0
_INSTALL_SECONDS = 600.0
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Program: Debian's package that has it.
_TOOLS = {
    "rsync": "rsync",
    "losetup": "mount",
    "partx": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "qemu-img": "qemu-utils",
    "sgdisk": "gdisk",
    "sfdisk": "fdisk",
    "mkfs.ext4": "e2fsprogs",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
_REPLACED = {"initramfs-tools": "dracut"}
# Not every root has these on the way.
_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
_LAST_LINES = 25
_LONGEST_LINE = 400
_MIB = 1024**2
_ROOM_BYTES = 6 * 1024**3

# The device stays open in a process in here; once detaching was asked for, the last to close it detaches it. Its
# partitions go with it only where the kernel was told to look for them (-P).
_LOSETUP = """\
#!/bin/sh
case "$*" in
*--show*)
    device=$({real} -P "$@") || exit
    exec 9<"$device" || exit
    sleep infinity <&9 >/dev/null 2>&1 &
    echo $! >{place}/holds-"${device##*/}"
    exec 9<&-
    {real} -d "$device" && echo "$device" ;;
-d\\ *)
    kill "$(cat {place}/holds-"${2##*/}")" ;;
*)
    exec {real} "$@" ;;
esac
"""
_PARTX = """\
#!/bin/sh
[ "$1" != --add ] || { shift; set -- --update "$@"; }
exec {real} "$@"
"""
_INSIDE = """\
set -eu
[ "$2" = disk ] || mount -t tmpfs -o mode=755,size=6g kiwi "$1/space"
mkdir "$1/space/tmp" "$1/space/dpkg"
cp -a /etc/apt "$1/space/apt"
mount --bind "$1/space/apt" /etc/apt
mount --bind "$1/space/dpkg" /var/lib/dpkg
"$1/venv/bin/kiwi-ng" --logfile "$1/kiwi.log" --temp-dir "$1/space/tmp" --shared-cache-dir "$1/cache" \
    system build --description "$1/description" --target-dir "$1/space/made"
set -- "$1/space/made"/*.qcow2
stat --format=%s "$1"
"""


class KiwiError(Exception):
    """kiwi cannot be had or cannot build here: why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KiwiBuild:
    """What was asked of kiwi, and what it took.

    Attributes:
        cpu_seconds: Of all its processes.
        seconds: By the clock.
        image_bytes: Length of the compressed qcow2.
    """

    cpu_seconds: float
    seconds: float
    image_bytes: int


def build_by_kiwi(
    place: Path, *, packages: tuple[str, ...], sources: tuple[str, ...], size_bytes: int, debs: Path
) -> KiwiBuild:
    """Build an image of ``packages`` by kiwi.

    Args:
        place: A directory of its own; kiwi itself and packages that it alone needs are kept there.
        packages: To be installed; others only where these depend on them.
        sources: Lines of ``sources.list``.
        size_bytes: Of the disk.
        debs: A directory with packages that need not be fetched.

    Raises:
        KiwiError: It cannot be had or cannot build here.
    """
    _check_machine()
    place.mkdir(parents=True, exist_ok=True)
    _install(place)
    _describe(place / "description", packages, sources, size_bytes)
    _warm_up(place / "cache" / "apt-get" / "archives", debs)
    (place / "space").mkdir(exist_ok=True)
    (place / "kiwi.log").unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{_tools(place / 'tools')}:{_PATH}"}
    argv = [*OWN_SPACE, "sh", "-c", _INSIDE, "kiwi", str(place), "memory" if _has_room_in_memory() else "disk"]
    began, since = _children_seconds(), time.monotonic()
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KiwiError(f"kiwi was not done after {SECONDS:.0f} s") from None
    finally:
        _wait_for_the_end(place)
        shutil.rmtree(place / "space")
    if done.returncode != 0:
        raise KiwiError(f"kiwi failed:\n{_last_lines(place / 'kiwi.log', done.stderr)}")
    return KiwiBuild(
        cpu_seconds=_children_seconds() - began,
        seconds=time.monotonic() - since,
        image_bytes=int(done.stdout.split()[-1]),
    )


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise KiwiError("kiwi needs root")
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=_PATH) is None})
    if missing:
        raise KiwiError(f"kiwi needs what is not here: apt-get install {' '.join(missing)}")
    if not _KEYRING.is_file():
        raise KiwiError(f"{_KEYRING} is not here: apt-get install debian-archive-keyring")
    if not Path("/dev/loop-control").exists():
        raise KiwiError("kiwi needs loop devices, and /dev/loop-control is not here")


def _install(place: Path) -> None:
    """Have kiwi, in exactly that version, in an environment of its own."""
    marker = place / "venv" / f"kiwi-{VERSION}"
    # What pip installs knows where it lies.
    if marker.exists() and marker.read_text("utf-8") == str(place):
        return
    shutil.rmtree(place / "venv", ignore_errors=True)
    python = place / "venv" / "bin" / "python"
    for argv in (
        [sys.executable, "-m", "venv", str(place / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"kiwi=={VERSION}"],
    ):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise KiwiError(f"kiwi {VERSION} was not installed after {_INSTALL_SECONDS:.0f} s") from None
        if done.returncode != 0:
            raise KiwiError(f"kiwi {VERSION} cannot be installed:\n{_end(done.stderr)}")
    marker.write_text(str(place), "utf-8")


def _describe(place: Path, packages: tuple[str, ...], sources: tuple[str, ...], size_bytes: int) -> None:
    """Write kiwi's description of the image."""
    root = ET.Element("image", schemaversion="8.5", name="benchmark")
    about = ET.SubElement(root, "description", type="system")
    for name, text in (("author", "Benchmark"), ("contact", "nobody"), ("specification", "A small cloud image")):
        ET.SubElement(about, name).text = text
    preferences = ET.SubElement(root, "preferences")
    settings = {"version": "1.0.0", "packagemanager": "apt", "rpm-excludedocs": "true", "rpm-check-signatures": "true"}
    for name, text in settings.items():
        ET.SubElement(preferences, name).text = text
    disk = ET.SubElement(
        preferences, "type", image="oem", format="qcow2", firmware="bios", filesystem="ext4", initrd_system="dracut"
    )
    ET.SubElement(ET.SubElement(disk, "oemconfig"), "oem-resize").text = "false"
    ET.SubElement(disk, "bootloader", name="grub2", timeout="1")
    ET.SubElement(disk, "size", unit="M").text = str(size_bytes // _MIB)
    for line in sources:
        _, address, suite, *components = line.split()
        repository = ET.SubElement(
            root, "repository", type="apt-deb", distribution=suite, components=" ".join(components)
        )
        source = ET.SubElement(repository, "source", path=address)
        ET.SubElement(source, "signing", key=_KEYRING.as_uri())
    wanted = ET.SubElement(root, "packages", type="image")
    for name in packages:
        ET.SubElement(wanted, "package", name=_REPLACED.get(name, name))
    ET.SubElement(root, "packages", type="bootstrap")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    ET.ElementTree(root).write(place / "appliance.kiwi", encoding="utf-8", xml_declaration=True)


def _warm_up(archives: Path, debs: Path) -> None:
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    for deb in debs.glob("*.deb"):
        if not (archives / deb.name).exists():
            shutil.copyfile(deb, archives / deb.name)


def _tools(place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, text in (("losetup", _LOSETUP), ("partx", _PARTX)):
        tool = place / name
        tool.write_text(
            text.replace("{real}", str(shutil.which(name, path=_PATH))).replace("{place}", str(place)), "utf-8"
        )
        tool.chmod(0o755)
    return place


def _has_room_in_memory() -> bool:
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024 > _ROOM_BYTES


def _wait_for_the_end(place: Path) -> None:
    """Wait until the kernel has let go of everything; it takes a moment after the last process.

    Raises:
        KiwiError: Something is left.
    """
    until = time.monotonic() + _ENDING_SECONDS
    while left := _left(place):
        if time.monotonic() > until:
            raise KiwiError(f"kiwi left something behind: {', '.join(left)}")
        time.sleep(0.1)


def _left(place: Path) -> list[str]:
    """Return the mounts and loop devices of this place."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines()]
    left = [point for point in mounts if Path(point).is_relative_to(place)]
    for held in (place / "tools").glob("holds-*"):
        device = held.name.removeprefix("holds-")
        try:
            file = Path(f"/sys/block/{device}/loop/backing_file").read_text("utf-8")
        except OSError:
            # It is let go of.
            continue
        # Somebody else may have it by now. What was mounted where the file was may be gone from its name.
        if Path(file).parent.name == "made":
            left.append(f"/dev/{device}")
    return left


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _last_lines(log: Path, said: str) -> str:
    return _end(log.read_text("utf-8", errors="replace") if log.is_file() else said)


def _end(text: str) -> str:
    return "\n".join(line[:_LONGEST_LINE] for line in text.splitlines()[-_LAST_LINES:])
