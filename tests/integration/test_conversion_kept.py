# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import lzma
import multiprocessing
import os
import signal
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from coppice.cache.locks import Leases
from coppice.cache.model import CachedImage
from coppice.conversion.bound import sweep_leftovers
from coppice.conversion.convert import Converter
from coppice.conversion.keep import read_made, record_of
from coppice.conversion.model import ConversionLimits, Source
from coppice.conversion.options import Options, Qcow2Compression
from coppice.conversion.qemu import qemu_version
from coppice.conversion.transform import transform
from coppice.conversion.unpack import opened_disk
from coppice.errors import CoppiceError, DeclaredFormatError, NoSpaceError
from coppice.model.checksum import Checksum
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.image import DiskFormat
from coppice.model.requirements import Requirements
from coppice.monitor import SILENT
from coppice.testing import images

pytestmark = pytest.mark.integration
KEY = ImageKey(ListIdentifier("l"), ImageIdentifier("i"))
LIMITS = ConversionLimits(timeout_seconds=60)
F = DiskFormat
DISK = images.raw_disk(4 * images.MIB)


def cached(path, data=None, declared=None):
    if data is not None:
        path.write_bytes(data)
    content = path.read_bytes()
    return CachedImage(
        key=KEY,
        version="1",
        path=path,
        checksum=Checksum.of(content),
        listed_checksum=Checksum.of(content),
        size_bytes=len(content),
        declared_format=declared,
        reused=False,
    )


def opened(tmp_path, leases=None, **more):
    return Converter(tmp_path / "converted", LIMITS, leases=leases or Leases(tmp_path / "leases"), **more)


def guest(path, kind):
    raw = path.with_suffix(".compared")
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", path, raw], check=True)
    return raw.read_bytes()


def ova(tmp_path, disk=DISK, **requirements):
    source = tmp_path / "for-ova.raw"
    source.write_bytes(disk)
    options = Options(name="appliance", requirements=Requirements(**requirements))
    made = tmp_path / "made.ova"
    with opened_disk(source, LIMITS, spool=tmp_path / "spool") as found:
        transform(found, F.OVA, made, options=options, limits=LIMITS, monitor=SILENT)
    return made


@pytest.fixture
def calls(monkeypatch):
    # What the converter asks of the tool, and whether it unpacks.
    made = []

    def watched(disk, wanted, *given, **named):
        made.append((disk.inspection.disk.format, disk.is_spooled, wanted))
        return transform(disk, wanted, *given, **named)

    monkeypatch.setattr("coppice.conversion.convert.transform", watched)
    return made


def test_what_is_unpacked_becomes_the_result_and_no_tool_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("coppice.conversion.transform.write_disk", None)
    source = cached(tmp_path / "x.xz", lzma.compress(DISK))
    made = opened(tmp_path).convert(source, (F.RAW, F.QCOW2))
    assert made.path.read_bytes() == DISK
    assert (made.image.format, made.converter, made.reused) == (F.RAW, "unpacked", False)
    assert made.image.checksum == Checksum.of(DISK)
    assert made.path.stat().st_blocks * 512 < len(DISK)
    assert list((tmp_path / "converted" / "spool").iterdir()) == []


def test_what_is_kept_of_a_packed_image_is_used_without_unpacking_it_again(tmp_path, calls):
    source = cached(tmp_path / "x.xz", lzma.compress(DISK))
    first = opened(tmp_path).convert(source, (F.QCOW2,))
    again = opened(tmp_path).convert(source, (F.QCOW2,))
    assert (again.path, again.reused, again.converter) == (first.path, True, first.converter)
    assert calls == [(F.RAW, True, F.QCOW2)]


def test_another_format_of_a_packed_image_is_made_of_what_is_kept(tmp_path, calls):
    converter = opened(tmp_path)
    source = cached(tmp_path / "x.gz", gzip.compress(DISK))
    converter.convert(source, (F.QCOW2,))
    raw = converter.convert(source, (F.RAW,))
    vdi = converter.convert(source, (F.VDI,))
    # What is raw in the packed file is raw again, byte for byte, and is then the cheapest to read.
    assert calls == [(F.RAW, True, F.QCOW2), (F.QCOW2, False, F.RAW), (F.RAW, False, F.VDI)]
    assert raw.path.read_bytes() == DISK == guest(vdi.path, "vdi")


