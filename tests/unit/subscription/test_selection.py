# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import string
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import InputError
from coppice.model.identifiers import ImageIdentifier
from coppice.model.requirements import Requirements
from coppice.subscription.expression import FIELDS, MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_LENGTH, parse_expression
from coppice.subscription.model import ImageSelection
from coppice.subscription.selection import Selector, Wish
from coppice.testing.desired import desired_image

if TYPE_CHECKING:
    from coppice.imagelist.model import ListedImage

pytestmark = pytest.mark.unit
GIB = 1024**3


def image(**changes: object) -> ListedImage:
    listed = desired_image("x", "2.10").listed
    system = replace(listed.operating_system, kind="Linux", distribution="Debian", version="12", architecture="x86_64")
    changed: dict[str, object] = {
        "title": "Debian 12 (minimal)",
        "operating_system": system,
        "size_bytes": 2 * GIB,
        "requirements": Requirements(minimum_ram_mib=512),
        "groups": ("General", "Web"),
        "declared_format": "QCOW2",
        "expires": datetime(2027, 1, 1, tzinfo=UTC),
        "mpuri": None,
        "hypervisor": "KVM",
        "comments": 'has "quotes"',
        **changes,
    }
    return replace(listed, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("os = debian", True),
        ("os = LINUX", True),
        ("os != windows", True),
        ("os != linux", False),
        ("osversion >= 11 and osversion < 12.1", True),
        ("osversion = 12.0", False),
        ("version > 2.9", True),
        ("version ~ 2.*", True),
        ("title ~ '*(minimal)'", True),
        ("title ~ debian*", True),
        ("title ~ 'debian ??*'", True),
        ("title ~ debian", False),
        ("not title ~ '*test*'", True),
        ("arch = x86_64", True),
        ("size < 4 GiB", True),
        ("size <= 2GiB", True),
        ("size > 2000000000", True),
        ("size < 2 GB", False),
        ("ram = 512", True),
        ("ram < 1 GiB", True),
        ("group = web", True),
        ("group != web", False),
        ("group != database", True),
        ("format = qcow2", True),
        ("expires > 2026-12-31", True),
        ("expires = 2027-01-01T00:00:00Z", True),
        ("expires < 2027-01-01T01:00:00+02:00", False),
        ("mpuri = ''", True),
        (r'comments ~ "*\"quotes\""', True),
        ("vo = vo.example.org", True),
        ("vo ~ *.example.com", False),
        ("identifier = nothing", False),
        ("os = debian or os = alma and arch = aarch64", True),
        ("(os = debian or os = alma) and arch = aarch64", False),
        ("not os = debian or arch = x86_64", True),
        ("not (os = debian or arch = x86_64)", False),
        ("NOT os = alma AND Arch = X86_64", True),
        # What the list does not state is neither above nor below anything.
        ("cores >= 1", None),
        ("not cores >= 1", None),
        ("cores >= 1 or os = debian", True),
        ("cores >= 1 and os = debian", None),
        ("cores >= 1 and os = alma", False),
        ("cores != 1", None),
    ],
)
def test_a_condition_is_true_false_or_neither(text: str, expected: bool | None):
    assert parse_expression(text).holds(image(), "vo.example.org") is expected


def test_a_version_without_an_order_is_neither():
    odd = image(operating_system=replace(image().operating_system, version="!"))
    assert parse_expression("osversion > 11").holds(odd, "") is None
    assert parse_expression("osversion ~ '!'").holds(odd, "") is True
    assert parse_expression("expires > 2026-01-01").holds(image(expires=None), "") is None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 1),
        ("os", 3),
        ("os =", 5),
        ("os < 3", 4),
        ("size ~ 3", 6),
        ("(os = a", 8),
        ("os = a b", 8),
        ("os = 'a", 6),
        ("size < x", 8),
        ("size < 1e3", 8),
        ("cores = 9999999999", 9),
        ("expires > soon", 11),
        ("version > !", 11),
        ("os = a and", 11),
        ("colour = red", 1),
        ("os = a)", 7),
        ("__import__('os').system('x')", 1),
        ("title.__class__ = x", 1),
        ("(" * (MAX_EXPRESSION_DEPTH + 9) + "os = a", MAX_EXPRESSION_DEPTH + 2),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(text: str, position: int):
    with pytest.raises(InputError) as caught:
        parse_expression(text)
    assert caught.value.context["position"] == position
    assert f"character {position}:" in caught.value.message


