# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest

from coppice.settings.name_template import KEYS, MAX_TEMPLATE_LENGTH, parse_template

pytestmark = pytest.mark.unit


def test_every_key_is_filled_in_where_it_stands():
    values = {key: key.upper() for key in KEYS}
    for key in KEYS:
        assert parse_template(f"<{{{key}}}>").fill(values) == f"<{key.upper()}>"


def test_doubled_braces_are_braces_and_missing_values_are_left_out():
    assert parse_template("{{{title}}} {vo}|").fill({"title": "x"}) == "{x} |"


def test_what_is_filled_in_is_not_read_again():
    assert parse_template("{title}").fill({"title": "{site}{{", "site": "s"}) == "{site}{{"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{titel}", "did you mean {title}?"),
        ("{os_verson}", "did you mean {os_version}?"),
        ("{zzz}", "there are {title}, {version}"),
        ("{}", "there is no {}"),
        ("{title!r}", "did you mean {title}?"),
        ("{title:>9}", "did you mean {title}?"),
        ("{title.__class__}", "there is no {title.__class__}"),
        ("{title", "'{' at character 1 stands alone"),
        ("a}b {title}", "'}' at character 2 stands alone"),
        ("plain", "gives every image the same name"),
        ("{title}" * 100, f"{MAX_TEMPLATE_LENGTH} are the most"),
    ],
)
def test_a_template_that_means_nothing_is_refused_with_what_was_meant(text, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_template(text)