def test_a_bare_image_is_always_read_itself(tmp_path, calls):
    converter = opened(tmp_path)
    source = cached(tmp_path / "x", images.qcow2())
    converter.convert(source, (F.RAW,))
    converter.convert(source, (F.VDI,))
    assert [kind for kind, _, _ in calls] == [F.QCOW2, F.QCOW2]


def test_a_kept_start_that_was_altered_is_not_used(tmp_path, calls):
    converter = opened(tmp_path)
    source = cached(tmp_path / "x.gz", gzip.compress(DISK))
    raw = converter.convert(source, (F.RAW,)).path
    raw.chmod(0o644)
    with raw.open("r+b") as stream:
        stream.write(b"altered")
    made = opened(tmp_path).convert(source, (F.VDI,))
    assert guest(made.path, "vdi") == DISK
    assert calls[-1] == (F.RAW, True, F.VDI)


def test_the_disk_of_an_archive_is_read_where_it_lies_and_its_machine_is_told(tmp_path, calls):
    source = cached(ova(tmp_path, minimum_cores=3, minimum_ram_mib=2048))
    made = opened(tmp_path).convert(source, (F.QCOW2,))
    assert calls == [(F.VMDK, False, F.QCOW2)]
    assert guest(made.path, "qcow2") == DISK
    assert made.hardware is not None
    assert (made.hardware.minimum_cores, made.hardware.minimum_ram_mib) == (3, 2048)
    again = opened(tmp_path).convert(source, (F.QCOW2,))
    assert (again.reused, again.hardware) == (True, made.hardware)


def test_an_ova_is_taken_as_it_is_where_it_is_accepted(tmp_path, calls):
    source = cached(ova(tmp_path))
    made = opened(tmp_path).convert(source, (F.QCOW2, F.OVA))
    assert (made.path, made.converter, made.image.format) == (source.path, "none", F.OVA)
    assert made.image.checksum == source.checksum
    assert calls == []


@pytest.mark.threat("T67")
@pytest.mark.parametrize("accepted", [F.OVA, F.QCOW2, F.VMDK])
def test_an_ova_that_is_not_what_its_manifest_says_gives_nothing(tmp_path, accepted):
    path = ova(tmp_path)
    content = bytearray(path.read_bytes())
    place = content.rindex(bytes(256), 0, len(content) - 4096)
    content[place + 100] = 1
    with pytest.raises(CoppiceError) as refused:
        opened(tmp_path).convert(cached(path, bytes(content)), (accepted,))
    assert refused.value.code == "ovf-manifest"
    assert list((tmp_path / "converted").glob("objects/*")) == []


def test_the_disk_of_an_archive_that_is_wanted_is_copied_and_not_converted(tmp_path, monkeypatch):
    source = cached(ova(tmp_path))
    monkeypatch.setattr("coppice.conversion.transform.write_disk", None)
    made = opened(tmp_path).convert(source, (F.VMDK,))
    assert (made.image.format, made.converter) == (F.VMDK, "unpacked")
    assert made.path.read_bytes() in source.path.read_bytes()
    assert guest(made.path, "vmdk") == DISK


def test_options_decide_what_is_kept(tmp_path):
    source = cached(tmp_path / "x", DISK + b"easily compressed " * 512 * 200)
    kinds = [opened(tmp_path, options=Options(qcow2_compression=each)) for each in sorted(Qcow2Compression)]
    made = [each.convert(source, (F.QCOW2,)) for each in kinds]
    assert len({each.path for each in made}) == 3
    said = [subprocess.run(["qemu-img", "info", each.path], check=True, capture_output=True).stdout for each in made]
    assert [b"compression type: zlib" in each for each in said] == [True, True, False]
    assert [b"compression type: zstd" in each for each in said] == [False, False, True]
    assert made[0].image.size_bytes > made[1].image.size_bytes


def test_an_image_that_is_not_what_its_list_says_is_told_of(tmp_path):
    converter = opened(tmp_path)
    made = converter.convert(cached(tmp_path / "x", images.qcow2(), "vmdk"), (F.QCOW2,))
    assert made.differs is not None
    assert converter.convert(cached(tmp_path / "x", declared="qcow2"), (F.QCOW2,)).differs is None
    with pytest.raises(DeclaredFormatError):
        converter.convert(cached(tmp_path / "x", declared="raw"), (F.RAW,))
    packed = cached(tmp_path / "y", gzip.compress(DISK), "qcow2")
    for _ in range(2):
        assert "l/i is raw" in str(converter.convert(packed, (F.VDI,)).differs)


