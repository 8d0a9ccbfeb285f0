# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DiskCountError, ImageRefusedError, OutsideReferenceError, OvfError
from coppice.formats.ovf import OvfDescriptor, read_ovf
from coppice.formats.ovf_units import bytes_per_unit, whole_number
from coppice.formats.ovf_write import OvfDisk, file_stem, write_ovf
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.testing.archives import ENVELOPE_2, HARDWARE, item, ovf
from coppice.testing.ovf_rules import broken_rules

pytestmark = pytest.mark.unit
GIB = 2**30


def read(text: str | bytes) -> OvfDescriptor:
    return read_ovf(text.encode() if isinstance(text, str) else text, name="vm.ova")


VIRTUALBOX = """<?xml version="1.0"?>
<Envelope ovf:version="2.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:vbox="http://www.virtualbox.org/ovf/machine"
  xmlns:epasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd"
  xmlns:sasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd">
  <References><File ovf:id="file1" ovf:href="box-disk001.vmdk"/></References>
  <DiskSection>
    <Info>List of the virtual disks used in the package</Info>
    <Disk ovf:capacity="8589934592" ovf:diskId="vmdisk1" ovf:fileRef="file1"
      vbox:uuid="00000000-0000-0000-0000-000000000001"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection><Info>Networks</Info><Network ovf:name="NAT"><Description>NAT</Description></Network></NetworkSection>
  <VirtualSystem ovf:id="box">
    <Info>A virtual machine</Info>
    <OperatingSystemSection ovf:id="96"><Info>Kind</Info><Description>Debian_64</Description>
      <vbox:OSType ovf:required="false">Debian_64</vbox:OSType></OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System><vssd:ElementName>Virtual Hardware Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>box</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType></System>
      <Item><rasd:Caption>2 virtual CPU</rasd:Caption><rasd:Description>Number of virtual CPUs</rasd:Description>
        <rasd:ElementName>2 virtual CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:Caption>1024 MB of memory</rasd:Caption>
        <rasd:ElementName>1024 MB of memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:Caption>ideController0</rasd:Caption><rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ElementName>ideController0</rasd:ElementName><rasd:ResourceSubType>PIIX4</rasd:ResourceSubType>
        <rasd:ResourceType>5</rasd:ResourceType></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:Caption>sataController0</rasd:Caption><rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ElementName>sataController0</rasd:ElementName><rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:Caption>cdrom1</rasd:Caption><rasd:InstanceID>7</rasd:InstanceID>
        <rasd:ElementName>cdrom1</rasd:ElementName><rasd:Parent>3</rasd:Parent><rasd:ResourceType>15</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:Caption>disk1</rasd:Caption><rasd:InstanceID>8</rasd:InstanceID>
        <rasd:ElementName>disk1</rasd:ElementName><rasd:HostResource>/disk/vmdisk1</rasd:HostResource>
        <rasd:Parent>5</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
    </VirtualHardwareSection>
    <vbox:Machine ovf:required="false" version="1.19-linux" uuid="{00000000-0000-0000-0000-000000000002}" name="box">
      <Hardware><Memory RAMSize="1024"/><Firmware type="EFI"/></Hardware>
    </vbox:Machine>
  </VirtualSystem>
</Envelope>
"""

