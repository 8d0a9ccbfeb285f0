# SPDX-License-Identifier: Apache-2.0
"""Checksum files and pages of directories are read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.checksum_file import read_checksum_file
from coppice.formats.directory_listing import read_listing
from coppice.model.checksum import Checksum

pytestmark = pytest.mark.unit
A, B, C = "a" * 64, "b" * 128, "c" * 32


def test_lines_of_both_kinds_are_read():
    text = (
        f"{A} *noble-server-cloudimg-amd64.img\n{A.upper()}  with space.img\r\n\n# a comment\n"
        f"SHA512 (Fedora.qcow2) = {B}\n# Fedora.qcow2: 533463040 bytes\nSHA256 (Fedora.qcow2) = {A}\n"
        f"{A}  ./below/x.img\nMD5 (weak.img) = {C}\n"
    )
    found = {each.name: each for each in read_checksum_file(text.encode())}
    assert found["noble-server-cloudimg-amd64.img"].checksum == Checksum("sha256", A)
    assert found["with space.img"].checksum == Checksum("sha256", A)
    assert found["Fedora.qcow2"].checksum == Checksum("sha512", B)
    assert found["Fedora.qcow2"].size_bytes == 533463040
    assert found["below/x.img"].size_bytes is None
    assert found["weak.img"].checksum is None
    assert read_checksum_file(b"\n") == ()


def test_two_sizes_of_one_file_are_none():
    text = f"{A}  a\n# a: 5 bytes\n# a: 6 bytes\n"
    assert not read_checksum_file(text.encode())[0].size_bytes


@pytest.mark.threat("T11")
@pytest.mark.parametrize("text", [f"{C}  a\n", f"{'d' * 40} *a\n", f"MD5 (a) = {C}\nSHA1 (a) = {'d' * 40}\n"])
def test_nothing_weaker_than_sha256_counts(text: str):
    with pytest.raises(DocumentError, match="stronger than sha1"):
        read_checksum_file(text.encode())


@pytest.mark.threat("T78")
@pytest.mark.parametrize(
    "line",
    [
        f"{A}  ../a",
        f"{A}  /etc/passwd",
        f"{A}  a/../b",
        f"{A}  a//b",
        f"{A}  a/",
        f"{A}  .",
        f"{A}  ",
        f"{A}  a ",
        f"{A}  a\\b",
        f"\\{A}  a\\nb",
        f"{A}  a\tb",
        f"{A}  a\x00b",
        f"{A}  a\x1b[2Jb",
        f"{A}  a\u202eb",
        f"{A}  {'a' * 1100}",
        f"SHA256 (../a) = {A}",
        f"SHA256 () = {A}",
        f"SHA256 (a) = {B}",
        f"SHA512 (a) = {A}",
        f"{A[:-1]}  a",
        f"{A} a",
        f"{A}a  a",
        "hello",
        "<html>",
        f"{A}  a\n{A}  a",
        f"{A}  a\n{'b' * 64}  ./a",
        f"{A}  a\nSHA256 (a) = {A}",
    ],
)
def test_a_line_that_is_none_refuses_the_file(line: str):
    with pytest.raises(DocumentError):
        read_checksum_file(f"{A}  good\n{line}\n".encode())


def test_a_checksum_file_has_bounds():
    with pytest.raises(DocumentError, match="longer"):
        read_checksum_file(b"#" * (5 * 1024 * 1024))
    with pytest.raises(DocumentError, match="more than"):
        read_checksum_file("".join(f"{A}  {number}\n" for number in range(20_001)).encode())
    with pytest.raises(DocumentError, match="UTF-8"):
        read_checksum_file(b"\xff\xfe")


@given(
    st.lists(
        st.sampled_from([A, C, "SHA256 (", "MD5 (", ") = ", "  ", " *", "a", "/", "..", "\n", "#", ": 5 bytes", "\r"])
    )
)
def test_no_text_breaks_the_reader_of_checksum_files(parts: list[str]):
    try:
        found = read_checksum_file("".join(parts).encode())
    except DocumentError:
        return
    assert len({each.name for each in found}) == len(found)
    assert all(".." not in each.name.split("/") and not each.name.startswith("/") for each in found)


PAGES = {
    "nginx": b'<html><head><title>Index of /</title></head><body><h1>Index of /</h1><hr><pre><a href="../">../</a>\n'
    b'<a href="20260101/">20260101/</a>  01-Jan-2026 00:00  -\n<a href="a%20b.img">a b.img</a>  5\n</pre></body>',
    "apache": b'<table><tr><th><a href="?C=N;O=D">Name</a></th></tr><tr><td><a href="/images/">Parent Directory</a>'
    b'</td></tr><tr><td><a href="20260101/">20260101/</a></td></tr><tr><td><a href="a%20b.img">a b.img</a></td></tr>',
    "python": b'<ul>\n<li><a href="20260101/">20260101/</a></li>\n<li><a href="a%20b.img">a b.img</a></li>\n</ul>',
    "other": b"<A class='x' HREF = './20260101/'>x</A><a title=\"y\" href='a&#32;b.img'>y</a>",
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_pages_of_web_servers_are_names(page: bytes):
    found = read_listing(page)
    assert found.directories == ("20260101",)
    assert found.files == ("a b.img",)


@pytest.mark.threat("T78")
def test_a_page_names_nothing_that_is_elsewhere():
    links = (
        "..",
        "../",
        "/etc/",
        "//other.example/",
        "http://other.example/",
        "a/b",
        "a/../b/",
        "%2e%2e/",
        "..%2f",
        "a%2fb",
        "a%5cb",
        "a%00b",
        "a%0ab",
        "?x",
        "#x",
        "javascript:x",
        "%252e%252e/",
        " a",
        "&#46;&#46;/",
        "a%e2%80%aeb",
    )
    page = "".join(f'<a href="{link}">x</a>' for link in links) + '<a href="good/">'
    found = read_listing(page.encode())
    assert found.directories == ("good",)
    assert found.files == ()


def test_what_is_no_page_of_links_is_not_an_empty_directory():
    for page in (b"", b"not found", b"<a name='x'>", b"<a " * 300_000):
        with pytest.raises(DocumentError):
            read_listing(page)
    with pytest.raises(DocumentError, match="more than"):
        read_listing("".join(f'<a href="{number}">' for number in range(20_001)).encode())
    with pytest.raises(DocumentError, match="longer"):
        read_listing(b"x" * (9 * 1024 * 1024))


@given(st.text(max_size=100).map(str.encode) | st.text(alphabet="<a href=\"'/.>%2e", max_size=200).map(str.encode))
def test_no_page_breaks_the_reader_of_pages(page: bytes):
    try:
        found = read_listing(page)
    except DocumentError:
        return
    assert all("/" not in name and name not in {".", ".."} for name in (*found.directories, *found.files))