def test_snapshots_do_not_reach_a_cloud(tmp_path):
    path = tmp_path / "x.qcow2"
    (tmp_path / "x.raw").write_bytes(DISK)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", tmp_path / "x.raw", path], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", path], check=True)
    made = opened(tmp_path).convert(cached(path), (F.QCOW2,))
    assert made.path != path
    said = subprocess.run(["qemu-img", "snapshot", "-l", made.path], check=True, capture_output=True).stdout
    assert b"before" not in said
    assert guest(made.path, "qcow2") == DISK


def _convert(tmp_path, source, wanted, answers):
    made = opened(tmp_path).convert(source, (wanted,))
    answers.put((wanted, made.reused, str(made.path)))


def test_one_conversion_serves_however_many_want_it_at_once(tmp_path):
    noise = images.raw_disk(64 * images.MIB)
    source = cached(tmp_path / "x.gz", gzip.compress(noise, 1))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    wanted = [F.QCOW2, F.QCOW2, F.RAW, F.QCOW2]
    workers = [context.Process(target=_convert, args=(tmp_path, source, each, answers)) for each in wanted]
    for worker in workers:
        worker.start()
    said = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert sorted((each, reused) for each, reused, _ in said) == [
        (F.QCOW2, False),
        (F.QCOW2, True),
        (F.QCOW2, True),
        (F.RAW, False),
    ]
    assert len({path for _, _, path in said}) == 2


def test_the_bound_holds_for_what_nobody_uses(tmp_path):
    leases = Leases(tmp_path / "leases")
    converter = opened(tmp_path, leases, quota_bytes=1)
    made = [converter.convert(cached(tmp_path / f"{n}", images.raw_disk(seed=n)), (F.QCOW2,)).path for n in (1, 2)]
    assert all(each.exists() for each in made)
    leases.close()
    last = opened(tmp_path, quota_bytes=1).convert(cached(tmp_path / "3", images.raw_disk(seed=3)), (F.QCOW2,)).path
    assert [each.exists() for each in (*made, last)] == [False, False, True]
    assert [record_of(each).exists() for each in made] == [False, False]


def test_what_nobody_uses_makes_room_for_what_is_wanted(tmp_path, monkeypatch):
    old = opened(tmp_path).convert(cached(tmp_path / "1", images.raw_disk(seed=1)), (F.VDI,)).path
    full = []

    def room(disk, *given, **named):
        if old.exists():
            full.append(disk)
            raise NoSpaceError("full", context={"needed_bytes": 100, "free_bytes": 1})
        return transform(disk, *given, **named)

    monkeypatch.setattr("coppice.conversion.convert.transform", room)
    made = opened(tmp_path).convert(cached(tmp_path / "2", images.raw_disk(seed=2)), (F.VDI,))
    assert made.path.exists()
    assert not old.exists()
    assert len(full) == 1


def test_a_full_disk_is_told_where_nothing_may_go(tmp_path, monkeypatch):
    leases = Leases(tmp_path / "leases")
    used = opened(tmp_path, leases).convert(cached(tmp_path / "1", DISK), (F.VDI,)).path

    def full(*_given, **_named):
        raise NoSpaceError("full")

    monkeypatch.setattr("coppice.conversion.convert.transform", full)
    with pytest.raises(NoSpaceError):
        opened(tmp_path).convert(cached(tmp_path / "2", images.raw_disk(seed=2)), (F.VDI,))
    assert used.exists()


def test_a_kept_file_that_is_in_use_stays_until_it_is_given_back(tmp_path):
    leases = Leases(tmp_path / "leases")
    source = cached(tmp_path / "x", DISK)
    opened(tmp_path).convert(source, (F.VDI,))
    made = opened(tmp_path, leases).convert(source, (F.VDI,))
    other = Leases(tmp_path / "leases")
    record_of(made.path).unlink()
    assert sweep_leftovers(tmp_path / "converted", other) == ()
    leases.close()
    assert sweep_leftovers(tmp_path / "converted", other) == (made.path,)


def _convert_slowly(tmp_path, source, begun):
    def wait(*_given, **_named):
        begun.set()
        time.sleep(600)

    import coppice.conversion.convert as module

    module.hash_file = wait  # what is written is whole, and not in its place yet
    opened(tmp_path).convert(replace(source, fingerprint=_state(source.path)), (F.RAW,))


