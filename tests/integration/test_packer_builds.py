# SPDX-License-Identifier: Apache-2.0
"""The builder ``packer`` with a stand-in for Packer, which makes the disk that a test wants or fails as it says."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import Provisioner, ProvisionerKind
from coppice.definition.read import read_definition
from coppice.errors import BuildError, InterruptedRunError, ProvisionError, ToolMissingError
from coppice.factory.acceleration import Measurement
from coppice.factory.machine import Acceleration
from coppice.factory.model import BuildOptions
from coppice.factory.packer import builder as builders
from coppice.factory.packer import prepared
from coppice.factory.packer.builder import PackerBuilder
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.monitor import SILENT
from coppice.process import ended_when
from coppice.testing.packer_stand import DISK_BYTES, GOOD, KEEPS_START, MIB, lay_packer, small_disk, start_of

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[2]
SCRIPT = Provisioner(name="one", kind=ProvisionerKind.SHELL, files={"run": b"#!/bin/sh\nls\n"}, entry="run")


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Return a small disk with one partition and a record of packages."""
    return small_disk(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def stand_in(tmp_path, monkeypatch, disk):
    """Put a stand-in for Packer first in PATH; return where its plan is."""
    place = lay_packer(tmp_path / "stand-in", disk)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    found = Measurement(acceleration=Acceleration.TCG, reason="")
    monkeypatch.setattr(prepared, "choose_acceleration", lambda *_, **__: found)
    return place


def wanted(disk, **changes):
    """Return a definition that starts from ``disk``."""
    start = start_of(disk)
    base = read_definition(CHECKOUT / "definitions" / "debian-12")
    fields = {"name": "packed", "builder": "packer", "disk_size_bytes": DISK_BYTES, "platforms": {"qemu": start}}
    return replace(base, **{**fields, **changes})


def made(tmp_path, definition, **options):
    into = tmp_path / "into"
    into.mkdir(exist_ok=True)
    limits = {"timeout_seconds": 120.0, **options}
    wanted_options = BuildOptions(work_directory=tmp_path / "work", cache_directory=tmp_path / "cache", **limits)
    return PackerBuilder().build(definition, into, wanted_options, SILENT)


def facts(stand_in):
    import json

    return json.loads((stand_in / "facts.json").read_text())


def left_over(tmp_path):
    """Return what still runs of builds in ``tmp_path``, after the moment that its end takes."""
    mark, deadline = str(tmp_path).encode(), time.monotonic() + 5
    while True:
        running = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if path.parent.name != str(os.getpid()):
                try:
                    words = path.read_bytes()
                except OSError:
                    continue
                running += [words] if mark in words else []
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(0.05)


def test_a_disk_becomes_images_with_their_packages_inputs_and_log(tmp_path, stand_in, disk):
    formats = (DiskFormat.QCOW2, DiskFormat.RAW)
    definition = wanted(disk, formats=formats, provisioners=(SCRIPT,))
    output = made(tmp_path, definition)
    assert tuple(each.image.format for each in output.images) == formats
    assert [(each.name, each.version) for each in output.packages] == [("base", "1")]
    assert [each.name for each in output.inputs] == ["disk", "provisioner one"]
    assert output.inputs[0].digest == definition.platforms["qemu"]["disk-checksum"]
    assert dict(output.tools)["packer"] == "1.6.6"
    assert output.log is not None
    assert "Starting VM, booting disk image" in output.log.read_text()
    assert output.images[0].image.virtual_size_bytes == DISK_BYTES
    assert list((tmp_path / "work").iterdir()) == []
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_a_disk_that_is_laid_upon_what_packer_started_from_is_read_whole(tmp_path, stand_in, disk, disk_format):
    (stand_in / "plan").write_text(KEEPS_START)
    start = tmp_path / "start"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", disk_format, disk, start], check=True)
    said = {**start_of(start), "disk-format": disk_format}
    output = made(tmp_path, wanted(disk, platforms={"qemu": said}, formats=(DiskFormat.RAW,)))
    assert [each.name for each in output.packages] == ["base"]
    # But for what checking it writes into the file system's head.
    assert output.images[0].path.read_bytes()[2 * MIB :] == disk.read_bytes()[2 * MIB :]


@pytest.mark.threat("T58")
def test_a_disk_that_refers_to_another_file_than_its_start_is_refused(tmp_path, stand_in, disk):
    (stand_in / "plan").write_text(
        "os.mkdir(output)\n"
        'subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", '
        'output + "/disk", "32M"], check=True)\n'
    )
    with pytest.raises(BuildError, match="refers to another file than what it started from"):
        made(tmp_path, wanted(disk))


@pytest.mark.threat("T93")
def test_the_key_is_in_no_argument_no_log_no_template_and_on_no_disk(tmp_path, stand_in, disk):
    output = made(tmp_path, wanted(disk, formats=(DiskFormat.RAW,)))
    seen = facts(stand_in)
    assert (seen["mode"], seen["folder"]) == (0o600, 0o700)
    for secret in (seen["public"], seen["private"].splitlines()[2]):
        assert secret not in " ".join(seen["argv"])
        assert secret not in str(seen["environment"])
        assert secret not in str(seen["template"])
        assert secret not in output.log.read_text()
        # It was in a file that was taken away: its block is no more than zeros.
        assert secret.encode() not in output.images[0].path.read_bytes()
    assert seen["environment"]["CHECKPOINT_DISABLE"] == "1"
    assert seen["environment"]["PACKER_CACHE_DIR"] == str(tmp_path / "cache" / "packer")
    assert seen["environment"]["HOME"].startswith(str(tmp_path / "work"))


@pytest.mark.threat("T93")
def test_a_key_that_is_still_there_fails_the_build(tmp_path, stand_in, disk):
    keeps = 'open(place + "/key", "w").write(public)\nmake("write %s/key authorized_keys" % place)\n'
    (stand_in / "plan").write_text(keeps)
    with pytest.raises(BuildError, match="still on the disk"):
        made(tmp_path, wanted(disk))
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (
            "    qemu: appliance-failed: the provisioner one ended with status 7",
            ProvisionError,
            "the provisioner one ended with status 7",
        ),
        ("    qemu: appliance-failed: the packages x cannot be installed", BuildError, "the packages x cannot"),
        ("==> qemu: Timeout waiting for SSH.", BuildError, "Packer failed: Timeout waiting for SSH"),
    ],
)
def test_what_fails_in_packer_is_told_with_the_end_of_the_log_and_of_the_console(  # noqa: PLR0917
    tmp_path, stand_in, disk, line, kind, message
):
    plan = f"""
        serial = next(words[1] for words in builder["qemuargs"] if words[0] == "-serial").removeprefix("file:")
        open(serial, "w").write("kernel: \\x1b[31mpanic\\n")
        for number in range(200):
            say(f"    qemu: line {{number}}")
        say({line!r}, "error")
        sys.exit(1)
    """
    (stand_in / "plan").write_text(textwrap.dedent(plan))
    with pytest.raises(BuildError, match=message) as caught:
        made(tmp_path, wanted(disk, provisioners=(SCRIPT,)))
    assert type(caught.value) is kind
    assert "line 199" in (caught.value.details or "")
    assert "line 5\n" not in (caught.value.details or "")
    assert "kernel: [31mpanic" in (caught.value.details or "")
    assert "line 0\n" in (tmp_path / "into" / "build.log").read_text()
    assert list((tmp_path / "work").iterdir()) == []


