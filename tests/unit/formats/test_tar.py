# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import ArchiveError, CorruptImageError, ImageRefusedError
from coppice.formats.tar import TarMember, is_tar, read_members
from coppice.formats.tar_header import ARCHIVE_END, name_problem, padding, ustar_header
from coppice.testing.archives import BLOCK, END, GNU, archive, extended, header, member, records

pytestmark = pytest.mark.unit


def members_of(content: bytes, *, maximum: int = 100) -> tuple[TarMember, ...]:
    return read_members(
        lambda start, length: content[start : start + length], len(content), maximum_members=maximum, name="a.tar"
    )


def written(name: str, content: bytes, form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(content), 1.5
        tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["vm.ovf", "disk with space.vmdk", "dïsk.vmdk", "long/" * 15 + "x.vmdk", "./vm.raw"])
def test_what_python_writes_is_read(form, name):
    content = written(name, b"hello", form)
    (found,) = members_of(content)
    assert (found.name, found.size_bytes) == (name, 5)
    assert content[found.offset : found.offset + 5] == b"hello"
    assert is_tar(content)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_more_than_a_hundred_bytes_are_read_from_extended_headers(form):
    name = "é" * 60 + "x" * 60
    assert [found.name for found in members_of(written(name, b"x", form))] == [name]


def test_files_of_more_than_eight_gibibytes_are_placed_by_either_way_of_writing_their_length():
    size = 9 * 2**30
    tail = member("b.txt", b"behind")
    for head in (
        header("a.raw", size_field=b"\x80" + size.to_bytes(11, "big")),
        extended(size=str(size)) + header("a.raw", 0),
        extended(size=str(size)) + header("a.raw", 0o77777777777),
    ):
        pieces = {0: head, len(head) + size: tail + END}

        def read(start: int, length: int, pieces: dict[int, bytes] = pieces) -> bytes:
            place = max(each for each in pieces if each <= start)
            inside = pieces[place][start - place : start - place + length]
            return inside.ljust(length, b"\0")

        found = read_members(read, len(head) + size + len(tail + END), maximum_members=9, name="large.tar")
        assert [(each.name, each.offset, each.size_bytes) for each in found] == [
            ("a.raw", len(head), size),
            ("b.txt", len(head) + size + BLOCK, 6),
        ]


def test_harmless_facts_of_extended_headers_are_passed_over():
    facts = {
        "mtime": "1.5",
        "SCHILY__dev": "1",
        "SCHILY__xattr__user.x": "\x01",
        "hdrcharset": "ISO-IR 10646 2000 UTF-8",
    }
    content = archive(extended("g", comment="made by git"), extended(**facts), member("a.raw", b"x"))
    assert [found.name for found in members_of(content)] == ["a.raw"]


def test_the_padding_of_a_record_and_one_block_of_zeros_end_an_archive():
    for zeros in (512, 1024, 10240, 1024 * 1024):
        assert len(members_of(archive(member("a", b"x"), end=bytes(zeros)))) == 1


def test_an_archive_of_nothing_but_zeros_has_no_member_and_does_not_look_like_one():
    assert members_of(bytes(10240)) == ()
    assert not is_tar(bytes(10240))


@pytest.mark.threat("T67")
@pytest.mark.parametrize("kind", list("1234567DKMNSVXZ"))
def test_whatever_is_no_regular_file_is_refused_at_its_place(kind):
    content = archive(member("a.ovf", b"x"), header("b.vmdk", kind=kind, link="/etc/passwd"))
    with pytest.raises(ArchiveError, match=r"b\.vmdk.*at byte 1024") as refused:
        members_of(content)
    assert refused.value.context["offset"] == 1024


