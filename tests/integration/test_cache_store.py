# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.cache.assembly import sweep_assemblies
from coppice.cache.handout import HandOut, name_of
from coppice.cache.partial import progress_path
from coppice.cache.shelf import Shelf
from coppice.cache.store import ImageCache
from coppice.errors import (
    AddressRefusedError,
    ChecksumMismatchError,
    HttpStatusError,
    NoSpaceError,
    QuotaError,
    SizeMismatchError,
    StorageError,
    TransferCutError,
    TransferError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.http import Client
from coppice.http.access import Access
from coppice.imagelist.model import ListedImage
from coppice.model.checksum import Checksum
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.model.identifiers import ImageIdentifier, ImageKey, ListIdentifier
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.settings.model import TransferSettings
from coppice.testing import server as behave
from coppice.testing.server import LoopbackServer

pytestmark = pytest.mark.integration
DATA = os.urandom(300_000)
KEY = ImageKey(
    ListIdentifier("11111111-1111-4111-8111-111111111111"), ImageIdentifier("22222222-2222-4222-8222-222222222222")
)
SETTINGS = TransferSettings(
    list_size_limit_bytes=10**6,
    image_size_limit_bytes=10**8,
    connect_timeout_seconds=1.0,
    read_timeout_seconds=1.0,
    minimum_rate_bytes_per_second=100,
    total_timeout_seconds=10.0,
    attempts=2,
    allow_private_addresses=True,
)


def listed(uri, data=DATA, size=None):
    return ListedImage(
        identifier=KEY.image_identifier,
        version="1",
        title="an image",
        description="",
        uri=uri,
        size_bytes=len(data) if size is None else size,
        checksum=Checksum.of(data),
        declared_format="qcow2",
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        hypervisor="",
        comments="",
        expires=None,
        requirements=Requirements(),
        groups=(),
        mpuri=None,
        base_mpuri=None,
    )


@pytest.fixture
def cache(tmp_path):
    return make(tmp_path)


def make(tmp_path, **more):
    return ImageCache(tmp_path / "cache", client=Client(SETTINGS, sleep=lambda _: None), **more)


def leftovers(cache):
    own = {"locks", "reservations"}
    return [path for path in cache.directory.rglob("*") if path.is_file() and not own & set(path.parts)]


def test_an_image_is_fetched_once_and_reused(cache, tmp_path, loopback_server):
    url = loopback_server.set("x", behave.serve(DATA))
    first = cache.obtain(KEY, listed(url))
    again = make(tmp_path).obtain(KEY, listed(url))
    assert (first.reused, again.reused, len(loopback_server.requests)) == (False, True, 1)
    assert first.path.read_bytes() == DATA
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o444
    assert (cache.find(listed(url)).path, cache.find(listed(url, data=b"other"))) == (first.path, None)
    assert [entry.checksum for entry in cache.entries()] == [first.checksum]


@pytest.mark.threat("T79")
def test_what_a_run_left_that_was_killed_when_its_image_had_its_place_goes_with_the_next(
    cache, tmp_path, loopback_server
):
    image = listed(loopback_server.set("x", behave.serve(DATA)))
    cache.obtain(KEY, image)
    before = sorted(tmp_path.rglob("*"))
    partial = cache.layout.partial_path(image.checksum)
    left = (progress_path(partial), cache.directory / "reservations" / f"sha512-{image.checksum.hexdigest}")
    for path in left:
        path.write_text("left")
    assert make(tmp_path).obtain(KEY, image).reused
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.threat("T46")
@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_download_is_never_seen_before_it_is_whole(cache, loopback_server, reset):
    bad = behave.cut(DATA, 200_000, reset=reset)
    with pytest.raises(TransferCutError):
        cache.obtain(KEY, listed(loopback_server.set("x", bad)))
    assert {path.parent.name for path in leftovers(cache)} <= {"partial"}
    assert cache.entries() == ()
    got = cache.obtain(KEY, listed(loopback_server.set("y", behave.in_turn(bad, behave.serve(DATA)))))
    assert got.path.read_bytes() == DATA
    assert list(cache.layout.partial.iterdir()) == []


BAD_BODIES = [
    pytest.param(behave.without_length(DATA[:-1]), TransferCutError, marks=pytest.mark.threat("T47"), id="silent-cut"),
    pytest.param(behave.serve(DATA[:-1]), SizeMismatchError, marks=pytest.mark.threat("T47"), id="shorter"),
    pytest.param(behave.serve(b""), SizeMismatchError, marks=pytest.mark.threat("T47"), id="empty"),
    pytest.param(behave.endless(), TransferTooLargeError, marks=pytest.mark.threat("T48"), id="endless"),
    pytest.param(behave.serve(DATA + b"x"), TransferTooLargeError, marks=pytest.mark.threat("T48"), id="longer"),
    pytest.param(
        behave.serve(b"x" * len(DATA)), ChecksumMismatchError, marks=pytest.mark.threat("T56"), id="other-bytes"
    ),
]


@pytest.mark.parametrize(("body", "error"), BAD_BODIES)
def test_what_is_not_what_was_signed_is_never_seen(cache, loopback_server, body, error):
    with pytest.raises(error):
        cache.obtain(KEY, listed(loopback_server.set("x", body)))
    # What was cut off may be the beginning of the right file; all else is another one.
    assert leftovers(cache) == [] or error is TransferCutError
    assert cache.entries() == ()


@pytest.mark.threat("T51")
def test_stored_bytes_are_the_published_ones_whatever_the_encoding_header_says(cache, loopback_server):
    url = loopback_server.set("x", behave.gzip_encoded(DATA, compress=False))
    assert cache.obtain(KEY, listed(url)).path.read_bytes() == DATA


@pytest.mark.threat("T81")
def test_an_image_that_does_not_fit_is_not_asked_for(cache, loopback_server, monkeypatch):
    figures = os.statvfs("/")
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 100, 10, 10, *figures[5:])))
    with pytest.raises(NoSpaceError):
        cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA))))
    assert loopback_server.requests == []


