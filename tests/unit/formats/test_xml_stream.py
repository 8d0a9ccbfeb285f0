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