@pytest.mark.threat("T67")
@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "..",
        "a/../b",
        "../a",
        "--to-command=x",
        "a/-x",
        "a\nb",
        "a\x7fb",
        "a\u202eb",
        "a\\b",
        "a//b",
        "a/",
        "./",
        "a/.",
        " a",
        "a ",
        "x" * 256,
        "",
        "./../a",
        "././a",
    ],
)
def test_names_that_lead_elsewhere_or_deceive_are_refused(name):
    assert name_problem(name) is not None
    content = name.encode()
    told = member("././@LongLink", content + b"\0", kind="L", mark=GNU) if len(content) > 100 else b""
    with pytest.raises(ArchiveError, match="name"):
        members_of(archive(extended(comment="x") * (not told), told + member(content, b"x", mark=GNU)))


@pytest.mark.threat("T67")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.vmdk", "a.vmdk"),
        ("a.vmdk", "A.VMDK"),
        ("stra\xdfe", "STRASSE"),
        ("\xe9", "e\u0301"),
        ("a", "./a"),
        ("\ufb01", "fi"),
    ],
)
def test_two_names_that_some_file_system_takes_for_one_are_refused(first, second):
    with pytest.raises(ArchiveError, match="same name"):
        members_of(archive(member(first, b"1"), member(second, b"2")))


@pytest.mark.threat("T67")
def test_the_name_that_a_plain_header_has_beside_an_extended_one_counts_as_well():
    other = extended(path="caf\xe9.vmdk")
    with pytest.raises(ArchiveError, match="same name"):
        members_of(archive(member("disk.vmdk", b"1"), other + member("disk.vmdk", b"2")))
    with pytest.raises(ArchiveError, match="upwards"):
        members_of(archive(other + member("../disk.vmdk", b"2")))
    assert [found.name for found in members_of(archive(other + member("caf?.vmdk", b"2")))] == ["caf\xe9.vmdk"]


@pytest.mark.threat("T67")
@pytest.mark.parametrize("size", ["-1", "+5", " 5", "5.0", "0x5", "9" * 30, "", "\u0665", "4"])
def test_a_length_in_an_extended_header_may_not_differ_from_one_that_the_plain_header_can_hold(size):
    with pytest.raises(ImageRefusedError, match="extended header"):
        members_of(archive(extended(size=size) + member("a.raw", b"12345")))


@pytest.mark.threat("T67")
def test_as_many_members_are_read_as_are_allowed():
    content = archive(*(member(f"{number}", b"") for number in range(100)))
    assert len(members_of(content)) == 100
    with pytest.raises(ArchiveError, match="more than 99 members"):
        members_of(content, maximum=99)


@pytest.mark.threat("T67")
@pytest.mark.parametrize(
    "stated", [b"\x80" + b"\xff" * 11, b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, b"77777777777\0"]
)
def test_a_length_that_is_only_stated_is_never_read(stated):
    asked = []
    content = archive(header("a.raw", size_field=stated))

    def read(start: int, length: int) -> bytes:
        asked.append(length)
        return content[start : start + length]

    with pytest.raises(CorruptImageError):
        read_members(read, len(content), maximum_members=9, name="a.tar")
    assert max(asked) <= BLOCK


def test_a_header_is_damaged_where_any_of_its_bytes_is_changed():
    good = archive(member("a.raw", b"x"))
    for place in (0, 100, 124, 150, 156, 257, 400, 511):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(CorruptImageError, match="damaged"):
            members_of(bytes(bad))


def test_a_mark_without_a_version_is_one_of_ustar():
    (found,) = members_of(archive(member("a.raw", b"x", mark=b"ustar\0\0\0", prefix=b"dir")))
    assert found.name == "dir/a.raw"


@pytest.mark.threat("T67")
@pytest.mark.parametrize("place", [345, 386, 482, 483, 511])
def test_a_header_of_gnu_tar_that_other_programs_would_read_a_name_or_a_sparse_file_from_is_refused(place):
    block = bytearray(header("a.raw", 1, mark=GNU))
    block[place] = ord("1")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(CorruptImageError, match="sparse and incremental"):
        members_of(archive(bytes(block) + b"x".ljust(512, b"\0")))


@pytest.mark.threat("T67")
@pytest.mark.parametrize("facts", [{"mtime": "m.5"}, {"atime": ""}, {"ctime": "1e3"}, {"uid": "-1"}, {"gid": "x"}])
def test_a_fact_in_an_extended_header_that_is_no_number_is_refused(facts):
    with pytest.raises(ArchiveError, match="is no number"):
        members_of(archive(extended(**facts) + member("a.raw", b"x")))


