# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coppice.definition.git_address import GitAddress
from coppice.definition.git_lock import FILE_NAME, MAX_FILE_BYTES, PinnedSource, read_sources, write_sources
from coppice.definition.git_signature import KeyKind, PinnedKey
from coppice.errors import DefinitionSourceError

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 26, 5, 30, tzinfo=UTC)


def source(name="web", **changes):
    known = {
        "name": name,
        "address": GitAddress.parse("git+https://h.example/a.git#v1:x"),
        "commit": "1" * 40,
        "committed_at": NOW,
        "digest": "2" * 64,
        "definitions": ("base", "web"),
        "key": None,
        "signed_by": "",
        "pinned_at": NOW,
    }
    return PinnedSource(**known | changes)


def test_where_there_is_no_file_nothing_is_pinned(tmp_path):
    assert read_sources(tmp_path) == {}


NAMES = st.from_regex(r"[a-z0-9](?:[a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(NAMES, st.tuples(st.sampled_from(KeyKind), PRINTABLE, PRINTABLE, st.booleans()), max_size=4),
    st.sampled_from(["1" * 40, "a" * 64]),
)
def test_what_is_written_is_read_again(tmp_path, entries, commit):
    pinned = {
        name: source(name, commit=commit, key=PinnedKey(kind=kind, text=text) if has_key else None, signed_by=signer)
        for name, (kind, text, signer, has_key) in entries.items()
    }
    write_sources(tmp_path, pinned)
    assert read_sources(tmp_path) == pinned


def test_the_file_is_for_people_too(tmp_path):
    write_sources(tmp_path, {"web": source(key=PinnedKey(kind=KeyKind.SSH, text="a\nb\n"), signed_by="me")})
    said = tomllib.loads((tmp_path / FILE_NAME).read_text())["source"]["web"]
    assert said["address"] == "git+https://h.example/a.git#v1:x"
    assert (said["key-kind"], said["key"], said["signed-by"]) == ("ssh", "a\nb\n", "me")
    assert (tmp_path / FILE_NAME).read_text().startswith("# ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version = 1", "version = 2"),
        ("version = 1", "version ="),
        ("version = 1", "version = 1\nelse = 1"),
        ("git+https://h.example/a.git", "git+ext::sh"),
        ("1" * 40, "--upload-pack=x"),
        ("1" * 40, "../../x"),
        ('"base"', '"../base"'),
        ('source."web"', 'source."../web"'),
        ("2026-11-26T05:30:00Z", "2026-11-26T05:30:00"),
        ("digest =", "digist ="),
        ("2" * 64, "2" * 63),
        ("commit =", 'key = "x"\ncommit ='),
    ],
)
def test_a_file_that_somebody_broke_is_refused(tmp_path, before, after):
    write_sources(tmp_path, {"web": source()})
    path = tmp_path / FILE_NAME
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(DefinitionSourceError, match="cannot be used"):
        read_sources(tmp_path)


def test_a_file_that_is_no_text_or_too_long_is_refused(tmp_path):
    for content in (b"\xff\xfe", b"#" * (MAX_FILE_BYTES + 1), b"x = " + b"[" * 100_000):
        (tmp_path / FILE_NAME).write_bytes(content)
        with pytest.raises(DefinitionSourceError, match="cannot be used"):
            read_sources(tmp_path)
