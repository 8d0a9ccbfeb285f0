# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coppice.definition.model import Page
from coppice.definition.read import read_definition
from coppice.definition.values import parse_page
from coppice.errors import DefinitionError
from coppice.formats.definition import definition_document, definition_from

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

GOOD = """\
[appliance]
title = "Tiny"
description = "A tiny appliance."

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
disk-size = "4 GiB"
user = "debian"

[firewall]
open = ["80/tcp", "10.0.0.0/8 443/tcp", "8080/udp"]

[[page]]
name = "front"
address = "http://:80/"
contains = "It works"

[[page]]
name = "hub"
address = "https://:443/hub/login?next="
status = 302
"""


def read(tmp_path: Path, text: str):
    folder = tmp_path / "tiny"
    folder.mkdir(exist_ok=True)
    (folder / "appliance.toml").write_text(text)
    return read_definition(folder)


def test_pages_are_read_and_come_through_a_record(tmp_path):
    definition = read(tmp_path, GOOD)
    assert definition.pages == (
        Page(name="front", port=80, contains="It works"),
        Page(name="hub", port=443, path="/hub/login?next=", is_encrypted=True, status=302),
    )
    assert definition_from(definition_document(definition)).pages == definition.pages


def test_who_names_no_page_is_what_it_was_before_pages_could_be_named(tmp_path):
    without = read(tmp_path, GOOD.partition("[[page]]")[0])
    assert without.digest() != replace(without, pages=(Page(name="front", port=80),)).digest()


@pytest.mark.parametrize("port", ["81", "8080", "22"])
def test_a_page_that_nobody_can_see_from_outside_is_refused(tmp_path, port):
    with pytest.raises(DefinitionError) as caught:
        read(tmp_path, GOOD.replace("http://:80/", f"http://:{port}/"))
    assert f'add "{port}/tcp" to firewall.open' in (caught.value.details or "") + caught.value.message


def test_without_a_firewall_every_page_can_be_seen(tmp_path):
    assert read(
        tmp_path, GOOD.replace("[firewall]\n", "[firewall]\nenabled = false\n").replace("http://:80/", "http://:81/")
    )


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:80/",
        "http://:80",
        "ftp://:80/",
        "http://:0/",
        "http://:65536/",
        "http://:80/a b",
        "http://:80/\n",
    ],
)
def test_an_address_with_a_host_or_without_a_path_is_refused(address):
    with pytest.raises(ValueError, match="not the address of a page"):
        parse_page(address)
