# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.errors import InputError, UnreadableFileError
from coppice.http.message import BodyFile, Question, Reply, Validators

pytestmark = pytest.mark.unit
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("etag", ['"a"', 'W/"a"', '""', '"' + "x" * 512 + '"', '"a,b;c=d\'"'])
def test_tags_strong_and_weak_are_sent_back_as_they_came(etag):
    assert Validators(etag=etag).headers == {"If-None-Match": etag}


@pytest.mark.threat("T54")
@pytest.mark.parametrize(
    "etag",
    [
        "a",
        '"a',
        "*",
        '"a"b"',
        '"a\r\nX-Evil: 1"',
        '"a\n"',
        '"a" ',
        '"a"\r\n',
        'w/"a"',
        '"ä"',
        '"a\x00"',
        '"a\x7f"',
        '"' + "x" * 513 + '"',
        '"a", "b"',
        "",
    ],
)
def test_what_is_no_tag_is_taken_for_none(etag):
    assert Validators(etag=etag) == Validators()
    assert not Validators(etag=etag).headers


@pytest.mark.parametrize(
    "date",
    [
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        f"{DATE}\r\nX-Evil: 1",
        f"{DATE}\n",
        f"{DATE}, {DATE}",
        "0",
        "",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date_is_taken_for_none(date):
    assert Validators(last_modified=date) == Validators()


def test_both_conditions_are_sent():
    found = Validators(etag='"a"', last_modified=DATE)
    assert found.headers == {"If-None-Match": '"a"', "If-Modified-Since": DATE}


@pytest.mark.parametrize(
    ("answered", "is_kept"),
    [
        ("Sun, 06 Nov 1994 08:49:39 GMT", True),
        ("Sun, 06 Nov 1994 08:49:38 GMT", False),
        (DATE, False),
        ("Sun, 06 Nov 1994 08:00:00 GMT", False),
        ("Sun, 99 Nov 1994 08:49:39 GMT", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("tag", [{}, {"etag": '"a"'}])
def test_what_has_a_date_counts_only_when_nothing_could_change_within_its_second_any_more(answered, is_kept, tag):
    headers = tag | {"last-modified": DATE} | ({"date": answered} if answered else {})
    assert Validators.of(headers) == (Validators(**tag, last_modified=DATE) if is_kept else Validators())
    assert Validators.seen(headers) == Validators(**tag, last_modified=DATE)


def test_a_tag_that_stands_alone_is_taken_at_its_word():
    assert Validators.of({"etag": '"a"'}) == Validators(etag='"a"')
    answered = {"date": "Sun, 06 Nov 1994 09:00:00 GMT"}
    assert Validators.of({"etag": '"a"', "last-modified": "yesterday"} | answered) == Validators()


@pytest.mark.threat("T54")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Basic x"),
        ("host", "evil"),
        ("Content-Length", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "keep-alive"),
        ("Cookie", "a=b"),
        ("X-A\r\nX-B", "1"),
        ("X A", "1"),
        ("", "1"),
        ("X-A", "1\r\nX-B: 2"),
        ("X-A", "1\n"),
        ("X-A", " 1"),
        ("X-A", ""),
        ("X-A", "ä"),
        ("X-A", "x" * 20_000),
    ],
)
def test_a_header_that_breaks_a_request_or_is_the_clients_own_is_refused(name, value):
    with pytest.raises(InputError):
        Question(headers={name: value})


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "get", "GET\r\nX: 1", ""])
def test_other_methods_are_refused(method):
    with pytest.raises(InputError):
        Question(method=method)


def test_a_reply_knows_its_headers_in_any_case():
    assert Reply(status=200, headers={"etag": "x"}, body=b"", url="https://x/").header("ETag") == "x"


def test_a_body_file_is_a_part_of_a_file_exactly(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    assert b"".join(BodyFile(path=path, offset_bytes=2, size_bytes=5).pieces()) == b"23456"
    assert b"".join(BodyFile(path=path, size_bytes=0).pieces()) == b""
    for wrong in (BodyFile(path=path, size_bytes=11), BodyFile(path=path, offset_bytes=8, size_bytes=5)):
        with pytest.raises(UnreadableFileError, match="shorter"):
            list(wrong.pieces())
    for name in ("missing", "."):
        with pytest.raises(UnreadableFileError):
            list(BodyFile(path=tmp_path / name, size_bytes=1).pieces())