def test_an_image_over_the_site_limit_is_not_asked_for(cache, loopback_server):
    with pytest.raises(TransferTooLargeError, match="this site takes"):
        cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA)), size=10**9))
    assert loopback_server.requests == []


def flip(path):
    path.chmod(0o644)
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path):
    path.chmod(0o644)
    os.truncate(path, 1000)


def link(path):
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.threat("T86")
@pytest.mark.parametrize("alter", [flip, truncate, link])
@pytest.mark.parametrize("same_run", [True, False])
def test_a_file_altered_in_the_cache_is_put_aside_and_fetched_again(tmp_path, loopback_server, alter, same_run):
    first = make(tmp_path)
    url = loopback_server.set("x", behave.serve(DATA))
    path = first.obtain(KEY, listed(url)).path
    alter(path)
    got = (first if same_run else make(tmp_path)).obtain(KEY, listed(url))
    assert not got.reused
    assert not got.path.is_symlink()
    assert got.path.read_bytes() == DATA
    # The file, and its record, which says that the cache made it.
    assert len(list((first.directory / "quarantine").iterdir())) == 2


def test_a_check_puts_what_was_altered_aside(cache, loopback_server):
    got = cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA))))
    assert cache.shelf.check(got.checksum)
    flip(got.path)
    assert not cache.shelf.check(got.checksum)
    assert cache.entries() == ()
    assert cache.shelf.old_quarantine(older_than_seconds=60) == ()
    assert len(cache.shelf.old_quarantine(older_than_seconds=0)) == 1
    assert list(cache.layout.quarantine.iterdir()) == []


def test_a_record_whose_file_is_gone_from_the_quarantine_goes_as_well(tmp_path):
    # A run was killed between the two, or somebody made room by hand.
    shelf = Shelf(tmp_path / "cache")
    record = shelf.layout.quarantine / "0123-4567.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert shelf.old_quarantine(older_than_seconds=60) == ()
    assert not record.exists()


def test_only_what_the_cache_made_and_no_run_uses_is_removed(cache, tmp_path, loopback_server):
    used = cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA))))
    foreign = cache.directory / "objects" / "aa" / ("a" * 128)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"not ours")
    other = make(tmp_path)
    assert other.shelf.drop(Checksum("sha512", "a" * 128)) is None
    assert other.shelf.drop(used.checksum) is None
    assert other.layout.foreign() == (foreign,)
    cache.close()
    removed = other.shelf.drop(used.checksum)
    assert removed is not None
    assert removed.checksum == used.checksum
    assert not used.path.exists()
    assert foreign.exists()


def test_a_foreign_file_with_the_right_bytes_serves_and_stays_foreign(cache, loopback_server):
    path = cache.layout.path(Checksum.of(DATA))
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    got = cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA))))
    assert (got.reused, got.path, loopback_server.requests) == (True, path, [])
    cache.close()
    assert cache.shelf.drop(got.checksum) is None
    assert path.exists()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384"])
def test_other_algorithms_are_verified_and_the_same_bytes_are_held_once(cache, tmp_path, loopback_server, algorithm):
    url = loopback_server.set("x", behave.serve(DATA))
    other = replace(listed(url), checksum=Checksum.of(DATA, algorithm))
    first = cache.obtain(KEY, other)
    assert (first.checksum, first.listed_checksum) == (Checksum.of(DATA), Checksum.of(DATA, algorithm))
    fresh = make(tmp_path)
    assert fresh.obtain(KEY, other).reused
    assert fresh.obtain(KEY, listed(url)).reused
    assert len(loopback_server.requests) == len(fresh.entries()) == 1
    with pytest.raises(ChecksumMismatchError):
        cache.obtain(KEY, replace(listed(url), checksum=Checksum.of(b"x", algorithm)))


