# SPDX-License-Identifier: Apache-2.0
"""Long XML of strangers: what is told of it, and what is refused."""

from __future__ import annotations

import pytest

from coppice.errors import DocumentError
from coppice.formats import xml_stream
from coppice.formats.xml_stream import read_xml

pytestmark = pytest.mark.unit


class Told:
    """Notes what it is told."""

    root = "a"
    texts = frozenset({"t"})

    def __init__(self) -> None:
        self.starts, self.ends = [], []

    def start(self, depth, name, attributes):
        self.starts.append((depth, name, dict(attributes)))

    def end(self, depth, name, text):
        self.ends.append((depth, name, text))


def told(document, size=7):
    reader = Told()
    read_xml([document[at : at + size] for at in range(0, len(document), size)], reader, what="it")
    return reader


def test_elements_are_told_with_their_depth_their_attributes_and_the_text_that_is_wanted():
    found = told('<?xml version="1.0" encoding="UTF-8"?><a><t x="1"> é &lt; </t><u>no</u><b xmlns="n"/></a>'.encode())
    assert found.starts == [(1, "a", {}), (2, "t", {"x": "1"}), (2, "u", {}), (2, "n b", {})]
    assert found.ends == [(2, "t", "é <"), (2, "u", ""), (2, "n b", ""), (1, "a", "")]


def test_prefixes_stand_for_namespaces_from_their_element_to_its_end():
    document = (
        b'<a xmlns:p="one"><p:b c="1" p:c="2" xml:lang="en"/>'
        b'<b xmlns="two" xmlns:p="three"><p:c/><c xmlns=""/><c/></b><p:b/><b/></a>'
    )
    found = told(document)
    assert [name for _, name, _ in found.starts] == ["a", "one b", "two b", "three c", "c", "two c", "one b", "b"]
    assert [name for _, name, _ in found.ends] == ["one b", "three c", "c", "two c", "two b", "one b", "b", "a"]
    own = "http://www.w3.org/XML/1998/namespace lang"
    assert found.starts[1][2] == {"c": "1", "one c": "2", own: "en"}
    assert found.starts[2][2] == {}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"<a><p:b/></a>", "unbound prefix 'p'"),
        (b'<a><b p:c=""/></a>', "unbound prefix 'p'"),
        (b'<a><b xmlns:p="n"/><p:b/></a>', "unbound prefix 'p'"),
        (b'<a xmlns:p="n" xmlns:q="n"><b p:c="" q:c=""/></a>', "twice"),
        (b'<a xmlns:p=""/>', "namespace that is none"),
        (b'<a xmlns:xml="n"/>', "namespace that is none"),
        (b'<a xmlns:p="n m"/>', "namespace that is none"),
        (b"<a><:b/></a>", "name that is none|not well-formed"),
        (b'<a xmlns:p="n"><p:b:c/></a>', "name that is none"),
    ],
)
def test_prefixes_that_stand_for_nothing_are_refused(document, why):
    with pytest.raises(DocumentError, match=why):
        told(document)


def many(pattern, number):
    return b"".join(pattern % at for at in range(number))


@pytest.mark.threat("T65")
@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b'<a xmlns:p="' + b"n" * 257 + b'"/>', "namespace of more than"),
        (b'<a xmlns:p="' + b"n" * 100_000 + b'"/>', "namespace of more than|tag or comment"),
        (b'<a xmlns="' + b"n" * 257 + b'"/>', "namespace of more than"),
        (b"<a><" + b"b" * 257 + b"/></a>", "name of more than"),
        (b"<a><b " + b"c" * 257 + b'=""/></a>', "name of more than"),
        (b"<a>" + many(b"<b%d/>", 5_000) + b"</a>", "too many names"),
        (b"<a>" + many(b'<b c%d=""/>', 5_000) + b"</a>", "too many names"),
        (b"<a>" + many(b'<b xmlns:p%d="n"/>', 5_000) + b"</a>", "too many names"),
        (b"<a><b " + many(b' c%d=""', 65) + b"/></a>", "too many attributes"),
        (b"<a" + many(b' xmlns:p%d="n"', 40) + b"><b" + many(b' xmlns:q%d="n"', 40) + b"/></a>", "names of namespaces"),
        (b"<a" + many(b' c%d=""', 20_000) + b"/>", "tag or comment"),
        (b"<a><b/><b" + many(b' c%d=""', 20_000) + b"/></a>", "tag or comment"),
        (b"<a><b/></b" + b" " * 200_000 + b"></a>", "tag or comment|mismatched"),
        (b"<a>" + b"<!--" + b" " * 200_000 + b"--></a>", "tag or comment"),
    ],
)
@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_what_the_parser_would_keep_is_bounded(document, why, size):
    with pytest.raises(DocumentError, match=why):
        told(document, size=size)


def test_long_texts_and_many_short_elements_are_no_long_tags():
    assert len(told(b"<a>" + b"<b c='1'>x</b>\n" * 40_000 + b"</a>", size=100_000).starts) == 40_001
    found = told(b"<a><t>" + b"x" * 1_000_000 + b"</t><u>" + b"y" * 1_000_000 + b"</u></a>", size=100_000)
    assert found.ends[0] == (2, "t", "x" * 1_000_000)


@pytest.mark.threat("T65")
@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>', "document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
        (b"<a>&e;</a>", "undefined entity"),
        (b"<a><b></a>", "mismatched tag"),
        (b"<a>", "no element found"),
        (b"", "no element found"),
        (b"<a/><a/>", "junk"),
        (b"<b/>", "begins with 'b'"),
        (b"<html><body>Sign in</body></html>", "begins with 'html'"),
        (b'<?xml version="1.0" encoding="UTF-16"?><a/>', "UTF-8 alone"),
        ("<a/>".encode("utf-16"), "not UTF-8"),
        ("<a/>".encode("utf-16-be"), "not UTF-8"),
        ("<a/>".encode("utf-16-le"), "not UTF-8"),
        (b"<a>\xff</a>", "not well-formed"),
        (b"<a" + b"><a" * 32 + b"/>", "too deep"),
    ],
)
def test_what_is_hostile_or_no_such_document_is_refused(document, why):
    with pytest.raises(DocumentError, match=why):
        told(document, size=100_000)


@pytest.mark.threat("T65")
@pytest.mark.parametrize("begin", [b"<a><b x='", b"<a><u>", b"<a><!-- "])
def test_what_does_not_end_is_refused_before_it_takes_long(begin):
    with pytest.raises(DocumentError, match="in one piece"):
        told(begin + b"x" * (5 * 1024 * 1024), size=1_000_000)


def test_there_is_an_end_to_elements(monkeypatch):
    monkeypatch.setattr(xml_stream, "MAX_ELEMENTS", 10)
    assert len(told(b"<a>" + b"<t/>" * 9 + b"</a>").starts) == 10
    with pytest.raises(DocumentError, match="too many"):
        told(b"<a>" + b"<t/>" * 10 + b"</a>")
