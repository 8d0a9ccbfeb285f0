# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Packer, which makes the disk that a test wants or fails as it says, and a small disk to start from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
DISK_BYTES = 32 * MIB
STATUS = """\
Package: base
Status: install ok installed
Architecture: amd64
Version: 1
"""
# What the stand-in does is in the file `plan` beside it; what it saw is left there, too.
STAND_IN = """\
#!{python}
import json, os, stat, subprocess, sys
place = {place!r}
if sys.argv[1] == "version":
    print(open(place + "/version").read(), end="")
    sys.exit(0)
template = json.load(open(sys.argv[-1]))
variables = next(word.partition("=")[2] for word in sys.argv if word.startswith("-var-file="))
if sys.argv[1] == "validate":
    sys.exit(0)
(builder,) = template["builders"]
output = builder["output_directory"]
key = json.load(open(variables))["key"]
public = open(key + ".pub").read().split()[1]
facts = {{"argv": sys.argv, "mode": stat.S_IMODE(os.stat(variables).st_mode), "environment": dict(os.environ),
         "folder": stat.S_IMODE(os.stat(os.path.dirname(variables)).st_mode), "public": public,
         "private": open(key).read(), "template": template}}
json.dump(facts, open(place + "/facts.json", "w"))
def say(text, kind="say"):
    print(f"1795684291,,ui,{{kind}}," + text.replace(",", "%!(PACKER_COMMA)"), flush=True)
def make(*commands):
    os.mkdir(output)
    raw = output + "/raw"
    subprocess.run(["cp", place + "/disk.raw", raw], check=True)
    for command in commands:
        subprocess.run(["debugfs", "-w", "-R", command, raw + "?offset=1048576"], check=True, capture_output=True)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, output + "/disk"], check=True)
    os.remove(raw)
exec(open(place + "/plan").read())
"""
KEEPS_START = """\
os.mkdir(output)
# As the real one: the copy is laid upon what the start is laid upon.
subprocess.run(["cp", builder["iso_url"], output + "/disk"], check=True)
"""
GOOD = """\
say("==> qemu: Starting VM, booting disk image")
open(place + "/key", "w").write(public)
make("write %s/key taken-away" % place, "rm taken-away")
"""


def small_disk(place: Path) -> Path:
    """Make a raw disk in ``place``, with one partition of ext4 that holds a record of packages; return it."""
    tree = place / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_text(STATUS, encoding="ascii")
    raw = place / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(DISK_BYTES)
    subprocess.run(["sfdisk", "-q", raw], input="label: gpt\nstart=2048\n", text=True, check=True)
    blocks = str((DISK_BYTES - 2 * MIB) // 4096)
    make: list[str | Path] = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-d",
        tree,
        "-E",
        f"offset={MIB}",
        raw,
        blocks,
    ]
    subprocess.run(make, check=True)
    return raw


def lay_packer(place: Path, disk: Path) -> Path:
    """Make the stand-in in the new folder ``place``, which then has to come first in PATH; return the folder."""
    place.mkdir()
    program = place / "packer"
    program.write_text(STAND_IN.format(python=sys.executable, place=str(place)), encoding="utf-8")
    program.chmod(0o755)
    (place / "version").write_text("Packer v1.6.6\n", encoding="ascii")
    (place / "plan").write_text(GOOD, encoding="ascii")
    (place / "disk.raw").symlink_to(disk)
    return place


def start_of(disk: Path) -> dict[str, str]:
    """Return what ``[platform.qemu]`` says of the raw ``disk``."""
    checksum = f"sha256:{hashlib.sha256(disk.read_bytes()).hexdigest()}"
    return {"disk": str(disk), "disk-checksum": checksum, "disk-format": "raw"}
