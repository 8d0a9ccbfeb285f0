# SPDX-License-Identifier: Apache-2.0
"""What an image is called and described as in Glance: words of a literal table, and values that fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cloud.model import ImageState, Presentation
from coppice.cloud.openstack import shape
from coppice.cloud.openstack.failures import Asked
from coppice.cloud.openstack.images import GlanceImage
from coppice.cloud.openstack.words import (
    GLANCES_OWN,
    VIRTUAL_SIZE,
    escape,
    fit,
    hardware_text,
    is_site_property,
    least_disk_gib,
    least_ram_mib,
    marker_properties,
    shown_properties,
    unescape,
)
from coppice.cloud.properties import presentation_of
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.testing.contracts.cloud_faults import HOSTILE_TITLES
from coppice.testing.desired import desired_image, marker_of

pytestmark = pytest.mark.unit

GIB = 1024**3


def shown(**facts: str) -> dict[str, str]:
    return shown_properties(Presentation(name="Debian", facts=facts), None)


@given(st.text())
def test_a_marker_comes_back_exactly_from_characters_that_glance_takes(text: str):
    written = escape(text)
    assert unescape(written) == text
    assert all(ord(char) <= 0xFFFF and not 0xD800 <= ord(char) <= 0xDFFF for char in written)


@given(st.text())
def test_whatever_stands_in_a_property_is_read_without_an_error(text: str):
    assert isinstance(unescape(text), str)


@pytest.mark.threat("T73")
@pytest.mark.parametrize("name", sorted(HOSTILE_TITLES))
def test_a_list_chooses_no_property_and_no_meaning(name: str):
    text = HOSTILE_TITLES[name]
    facts = dict.fromkeys((*presentation_of(desired_image()).facts, "owner", "visibility", "hw_boot_menu"), text)
    found = shown_properties(Presentation(name="x", facts=facts), None)
    ordinary = shown_properties(presentation_of(desired_image()), None)
    assert set(found) <= {*ordinary, "vmcatcher_event_sl_comments"} | {
        *("vmcatcher_event_ad_core_recommended", "vmcatcher_event_ad_ram_recommended"),
        *("vmcatcher_event_ad_mpuri", "vmcatcher_event_ad_base_mpuri", "APPLIANCE_ATTRIBUTES"),
    }
    assert not {"architecture", "os_type", "hypervisor_type", "hw_disk_bus"} & set(found)
    assert not GLANCES_OWN & set(found)
    assert all(len(value) <= 255 for value in found.values())


def test_what_glance_and_nova_know_is_said_in_their_words():
    found = shown(
        os_kind="Linux", os_distribution="Rocky Linux", os_version="9.4", architecture="AMD64", hypervisor="QEMU,KVM"
    )
    wanted = {"os_type": "linux", "os_distro": "rocky", "os_version": "9.4", "architecture": "x86_64"}
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["hypervisor_type"] == "qemu"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Debian", "debian"),
        ("Red Hat Enterprise Linux", "rhel"),
        ("CentOS Stream", "centos"),
        ("Scientific Linux", "scientificlinux"),
        ("Something New", "somethingnew"),
    ],
)
def test_distributions_have_their_short_names(text: str, name: str):
    assert shown(os_distribution=text)["os_distro"] == name


def test_an_image_for_several_hypervisors_is_bound_to_none():
    assert "hypervisor_type" not in shown(hypervisor="QEMU, Xen")


def test_the_predecessors_properties_are_there_for_whoever_reads_them():
    found = shown(mpuri="https://x.example.org/1", base_mpuri="https://x.example.org", description="It is good")
    assert found["vmcatcher_event_ad_mpuri"] == "https://x.example.org/1"
    assert found["vmcatcher_event_dc_description"] == found["image_description"] == "It is good"
    assert (
        found["APPLIANCE_ATTRIBUTES"]
        == '{"ad:base_mpuri": "https://x.example.org", "ad:mpuri": "https://x.example.org/1"}'
    )


def test_what_an_archive_says_of_the_machine_is_shown():
    needs = hardware_text(Requirements(firmware=Firmware.UEFI, disk_bus=DiskBus.SCSI))
    found = shown_properties(Presentation(name="x", facts={}), needs)
    assert found == {"hw_firmware_type": "uefi", "hw_disk_bus": "scsi"}
    assert hardware_text(None) is None
    assert shown_properties(Presentation(name="x", facts={}), "nonsense/IDE; rm") == {}


def test_the_site_has_the_last_word_but_not_on_what_is_not_its_own():
    presentation = Presentation(
        name="x",
        facts={"os_distribution": "Debian"},
        properties={"os_distro": "mine", "trait:HW_CPU": "required", "owner": "me", "coppice_state": "revoked"},
    )
    found = shown_properties(presentation, None)
    assert (found["os_distro"], found["trait:HW_CPU"]) == ("mine", "required")
    assert found["coppice_properties"] == "os_distro,trait:HW_CPU"
    assert "owner" not in found
    assert "coppice_state" not in found


@pytest.mark.parametrize(
    "name",
    [
        "coppice_site",
        "Coppice_state",
        "os_glance_import_task",
        "owner",
        "visibility",
        "status",
        "a/b",
        "",
        "ä",
        "x" * 256,
    ],
)
def test_names_that_are_not_the_sites_to_choose(name: str):
    assert not is_site_property(name)


def test_sizes_are_rounded_up_to_what_is_enough():
    assert least_disk_gib({}, 1) == 1
    assert least_disk_gib({}, 10 * GIB) == 10
    assert least_disk_gib({}, 10 * GIB + 1) == 11
    assert least_disk_gib({"minimum_disk_bytes": str(20 * GIB)}, GIB) == 20
    assert least_disk_gib({"minimum_disk_bytes": "9" * 18}, GIB) <= 2**31 - 1
    assert least_ram_mib({"minimum_ram_mib": "2048"}) == 2048
    assert least_ram_mib({"minimum_ram_mib": "-1 or 1=1"}) == 0


def test_a_value_is_cut_and_has_no_character_of_four_bytes():
    assert fit("🌱" * 300) == "\ufffd" * 255
    assert fit("x" * 300) == "x" * 255


def test_what_follows_from_the_marker_is_written_with_it():
    marker = replace(marker_of(desired_image()), state=ImageState.REVOKED, reason="a 🌱 in it")
    found = marker_properties(marker)
    assert found["provided_until"] == "2026-12-01"
    assert found["coppice_reason"] == "a \\U0001f331 in it"
    assert "provided_until" not in marker_properties(replace(marker, expires=None))


def test_a_size_that_coppice_never_wrote_is_none():
    document = {"id": "12345678-1234-1234-1234-123456789012", "status": "active", VIRTUAL_SIZE: "9" * 5000}
    image = GlanceImage.parse(document, Asked(cloud="c", method="GET", what="describe images"))
    assert shape.virtual_size_of(image) is None
