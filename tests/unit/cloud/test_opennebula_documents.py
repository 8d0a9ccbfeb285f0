# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cloud.model import Audience, Presentation, Visibility
from coppice.cloud.opennebula import document, machine, wire, written
from coppice.cloud.opennebula.objects import NOBODY, Datastore, Rights, State, StoredImage, StoredTemplate
from coppice.cloud.opennebula.options import Placing
from coppice.cloud.opennebula.publishing import image_names, template_names
from coppice.cloud.opennebula.view import rights_of, view_of
from coppice.cloud.opennebula.wire import parsed
from coppice.cloud.opennebula.written import Hardware, Written
from coppice.cloud.properties import presentation_of
from coppice.errors import MarkerError
from coppice.testing.contracts.cloud_faults import HOSTILE_TITLES
from coppice.testing.desired import SITE, desired_image, marker_of

pytestmark = pytest.mark.unit

HARMFUL = {
    **HOSTILE_TITLES,
    "trailing backslash": 'Debian 13 \\"\\',
    "line feed": 'a\nPATH="/etc/shadow"\nTYPE="OS"',
    "end of data": "a]]>b<PATH>/etc/shadow</PATH>",
    "end of the element": "</NAME><PATH>/etc/shadow</PATH><NAME>",
    "direction": "\u202etxt.exe",
    "a megabyte": "x" * 900_000,
    "processing": "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]>&b;",
}
CONTROLS = {*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF}


def as_it_must_come_back(text: str) -> str:
    """Return a text without what cannot be written, by other means than the code's own."""
    return "".join(char for char in text if ord(char) not in CONTROLS).replace("]]>", "]] >")


def as_oned_reads(text: str) -> dict[str, list[str]]:
    """Read a template as ``oned`` does: one text node an attribute, or it is none."""
    root = ET.fromstring(text)  # noqa: S314 - what Coppice itself wrote
    assert root.tag == "TEMPLATE"
    assert not (root.text or "").strip()
    found: dict[str, list[str]] = {}
    for child in root:
        assert not child.attrib
        assert child.tail is None
        if len(child) == 0:
            found.setdefault(child.tag, []).append(child.text or "")
    return found