VMWARE = """<?xml version="1.0" encoding="UTF-8"?>
<!--Generated for a test-->
<Envelope vmw:buildId="build-1" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References><File ovf:href="sphere-disk1.vmdk" ovf:id="file1" ovf:size="734003200"/>
    <File ovf:href="sphere-file1.nvram" ovf:id="file2" ovf:size="8684"/></References>
  <DiskSection><Info>Virtual disk information</Info>
    <Disk ovf:capacity="20" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
      ovf:populatedSize="1610612736"/>
  </DiskSection>
  <VirtualSystem ovf:id="sphere"><Info>A virtual machine</Info><Name>sphere</Name>
    <VirtualHardwareSection><Info>Virtual hardware requirements</Info>
      <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>4 virtual CPU(s)</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>4</rasd:VirtualQuantity>
        <vmw:CoresPerSocket ovf:required="false">2</vmw:CoresPerSocket></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>8192MB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>8192</rasd:VirtualQuantity></Item>
      <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>Hard disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>9</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
      <vmw:Config ovf:required="false" vmw:key="powerOpInfo.powerOffType" vmw:value="soft"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""


@pytest.mark.threat("T68")
def test_an_export_of_virtualbox_is_read():
    found = read(VIRTUALBOX)
    assert (found.version, found.name, found.disk.href) == ("1", "box", "box-disk001.vmdk")
    assert (found.capacity_bytes, found.disk_format, found.notes) == (8 * GIB, DiskFormat.VMDK, ())
    assert found.requirements == Requirements(
        minimum_cores=2,
        minimum_ram_mib=1024,
        minimum_disk_bytes=8 * GIB,
        firmware=Firmware.UEFI,
        disk_bus=DiskBus.SATA,
    )


@pytest.mark.threat("T68")
def test_an_export_of_vmware_is_read():
    found = read(VMWARE)
    assert [(file.href, file.size_bytes) for file in found.files] == [
        ("sphere-disk1.vmdk", 734003200),
        ("sphere-file1.nvram", 8684),
    ]
    assert found.disk.identifier == "file1"
    assert found.requirements == Requirements(
        minimum_cores=4,
        minimum_ram_mib=8192,
        minimum_disk_bytes=20 * GIB,
        firmware=Firmware.UEFI,
        disk_bus=DiskBus.SCSI,
    )


def test_version_2_is_read_with_its_items_of_storage():
    storage = (
        "<StorageItem><sasd:InstanceID>4</sasd:InstanceID><sasd:ResourceType>31</sasd:ResourceType><sasd:Parent>3</sasd:Parent>"
        "<sasd:HostResource>ovf:/disk/vmdisk1</sasd:HostResource></StorageItem>"
    )
    hardware = item(5, 3) + item(3, 1, VirtualQuantity="1") + storage
    found = read(ovf(namespace=ENVELOPE_2, hardware=hardware))
    assert (found.version, found.requirements.minimum_cores, found.requirements.disk_bus) == ("2", 1, DiskBus.IDE)


@pytest.mark.parametrize(
    ("kind", "model", "bus"),
    [
        (5, "", DiskBus.IDE),
        (6, "lsilogic", DiskBus.SCSI),
        (6, "VirtioSCSI", DiskBus.SCSI),
        (6, "", DiskBus.SCSI),
        (20, "AHCI", DiskBus.SATA),
        (20, "vmware.sata.ahci", DiskBus.SATA),
        (20, "virtio", DiskBus.VIRTIO),
        (20, "vmware.nvme.controller", None),
        (99, "", None),
    ],
)
def test_the_bus_of_the_disk_is_that_of_the_controller_that_it_hangs_on(kind, model, bus):
    other = item(5, 8)
    disk = item(17, 4, Parent="3", HostResource="ovf:/disk/vmdisk1")
    assert read(ovf(hardware=other + item(kind, 3, ResourceSubType=model) + disk)).requirements.disk_bus is bus


def test_a_machine_without_hardware_needs_nothing_that_anybody_said():
    found = read(ovf(hardware=""))
    assert found.requirements == Requirements(minimum_disk_bytes=16384)


def test_the_least_amount_is_the_minimum_where_a_range_is_given():
    least = item(3, 1, attributes='ovf:bound="min"', VirtualQuantity="1")
    normal, most = item(3, 1, VirtualQuantity="4"), item(3, 1, attributes='ovf:bound="max"', VirtualQuantity="64")
    found = read(ovf(hardware=least + normal + most)).requirements
    assert (found.minimum_cores, found.recommended_cores) == (1, 4)


def test_the_configuration_that_is_chosen_by_default_replaces_the_common_hardware():
    options = (
        '<DeploymentOptionSection><Info>i</Info><Configuration ovf:id="small"/>'
        '<Configuration ovf:id="big" ovf:default="true"/></DeploymentOptionSection>'
    )
    hardware = (
        item(3, 1, VirtualQuantity="1")
        + item(3, 1, attributes='ovf:configuration="big"', VirtualQuantity="8")
        + item(3, 1, attributes='ovf:configuration="small"', VirtualQuantity="2")
    )
    assert read(ovf(hardware=hardware, sections=options)).requirements.minimum_cores == 8
    plain = options.replace(' ovf:default="true"', "")
    assert read(ovf(hardware=hardware, sections=plain)).requirements.minimum_cores == 2
    assert read(ovf(hardware=hardware)).requirements.minimum_cores == 1


@pytest.mark.parametrize(
    ("unit", "quantity", "mebibytes"),
    [
        ("byte * 2^20", "512", 512),
        ("byte*2^20", "512", 512),
        ("byte * 2^30", "2", 2048),
        ("byte * 10^6", "1000", 954),
        ("bytes", "1048577", 2),
        ("MegaBytes", "512", 512),
        ("MB", "512", 512),
        ("GB", "1", 1024),
        ("parsec", "1", None),
        ("", "512", None),
    ],
)
def test_memory_is_counted_in_mebibytes_and_a_unit_that_is_not_known_is_said(unit, quantity, mebibytes):
    found = read(ovf(hardware=item(4, 1, VirtualQuantity=quantity, AllocationUnits=unit)))
    assert found.requirements.minimum_ram_mib == mebibytes
    assert any("unit that is not known" in note for note in found.notes) is (mebibytes is None)


def test_numbers_have_digits_only_and_units_have_bounds():
    assert [whole_number(text) for text in ("0", " 7\n", "9223372036854775807")] == [0, 7, 2**63 - 1]
    for text in ("", "-1", "+1", "1.0", "0x1", "1e3", "\u0663", "9223372036854775808", "1" * 40, "1_0", "${n}"):
        assert whole_number(text) is None
    assert bytes_per_unit("byte * 2^60") == 2**60
    for unit in ("byte * 2^61", "byte * 10^19", "byte * 3^2", "hertz * 10^6", "byte * 2^-1"):
        assert bytes_per_unit(unit) is None


def test_firmware_that_is_told_in_two_ways_or_in_none_that_is_known_is_not_known():
    config = '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{0}"/>'
    box = '<vbox:Machine ovf:required="false"><Hardware><Firmware type="{0}"/></Hardware></vbox:Machine>'
    both = ovf(hardware=HARDWARE + config.format("efi"), machine=box.format("BIOS"))
    for text in (both, ovf(hardware=config.format("coreboot"))):
        found = read(text)
        assert found.requirements.firmware is None
        assert "firmware is not known" in found.notes[0]
    agreed = ovf(hardware=HARDWARE + config.format("efi"), machine=box.format("EFI64"))
    assert read(agreed).requirements.firmware is Firmware.UEFI
    assert read(ovf(machine=box.format("BIOS"))).requirements.firmware is Firmware.BIOS


def test_what_is_left_to_whoever_installs_it_is_not_known():
    found = read(ovf(disks='<Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="${size}"/>'))
    assert (found.capacity_bytes, found.requirements.minimum_disk_bytes) == (None, None)


def test_one_machine_in_a_collection_and_a_byte_order_mark_are_no_matter():
    one = '<VirtualSystem ovf:id="a"><Info>i</Info></VirtualSystem>'
    text = ovf(systems=f'<VirtualSystemCollection ovf:id="c"><Info>i</Info>{one}</VirtualSystemCollection>')
    assert read(b"\xef\xbb\xbf" + text.encode()).name == "a"


def test_a_name_is_one_line_that_can_be_shown():
    assert read(ovf().replace("test machine", "a\n\tb\u202ec&#x9b;" + "x" * 300)).name == "a bc" + "x" * 251


@pytest.mark.threat("T68")
def test_attributes_of_another_namespace_say_nothing():
    with pytest.raises(OvfError, match="no identifier"):
        read(ovf(references='<File id="file1" href="disk.raw"/>'))
    assert read(ovf(file='href="http://127.0.0.1/"')).disk.href == "disk.raw"


@pytest.mark.threat("T68")
@pytest.mark.parametrize(
    "address", ["http://a/b", "FILE:///etc/passwd", "nbd:x", "//h/x", "/x", "json:{}", "ovf+x-1.0:y"]
)
def test_an_address_that_leads_out_of_the_archive_is_refused(address):
    with pytest.raises(OutsideReferenceError):
        read(ovf(href=address))


@pytest.mark.threat("T67")
def test_a_second_disk_is_refused_wherever_it_is_described():
    shared = f'<SharedDiskSection xmlns="{ENVELOPE_2}"><SharedDisk/></SharedDiskSection>'
    assert read(ovf(sections=shared)).disk.href == "disk.raw"
    with pytest.raises(DiskCountError, match="2 disks"):
        read(ovf(sections=shared, namespace=ENVELOPE_2))
    with pytest.raises(DiskCountError, match="2 disks"):
        read(ovf(sections="<DiskSection><Disk/></DiskSection>"))


@given(st.lists(st.tuples(st.integers(0, 2000), st.text("<>/&;\"'=:ovfx12 \0é", min_size=1, max_size=8)), max_size=4))
def test_whatever_is_changed_in_a_descriptor_it_is_read_or_refused_with_a_declared_error(changes):
    text = ovf()
    for place, piece in changes:
        text = text[:place] + piece + text[place + len(piece) :]
    with contextlib.suppress(ImageRefusedError):
        assert read(text).disk.href


NAMES = ("Debian 12", "", "<&>\"'\x01 \u2028 日本", "x" * 400, "--help/../..", "\ud800")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bus", [None, *DiskBus])
@pytest.mark.parametrize("firmware", [None, *Firmware])
def test_what_is_written_keeps_the_rules_and_is_read_again(name, bus, firmware):
    wanted = Requirements(minimum_cores=3, minimum_ram_mib=512, firmware=firmware, disk_bus=bus)
    disk = OvfDisk(file=f"{file_stem(name)}-disk1.vmdk", file_bytes=65536, virtual_size_bytes=GIB)
    for is_linux in (True, False):
        text = write_ovf(disk, requirements=wanted, name=name, is_linux=is_linux)
        assert broken_rules(text) == []
        assert write_ovf(disk, requirements=wanted, name=name, is_linux=is_linux) == text
        found = read(text)
        assert (found.disk.href, found.disk.size_bytes, found.notes) == (disk.file, 65536, ())
        assert found.requirements == Requirements(
            minimum_cores=3,
            minimum_ram_mib=512,
            minimum_disk_bytes=GIB,
            firmware=firmware,
            disk_bus=bus or DiskBus.SATA,
        )


def test_the_recommended_amounts_are_written_where_there_are_any_and_some_where_there_are_none():
    disk = OvfDisk(file="a.vmdk", file_bytes=1, virtual_size_bytes=512)
    wanted = Requirements(minimum_cores=1, recommended_cores=4, minimum_ram_mib=512, recommended_ram_mib=4096)
    found = read(write_ovf(disk, requirements=wanted, name="a")).requirements
    assert (found.minimum_cores, found.minimum_ram_mib) == (4, 4096)
    found = read(write_ovf(disk, requirements=Requirements(), name="a")).requirements
    assert (found.minimum_cores, found.minimum_ram_mib) == (1, 1024)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Débian 12.5 (x)", "Debian-12.5-x"),
        ("../../etc", "etc"),
        ("--x", "x"),
        ("日本", "appliance"),
        ("", "appliance"),
    ],
)
def test_the_files_of_an_appliance_are_called_by_plain_names(name, stem):
    assert file_stem(name) == stem


def test_each_rule_of_the_page_is_noticed_when_it_is_broken():
    disk = OvfDisk(file="a-disk1.vmdk", file_bytes=1, virtual_size_bytes=512)
    wanted = Requirements(firmware=Firmware.UEFI)
    good = write_ovf(disk, requirements=wanted, name="a").decode()
    breaks = [
        ('"UTF-8"', '"UTF-16"'),
        ("envelope/1", "envelope/3"),
        ("<References>", "<Files>x</Files><References>"),
        ('ovf:id="file1"', 'id="file1"'),
        ('ovf:fileRef="file1"', 'ovf:fileRef="file2"'),
        ("<Info>The disk of the machine</Info>", ""),
        ('ovf:capacity="512"', 'ovf:capacity="half"'),
        ("vmdk.html#streamOptimized", "unknown"),
        ("<Name>a</Name>", "<Name>a</Name><Info>again</Info>"),
        ("<rasd:InstanceID>4", "<rasd:InstanceID>3"),
        ("<rasd:ResourceType>17</rasd:ResourceType>", ""),
        ("<rasd:Parent>3", "<rasd:Parent>9"),
        ("ovf:/disk/disk1", "ovf:/disk/disk2"),
        ("<rasd:ElementName>Memory</rasd:ElementName>", ""),
        ("<rasd:Connection>network", "<rasd:Connection>other"),
        ('ovf:required="false" ', ""),
        ("<vssd:InstanceID>0</vssd:InstanceID>", ""),
        ("byte * 2^20", "megs"),
    ]
    for old, new in breaks:
        assert old in good
        assert broken_rules(good.replace(old, new, 1).encode()), (old, new)
