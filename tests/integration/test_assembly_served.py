# SPDX-License-Identifier: Apache-2.0
"""Deltas from real servers, on disks with file systems: what is fetched, and what lying or dying servers lead to."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.cache.assembly import Seed
from coppice.cache.model import Held
from coppice.cache.store import ImageCache
from coppice.errors import CoppiceError
from coppice.model.checksum import Checksum
from coppice.testing.behaviours import Ranged, status
from coppice.testing.client import loopback_client
from coppice.testing.deltas import MadeDelta, make_delta
from coppice.testing.desired import desired_image
from coppice.testing.nginx import Nginx
from coppice.testing.server import LoopbackServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """Two versions of a disk with a file system, a few files apart."""
    directory = tmp_path_factory.mktemp("disks")
    tree = directory / "tree"
    tree.mkdir()
    for number in range(60):
        (tree / f"file-{number}").write_bytes(os.urandom(40_000))
    made = []
    for version in range(2):
        for number in range(3 * version):
            (tree / f"file-{number}").write_bytes(os.urandom(40_000))
        path = directory / f"{version}.img"
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), "-b", "4096"]
        fixed = ["-U", "8f0b2f52-0d9b-4c4e-9a53-2d9d1a3b6f10", "-E", "hash_seed=8f0b2f52-0d9b-4c4e-9a53-2d9d1a3b6f10"]
        subprocess.run([*argv, *fixed, str(path), "8M"], check=True, env={**os.environ, "E2FSPROGS_FAKE_TIME": "1"})
        made.append(path.read_bytes())
    return made


class Site:
    def __init__(self, directory, old, **more) -> None:
        self.seed = directory / "old"
        self.seed.write_bytes(old)
        self.directory = directory / "cache"
        self.cache = ImageCache(
            self.directory,
            client=loopback_client(read_timeout_seconds=1.0, **more),
            seeds=lambda _, __: [Seed(path=self.seed, checksum=Checksum.of(old))],
        )

    def obtain(self, listed):
        return self.cache.obtain(desired_image().key, listed)


def published(url, made: MadeDelta, whole: bytes):
    """What a list says of it; the whole file is another encoding of the disk, and larger than the delta."""
    delta = made.delta
    listed = desired_image().listed
    return replace(listed, uri=url("whole.qcow2"), size_bytes=len(whole), checksum=Checksum.of(whole), delta=delta)


def moved(made: MadeDelta, url):
    """The same delta with addresses at a server."""

    def file(one):
        return replace(one, uri=url(one.uri.removeprefix("mem:")))

    delta = made.delta
    patches = tuple(replace(each, file=file(each.file)) for each in delta.patches)
    made.delta = replace(delta, index=file(delta.index), packs=tuple(map(file, delta.packs)), patches=patches)
    return made


NOTED = struct.Struct("<QQII")
WHOLE = os.urandom(3_000_000)


@pytest.mark.parametrize("with_patch", [True, False])
def test_a_new_version_comes_as_its_difference(tmp_path, disks, with_patch):
    old, new = disks
    (tmp_path / "nginx").mkdir()
    with Nginx(tmp_path / "nginx") as server:
        made = moved(
            make_delta(new, origins=[old] if with_patch else [], frame_blocks=4), lambda at: server.url("/" + at)
        )
        for uri, content in made.files.items():
            server.put(uri.removeprefix("mem:"), content)
        site = Site(tmp_path, old)
        cached = site.obtain(published(lambda at: server.url("/" + at), made, WHOLE))
        log = (tmp_path / "nginx" / "access.log").read_text()
    assert (cached.held, cached.method) == (Held.GUEST, "patch" if with_patch else "blocks")
    assert cached.path.read_bytes() == new
    assert cached.checksum == Checksum.of(new)
    assert cached.listed_checksum == Checksum.of(WHOLE)
    sent = sum(int(line.split('"')[2].split()[1]) for line in log.splitlines())
    assert sent == cached.fetched_bytes < 400_000
    # What is here is known by the file that is listed: nothing is asked for again.
    again = site.obtain(published(lambda at: f"http://127.0.0.1:1/{at}", made, WHOLE))
    assert (again.reused, again.path) == (True, cached.path)


def test_a_disk_that_a_delta_gave_is_the_seed_of_the_next(tmp_path, disks, loopback_server):
    old, new = disks
    newer = new[:-8192] + os.urandom(8192)
    site = Site(tmp_path, old)
    for disk, origin in ((new, old), (newer, new)):
        made = moved(make_delta(disk, origins=[origin]), loopback_server.url)
        for uri, content in made.files.items():
            loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content))
        whole = os.urandom(3_000_000)
        loopback_server.set("whole.qcow2", Ranged(data=whole))
        cached = site.obtain(published(loopback_server.url, made, whole))
        assert (cached.method, cached.path.read_bytes()) == ("patch", disk)
        site.seed = cached.path
        site.cache = ImageCache(
            site.directory,
            client=loopback_client(),
            seeds=lambda _, __, cached=cached: [Seed(path=cached.path, checksum=cached.checksum)],
        )


LIES = ["ignored", "shifted", "unsaid", "other-total", "refused", "longer"]


@pytest.mark.threat("T50")
@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_about_ranges_leads_to_the_whole_file(tmp_path, disks, loopback_server, lie):
    old, new = disks
    made = moved(make_delta(new), loopback_server.url)
    for uri, content in made.files.items():
        loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content, lie=lie if "pack" in uri else ""))
    loopback_server.set("whole.qcow2", Ranged(data=WHOLE))
    cached = Site(tmp_path, old).obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.held, cached.path.read_bytes()) == (Held.PUBLISHED, WHOLE)
    assert cached.fallback


@pytest.mark.threat("T50")
@pytest.mark.parametrize("name", ["index", "patch", "pack"])
def test_other_files_than_were_signed_lead_to_the_whole_file(tmp_path, disks, loopback_server, name):
    old, new = disks
    made = moved(make_delta(new, origins=[old] if name == "patch" else []), loopback_server.url)
    for uri, content in made.files.items():
        middle = len(content) // 2
        bad = content[:middle] + bytes(64) + content[middle + 64 :]
        if name == "pack":
            bad = bytes(len(content))
        loopback_server.set(uri.removeprefix("mem:"), Ranged(data=bad if f"-{name}" in uri else content))
    loopback_server.set("whole.qcow2", Ranged(data=WHOLE))
    cached = Site(tmp_path, old).obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.held, cached.path.read_bytes()) == (Held.PUBLISHED, WHOLE)
    assert cached.fallback.startswith("delta-invalid")


@pytest.mark.threat("T56")
@pytest.mark.parametrize("with_patch", [True, False])
def test_a_mirror_with_other_files_of_a_delta_is_passed_over(tmp_path, disks, loopback_server, with_patch):
    old, new = disks
    made = moved(make_delta(new, origins=[old] if with_patch else []), loopback_server.url)
    for uri, content in made.files.items():
        name = uri.removeprefix("mem:")
        loopback_server.set(name, Ranged(data=content))
        # A pack is taken in parts, of which nothing is known before they are unpacked; whole files are compared.
        loopback_server.set(f"near/{name}", status(404) if "pack" in name else Ranged(data=bytes(len(content))))
    site = Site(tmp_path, old, mirrors={loopback_server.url(""): (loopback_server.url("near"),)})
    cached = site.obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.method, cached.path.read_bytes()) == ("patch" if with_patch else "blocks", new)
    assert any("near/" in request.path for request in loopback_server.requests)


@pytest.mark.parametrize("with_patch", [True, False])
def test_what_is_left_of_another_delta_of_the_same_disk_is_in_nobodys_way(tmp_path, disks, loopback_server, with_patch):
    old, new = disks
    site = Site(tmp_path, old)
    for frame_blocks in (2, 8):
        made = moved(
            make_delta(new, origins=[old] if with_patch else [], frame_blocks=frame_blocks), loopback_server.url
        )
        is_last = frame_blocks == 8
        for uri, content in made.files.items():
            cut_after = None if is_last or "index" in uri else 10_000 if with_patch else 3_000
            loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content, cut_after=cut_after))
        loopback_server.set("whole.qcow2", status(500))
        listed = published(loopback_server.url, made, WHOLE)
        if not is_last:
            with pytest.raises(CoppiceError):
                site.obtain(listed)
    cached = site.obtain(listed)
    assert (cached.held, cached.fallback, cached.path.read_bytes()) == (Held.GUEST, None, new)


@pytest.mark.threat("T46")
def test_a_line_that_breaks_again_and_again_costs_no_byte_twice(tmp_path, disks, loopback_server):
    old, new = disks
    made = moved(make_delta(new), loopback_server.url)
    for uri, content in made.files.items():
        loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content, cut_after=50_000))
    whole = os.urandom(3_000_000)
    loopback_server.set("whole.qcow2", status(500))
    site = Site(tmp_path, old)
    listed = published(loopback_server.url, made, whole)
    for _ in range(20):
        try:
            cached = site.obtain(listed)
            break
        except CoppiceError:  # the whole file is not there: only the delta can serve
            continue
    assert cached.path.read_bytes() == new
    asked = [each.headers["Range"] for each in loopback_server.requests if "pack" in each.path]
    starts = [int(each.removeprefix("bytes=").split("-")[0]) for each in asked]
    assert len(starts) == len(set(starts))


@pytest.mark.threat("T80")
def test_a_disk_without_room_leads_to_the_file_that_still_fits(tmp_path, disks, loopback_server, monkeypatch):
    old, new = disks
    made = moved(make_delta(new, origins=[old]), loopback_server.url)
    for uri, content in made.files.items():
        loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content))
    loopback_server.set("whole.qcow2", Ranged(data=WHOLE))
    monkeypatch.setattr("coppice.cache.assembly.RESERVE_BYTES", 1 << 60)
    cached = Site(tmp_path, old).obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.held, cached.path.read_bytes()) == (Held.PUBLISHED, WHOLE)
    assert cached.fallback.startswith("storage-full")


@pytest.mark.threat("T84")
def test_whoever_holds_the_disk_under_another_name_delays_nobody_for_long(
    tmp_path, disks, loopback_server, monkeypatch
):
    old, new = disks
    made = moved(make_delta(new, origins=[old]), loopback_server.url)
    for uri, content in made.files.items():
        loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content))
    loopback_server.set("whole.qcow2", Ranged(data=WHOLE))
    monkeypatch.setattr("coppice.cache.store.SECOND_LOCK_SECONDS", 0.1)
    site = Site(tmp_path, old)
    # As where another list names the disk's digest as its file's, and its server drips.
    with site.cache.shelf.locked(Checksum.of(new), wait_seconds=0):
        cached = site.obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.held, cached.path.read_bytes()) == (Held.PUBLISHED, WHOLE)
    assert cached.fallback.startswith("locked")
    assert list((site.directory / "partial").glob("*.partial")) == []


def test_lists_whose_digests_go_in_a_circle_stop_each_other_for_a_moment_only(
    tmp_path, disks, loopback_server, monkeypatch
):
    old, new = disks
    monkeypatch.setattr("coppice.cache.store.SECOND_LOCK_SECONDS", 0.5)
    loopback_server.set("whole.qcow2", Ranged(data=WHOLE, bytes_per_second=3_000_000))
    loopback_server.set("disk.raw", Ranged(data=new, bytes_per_second=8_000_000))
    good = published(loopback_server.url, moved(make_delta(new), loopback_server.url), WHOLE)
    evil = published(loopback_server.url, moved(make_delta(WHOLE), loopback_server.url), new)
    evil = replace(evil, uri=loopback_server.url("disk.raw"))
    ended = []
    threads = [
        threading.Thread(target=lambda each=each: ended.append(Site(tmp_path, old).obtain(each).path.read_bytes()))
        for each in (good, evil)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 8
    assert sorted(map(len, ended)) == sorted((len(WHOLE), len(new)))


def test_a_disk_that_is_mostly_zeros_needs_room_for_the_rest_only(tmp_path, disks, loopback_server):
    old, new = disks
    large = new + bytes(96 * 1024**2)
    made = moved(make_delta(large), loopback_server.url)
    for uri, content in made.files.items():
        loopback_server.set(uri.removeprefix("mem:"), Ranged(data=content))
    site = Site(tmp_path, old)
    site.cache = ImageCache(
        site.directory,
        client=loopback_client(),
        quota_bytes=32 * 1024**2,
        seeds=lambda _, __: [Seed(path=site.seed, checksum=Checksum.of(old))],
    )
    cached = site.obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.held, cached.fallback, cached.checksum) == (Held.GUEST, None, Checksum.of(large))


def test_a_pack_that_is_gone_leads_to_the_whole_file(tmp_path, disks, loopback_server):
    old, new = disks
    made = moved(make_delta(new), loopback_server.url)
    for uri, content in made.files.items():
        loopback_server.set(uri.removeprefix("mem:"), status(404) if "pack" in uri else Ranged(data=content))
    loopback_server.set("whole.qcow2", Ranged(data=WHOLE))
    cached = Site(tmp_path, old).obtain(published(loopback_server.url, made, WHOLE))
    assert (cached.held, cached.method) == (Held.PUBLISHED, "whole")


_KILLED = """
import sys
from pathlib import Path
import pickle
sys.path.insert(0, {tests!r})
from test_assembly_served import Site
listed, old = pickle.loads(Path({given!r}).read_bytes())
site = Site(Path({directory!r}), old)
site.obtain(listed)
"""


@pytest.mark.threat("T79")
@pytest.mark.parametrize("with_patch", [True, False])
def test_a_run_that_is_killed_is_taken_up_and_fetches_no_byte_twice(tmp_path, disks, with_patch):
    old, new = disks
    with LoopbackServer() as server:
        made = moved(make_delta(new, origins=[old] if with_patch else []), server.url)
        sent: list[tuple[str, int, int]] = []
        for uri, content in made.files.items():
            server.set(uri.removeprefix("mem:"), Ranged(data=content, bytes_per_second=60_000))
        listed = published(server.url, made, WHOLE)
        given = tmp_path / "given"
        given.write_bytes(pickle.dumps((listed, old)))
        code = _KILLED.format(tests=str(Path(__file__).parent), given=str(given), directory=str(tmp_path))
        for _ in range(2):
            child = subprocess.Popen([sys.executable, "-c", code])
            deadline = time.monotonic() + 15
            folder = tmp_path / "cache" / "partial" / "deltas"
            before = _held_bytes(folder)
            while child.poll() is None and _held_bytes(folder) < before + 10_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            child.wait()
            sent.append(("killed", _held_bytes(folder), child.returncode))
        assert all(each[2] == -signal.SIGKILL for each in sent), sent
        for uri, content in made.files.items():
            server.set(uri.removeprefix("mem:"), Ranged(data=content))
        held = _held_bytes(folder)
        assert held >= 20_000
        cached = Site(tmp_path, old).obtain(listed)
        assert cached.path.read_bytes() == new
        # Another site, that nobody kills, says what it costs.
        (tmp_path / "other").mkdir()
        cost = Site(tmp_path / "other", old).obtain(listed).fetched_bytes
        assert cached.fetched_bytes == cost - held


def _held_bytes(folder):
    """How many bytes came: of whole files as they are, of packs as their notes say."""
    found = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.suffix == ".note":
            content = path.read_bytes()
            found += sum(NOTED.unpack_from(content, at)[1] for at in range(0, len(content) - 23, NOTED.size))
        elif path.name.startswith(("index-", "patch-")) and path.suffix != ".progress":
            found += path.stat().st_size
    return found