def test_a_condition_has_a_length_and_a_depth():
    with pytest.raises(InputError, match="characters"):
        parse_expression("os = a" + " " * MAX_EXPRESSION_LENGTH)
    with pytest.raises(InputError, match="deep"):
        parse_expression("not " * 900 + "os = a")
    assert parse_expression("not " * 30 + "os = debian").holds(image(), "") is True
    long = " or ".join(["os = a"] * 400)
    assert parse_expression(long).holds(image(), "") is False


@given(st.text(alphabet=string.printable, max_size=80))
def test_no_text_ends_otherwise_than_as_a_condition_or_a_refusal(text: str):
    try:
        found = parse_expression(text)
    except InputError:
        return
    assert found.holds(image(), "") in {True, False, None}


@given(st.sampled_from(FIELDS), st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]), st.text(max_size=20))
def test_every_field_takes_or_refuses_every_value(field: str, sign: str, value: str):
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        found = parse_expression(f"{field} {sign} {quoted}")
    except InputError:
        return
    assert found.holds(image(), "vo") in {True, False, None}


def test_many_stars_on_a_long_text_take_no_time():
    hostile = image(comments="a" * 50_000)
    condition = parse_expression(f"comments ~ '{'*a' * 50}b'")
    before = time.process_time()
    assert condition.holds(hostile, "") is False
    assert time.process_time() - before < 5


def wish(listed: ListedImage | None = None, vo: str | None = "vo.example.org", **selection: object) -> Wish:
    return Selector(ImageSelection(**selection)).wish(listed or image(), vo)  # type: ignore[arg-type]


def test_every_condition_that_is_given_must_hold():
    mine = image().identifier
    other = ImageIdentifier("other")
    assert wish() is Wish.WANTED
    assert wish(images=(mine,)) is Wish.WANTED
    assert wish(images=(other,)) is Wish.UNWANTED
    assert wish(vos=("VO.example.org",)) is Wish.WANTED
    assert wish(vos=("other",)) is Wish.UNWANTED
    assert wish(vo=None, vos=("vo.example.org",)) is Wish.UNWANTED
    assert wish(operating_systems=("alma", "debian")) is Wish.WANTED
    assert wish(operating_systems=("LINUX",)) is Wish.WANTED
    assert wish(operating_systems=("alma",)) is Wish.UNWANTED
    assert wish(architectures=("X86_64",)) is Wish.WANTED
    assert wish(architectures=("aarch64",)) is Wish.UNWANTED
    assert wish(expression="size < 1 GiB") is Wish.UNWANTED
    assert wish(operating_systems=("debian",), expression="size < 4 GiB") is Wish.WANTED
    assert wish(operating_systems=("alma",), expression="cores = 1") is Wish.UNWANTED


def test_to_refuse_goes_before_to_choose():
    mine = image().identifier
    assert wish(images=(mine,), refused=(mine,)) is Wish.UNWANTED


def test_what_cannot_be_told_is_unknown_and_not_unwanted():
    assert wish(expression="cores = 1") is Wish.UNKNOWN
    selector = Selector(ImageSelection(refused=(ImageIdentifier("bad"),), expression="os = debian"))
    assert selector.wish_unreadable(ImageIdentifier("odd")) is Wish.UNKNOWN
    assert selector.wish_unreadable(ImageIdentifier("bad")) is Wish.UNWANTED


@pytest.mark.parametrize("pattern", ["'*aaaab*'", "'" + "*a" * 1000 + "b'", "'*" + "a" * 2000 + "b*'"])
def test_a_pattern_over_a_long_text_is_quick(pattern: str) -> None:
    begun = time.process_time()
    assert parse_expression(f"description ~ {pattern}").holds(image(description="a" * 65_000), "") is False
    assert time.process_time() - begun < 0.5


@given(pattern=st.text("ab*?", max_size=8), text=st.text("ab\n", max_size=8))
def test_a_pattern_means_what_its_regular_expression_does(pattern: str, text: str) -> None:
    meant = "".join({"*": ".*", "?": "."}.get(sign, sign) for sign in pattern)
    found = parse_expression(f'description ~ "{pattern}"').holds(image(description=text), "")
    assert found is (re.fullmatch(meant, text, re.DOTALL) is not None)
