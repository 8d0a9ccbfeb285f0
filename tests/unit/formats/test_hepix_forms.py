# SPDX-License-Identifier: Apache-2.0
"""What publishers really write: every key, every spelling, and what is asked of it in each profile."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import DocumentError
from coppice.formats.hepix import MAX_ENDORSERS, read_list, write_list
from coppice.formats.limits import ListLimits
from coppice.imagelist.model import MarketplaceUser, Profile
from coppice.model.endorser import DistinguishedName
from coppice.model.version import Version

if TYPE_CHECKING:
    from coppice.imagelist.model import ImageList
    from coppice.testing.simulator import Simulator

pytestmark = pytest.mark.unit

ALL_IMAGE_KEYS = {
    "dc:identifier": "8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2",
    "dc:title": "Debian 12",
    "dc:description": "minimal",
    "dc:date:expires": "2027-05-22T10:00:00Z",
    "hv:uri": "https://lists.example.org/img/debian12.qcow2",
    "hv:format": "QCOW2",
    "hv:size": "734003200",
    "hv:hypervisor": "KVM",
    "hv:version": "2026.11.22",
    "hv:ram_minimum": "512",
    "hv:core_minimum": "1",
    "sl:checksum:sha512": "ab" * 64,
    "sl:arch": "x86_64",
    "sl:os": "Linux",
    "sl:osname": "Debian",
    "sl:osversion": "12",
    "sl:comments": "none",
    "ad:group": "General, Server",
    "ad:mpuri": "https://mp.example.org/store/vm/image/8a1f:77/",
    "ad:base_mpuri": "https://mp.example.org/store/vm/image/8a1f/",
    "ad:appid": "1234",
    "ad:user:fullname": "Jane Doe",
    "ad:user:guid": "f00d",
    "ad:user:uri": "https://mp.example.org/store/person/jane",
    "ad:ram_recommended": "1024",
    "ad:core_recommended": "2",
    "ad:traffic_in": [{"protocol": "tcp", "ports": "22"}],
    "ad:traffic_out": "any",
    "coppice:disk_minimum": "2147483648",
}


def payload(document: Any) -> bytes:
    return json.dumps(document).encode()


def rewritten(content: ImageList, *, profile: Profile = Profile.STRICT) -> ImageList:
    return read_list(write_list(content), profile=profile)


def test_every_key_of_an_image_is_read_with_its_type_and_unit(publisher: Simulator) -> None:
    publisher.images[:] = [dict(ALL_IMAGE_KEYS)]
    [image] = read_list(publisher.payload()).images
    assert image.extra == {}
    assert (image.size_bytes, image.declared_format, image.hypervisor) == (734003200, "QCOW2", "KVM")
    needs = image.requirements
    assert (needs.minimum_ram_mib, needs.recommended_ram_mib) == (512, 1024)
    assert (needs.minimum_cores, needs.recommended_cores, needs.minimum_disk_bytes) == (1, 2, 2147483648)
    assert image.expires == datetime(2027, 5, 22, 10, tzinfo=UTC)
    assert image.groups == ("General", "Server")
    assert (image.appliance_id, image.traffic_out) == ("1234", "any")
    assert image.traffic_in == [{"protocol": "tcp", "ports": "22"}]
    assert image.user == MarketplaceUser(
        full_name="Jane Doe", guid="f00d", uri="https://mp.example.org/store/person/jane"
    )


def test_every_key_of_an_image_is_written_as_it_was_read(publisher: Simulator) -> None:
    publisher.images[:] = [dict(ALL_IMAGE_KEYS)]
    document: Any = json.loads(write_list(read_list(publisher.payload())))
    assert document["hv:imagelist"]["hv:images"] == [{"hv:image": ALL_IMAGE_KEYS}]


def test_the_lists_own_marketplace_keys_are_read_and_written(publisher: Simulator) -> None:
    own = {"ad:swid": "42", "ad:num_of_images": "1", "ad:publisher:name": "Jane", "ad:publisher:guid": {"a": 1}}
    publisher.extra.update(own)
    content = read_list(publisher.payload())
    assert (content.swid, content.number_of_images, content.vo) == ("42", 1, "vo.example.org")
    assert content.extra == {"ad:publisher:name": "Jane", "ad:publisher:guid": {"a": 1}}
    document: Any = json.loads(write_list(content))["hv:imagelist"]
    assert {key: document[key] for key in own} == own


def test_a_count_of_images_that_is_none_is_kept_and_not_believed(publisher: Simulator) -> None:
    publisher.extra["ad:num_of_images"] = "many"
    content = read_list(publisher.payload())
    assert content.number_of_images is None
    assert rewritten(content).extra == {"ad:num_of_images": "many"}


def test_numbers_may_stand_where_the_marketplace_writes_texts(publisher: Simulator) -> None:
    publisher.images[0].update({"ad:appid": 1234, "ad:user:guid": 7, "hv:ram_minimum": 512, "hv:version": 3})
    [image] = read_list(publisher.payload()).images
    assert (image.appliance_id, image.requirements.minimum_ram_mib, image.version) == ("1234", 512, "3")
    assert image.user == MarketplaceUser(guid="7")


def test_a_list_without_any_marketplace_key_is_read(publisher: Simulator) -> None:
    document = publisher.document()
    del document["hv:imagelist"]["ad:vo"]
    content = read_list(payload(document))
    assert content.vo is None
    assert content.images[0].groups == ()


def test_the_older_form_without_an_outer_object_is_the_same_list(publisher: Simulator) -> None:
    document = publisher.document()
    assert read_list(payload(document["hv:imagelist"])) == read_list(payload(document))


def test_a_list_in_both_forms_at_once_is_refused(publisher: Simulator) -> None:
    document = publisher.document()
    with pytest.raises(DocumentError, match="which of the two"):
        read_list(payload({**document, "hv:images": []}))


def test_line_ends_of_any_kind_are_read(publisher: Simulator) -> None:
    plain = publisher.payload()
    assert read_list(plain.replace(b"\n", b"\r\n")) == read_list(plain)


def test_several_endorsers_are_read_and_written_as_an_array(publisher: Simulator) -> None:
    document = publisher.document()
    one = document["hv:imagelist"]["hv:endorser"]
    other = {"hv:x509": {**one["hv:x509"], "hv:dn": "/DC=org/CN=Joe", "dc:creator": "Joe"}}
    document["hv:imagelist"]["hv:endorser"] = [one, other]
    content = read_list(payload(document))
    assert [each.name for each in content.endorsers] == ["Jane Doe", "Joe"]
    assert content.names_endorser(DistinguishedName.parse("/DC=org/CN=Joe"), content.endorsers[0].issuer)
    assert rewritten(content) == content
    assert isinstance(json.loads(write_list(content))["hv:imagelist"]["hv:endorser"], list)


def test_an_array_of_one_endorser_is_written_as_readers_expect_it(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["hv:endorser"] = [document["hv:imagelist"]["hv:endorser"]]
    content = read_list(payload(document))
    assert content == read_list(publisher.payload())
    assert isinstance(json.loads(write_list(content))["hv:imagelist"]["hv:endorser"], dict)


@pytest.mark.parametrize("endorser", [[], [{}], [[]], "Jane", [{"hv:x509": {}}] * (MAX_ENDORSERS + 1), {"hv:x509": []}])
@pytest.mark.parametrize("profile", Profile)
def test_an_endorser_that_cannot_be_read_refuses_the_list(
    publisher: Simulator, endorser: object, profile: Profile
) -> None:
    document = publisher.document()
    document["hv:imagelist"]["hv:endorser"] = endorser
    if endorser == [] and profile is Profile.LENIENT:
        assert read_list(payload(document), profile=profile).endorsers == ()
        return
    with pytest.raises(DocumentError, match=r"\$\.hv:imagelist\.hv:endorser"):
        read_list(payload(document), profile=profile)


def test_the_other_spelling_of_the_endorsers_name_is_understood(publisher: Simulator) -> None:
    document = publisher.document()
    names = document["hv:imagelist"]["hv:endorser"]["hv:x509"]
    names["hv:dn_x509"] = "CN=Jane Doe,DC=example,DC=org"
    assert read_list(payload(document)) == read_list(publisher.payload())
    del names["hv:dn"]
    assert read_list(payload(document)) == read_list(publisher.payload())
    names["hv:dn"] = "/CN=Joe"
    with pytest.raises(DocumentError, match="another name than hv:dn"):
        read_list(payload(document))


def test_unknown_keys_survive_at_every_level(publisher: Simulator) -> None:
    document = publisher.document()
    fields = document["hv:imagelist"]
    places = [
        document,
        fields,
        fields["hv:endorser"],
        fields["hv:endorser"]["hv:x509"],
        fields["hv:images"][0],
        fields["hv:images"][0]["hv:image"],
    ]
    for number, place in enumerate(places):
        place["xx:new"] = {"level": [number, None, True, 1.5, "é"]}
    content = read_list(payload(document))
    assert rewritten(content) == content
    assert json.loads(write_list(content)) == document


def test_a_known_key_says_what_the_content_says_whatever_else_is_kept(publisher: Simulator) -> None:
    content = replace(read_list(publisher.payload()), extra={"hv:version": "9", "ad:swid": "5"})
    again = rewritten(content)
    assert (again.version, again.swid) == ("1", "5")


def test_the_same_content_gives_the_same_bytes(publisher: Simulator) -> None:
    content = read_list(publisher.payload())
    assert write_list(content) == write_list(read_list(write_list(content)))


def test_a_fraction_of_a_second_survives(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["dc:date:created"] = "2026-11-22T10:00:00.125+01:00"
    content = read_list(payload(document))
    assert content.validity.created == datetime(2026, 11, 22, 9, 0, 0, 125_000, tzinfo=UTC)
    assert rewritten(content) == content


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object(), {1: float("inf")}])
def test_what_json_cannot_say_is_not_written(publisher: Simulator, value: object) -> None:
    content = replace(read_list(publisher.payload()), extra={"xx:odd": value})
    with pytest.raises(DocumentError, match="JSON cannot say"):
        write_list(content)


def lenient_document(publisher: Simulator) -> dict[str, Any]:
    document = publisher.document()
    fields = document["hv:imagelist"]
    for key in ("hv:endorser", "dc:title", "hv:version", "hv:uri", "dc:description", "dc:source"):
        del fields[key]
    fields["dc:identifier"] = "site-images"
    image = fields["hv:images"][0]["hv:image"]
    image["dc:identifier"] = image["dc:title"] = image["dc:description"] = "ubuntu-22.04"
    for key in ("sl:comments", "hv:hypervisor"):
        image.pop(key)
    return document


def test_a_list_without_endorser_title_version_and_address_is_read_in_the_lenient_profile_only(
    publisher: Simulator,
) -> None:
    document = lenient_document(publisher)
    with pytest.raises(DocumentError):
        read_list(payload(document))
    content = read_list(payload(document), profile=Profile.LENIENT)
    assert content.identifier == "site-images"
    assert (content.endorsers, content.title, content.uri, content.source) == ((), "", "", "")
    assert content.unreadable == ()
    [image] = content.images
    assert (image.identifier, image.comments) == ("ubuntu-22.04", "")
    assert rewritten(content, profile=Profile.LENIENT) == content


@pytest.mark.parametrize(
    "key", ["hv:endorser", "dc:title", "hv:version", "hv:uri", "dc:description", "dc:source", "dc:identifier"]
)
def test_no_single_leniency_is_granted_in_the_strict_profile(publisher: Simulator, key: str) -> None:
    document = publisher.document()
    document["hv:imagelist"].update({key: "not a uuid"} if key == "dc:identifier" else {key: None})
    with pytest.raises(DocumentError, match=key):
        read_list(payload(document))
    read_list(payload(document), profile=Profile.LENIENT)


@pytest.mark.threat("T31")
def test_a_list_without_a_version_is_as_new_as_its_date_of_creation(publisher: Simulator) -> None:
    document = lenient_document(publisher)
    dates = [
        "0999-12-31T23:59:59Z",
        "2026-11-22T10:00:00+02:00",
        "2026-11-22T10:00:00Z",
        "2026-11-22T10:00:00.000001Z",
        "2026-11-22T10:00:00.25Z",
        "2026-11-22T10:00:01Z",
        "2027-01-01T00:00:00Z",
    ]
    versions = []
    for date in dates:
        document["hv:imagelist"]["dc:date:created"] = date
        versions.append(read_list(payload(document), profile=Profile.LENIENT).version)
    assert sorted(versions, key=Version) == versions
    assert len({Version(version) for version in versions}) == len(versions)
    assert versions[2] == "20261122100000"


@pytest.mark.threat("T31")
@pytest.mark.parametrize("profile", Profile)
def test_a_version_without_an_order_gives_way_to_the_date_of_creation(publisher: Simulator, profile: Profile) -> None:
    publisher.version = "---"
    content = read_list(publisher.payload(), profile=profile)
    assert content.version == f"{publisher.created:%Y%m%d%H%M%S}"
    assert rewritten(content) == content


@pytest.mark.threat("T31")
@pytest.mark.parametrize(
    ("lower", "higher"), [("1.9", "1.10"), ("20260101", "20260102"), ("2.0-rc1", "2.0"), ("2.0", "2.0.1")]
)
def test_versions_are_read_as_written_and_ordered(publisher: Simulator, lower: str, higher: str) -> None:
    read = []
    for version in (lower, higher):
        publisher.version = version
        read.append(read_list(publisher.payload()).version)
    assert read == [lower, higher]
    assert Version(lower) < Version(higher)


@pytest.mark.threat("T78")
@pytest.mark.parametrize(
    "identifier",
    [
        "",
        " ",
        "x" * 256,
        "é" * 128,
        "../../x",
        "a/b",
        "a\\b",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        " a",
        "a\u00a0",
        None,
        7,
        [],
    ],
)
def test_an_identifier_is_bounded_in_the_lenient_profile_too(publisher: Simulator, identifier: object) -> None:
    document = lenient_document(publisher)
    document["hv:imagelist"]["hv:images"][0]["hv:image"]["dc:identifier"] = identifier
    with pytest.raises(DocumentError, match=r"hv:images\[0\]\.hv:image\.dc:identifier"):
        read_list(payload(document), profile=Profile.LENIENT)


def test_identifiers_that_differ_in_case_are_two_unless_they_are_uuids(publisher: Simulator) -> None:
    document = lenient_document(publisher)
    images = document["hv:imagelist"]["hv:images"]
    images.append({"hv:image": {**images[0]["hv:image"], "dc:identifier": "UBUNTU-22.04"}})
    assert len(read_list(payload(document), profile=Profile.LENIENT).images) == 2


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ListLimits(size_bytes=500), "longer than 500 bytes"),
        (ListLimits(images=0), "more than 0 images"),
        (ListLimits(depth=3), "nested deeper than 3"),
        (ListLimits(text_bytes=20), "a text longer than 20 bytes"),
        (ListLimits(text_bytes=0), "a text longer than 0 bytes"),
        (ListLimits(title_bytes=11), r"dc:title: a text longer than 11 bytes"),
    ],
)
def test_every_limit_holds_in_every_profile(
    publisher: Simulator, limits: ListLimits, said: str, profile: Profile
) -> None:
    read_list(publisher.payload(), profile=profile)
    with pytest.raises(DocumentError, match=said):
        read_list(publisher.payload(), profile=profile, limits=limits)


def test_a_limit_can_be_raised(publisher: Simulator) -> None:
    document = publisher.document()
    document["hv:imagelist"]["dc:title"] = "x" * 100_000
    limits = ListLimits(text_bytes=100_000, title_bytes=100_000)
    assert len(read_list(payload(document), limits=limits).title) == 100_000
