# SPDX-License-Identifier: Apache-2.0
"""What every transport must do: `TransportContract`.

A member's tests make a class of it, and give it a stand::

    class TestMyTransport(TransportContract):
        @pytest.fixture
        def stand(self, tmp_path):
            return MyStand(tmp_path)
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from coppice.cloud.transports.transport import ALGORITHMS
from coppice.errors import ChecksumMismatchError, StorageError
from coppice.model.image import DiskFormat
from coppice.monitor import SILENT
from coppice.testing.desired import converted_image, desired_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coppice.cloud.transports.transport import Offered, Transport
    from coppice.conversion.model import ConvertedImage

_SPEAKABLE = re.compile(r"[A-Za-z0-9._~/:\[\]-]+")
_SEVERAL = 6
_HOLE = bytes(1024 * 1024)
_WAIT_SECONDS = 60
CONTENT = b"QFI\xfb" + b"head" + _HOLE + b"\r\n\x00\xff middle" + _HOLE + b"tail" + bytes(70_000)
"""With holes, so that what is copied by its holes is shown to be whole."""


class TransportStand(ABC):
    """A transport under test, as the front-end sees what it offers.

    Attributes:
        transport: The one under test; nothing is offered at the start.
    """

    transport: Transport

    @abstractmethod
    def fetch(self, offered: Offered) -> bytes:
        """Return the bytes that the front-end gets, as another process of another user would.

        Raises:
            OSError: There are none.
        """

    @abstractmethod
    def left_behind(self) -> Sequence[str]:
        """Return what is at the place where images are brought, for people; nothing when nothing is offered."""

    @abstractmethod
    def abandon(self) -> None:
        """Leave what a killed run leaves, old enough to be known as such; nothing where a process leaves nothing."""


def converted_bytes(store: Path, content: bytes = CONTENT, *, version: str = "1") -> ConvertedImage:
    """Return a converted image of ``content`` in ``store``."""
    return converted_image(desired_image(version=version, content=content), store, content)


class TransportContract(ABC):
    """Images are where the front-end can fetch them, whole, for as long as they are offered, and no longer."""

    @pytest.fixture
    @abstractmethod
    def stand(self, tmp_path: Path) -> TransportStand:
        """Return the member under test."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        """Return where converted images lie; everybody may read there."""
        path = tmp_path / "store"
        path.mkdir()
        return path

    def test_what_is_fetched_is_what_was_converted(self, stand: TransportStand, store: Path) -> None:
        with stand.transport.offer(converted_bytes(store), SILENT) as offered:
            assert stand.fetch(offered) == CONTENT
            assert offered.size_bytes == len(CONTENT)

    def test_it_can_be_fetched_again_and_again(self, stand: TransportStand, store: Path) -> None:
        with stand.transport.offer(converted_bytes(store), SILENT) as offered:
            assert [stand.fetch(offered) == CONTENT for _ in range(4)] == [True] * 4

    def test_the_checksums_are_those_of_the_bytes(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        with stand.transport.offer(converted, SILENT) as offered:
            assert {*ALGORITHMS, converted.image.checksum.algorithm} <= set(offered.checksums)
            for name, checksum in offered.checksums.items():
                assert hashlib.new(name, CONTENT).hexdigest() == checksum

    def test_the_address_is_one_that_a_shell_leaves_as_it_is(self, stand: TransportStand, store: Path) -> None:
        with stand.transport.offer(converted_bytes(store), SILENT) as offered:
            assert _SPEAKABLE.fullmatch(offered.path_or_url)
            assert offered.path_or_url.startswith("/") or urlsplit(offered.path_or_url).scheme in {"http", "https"}

    def test_nothing_of_what_a_list_says_is_in_the_address(self, stand: TransportStand, store: Path) -> None:
        converted = replace(converted_bytes(store), version="$(reboot) ../../x")
        with stand.transport.offer(converted, SILENT) as offered:
            assert "reboot" not in offered.path_or_url
            assert ".." not in offered.path_or_url
            assert stand.fetch(offered) == CONTENT

    def test_two_offers_have_addresses_that_do_not_follow_from_each_other(
        self, stand: TransportStand, store: Path
    ) -> None:
        converted = converted_bytes(store)
        with stand.transport.offer(converted, SILENT) as first, stand.transport.offer(converted, SILENT) as second:
            assert first.path_or_url != second.path_or_url

    def test_nothing_is_left_afterwards(self, stand: TransportStand, store: Path) -> None:
        with stand.transport.offer(converted_bytes(store), SILENT) as offered:
            assert stand.fetch(offered) == CONTENT
        assert not stand.left_behind()
        with pytest.raises(OSError):  # noqa: PT011 - whatever it says
            stand.fetch(offered)

    @pytest.mark.parametrize("failure", [RuntimeError, OSError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
    def test_nothing_is_left_when_the_cloud_failed_and_its_error_comes_through(
        self, stand: TransportStand, store: Path, failure: type[BaseException]
    ) -> None:
        offers: list[Offered] = []
        error = failure(errno.ENOSPC, "the cloud failed")

        def offer_and_fail() -> None:
            with stand.transport.offer(converted_bytes(store), SILENT) as offered:
                offers.append(offered)
                raise error

        with pytest.raises(failure) as caught:
            offer_and_fail()
        assert caught.value is error
        assert not stand.left_behind()
        with pytest.raises(OSError):  # noqa: PT011 - whatever it says
            stand.fetch(offers[0])

    def test_the_converted_file_stays_as_it_is(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        before = converted.path.stat()
        with stand.transport.offer(converted, SILENT) as offered:
            stand.fetch(offered)
        after = converted.path.stat()
        assert (after.st_mode, after.st_mtime_ns, after.st_nlink, after.st_size) == (
            before.st_mode,
            before.st_mtime_ns,
            1,
            before.st_size,
        )
        assert converted.path.read_bytes() == CONTENT

    @pytest.mark.threat("T86")
    def test_a_file_that_was_changed_is_never_offered(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        with converted.path.open("r+b") as stream:
            stream.seek(len(CONTENT) // 2)
            stream.write(b"?")
        self._is_refused(stand, converted, ChecksumMismatchError)

    @pytest.mark.threat("T86")
    def test_a_file_that_became_shorter_or_longer_is_never_offered(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        converted.path.write_bytes(CONTENT[:-1])
        self._is_refused(stand, converted, ChecksumMismatchError)
        converted.path.write_bytes(CONTENT + b"\0")
        self._is_refused(stand, converted, ChecksumMismatchError)

    @pytest.mark.threat("T86")
    def test_a_link_in_the_files_place_is_not_followed(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        converted.path.rename(store / "elsewhere")
        converted.path.symlink_to(store / "elsewhere")
        self._is_refused(stand, converted, StorageError)

    def test_a_missing_file_is_an_error_that_names_it(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        converted.path.unlink()
        self._is_refused(stand, converted, StorageError)

    def test_what_is_no_file_is_refused_and_not_waited_for(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        converted.path.unlink()
        os.mkfifo(converted.path)
        self._is_refused(stand, converted, StorageError)

    def test_a_file_that_only_its_owner_may_read_reaches_the_front_end(
        self, stand: TransportStand, store: Path
    ) -> None:
        converted = converted_bytes(store)
        converted.path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        with stand.transport.offer(converted, SILENT) as offered:
            assert stand.fetch(offered) == CONTENT

    def test_an_empty_file_is_offered_as_such(self, stand: TransportStand, store: Path) -> None:
        with stand.transport.offer(converted_bytes(store, b""), SILENT) as offered:
            assert stand.fetch(offered) == b""
            assert offered.size_bytes == 0

    @pytest.mark.parametrize("kind", [DiskFormat.QCOW2, DiskFormat.RAW, DiskFormat.VMDK])
    def test_images_of_each_format_are_offered(self, stand: TransportStand, store: Path, kind: DiskFormat) -> None:
        converted = converted_bytes(store)
        with stand.transport.offer(replace(converted, image=replace(converted.image, format=kind)), SILENT) as offered:
            assert stand.fetch(offered) == CONTENT

    def test_the_end_of_one_offer_leaves_the_others(self, stand: TransportStand, store: Path) -> None:
        converted = converted_bytes(store)
        with stand.transport.offer(converted, SILENT) as lasting:
            with stand.transport.offer(converted, SILENT) as short:
                assert stand.fetch(short) == CONTENT
            with pytest.raises(OSError):  # noqa: PT011 - whatever it says
                stand.fetch(short)
            assert stand.fetch(lasting) == CONTENT
        assert not stand.left_behind()

    def test_several_threads_offer_at_once(self, stand: TransportStand, store: Path) -> None:
        contents = [f"image {number}".encode() * 50_000 for number in range(_SEVERAL)]
        meeting = threading.Barrier(_SEVERAL, timeout=_WAIT_SECONDS)

        def offered_and_fetched(number: int) -> bytes:
            converted = converted_bytes(store, contents[number], version=str(number))
            with stand.transport.offer(converted, SILENT) as offered:
                meeting.wait()
                found = stand.fetch(offered)
                meeting.wait()
                return found

        with ThreadPoolExecutor(_SEVERAL) as pool:
            assert list(pool.map(offered_and_fetched, range(_SEVERAL))) == contents
        assert not stand.left_behind()

    def test_sweeping_removes_what_a_killed_run_left_and_nothing_that_is_offered(
        self, stand: TransportStand, store: Path
    ) -> None:
        with ExitStack() as stack:
            offered = stack.enter_context(stand.transport.offer(converted_bytes(store), SILENT))
            in_place = list(stand.left_behind())
            stand.abandon()
            had_something = list(stand.left_behind()) != in_place
            assert bool(stand.transport.sweep()) is had_something
            assert list(stand.left_behind()) == in_place
            assert stand.fetch(offered) == CONTENT
            assert stand.transport.sweep() == ()

    def test_sweeping_an_empty_place_removes_nothing(self, stand: TransportStand) -> None:
        assert stand.transport.sweep() == ()

    def _is_refused(self, stand: TransportStand, converted: ConvertedImage, kind: type[Exception]) -> None:
        with pytest.raises(kind), stand.transport.offer(converted, SILENT):
            pytest.fail("it was offered")
        assert not stand.left_behind()
