# SPDX-License-Identifier: Apache-2.0
"""Images that lead out of themselves, given to the real qemu-img as if nothing had looked at them before."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from coppice.cage import Cage, Means, Walls, find_means
from coppice.errors import ToolFailedError
from coppice.process import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration

SECRET = b"what a stranger must not have. "
SIZE = 1024 * 1024
LIMITS = Limits(file_size_bytes=8 * SIZE, cpu_seconds=60)
MEANS = {"strongest": find_means, "landlock": lambda: Means(walls=Walls.LANDLOCK, is_privileged=os.geteuid() == 0)}


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def secret_in(folder: Path, name: str = "secret") -> Path:
    path = folder / name
    path.write_bytes(SECRET * (SIZE // len(SECRET)) + bytes(SIZE % len(SECRET)))
    return path


def backed(reference: Callable[[Path], str]) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        image = folder / "image.qcow2"
        secret = secret_in(folder)
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", reference(secret), image, str(SIZE))
        return "qcow2", image

    return make


def with_data_file(*, is_raw: bool) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        image, data = folder / "image.qcow2", folder / "data"
        option = f"data_file={data},data_file_raw={'on' if is_raw else 'off'}"
        qemu_img("create", "-q", "-f", "qcow2", "-o", option, image, str(SIZE))
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write 0 {SIZE}", image], check=True, capture_output=True)
        data.unlink()
        secret_in(folder, "data")
        return "qcow2", image

    return make


def described(kind: str, extent: str) -> Callable[[Path], tuple[str, Path]]:
    def make(folder: Path) -> tuple[str, Path]:
        image = folder / "image.vmdk"
        secret = secret_in(folder)
        image.write_text(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
            f'createType="{kind}"\n\nRW {SIZE // 512} {extent.format(secret)}\n\n'
            'ddb.adapterType = "ide"\n'
        )
        return "vmdk", image

    return make


def with_parent(folder: Path) -> tuple[str, Path]:
    image, parent = folder / "image.vmdk", folder / "parent.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", secret_in(folder), parent)
    qemu_img("create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", parent, image)
    return "vmdk", image


def patched_sparse(folder: Path) -> tuple[str, Path]:
    """Return a sparse VMDK whose embedded descriptor names a second extent: a file of the host."""
    image = folder / "image.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", image, str(SIZE))
    data = bytearray(image.read_bytes())
    start = data.index(b"# Disk DescriptorFile")
    text = f'RW {SIZE // 512} FLAT "{secret_in(folder)}" 0\n'.encode()
    end = data.index(b"\n", data.index(b"RW ", start)) + 1
    begin = data.index(b"RW ", start)
    rest = bytes(data[end : data.index(b"\0", end)])
    data[begin : begin + len(text) + len(rest)] = text + rest
    data = data.replace(b'createType="monolithicSparse"', b'createType="monolithicFlat"  ', 1)
    image.write_bytes(data)
    return "vmdk", image


LEAKING = {
    "a backing file": backed(str),
    "a backing file beside the image": backed(lambda secret: secret.name),
    "a backing file as JSON": backed(
        lambda secret: "json:" + json.dumps({"driver": "raw", "file": {"driver": "file", "filename": str(secret)}})
    ),
    "a data file": with_data_file(is_raw=False),
    "a raw data file": with_data_file(is_raw=True),
    "a flat extent": described("monolithicFlat", 'FLAT "{}" 0'),
    "extents of two gigabytes": described("twoGbMaxExtentFlat", 'FLAT "{}" 0'),
    "an extent of VMFS": described("vmfs", 'VMFS "{}"'),
    "a parent": with_parent,
}
"""Each gives a host's file away when the program is not shut in."""
CLOSED = {
    "a sparse disk with another extent": patched_sparse,
    "a backing file behind a network": backed(lambda _: "nbd://127.0.0.1:10809/x"),
    "a backing file of the web": backed(lambda _: "https://127.0.0.1/x"),
}


def converted(kind: str, image: Path, target: Path, means: Means | None) -> bytes:
    """Return what came of converting an image, shut in or (None) not; nothing where it failed."""
    argv = ["qemu-img", "convert", "-f", kind, "-O", "raw"]
    if means is None:
        qemu_img(*argv[1:], image, target)
        return target.read_bytes()
    cage = Cage(reads=[image], writes=[target], means=means)
    with contextlib.suppress(ToolFailedError):
        cage.run([*argv, cage.inside(image), cage.inside(target)], limits=LIMITS, timeout_seconds=60)
    return target.read_bytes()


BACKING = sorted(what for what in LEAKING | CLOSED if "backing file" in what)
DATA = sorted(what for what in LEAKING if "data file" in what)
EXTENTS = sorted((LEAKING | CLOSED).keys() - set(BACKING) - set(DATA))


def assert_nothing_gets_out(what: str, folder: Path, means: str) -> None:
    kind, image = (LEAKING | CLOSED)[what](folder)
    assert SECRET not in converted(kind, image, folder / "out", MEANS[means]())


@pytest.mark.threat("T58")
@pytest.mark.parametrize("means", sorted(MEANS))
@pytest.mark.parametrize("what", BACKING)
def test_a_backing_file_that_was_not_given_gives_no_byte(tmp_path: Path, what: str, means: str) -> None:
    assert_nothing_gets_out(what, tmp_path, means)


@pytest.mark.threat("T59")
@pytest.mark.parametrize("means", sorted(MEANS))
@pytest.mark.parametrize("what", DATA)
def test_a_data_file_that_was_not_given_gives_no_byte(tmp_path: Path, what: str, means: str) -> None:
    assert_nothing_gets_out(what, tmp_path, means)


@pytest.mark.threat("T60")
@pytest.mark.parametrize("means", sorted(MEANS))
@pytest.mark.parametrize("what", EXTENTS)
def test_an_extent_that_was_not_given_gives_no_byte(tmp_path: Path, what: str, means: str) -> None:
    assert_nothing_gets_out(what, tmp_path, means)


@pytest.mark.parametrize("what", sorted(LEAKING))
def test_the_same_images_give_the_file_away_where_nothing_shuts_qemu_img_in(tmp_path: Path, what: str) -> None:
    kind, image = LEAKING[what](tmp_path)
    assert SECRET in converted(kind, image, tmp_path / "out", None)


@pytest.mark.threat("T61")
@pytest.mark.parametrize("means", sorted(MEANS))
@pytest.mark.parametrize("command", ["info", "convert"])
def test_an_extent_that_is_a_pipe_or_a_device_holds_nobody_up(tmp_path: Path, command: str, means: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/tty", "/dev/ptmx"):
        _, image = described("monolithicFlat", f'FLAT "{path}" 0')(tmp_path)
        cage = Cage(reads=[image], writes=[tmp_path / "out"], means=MEANS[means]())
        argv = ["qemu-img", command, *(["-O", "raw"] if command == "convert" else []), "-f", "vmdk", cage.inside(image)]
        with pytest.raises(ToolFailedError):
            cage.run([*argv, *([cage.inside(tmp_path / "out")] if command == "convert" else [])], timeout_seconds=60)
