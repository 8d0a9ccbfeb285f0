# SPDX-License-Identifier: Apache-2.0
"""A loss of power, replayed: what was flushed is there, and what was not is not to be counted on."""

from __future__ import annotations

import os

import pytest

from coppice.testing.powercut import Loss, PowerCut

pytestmark = [pytest.mark.unit, pytest.mark.threat("T83")]


def hexed(data):
    return "".join(f"\\x{each:02x}" for each in os.fsencode(data))


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "state"
    made.mkdir()
    (made / "known").write_bytes(b"old")
    return made


def saved(root, *, flushed=True, name="new"):
    """Return the calls that put a file to its name, as strace writes them with -y and -xx."""
    half, whole = root / ".half", root / name
    folder = f'AT_FDCWD<{hexed(root.parent)}>, "{hexed(half)}"'
    return [
        f"7 openat({folder}, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3<{hexed(half)}>",
        f'7 write(3<{hexed(half)}>, "{hexed("one ")}", 4 <unfinished ...>',
        f'8 write(4<{hexed("/elsewhere")}>, "{hexed("x")}", 1) = 1',
        "7 <... write resumed>) = 4",
        f'7 write(3<{hexed(half)}>, "{hexed("two")}", 3) = 3',
        *([f"7 fsync(3<{hexed(half)}>) = 0"] if flushed else []),
        f'7 rename("{hexed(half)}", "{hexed(whole)}") = 0',
    ]


def cut(root, lines):
    power = PowerCut([root])
    power.follow(lines)
    return power


def there(root):
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_what_was_flushed_before_it_got_its_name_is_whole_wherever_power_is_lost(root):
    power = cut(root, saved(root))
    for number in range(power.calls + 1):
        for loss in Loss:
            for seed in range(5):
                power.restore(number, loss, seed)
                found = there(root)
                assert found["known"] == b"old"
                assert found.get("new", b"one two") == b"one two"
    power.restore(power.calls, Loss.ALL)
    # The folder was not flushed: the name may be lost.
    assert there(root) == {"known": b"old", ".half": b"one two"}


def test_what_was_not_flushed_is_found_empty_under_its_name(root):
    power = cut(root, saved(root, flushed=False))
    power.restore(power.calls, Loss.DATA)
    assert there(root) == {"known": b"old", "new": b""}
    power.restore(power.calls, Loss.ALL)
    assert there(root) == {"known": b"old"}
    found = set()
    for seed in range(40):
        power.restore(power.calls, Loss.SOME, seed)
        found.add(there(root).get("new"))
    assert {None, b"", b"one two"} <= found


def test_a_flush_writes_what_came_before_it_and_nothing_else(root):
    known = hexed(root / "known")
    power = cut(
        root,
        [
            f'7 openat(AT_FDCWD<{hexed("/")}>, "{known}", O_RDWR|O_CREAT, 0600) = 3<{known}>',
            f'7 pwrite64(3<{known}>, "{hexed("abc")}", 3, 0) = 3',
            f"7 fdatasync(3<{known}>) = 0",
            f"7 ftruncate(3<{known}>, 1) = 0",
            f'7 pwrite64(3<{known}>, "{hexed("z")}", 1, 5) = 1',
        ],
    )
    contents = []
    for number in range(power.calls + 1):
        power.restore(number, Loss.ALL)
        contents.append(there(root)["known"])
    assert contents == [b"old", b"old", b"old", b"abc", b"abc", b"abc"]
    found = set()
    for seed in range(60):
        power.restore(power.calls, Loss.SOME, seed)
        found.add(there(root)["known"])
    assert found == {b"abc", b"a", b"abc\0\0z", b"a\0\0\0\0z"}


def test_links_folders_and_appended_lines_are_replayed(root):
    log, folder = root / "log", root / "folder"
    pieces = ", ".join(f'{{iov_base="{hexed(each)}", iov_len=1}}' for each in "23")
    lines = [
        f'7 mkdir("{hexed(folder)}", 0777) = 0',
        f'7 link("{hexed(root / "known")}", "{hexed(folder / "again")}") = 0',
        f'7 symlink("{hexed("folder/again")}", "{hexed(root / "name")}") = 0',
        f'7 openat(AT_FDCWD<{hexed("/")}>, "{hexed(log)}", O_WRONLY|O_CREAT|O_APPEND, 0600) = 3<{hexed(log)}>',
        f'7 write(3<{hexed(log)}>, "{hexed("1")}", 1) = 1',
        f"7 writev(3<{hexed(log)}>, [{pieces}], 2) = 2",
        f"7 fsync(3<{hexed(log)}>) = 0",
        f'7 rename("{hexed(folder)}", "{hexed(root / "moved")}") = 0',
        f'7 unlinkat(AT_FDCWD<{hexed(root)}>, "{hexed("known")}", 0) = 0',
        f'7 unlink("{hexed(root / "never")}") = -1 ENOENT (No such file or directory)',
        f"7 fsync(4<{hexed(root)}>) = 0",
    ]
    power = cut(root, lines)
    power.restore(power.calls, Loss.ALL)
    assert sorted(path.name for path in root.iterdir()) == ["log", "moved", "name"]
    assert (root / "moved" / "again").read_bytes() == b"old"
    assert str((root / "name").readlink()) == "folder/again"
    assert (root / "log").read_bytes() == b"123"
    power.restore(2, Loss.DATA)
    assert (root / "known").samefile(root / "folder" / "again")


def test_what_the_kernel_copied_is_replayed_from_where_it_was(root, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"0123456789")
    known = hexed(root / "known")
    inside = f"3<{hexed(tmp_path / 'elsewhere')}>"
    power = cut(
        root,
        [
            f"7 copy_file_range({inside}, NULL, 4<{known}>, NULL, 4, 0) = 4",
            f"7 copy_file_range({inside}, NULL, 4<{known}>, NULL, 4, 0) = 4",
            f"7 copy_file_range(4<{known}>, [1], 4<{known}>, [9], 2, 0) = 2",
        ],
    )
    power.restore(2, Loss.NOTHING)
    assert there(root)["known"] == b"01234567"
    power.restore(3, Loss.NOTHING)
    assert there(root)["known"] == b"01234567\0" + b"12"
    power.restore(3, Loss.DATA)
    assert there(root)["known"] == b"old"


def test_what_cannot_be_replayed_is_an_error(root):
    known = hexed(root / "known")
    for line in (
        f"7 sendfile(4<{known}>, 3<{hexed('/x')}>, NULL, 5) = 5",
        f"7 copy_file_range(3<{hexed(root / 'gone')}>, NULL, 4<{known}>, NULL, 5, 0) = 5",
        f'7 write(3<{known}>, "{hexed("a")}"..., 9) = 9',
    ):
        with pytest.raises(ValueError, match=r"replayed|cut|not there"):
            cut(root, [line])