def test_a_record_that_lies_about_another_digest_is_found_out(cache, tmp_path, loopback_server):
    kept = cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(b"bad")), data=b"bad"))
    record = cache.layout.record(kept.checksum)
    wanted = Checksum.of(DATA, "sha256")
    record.write_text(record.read_text().replace('"also": []', f'"also": ["{wanted}"]'))
    assert make(tmp_path).entries()[0].also == (wanted,)
    image = replace(listed(loopback_server.set("y", behave.serve(DATA))), checksum=wanted)
    assert make(tmp_path).obtain(KEY, image).path.read_bytes() == DATA


@pytest.mark.threat("T49")
def test_the_right_bytes_under_a_wrong_size_are_refused_although_they_are_here(cache, loopback_server):
    url = loopback_server.set("x", behave.serve(DATA))
    cache.obtain(KEY, listed(url))
    with pytest.raises(SizeMismatchError):
        cache.obtain(KEY, listed(url, size=len(DATA) + 1))
    assert cache.obtain(KEY, listed(url)).reused


def test_what_was_left_half_fetched_is_swept_when_nobody_wants_it(cache):
    wanted, unwanted = (cache.layout.partial_path(Checksum.of(each)) for each in (b"a", b"b"))
    foreign = cache.layout.partial / "notes.partial"
    for path in (wanted, unwanted, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert list(cache.shelf.idle_partials(keep={Checksum.of(b"a")}, older_than_seconds=60)) == []
    assert list(cache.shelf.idle_partials(keep={Checksum.of(b"a")})) == [unwanted]
    assert wanted.exists()
    assert foreign.exists()


def test_the_quota_removes_what_nothing_needs_and_refuses_what_does_not_fit(tmp_path, loopback_server):
    urls = {
        name: loopback_server.set(name, behave.serve(DATA[: 100_000 + number])) for number, name in enumerate("abc")
    }
    images = {name: listed(urls[name], data=DATA[: 100_000 + number]) for number, name in enumerate("abc")}
    removable = []
    cache = make(tmp_path, quota_bytes=250_000, removable=lambda: removable)
    held = [cache.obtain(KEY, images[name]) for name in "ab"]
    with pytest.raises(QuotaError):
        cache.obtain(KEY, images["c"])
    assert [request.path for request in loopback_server.requests] == ["/a", "/b"]
    removable += [each.checksum for each in held]
    with pytest.raises(QuotaError):
        # A run uses both.
        make(tmp_path, quota_bytes=250_000, removable=lambda: removable).obtain(KEY, images["c"])
    cache.close()
    cache.obtain(KEY, images["c"])
    assert [path.exists() for path in (held[0].path, held[1].path)] == [False, True]


def test_what_was_fetched_for_a_disk_that_nobody_goes_on_with_gives_way(tmp_path, loopback_server):
    cache = make(tmp_path, quota_bytes=400_000)
    left = cache.layout.partial / "deltas" / ("a" * 128) / "disk"
    left.parent.mkdir(parents=True)
    left.write_bytes(DATA)
    assert cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA)))).path.exists()
    assert not left.exists()


def test_what_would_not_fit_into_an_empty_cache_removes_nothing(tmp_path, loopback_server, monkeypatch):
    removable = []
    cache = make(tmp_path, quota_bytes=10**6, removable=lambda: removable)
    held = cache.obtain(KEY, listed(loopback_server.set("x", behave.serve(DATA))))
    removable.append(held.checksum)
    cache.close()
    begun = cache.layout.partial / f"sha512-{'a' * 128}.partial"
    begun.write_bytes(DATA)
    huge = listed(loopback_server.url("huge"), data=b"huge", size=5 * 10**7)
    with pytest.raises(QuotaError):
        cache.obtain(KEY, huge)
    figures = os.statvfs("/")
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 100, 10, 10, *figures[5:])))
    with pytest.raises(NoSpaceError):
        make(tmp_path, removable=lambda: removable).obtain(KEY, huge)
    assert (held.path.exists(), begun.exists()) == (True, True)