def _state(path):
    from coppice.conversion.files import state_of

    return state_of(path)


@pytest.mark.threat("T70")
def test_a_run_that_is_killed_half_way_leaves_nothing_that_is_taken_for_good(tmp_path):
    source = cached(tmp_path / "x.xz", lzma.compress(DISK))
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    worker = context.Process(target=_convert_slowly, args=(tmp_path, source, begun))
    worker.start()
    assert begun.wait(60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    objects = tmp_path / "converted" / "objects"
    assert [each.name.startswith(".coppice-") for each in objects.iterdir()] == [True]
    made = opened(tmp_path).convert(source, (F.RAW,))
    assert not made.reused
    assert made.path.read_bytes() == DISK
    assert sorted(objects.iterdir()) == sorted([made.path, record_of(made.path)])
    assert list((tmp_path / "converted" / "spool").iterdir()) == []
    assert read_made(made.path) is not None


def test_another_version_of_the_tool_makes_it_anew(tmp_path, monkeypatch):
    source = cached(tmp_path / "x", DISK)
    first = opened(tmp_path).convert(source, (F.VDI,))
    monkeypatch.setattr("coppice.conversion.convert.qemu_version", lambda: "qemu-img 99")
    other = opened(tmp_path).convert(source, (F.VDI,))
    assert (other.reused, other.converter) == (False, "qemu-img 99")
    assert other.path != first.path


@pytest.mark.threat("T70")
@pytest.mark.parametrize("said", ["qemu-img version 7.2.22 (Debian)", "no version", ""])
def test_a_tool_that_says_its_version_oddly_is_known_by_what_it_says(monkeypatch, said):
    done = SimpleNamespace(text=lambda: said)
    monkeypatch.setattr("coppice.conversion.qemu.process.run", lambda *_given, **_named: done)
    assert qemu_version() == ("qemu-img 7.2.22" if "7.2" in said else "qemu-img")


def test_what_is_only_unpacked_is_the_packed_file_whatever_else_is_kept(tmp_path, calls):
    (tmp_path / "x").write_bytes(DISK)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", tmp_path / "x", tmp_path / "x.qcow2"], check=True)
    content = (tmp_path / "x.qcow2").read_bytes()
    source = cached(tmp_path / "x.gz", gzip.compress(content))
    converter = opened(tmp_path)
    converter.convert(source, (F.RAW,))
    made = converter.convert(source, (F.QCOW2,))
    assert (made.converter, made.path.read_bytes()) == ("unpacked", content)
    assert calls[-1] == (F.QCOW2, True, F.QCOW2)


def test_an_ova_says_what_the_list_says_of_the_machine(tmp_path):
    source = cached(tmp_path / "x", DISK)
    converter = opened(tmp_path)
    needs = Requirements(minimum_cores=2, minimum_ram_mib=1024)
    made = converter.convert(source, (F.OVA,), name="Debian 12 \u2603 / x", requirements=needs)
    with opened_disk(made.path, LIMITS, spool=tmp_path) as disk:
        hardware = disk.inspection.packaging.hardware
    assert (hardware.minimum_cores, hardware.minimum_ram_mib) == (2, 1024)
    more = converter.convert(source, (F.OVA,), name="Debian 12", requirements=replace(needs, minimum_cores=4))
    assert more.path != made.path
    raw = converter.convert(cached(made.path), (F.RAW,))
    assert raw.path.read_bytes() == DISK


def test_a_kept_result_over_a_bound_that_was_lowered_is_refused(tmp_path):
    source = cached(tmp_path / "x.gz", gzip.compress(DISK))
    opened(tmp_path).convert(source, (F.QCOW2,))
    small = ConversionLimits(timeout_seconds=60, maximum_virtual_size_bytes=images.MIB)
    with pytest.raises(CoppiceError) as refused:
        Converter(tmp_path / "converted", small, leases=Leases(tmp_path / "l")).convert(source, (F.QCOW2,))
    assert refused.value.code in {"image-oversized", "image-bomb"}


def test_a_disk_for_deltas_that_something_is_made_of_stays_one(tmp_path):
    source = cached(tmp_path / "x.gz", gzip.compress(DISK))
    converter = opened(tmp_path)
    seed = converter.guest_bytes(Source.of(source))
    converter.convert(source, (F.VDI,))
    assert read_made(seed.path).is_seed
    converter.convert(source, (F.RAW,))
    assert not read_made(seed.path).is_seed