HANGS = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP; setsid sleep 300 & echo $! > %s/left; wait" % place])
    open(place + "/started", "w").close()
    say("==> qemu: Waiting for SSH to become available...")
    time.sleep(300)
"""


@pytest.mark.threat("T82")
def test_packer_that_hangs_is_ended_with_all_that_it_started(tmp_path, stand_in, disk):
    (stand_in / "plan").write_text(textwrap.dedent(HANGS))
    with pytest.raises(BuildError, match="did not end within") as caught:
        made(tmp_path, wanted(disk), timeout_seconds=3.0)
    assert "Waiting for SSH" in (caught.value.details or "")
    assert left_over(tmp_path) == []
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.threat("T82")
def test_a_build_that_is_stopped_midway_leaves_nothing(tmp_path, stand_in, disk):
    (stand_in / "plan").write_text(textwrap.dedent(HANGS))
    stop = threading.Event()
    with ended_when(lambda: (stand_in / "started").exists() or stop.is_set()), pytest.raises(InterruptedRunError):
        made(tmp_path, wanted(disk))
    assert left_over(tmp_path) == []
    assert list((tmp_path / "work").iterdir()) == []


KILLED = """\
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_packer_builds as tests
found = tests.Measurement(acceleration=tests.Acceleration.TCG, reason="")
tests.prepared.choose_acceleration = lambda *_, **__: found
tests.made(Path(sys.argv[1]), tests.wanted(Path(sys.argv[2])))
"""


@pytest.mark.threat("T79")
def test_a_build_that_is_killed_leaves_no_process_and_the_next_one_is_whole(tmp_path, stand_in, disk):
    (stand_in / "plan").write_text(textwrap.dedent(HANGS))
    code = KILLED.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path, disk], env=environment)
    deadline = time.monotonic() + 60
    while not (stand_in / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert left_over(tmp_path) == []
    (stand_in / "plan").write_text(GOOD)
    for path in (tmp_path / "into").iterdir():
        path.unlink()
    assert made(tmp_path, wanted(disk)).packages[0].name == "base"


def test_packer_that_is_not_there_or_is_another_program_is_told(tmp_path, stand_in, disk, monkeypatch):
    (stand_in / "version").write_text("warning: no words\n")
    with pytest.raises(BuildError, match="not HashiCorp's"):
        made(tmp_path, wanted(disk))

    def missing(name):
        if name == "packer":
            raise ToolMissingError(f"the program {name!r} is not installed")
        return name

    monkeypatch.setattr(builders, "find_tool", missing)
    with pytest.raises(ToolMissingError, match="packer"):
        made(tmp_path, wanted(disk))
    assert list((tmp_path / "into").iterdir()) == []


def test_packer_that_says_nothing_it_should_and_makes_no_disk_is_no_build(tmp_path, stand_in, disk):
    (stand_in / "plan").write_text('print("x" * 1000000)\nprint("1,2")\nos.mkdir(output)\n')
    with pytest.raises(BuildError, match="made no disk"):
        made(tmp_path, wanted(disk))


def test_a_disk_that_changed_or_refers_to_others_is_not_started_from(tmp_path, stand_in, disk):
    definition = wanted(disk)
    start = definition.platforms["qemu"]
    other = {**start, "disk-checksum": "sha256:" + "0" * 64}
    with pytest.raises(BuildError, match="not the one that is wanted"):
        made(tmp_path, replace(definition, platforms={"qemu": other}))
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", overlay], check=True)
    checksum = f"sha256:{hashlib.sha256(overlay.read_bytes()).hexdigest()}"
    refers = {"disk": str(overlay), "disk-checksum": checksum}
    with pytest.raises(BuildError, match="refers to another file"):
        made(tmp_path, replace(definition, platforms={"qemu": refers}))
    with pytest.raises(BuildError, match=r"more than build\.disk-size"):
        made(tmp_path, replace(definition, disk_size_bytes=DISK_BYTES - MIB))
    assert not (stand_in / "facts.json").exists()


INSTALLS = """\
served = builder["http_directory"]
facts["served"] = {name: open(served + "/" + name).read() for name in os.listdir(served)}
json.dump(facts, open(place + "/facts.json", "w"))
make()
if builder["type"] == "virtualbox-iso":
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", output + "/disk", output + "/disk-disk001.vmdk"], check=True)
    os.remove(output + "/disk")