def image(number: int, attributes: document.Attributes, **changes: object) -> StoredImage:
    made = StoredImage(
        identifier=number,
        owner=0,
        name=f"image-{number}",
        group=0,
        rights=NOBODY,
        state=State.READY,
        datastore=1,
        datastore_name="default",
        size_mib=1,
        source="/x",
        registered_at=1_795_380_000,
        machines=0,
        attributes=attributes,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def registered(number: int = 7, title: str = "Debian", **said: object) -> StoredImage:
    desired = desired_image(title=title)
    presentation = replace(presentation_of(desired), **said)  # type: ignore[arg-type]
    return image(number, Written(marker=marker_of(desired), presentation=presentation).attributes())


@pytest.mark.threat("T72")
@pytest.mark.parametrize("name", sorted(HARMFUL))
def test_a_value_stands_in_a_template_as_it_is_and_makes_no_other(name: str):
    text = HARMFUL[name]
    written_as = document.document([("NAME", "x"), ("DESCRIPTION", text), ("PATH", "/srv/a")])
    found = as_oned_reads(written_as)
    assert found == {
        "NAME": ["x"],
        "PATH": ["/srv/a"],
        **({"DESCRIPTION": [as_it_must_come_back(text)]} if as_it_must_come_back(text) else {}),
    }


@pytest.mark.threat("T72")
@given(st.lists(st.tuples(st.sampled_from(["A", "B_1", "DESCRIPTION"]), st.text()), max_size=4))
def test_any_text_stands_in_a_template_as_it_is(attributes: list[tuple[str, str]]):
    found = as_oned_reads(document.document(attributes))
    wanted: dict[str, list[str]] = {}
    for name, value in attributes:
        if as_it_must_come_back(value):
            wanted.setdefault(name, []).append(as_it_must_come_back(value))
    assert found == wanted


@pytest.mark.threat("T72")
@pytest.mark.parametrize("name", ["", "a", "PATH/", "A B", "A=B", "1A", "A" * 65, "Ä", "A\n", "<A>"])
def test_what_is_no_name_of_an_attribute_is_refused(name: str):
    with pytest.raises(ValueError, match="name of an attribute"):
        document.document([(name, "x")])
    with pytest.raises(ValueError, match="name of an attribute"):
        document.document([("OS", ((name, "x"),))])


@pytest.mark.threat("T72")
@pytest.mark.parametrize("name", sorted(HOSTILE_TITLES))
def test_nothing_that_a_list_says_chooses_an_attribute_of_a_template(name: str):
    text = presentation_of(desired_image(title=HOSTILE_TITLES[name])).facts.get("title", "x")
    plain, harmful = (dict.fromkeys(presentation_of(desired_image()).facts, value) for value in ("x", text))
    shapes = []
    for facts in (plain, harmful):
        stored = registered(facts=facts)
        appliance = view_of([stored], [], SITE).appliances[0]
        attributes = machine.template_attributes(appliance, Placing(networks=("public",)))
        shapes.append(
            [
                (key, value if key in {"OS", "CONTEXT", "NIC", "GRAPHICS", "DISK", "CPU", "MEMORY"} else None)
                for key, value in attributes
            ]
        )
    assert shapes[0] == shapes[1]


@pytest.mark.threat("T72")
@pytest.mark.parametrize("name", sorted(HARMFUL))
def test_names_are_such_as_oned_takes(name: str):
    for found in (
        document.object_name(HARMFUL[name]),
        document.object_name(HARMFUL[name], "1.0 @default", "0123456789ab"),
    ):
        assert 0 < len(found.encode()) <= 128
        assert not set(found) & set("&|:\\\";/'#{}$<>")
        assert found == found.strip()
        assert found.isprintable()


def test_the_end_of_a_name_is_never_cut():
    assert document.object_name("ü" * 500, "2.0", "0123456789ab").endswith("0123456789ab")
    assert document.object_name("Debian", "2.0") == "Debian 2.0"


def test_names_of_other_sites_lists_and_versions_are_others():
    marker = marker_of(desired_image())
    others = [
        replace(marker, site="another"),
        replace(marker, version="2"),
        replace(marker, key=marker_of(desired_image(of_list="b")).key),
    ]
    names = [image_names(each, "Debian", "default")[-1] for each in (marker, *others)]
    assert len(set(names)) == len(names)
    assert image_names(marker, "Debian", None)[0] == "Debian 1"


@given(st.text())
def test_a_markers_value_comes_back_as_it_was(text: str):
    stored = document.to_marker_value(text)
    assert document.writable(stored) == stored == stored.strip()
    assert document.from_marker_value(stored) == text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")


def test_a_marker_comes_back_from_an_image_as_it_was():
    marker = replace(marker_of(desired_image()), vo="]]> vo", reason="why not", pin="1", set_identifier=" s ")
    stored = Written(marker=marker, presentation=presentation_of(desired_image())).attributes()
    assert written.read_marker(stored, SITE, name="image 1") == marker
    assert written.read_marker(stored, "another", name="image 1") is None


def test_a_damaged_marker_names_the_image():
    stored = tuple((name, "ripe" if name == "COPPICE_STATE" else value) for name, value in registered().attributes)
    with pytest.raises(MarkerError, match="image 7"):
        view_of([image(7, stored)], [], SITE)


def test_a_presentation_comes_back_as_it_was():
    presentation = Presentation(
        name="🌱 ]]> Debian",
        facts={"title": "<&]]>", "description": 'a "b" \\'},
        properties={"LOGO": "images/logos/debian.png"},
        audience=Audience(visibility=Visibility.SHARED, members=("biology",)),
        datastores=("one", "two"),
    )
    stored = Written(marker=marker_of(desired_image()), presentation=presentation).attributes()
    as_stored = tuple((name, document.writable(value)) for name, value in stored if isinstance(value, str))
    assert written.read_presentation(as_stored, name="x") == presentation


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"name": 1}', "{" * 2000, "[" * 200_000])
def test_a_damaged_presentation_is_one_by_name_alone(text: str):
    assert written.read_presentation([(written.PRESENTATION, text)], name="x") == Presentation(name="x", facts={})


def template_of(stored: StoredImage, placing: Placing, **hardware: object) -> dict[str, document.Value]:
    if hardware:
        read = Written(
            marker=marker_of(desired_image()),
            presentation=written.read_presentation(stored.attributes, name=""),
            hardware=Hardware(**hardware),  # type: ignore[arg-type]
        )
        stored = replace(stored, attributes=read.attributes())
    (appliance,) = view_of([stored], [], SITE).appliances
    return dict(machine.template_attributes(appliance, placing))


