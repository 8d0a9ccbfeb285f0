# SPDX-License-Identifier: Apache-2.0
"""Lists that are signed well, by the right endorser, and say what no list may say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from world import DAY, Made, World, refused

from coppice.testing.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = "OpenSSL does not read what was signed"
AGES = "OpenSSL remembers nothing of what was verified before"


def edited(world: World, edit: Callable[[dict[str, Any]], None]) -> Made:
    """Return the list with its object changed."""
    return Made(message=world.signed(world.payload(edit=edit)))


def text(world: World, old: str, new: str) -> Made:
    """Return the list with its JSON text changed."""
    changed = world.payload().decode().replace(old, new, 1)
    return Made(message=world.signed(changed.encode()))


def content(code: str, *threats: str) -> Callable[[Any], Any]:
    """Return `refused` for what OpenSSL cannot know."""
    return refused(code, *threats, openssl=True, why=CONTENT)


# JSON that two readers take differently, or that no reader can take.


@content("list-malformed", "T77")
def key_twice(world: World) -> Made:
    return text(world, '"hv:version": "1",', '"hv:version": "1", "hv:version": "2",')


@content("list-malformed", "T77")
def not_a_number(world: World) -> Made:
    return text(world, '"hv:version": "1",', '"hv:version": "1", "ad:swid": NaN,')


@content("list-malformed", "T77")
def depth_of_100000(world: World) -> Made:
    return text(world, '"hv:version": "1",', '"hv:version": "1", "x": ' + "[" * 100_000 + "]" * 100_000 + ",")


@content("list-malformed", "T77")
def number_of_5000_digits(world: World) -> Made:
    return text(world, '"hv:version": "1",', '"hv:version": "1", "x": ' + "9" * 5000 + ",")


@content("list-malformed", "T77")
def half_a_character(world: World) -> Made:
    return text(world, "Example list", "Example \\ud800 list")


@content("list-malformed", "T77")
def byte_order_mark(world: World) -> Made:
    return Made(message=world.signed(b"\xef\xbb\xbf" + world.payload()))


@content("list-malformed", "T77")
def latin_1(world: World) -> Made:
    return Made(message=world.signed(world.payload().replace(b"Example list", "Bücher".encode("latin-1"), 1)))


@content("list-malformed", "T77")
def utf_16(world: World) -> Made:
    return Made(message=world.signed(world.payload().decode().encode("utf-16")))


@content("list-malformed", "T77")
def two_documents(world: World) -> Made:
    return Made(message=world.signed(world.payload() + world.payload()))


@content("list-malformed")
def an_array(world: World) -> Made:
    return Made(message=world.signed(b"[" + world.payload() + b"]"))


@content("list-malformed")
def plain_text(world: World) -> Made:
    return Made(message=world.signed(b"This is to certify that I like images."))


@content("list-malformed")
def no_list_in_it(world: World) -> Made:
    return Made(message=world.signed(b'{"hv:imagelist": []}'))


# Keys of the list.


@content("list-malformed")
def no_identifier(world: World) -> Made:
    return Made(message=world.edited(dc_identifier=None))


@content("list-malformed")
def identifier_that_is_no_uuid(world: World) -> Made:
    return Made(message=world.edited(dc_identifier="../../etc/passwd"))


@content("list-malformed")
def no_endorser(world: World) -> Made:
    return Made(message=world.edited(hv_endorser=None))


@content("list-malformed")
def no_version(world: World) -> Made:
    return Made(message=world.edited(hv_version=None))


@content("list-malformed")
def no_date_of_expiry(world: World) -> Made:
    return Made(message=world.edited(dc_date_expires=None))


@content("list-malformed")
def date_that_is_none(world: World) -> Made:
    return Made(message=world.edited(dc_date_created="yesterday"))


@content("list-malformed", "T42")
def image_identifier_twice(world: World) -> Made:
    return edited(world, lambda content: content["hv:images"].append(content["hv:images"][0]))


@content("list-malformed", "T42")
def image_identifier_twice_in_another_case(world: World) -> Made:
    def edit(content: dict[str, Any]) -> None:
        other = json.loads(json.dumps(content["hv:images"][0]))
        other["hv:image"]["dc:identifier"] = other["hv:image"]["dc:identifier"].upper()
        content["hv:images"].append(other)

    return edited(world, edit)


@content("list-malformed")
def image_without_identifier(world: World) -> Made:
    return edited(world, lambda content: content["hv:images"][0]["hv:image"].pop("dc:identifier"))


@content("list-malformed")
def more_images_than_the_limit(world: World) -> Made:
    def edit(content: dict[str, Any]) -> None:
        first = content["hv:images"][0]["hv:image"]
        content["hv:images"] = [
            {"hv:image": {**first, "dc:identifier": f"{number:08d}-0000-4000-8000-000000000000"}}
            for number in range(10_001)
        ]

    return edited(world, edit)


# Whose list it is.


@content("list-endorser-mismatch", "T14")
def another_subject_named(world: World) -> Made:
    def edit(content: dict[str, Any]) -> None:
        content["hv:endorser"]["hv:x509"]["hv:dn"] = "/DC=org/DC=example/CN=John Doe"

    return edited(world, edit)


@content("list-endorser-mismatch", "T14")
def another_authority_named(world: World) -> Made:
    def edit(content: dict[str, Any]) -> None:
        content["hv:endorser"]["hv:x509"]["hv:ca"] = "/DC=org/DC=example/CN=Other CA"

    return edited(world, edit)


@refused("list-identifier-mismatch", "T39", openssl=True, why=AGES)
def another_list_of_the_same_endorser(world: World) -> Made:
    other = Simulator.create(world.ca, endorser=world.jane, uri="https://lists.example.org/demo.list")
    other.version = "2"
    return Made(message=other.message(), before=world.signed())


@refused("list-identifier-mismatch", "T40", openssl=True, why=AGES)
def list_of_another_vo_at_this_address(world: World) -> Made:
    other = Simulator.create(world.ca, endorser=world.jane, uri="https://lists.example.org/other.list")
    other.extra["ad:vo"] = "other.example.org"
    other.version = "2"
    return Made(message=other.message(), before=world.signed())


# When.


@content("list-from-future", "T32")
def created_in_an_hour(world: World) -> Made:
    return Made(message=world.edited(dc_date_created=world.at(DAY / 24)))


@content("list-expired")
def yesterday(world: World) -> Made:
    return Made(message=world.edited(dc_date_created=world.at(-29 * DAY), dc_date_expires=world.at(-DAY)))


@content("list-expired")
def a_minute_ago(world: World) -> Made:
    return Made(message=world.edited(dc_date_created=world.at(-29 * DAY), dc_date_expires=world.at(-DAY / 1440)))


@refused("list-older", "T29", openssl=True, why=AGES)
def version_1_after_2(world: World) -> Made:
    return Made(message=world.signed(), before=world.edited(hv_version="2"))


@refused("list-older", "T31", openssl=True, why=AGES)
def version_1_9_after_1_10(world: World) -> Made:
    return Made(message=world.edited(hv_version="1.9"), before=world.edited(hv_version="1.10"))


@refused("list-older", "T31", openssl=True, why=AGES)
def candidate_after_its_release(world: World) -> Made:
    return Made(message=world.edited(hv_version="2.0-rc1"), before=world.edited(hv_version="2.0"))


@refused("list-older", "T31", openssl=True, why=AGES)
def created_earlier_where_versions_cannot_be_compared(world: World) -> Made:
    before = world.edited(hv_version=None, dc_date_created=world.at(-DAY / 24))
    now = world.edited(hv_version=None, dc_date_created=world.at(-DAY))
    return Made(message=now, before=before, options=("--profile", "lenient"))


@refused("list-changed", "T30", openssl=True, why=AGES)
def same_version_other_title(world: World) -> Made:
    return Made(message=world.edited(dc_title="Another title"), before=world.signed())


@refused("list-changed", "T30", openssl=True, why=AGES)
def same_version_otherwise_written(world: World) -> Made:
    return Made(message=world.edited(hv_version="1-0", dc_title="Another title"), before=world.edited(hv_version="1.0"))
