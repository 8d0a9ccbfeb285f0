# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.hepix import read_list
from coppice.formats.strict_json import read_json
from coppice.imagelist.model import Profile

pytestmark = pytest.mark.unit

TRAPS = [
    (b'{"a": 1, "a": 2}', "twice"),
    (b'{"a": 1, "\\u0061": 2}', "twice"),
    (b'{"a": {"b": [{"c": 1, "c": 2}]}}', r"\$\.a\.b\[0\]"),
    (b'{"a": NaN}', r"\$\.a: NaN"),
    (b'{"a": Infinity}', "Infinity"),
    (b'{"a": -Infinity}', "-Infinity"),
    (b'{"a": [[NaN]]}', r"\$\.a\[0\]\[0\]: NaN"),
    (b"NaN", "NaN"),
    (b'{"a": 1e999}', "beyond"),
    (b'{"a": ' + b"7" * 41 + b"}", "41 digits"),
    (b'{"a": -' + b"7" * 5000 + b"}", "5001 digits"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    (b'{"a": ' + b"[" * 17 + b"]" * 17 + b"}", r"\$\.a(\[0\])+: it is nested deeper than 16"),
    (b'{"a": "\\ud800"}', r"\$\.a: a text with half a character"),
    (b'{"a": ["x", "\\uDfFf"]}', r"\$\.a\[1\]: a text with half a character"),
    (b'{"\\udfff": 1}', "half a character"),
    (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    (b'{"a": "\xc0\xaf"}', "not UTF-8"),
    (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    ('{"a": "é"}'.encode("latin-1"), "not UTF-8"),
    ('{"a": 1}'.encode("utf-16-le"), "JSON"),
    ('{"a": 1}'.encode("utf-16"), "byte order mark"),
    ('{"a": 1}'.encode("utf-32"), "byte order mark"),
    (b'{"a": 1} x', "not JSON"),
    (b'{"a": 1}{"a": 2}', "not JSON"),
    (b'{"a": 1,}', "not JSON"),
    (b'{"a": 01}', "not JSON"),
    (b"{'a': 1}", "not JSON"),
    (b'{"a": "\n"}', "not JSON"),
    (b'{"a": "\\x41"}', "not JSON"),
    (b'{"a": 1', "not JSON"),
    (b'{"a": 1}\x00', "not JSON"),
    (b"[]", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'{"a": "' + b"x" * 70_000 + b'"}', r"\$\.a: a text longer than"),
    (b'{"' + b"k" * 70_000 + b'": 1}', "a text longer than"),
    (b'{"a": "' + "é".encode() * 33_000 + b'"}', "a text longer than"),
    (b'{"a": "' + b'\\"' * 66_000 + b'"}', "a text longer than"),
    (b'{"a": "' + b"\\\\" * 66_000 + b'"}', "a text longer than"),
    (b"", "not JSON"),
    (b" \n", "not JSON"),
]


@pytest.mark.threat("T77")
@pytest.mark.parametrize(("payload", "said"), TRAPS)
def test_traps_in_json_are_refused(payload: bytes, said: str) -> None:
    with pytest.raises(DocumentError, match=said) as caught:
        read_json(payload, what="document")
    assert str(caught.value.context["path"]).startswith("$")


@pytest.mark.threat("T77")
@pytest.mark.parametrize("payload", [payload for payload, _ in TRAPS])
@pytest.mark.parametrize("profile", Profile)
def test_traps_in_json_are_refused_as_lists_in_every_profile(payload: bytes, profile: Profile) -> None:
    with pytest.raises(DocumentError):
        read_list(payload, profile=profile)


@pytest.mark.parametrize("length", [65_534, 65_535, 65_536])
@pytest.mark.parametrize("offset", [0, 1, 32_767, 32_768])
@pytest.mark.parametrize("sign", ["x", '\\"', "\\\\", "\\n"])
def test_texts_up_to_the_limit_are_read_wherever_they_stand(length: int, offset: int, sign: str) -> None:
    payload = f'{{{" " * offset}"a": "{sign * length}"}}'.encode()
    assert len(str(read_json(payload, what="document")["a"])) == length


@pytest.mark.parametrize("offset", [0, 1, 5, 9, 10, 11, 19, 20, 21])
@pytest.mark.parametrize("sign", ["x", "é", '\\"', "\\\\", "\\u00e9", '\\\\\\"'])
@pytest.mark.parametrize("limit", [1, 2, 9, 20, 21])
def test_a_text_that_is_one_byte_too_long_is_found_wherever_it_stands(offset: int, sign: str, limit: int) -> None:
    text = ""
    while len(json.loads(f'"{text}"').encode()) <= limit:
        text += sign
    payload = f'{{"b": [{" " * offset}"", "{text}", ""]}}'.encode()
    with pytest.raises(DocumentError, match="a text longer than"):
        read_json(payload, what="document", max_text_bytes=limit)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.text(st.characters(exclude_categories=()), max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5), st.booleans(), st.integers(1, 20), st.integers(1, 6))
def test_the_quick_look_and_the_slow_one_agree(
    document: dict[str, object], escaped: bool, max_text_bytes: int, max_depth: int
) -> None:
    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(text for member in value.values() for text in texts(member))]
        if isinstance(value, list):
            return [text for member in value for text in texts(member)]
        return [value] if isinstance(value, str) else []

    def depth(value: object) -> int:
        members = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if members is None else 1 + max((depth(member) for member in members), default=0)

    def is_bad(text: str) -> bool:
        return len(text.encode("utf-8", "surrogatepass")) > max_text_bytes or (
            not text.isascii() and any(0xD800 <= ord(sign) <= 0xDFFF for sign in text)
        )

    payload = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    expected = depth(document) <= max_depth and not any(map(is_bad, texts(document)))
    try:
        read = read_json(payload, what="document", max_text_bytes=max_text_bytes, max_depth=max_depth)
    except DocumentError:
        assert not expected
    else:
        assert expected
        assert read == document


def test_a_document_of_more_values_than_memory_bears_is_refused_unparsed() -> None:
    with pytest.raises(DocumentError, match="more than 1000000 values"):
        read_json(b'{"a": [' + b"[]," * 600_000, what="document")
    payload = b'{"a": [[], {}, 1, "x,y"]}'
    read_json(payload, what="document", max_values=8)
    with pytest.raises(DocumentError, match="more than 7 values"):
        read_json(payload, what="document", max_values=7)


@pytest.mark.threat("T76")
def test_the_place_of_a_fault_is_told_in_printable_signs() -> None:
    with pytest.raises(DocumentError) as caught:
        read_json(b'{"\\u001b[2J\\n\\u202e\xc3\xa9\\ud800": [NaN]}', what="document")
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