def test_a_template_can_be_instantiated_at_once():
    found = template_of(registered(facts={"recommended_cores": "4", "minimum_ram_mib": "2048"}), Placing())
    assert (found["CPU"], found["VCPU"], found["MEMORY"]) == ("4", "4", "2048")
    assert dict(found["DISK"]) == {"IMAGE_ID": "7", "DEV_PREFIX": "vd"}
    assert dict(found["OS"]) == {"ARCH": "x86_64", "BOOT": "disk0"}
    assert dict(found["GRAPHICS"])["TYPE"] == "VNC"
    context = dict(found["CONTEXT"])
    assert context["SSH_PUBLIC_KEY"] == "$USER[SSH_PUBLIC_KEY]"
    assert context["NETWORK"] == "YES"
    assert context["USER_DATA"] == "$USER_DATA"
    assert dict(found["USER_INPUTS"])["USER_DATA"].startswith("O|text64|")
    assert "NIC" not in found


def test_a_template_has_an_interface_in_each_network():
    (appliance,) = view_of([registered()], [], SITE).appliances
    found = machine.template_attributes(appliance, Placing(networks=("public", "ann/private", "7")))
    # A name without its owner is looked for among the networks of whoever instantiates.
    assert [value for name, value in found if name == "NIC"] == [
        (("NETWORK", "public"), ("NETWORK_UNAME", "oneadmin")),
        (("NETWORK", "private"), ("NETWORK_UNAME", "ann")),
        (("NETWORK_ID", "7"),),
    ]


def test_a_template_has_the_firmware_and_the_disk_that_the_image_needs():
    stored = registered(facts={"architecture": "arm64"})
    found = template_of(
        stored, Placing(uefi_firmware="/usr/share/AAVMF/AAVMF_CODE.fd"), firmware="uefi", disk_bus="scsi"
    )
    assert dict(found["OS"]) == {
        "ARCH": "aarch64",
        "BOOT": "disk0",
        "FIRMWARE": "/usr/share/AAVMF/AAVMF_CODE.fd",
    }
    assert dict(found["DISK"])["DEV_PREFIX"] == "sd"


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "9" * 30, "1048577", "²", "", "$(x)", " 4"])
def test_a_number_that_is_none_is_not_taken(text: str):
    found = template_of(registered(facts={"recommended_cores": text, "recommended_ram_mib": text}), Placing())
    assert (found["CPU"], found["MEMORY"]) == ("1", "1024")


def test_the_administrators_pieces_take_the_place_of_what_has_the_same_name():
    pieces = (("MEMORY", "8192"), ("NIC", (("NETWORK", "x"), ("MODEL", "virtio"))), ("SCHED_REQUIREMENTS", "A=1"))
    (appliance,) = view_of([registered(properties={"LOGO": "x.png"})], [], SITE).appliances
    found = machine.template_attributes(appliance, Placing(networks=("public",), pieces=pieces))
    assert [value for name, value in found if name == "MEMORY"] == ["8192"]
    assert [value for name, value in found if name == "NIC"] == [pieces[1][1]]
    assert dict(found)["SCHED_REQUIREMENTS"] == "A=1"
    assert dict(found)["LOGO"] == "x.png"


def test_what_is_there_already_is_not_written_again_and_what_is_stale_goes():
    wanted = (("A", "1"), ("OS", (("ARCH", "x"), ("BOOT", "y"))), ("EMPTY", ""), (written.WRITTEN, "A OS"))
    before = (("OS", (("BOOT", "y"), ("ARCH", "x"))), (written.WRITTEN, "A OS"), ("A", "1"), ("THEIRS", "z"))
    assert machine.to_write(before, wanted) is None
    changed = machine.to_write(before, (("A", "2"), *wanted[1:]))
    assert changed is not None
    assert changed[1] is False
    assert dict(changed[0])["A"] == "2"
    fewer = machine.to_write(before, (("A", "1"), (written.WRITTEN, "A")))
    assert fewer is not None
    assert fewer[1] is True
    assert dict(fewer[0]) == {"A": "1", written.WRITTEN: "A", "THEIRS": "z"}


