# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import suppress
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.testing.opennebula.refusal import Refusal
from coppice.testing.opennebula.template import Template

pytestmark = pytest.mark.unit

XML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))


@given(XML_TEXT.filter(lambda text: "]]>" not in text))
def test_what_comes_as_xml_is_written_as_it_came(text):
    template = Template.parse(f"<TEMPLATE><A>{escape(text)}</A></TEMPLATE>")
    assert template.first("A") == text
    written = ET.fromstring(template.xml())  # noqa: S314 - written here
    assert (written.findtext("A") or "") == text


@given(st.text(st.sampled_from('ab_ =[],"\\#\n\t]>')))
def test_whatever_text_comes_is_read_or_refused(text):
    with suppress(Refusal):
        Template.parse(text)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("a = b", [("A", "b")]),
        ("A=\nB=1", [("A", ""), ("B", "1")]),
        ('A="x y"  B="z"', [("A", "x y"), ("B", "z")]),
        ("# a comment\nA=1 # another\n", [("A", "1")]),
        ('A=[b="1",C=2]', [("A", {"B": "1", "C": "2"})]),
        ("A=[]", [("A", {})]),
        ("A=1\nA=2", [("A", "1"), ("A", "2")]),
        ("1A=x", [("ONE_1A", "x")]),
        ('A="say \\"hello\\""', [("A", 'say "hello"')]),
    ],
)
def test_the_text_form_is_read(text, entries):
    assert Template.parse(text).entries == entries


def test_a_megabyte_of_what_could_end_a_value_is_read_at_once():
    inner = '\\"' * 500_000
    assert Template.parse(f'A="{inner}"').first("A") == '"' * 500_000