@pytest.mark.threat("T80")
@pytest.mark.parametrize("folder", ["objects", "expired", "deltas"])
def test_a_folder_that_cannot_be_read_is_an_error_and_not_an_empty_one(cache, monkeypatch, folder):
    def fails(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    paths = {"objects": cache.layout.objects, "expired": cache.layout.expired}
    paths.get(folder, cache.layout.partial / "deltas").mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", fails)
    with pytest.raises(StorageError):
        {
            "objects": cache.entries,
            "expired": lambda: HandOut(cache.shelf).prune(taken_back_before=datetime.now(UTC)),
            "deltas": lambda: sweep_assemblies(cache.directory),
        }[folder]()


HOSTILE = ["../../x", "/etc/x", ".", "x" * 300, "A" * 36, "a" * 36, "a/b", "\udcff", "-o", "nul\0"]


@pytest.mark.threat("T78")
@pytest.mark.parametrize("identifier", HOSTILE)
def test_no_identifier_becomes_part_of_a_path(cache, tmp_path, loopback_server, identifier):
    key = ImageKey(ListIdentifier(identifier), ImageIdentifier(identifier))
    image = replace(listed(loopback_server.set("x", behave.serve(DATA))), identifier=key.image_identifier)
    cached = cache.obtain(key, image)
    name = name_of(key, ())
    HandOut(cache.shelf).give(cached, name)
    assert re.fullmatch(r"[0-9a-f]{40}", name)
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    for path in cache.directory.rglob("*"):
        assert path.is_dir() or path.is_relative_to(cache.directory)
        assert re.fullmatch(r"[0-9a-z.-]+", path.name)


@pytest.mark.threat("T78")
def test_identifiers_that_differ_in_case_only_are_handed_out_under_two_names():
    upper, lower = (
        ImageKey(KEY.list_identifier, ImageIdentifier(text * 8 + "-aaaa-4aaa-8aaa-" + text * 12)) for text in "Aa"
    )
    first = name_of(upper, ())
    assert first == upper.image_identifier
    assert name_of(lower, [(upper, first)]).casefold() != first.casefold()
    assert name_of(upper, [(upper, first)]) == first


def test_runs_at_once_fetch_the_image_once(tmp_path, loopback_server):
    url = loopback_server.set("x", behave.serve(DATA))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(make(tmp_path).obtain(KEY, listed(url)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.reused for each in results) == [False, True, True, True]
    assert len(loopback_server.requests) == 1


def test_files_of_this_machine_are_read_only_when_allowed(cache, tmp_path):
    source = tmp_path / "a b"
    source.write_bytes(DATA)
    with pytest.raises(AddressRefusedError):
        cache.obtain(KEY, listed(source.as_uri()))
    allowed = make(tmp_path, allow_file_uris=True)
    assert allowed.obtain(KEY, listed(source.as_uri())).path.read_bytes() == DATA
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(UnreachableError):
        allowed.obtain(KEY, listed((tmp_path / "link").as_uri(), data=b"z"))


@pytest.mark.threat("T57")
@pytest.mark.parametrize("uri", ["http://127.0.0.1/\n", "-o/etc/passwd", "http://127.0.0.1:1/;touch x$(id)", ""])
def test_hostile_uris_are_an_error_and_nothing_else(cache, uri):
    with pytest.raises(TransferError):
        cache.obtain(KEY, listed(uri))
    assert leftovers(cache) == []


def test_credentials_in_a_uri_are_not_recorded(cache, loopback_server):
    loopback_server.set("x", behave.serve(DATA))
    image = replace(listed("x"), uri="https://tok:secret@127.0.0.1:1/x")
    with pytest.raises(TransferError) as caught:
        cache.obtain(KEY, image)
    assert "secret" not in str(caught.value.as_dict())


@pytest.mark.threat("T57")
@pytest.mark.parametrize("uri", ["http://[bad", "http://a\u2100b/x"])
def test_a_uri_that_cannot_be_read_is_an_error_of_that_image(cache, uri):
    with pytest.raises(AddressRefusedError):
        cache.obtain(KEY, listed(uri))
    assert leftovers(cache) == []


@pytest.mark.threat("T54")
def test_an_image_beside_its_list_is_fetched_with_the_lists_credential_and_others_without(tmp_path):
    secret = tmp_path / "token"
    secret.touch(mode=0o600)
    secret.write_text("canary\n")
    reference = CredentialReference(kind=CredentialKind.BEARER, secret_file=secret)
    with LoopbackServer() as server, LoopbackServer() as other:
        accesses = [Access(url=server.url("list"), credential=reference)]
        url = server.set("image", behave.guarded("Bearer canary", behave.serve(DATA)))
        assert make(tmp_path).obtain(KEY, listed(url), accesses=accesses).path.read_bytes() == DATA
        elsewhere = listed(other.set("image", behave.serve(b"other")), data=b"other")
        make(tmp_path).obtain(KEY, elsewhere, accesses=accesses)
        assert "Authorization" not in other.requests[0].headers
        with pytest.raises(HttpStatusError):
            make(tmp_path / "new").obtain(KEY, listed(url))