@pytest.mark.parametrize(
    ("driver", "transfer", "expected"),
    [
        ("fs", "local", "qcow2"),
        ("fs", "shared", "qcow2"),
        ("fs", "ssh", "qcow2"),
        ("fs", "fs_lvm_ssh", "raw"),
        ("ceph", "ceph", "raw"),
        ("dummy", "dummy", "qcow2"),
    ],
)
def test_machines_see_a_file_as_their_datastore_has_it(driver: str, transfer: str, expected: str):
    place = Datastore(
        identifier=1, name="x", holds_images=True, driver=driver, transfer=transfer, base_path="/var/lib/one"
    )
    assert machine.disk_driver("qcow2", place) == expected


@pytest.mark.parametrize(
    ("audience", "placing", "expected"),
    [
        (Audience(), Placing(), NOBODY),
        (Audience(), Placing(group="users"), Rights(group=True, other=False)),
        (Audience(), Placing(visibility=Visibility.PUBLIC), Rights(group=False, other=True)),
        (Audience(members=("biology",)), Placing(), Rights(group=True, other=False)),
        (Audience(visibility=Visibility.PRIVATE, members=("biology",)), Placing(group="users"), NOBODY),
        (Audience(visibility=Visibility.SHARED), Placing(), NOBODY),
        (Audience(visibility=Visibility.COMMUNITY), Placing(), Rights(group=False, other=True)),
    ],
)
def test_an_audience_has_rights(audience: Audience, placing: Placing, expected: Rights):
    assert rights_of(audience, placing) == expected


def test_versions_of_one_image_share_a_template_and_copies_are_one():
    one = registered(1)
    two = replace(one, identifier=2, datastore=101)
    other = image(
        3,
        Written(
            marker=marker_of(desired_image(version="2")), presentation=presentation_of(desired_image())
        ).attributes(),
    )
    template = StoredTemplate(
        identifier=9,
        owner=0,
        name="Debian",
        group=0,
        rights=NOBODY,
        attributes=machine.identity_attributes(view_of([one], [], SITE).appliances[0]),
    )
    seen = view_of([other, two, one], [template], SITE)
    assert [[copy.identifier for copy in each.copies] for each in seen.appliances] == [[1, 2], [3]]
    assert all(seen.template_of(each.marker.key) == template for each in seen.appliances)
    assert template_names(seen.appliances[0])[0] == "Debian"


def test_an_image_that_is_being_deleted_is_no_more():
    assert view_of([replace(registered(), state=State.DELETE)], [], SITE).appliances == ()


@pytest.mark.threat("T89")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a>",
        "no xml",
        '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        "<!DOCTYPE a><a/>",
        "<a>&undefined;</a>",
        "<!-- --><!DOCTYPE a><a/>",
        "<a/><b/>",
        "\ufeff<a/>",
        "<a>" + "<b/>" * 4_000_000 + "</a>",
    ],
)
def test_an_answer_that_is_not_plain_xml_is_refused(text: str):
    with pytest.raises(ValueError, match="it "):
        parsed(text)


def test_an_answer_may_say_anything_in_a_value():
    assert parsed("<a><![CDATA[<!DOCTYPE a>&b;]]></a>").text == "<!DOCTYPE a>&b;"


@pytest.mark.parametrize(
    "text", ["<A " + " ".join(f"a{n}=''" for n in range(101)) + "/>", "<A>" + "<B/>" * 101 + "</A>"]
)
def test_what_would_grow_in_memory_is_not_read(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(wire, "MAXIMUM_MARKS", 100)
    with pytest.raises(ValueError, match="too many"):
        wire.parsed(text)


def test_blanks_that_opennebula_took_off_are_no_change():
    before = (("DESCRIPTION", "Debian"), ("OS", (("ARCH", "x86_64"),)))
    assert machine.to_write(before, (("DESCRIPTION", " Debian\n"), ("OS", (("ARCH", "x86_64 "),)))) is None
    assert machine.to_write(before, (("DESCRIPTION", "De bian"),)) is not None


def test_numbers_and_texts_that_coppice_never_wrote_are_no_traceback():
    assert Hardware.read([(written.VIRTUAL_BYTES, "9" * 5000)]).virtual_size_bytes == 0
    assert document.from_marker_value("json:" + "[" * 200_000).startswith("json:[")