"""


@pytest.mark.parametrize(("platform", "device"), [("qemu", "/dev/vda"), ("virtualbox", "/dev/sda")])
def test_an_installer_gets_its_answers_and_its_disk_becomes_an_image(tmp_path, stand_in, disk, platform, device):
    (stand_in / "plan").write_text(INSTALLS)
    (stand_in / "VBoxManage").write_text("#!/bin/sh\n")
    (stand_in / "VBoxManage").chmod(0o755)
    medium = tmp_path / "medium.iso"
    medium.write_bytes(b"medium")
    checksum = f"sha256:{hashlib.sha256(b'medium').hexdigest()}"
    start = {"iso-url": str(medium), "iso-checksum": checksum}
    definition = wanted(disk, firmware=(Firmware.BIOS,), platforms={platform: start}, packages=("jq",))
    output = made(tmp_path, definition)
    assert output.images[0].image.virtual_size_bytes == DISK_BYTES
    assert [(each.name, each.uri, each.digest) for each in output.inputs] == [("medium", "", checksum)]
    seen = facts(stand_in)
    (builder,) = seen["template"]["builders"]
    answers = seen["served"]["preseed.cfg"]
    assert f"grub-installer/bootdev string {device}\n" in answers
    assert seen["public"] in answers
    address = f"http://10.0.2.2:{builder['http_port_min']}/preseed.cfg"
    assert address in "".join(builder["boot_command"])
    with pytest.raises(BuildError, match="no installation medium"):
        made(tmp_path, replace(definition, platforms={platform: {**start, "iso-url": "/nowhere/x.iso"}}))
