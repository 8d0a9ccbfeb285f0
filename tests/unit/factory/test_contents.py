# SPDX-License-Identifier: Apache-2.0
"""Digests of contents: right however they are known, and never taken from what is not sound."""

from __future__ import annotations

import hashlib

import pytest

from coppice.errors import StorageError
from coppice.factory.evidence import contents as contents_module
from coppice.factory.evidence.contents import FILE_NAME, Contents, Digests, read_contents

LONG = b"some content " * 1000
OTHER = b"other content " * 1000
SHORT = b"short"


def digests_in(contents, content, *, md5=True, sha1=False):
    # In two pieces, as from two extents.
    return contents.digests_of(len(content), lambda: iter((content[:3], content[3:])), md5=md5, sha1=sha1)


def expected(content, *, md5=True, sha1=False):
    return Digests(
        sha256=hashlib.sha256(content).hexdigest(),
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest() if md5 else "",
        sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest() if sha1 else "",
    )


def known_from(directory, *asked):
    contents = Contents()
    for content, words in asked:
        digests_in(contents, content, **words)
    contents.write(directory / FILE_NAME)
    return read_contents(directory)


@pytest.fixture
def hashed(monkeypatch):
    """What is hashed in full, as often as it is."""
    seen = []
    real = contents_module.hashed

    def watched(pieces, **words):
        content = b"".join(pieces)
        seen.append(content)
        return real([content], **words)

    monkeypatch.setattr(contents_module, "hashed", watched)
    return seen


@pytest.mark.parametrize("content", [b"", SHORT, LONG])
@pytest.mark.parametrize("md5", [True, False])
@pytest.mark.parametrize("sha1", [True, False])
def test_digests_are_those_of_the_content(tmp_path, content, md5, sha1):
    wanted = expected(content, md5=md5, sha1=sha1)
    assert digests_in(Contents(), content, md5=md5, sha1=sha1) == wanted
    known = known_from(tmp_path, (OTHER, {}), (content, {"md5": md5, "sha1": sha1}))
    assert has_those_of(digests_in(known, content, md5=md5, sha1=sha1), wanted)


def test_what_is_known_is_not_hashed_again_and_what_is_not_is(tmp_path, hashed):
    known = known_from(tmp_path, (LONG, {}))
    hashed.clear()
    digests_in(known, LONG)
    assert hashed == []
    digests_in(known, OTHER)
    assert hashed == [OTHER]
    digests_in(known, OTHER)
    assert hashed == [OTHER]


def test_a_content_of_which_one_digest_is_known_has_the_others_made(tmp_path, hashed):
    known = known_from(tmp_path, (LONG, {"md5": False}))
    hashed.clear()
    assert digests_in(known, LONG, sha1=True) == expected(LONG, sha1=True)
    assert hashed == [LONG]


def test_only_what_was_met_is_kept(tmp_path):
    known = known_from(tmp_path, (LONG, {}), (OTHER, {}))
    digests_in(known, OTHER)
    known.write(tmp_path / "one")
    alone = Contents()
    digests_in(alone, OTHER)
    alone.write(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("first", [Contents(), None])
def test_digests_of_one_content_come_together(tmp_path, hashed, first):
    contents = first or known_from(tmp_path, (OTHER, {}))
    digests_in(contents, LONG, md5=True)
    digests_in(contents, LONG, md5=False, sha1=True)
    contents.write(tmp_path / FILE_NAME)
    known = read_contents(tmp_path)
    hashed.clear()
    assert digests_in(known, LONG, md5=True, sha1=True) == expected(LONG, md5=True, sha1=True)
    assert hashed == []


def has_those_of(found, wanted):
    """Tell whether what was asked for is there, and right; other digests of the same content may be."""
    return all(
        getattr(found, name) == getattr(wanted, name) for name in ("sha256", "md5", "sha1") if getattr(wanted, name)
    )


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], id="a bit is another"),
        pytest.param(lambda data: b"coppice contents 2\n" + data[19:], id="of another form"),
        pytest.param(lambda data: data + b"more", id="more"),
    ],
)
def test_what_is_kept_and_not_sound_says_nothing(tmp_path, hashed, damage):
    known_from(tmp_path, (LONG, {}))
    path = tmp_path / FILE_NAME
    path.write_bytes(damage(path.read_bytes()))
    hashed.clear()
    assert digests_in(read_contents(tmp_path), LONG) == expected(LONG)
    assert hashed == [LONG]


def test_of_a_build_that_kept_none_none_are_known(tmp_path, hashed):
    assert digests_in(read_contents(tmp_path), LONG) == expected(LONG)
    assert hashed == [LONG]


def test_one_that_is_no_file_says_nothing(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    assert digests_in(read_contents(tmp_path), LONG) == expected(LONG)


def test_what_cannot_be_written_is_an_error_that_says_where(tmp_path):
    with pytest.raises(StorageError, match="writing"):
        Contents().write(tmp_path / "nowhere" / FILE_NAME)