@pytest.mark.threat("T67")
@pytest.mark.parametrize("field", [100, 108, 116, 136, 329, 337])
def test_a_field_that_is_no_number_ends_the_reading_of_other_programs_and_is_refused(field):
    block = bytearray(header("b.raw", 1))
    block[field : field + 3] = b"9x!"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(CorruptImageError, match="no number"):
        members_of(archive(member("a.raw", b"x"), bytes(block) + bytes(512)))


@pytest.mark.threat("T67")
@given(st.data())
def test_what_is_accepted_is_read_by_python_in_the_same_way(data):
    seeds = [
        archive(extended(path="caf\xe9.vmdk", size="5") + member("caf?.vmdk", b"hello"), member("b", b"x" * 600)),
        archive(member("a.raw", b"x" * 700, prefix=b"dir"), member("b" * 99, b"y"), header("c")),
        archive(extended("g", comment="x"), member("././@LongLink", b"d" * 120 + b"\0", kind="L", mark=GNU))
        + archive(member("d" * 100, b"x", mark=GNU)),
    ]
    content = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 3))):
        block = data.draw(st.integers(0, len(content) // BLOCK - 1)) * BLOCK
        fields = [*range(8), *range(96, 110), *range(124, 160), *range(257, 265), *range(329, 350)]
        content[block + data.draw(st.sampled_from(fields))] = data.draw(st.sampled_from(b"\0 017xgL5/.\x80\xff"))
        if any(content[block : block + BLOCK]):
            content[block + 148 : block + 156] = b" " * 8
            content[block + 148 : block + 156] = b"%06o\0 " % sum(content[block : block + BLOCK])
    try:
        found = members_of(bytes(content))
    except ImageRefusedError:
        return
    with tarfile.open(fileobj=io.BytesIO(bytes(content)), mode="r:") as tar:
        theirs = [(each.name, each.size, each.offset_data) for each in tar]
    assert [(each.name, each.size_bytes, each.offset) for each in found] == theirs


def test_an_archive_calls_itself_one_by_its_mark_or_by_its_checksum():
    assert is_tar(header("a"))
    assert is_tar(header("a", mark=bytes(8)))
    assert is_tar(header("a", checksum=1))
    assert not is_tar(header("a", mark=bytes(8), checksum=1))
    assert not is_tar(header("a")[:511])
    assert not is_tar(b"")


def test_a_written_header_is_read_as_it_was_meant_and_by_python_as_well():
    for size in (0, 5, 8 * 2**30 - 1, 8 * 2**30, 2**62):
        block = ustar_header("vm-disk1.vmdk", size)
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        assert (info.name, info.size, info.mode, info.mtime, info.type) == ("vm-disk1.vmdk", size, 0o644, 0, b"0")
        assert ustar_header("vm-disk1.vmdk", size) == block
    content = ustar_header("a.txt", 5) + b"hello" + padding(5) + ARCHIVE_END
    assert [(found.name, found.size_bytes) for found in members_of(content)] == [("a.txt", 5)]


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 1), ("../a", 1), ("", 1), ("é", 1), ("a", -1), ("a", 2**63)])
def test_what_a_header_cannot_hold_is_not_written(name, size):
    with pytest.raises(ValueError, match=r"tar header|ordinal"):
        ustar_header(name, size)


@given(st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=20)), max_size=4))
def test_whatever_is_changed_in_an_archive_it_is_read_or_refused_with_a_declared_error(changes):
    content = bytearray(
        archive(extended(path="caf\xe9.vmdk") + member("caf?.vmdk", b"hello"), member("x", records(path="y"), kind="x"))
    )
    for place, piece in changes:
        content[place : place + len(piece)] = piece
    try:
        found = members_of(bytes(content))
    except ImageRefusedError:
        return
    assert all(each.offset + each.size_bytes <= len(content) for each in found)
