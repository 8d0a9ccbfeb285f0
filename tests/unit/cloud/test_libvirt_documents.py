# SPDX-License-Identifier: Apache-2.0
"""What is given to libvirt and read from it, without one."""

from __future__ import annotations

import sys
import threading
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cloud.libvirt_pool import naming, transfer
from coppice.cloud.libvirt_pool.definition import (
    Machine,
    attribute,
    blocked_path,
    current_definition,
    escaped,
    image_definition,
    volume_definition,
)
from coppice.cloud.libvirt_pool.failures import translated
from coppice.cloud.libvirt_pool.reading import read_backing, read_definition, read_pool
from coppice.cloud.libvirt_pool.record import CurrentRecord, Record
from coppice.cloud.libvirt_pool.session import Session
from coppice.cloud.libvirt_pool.use import is_local
from coppice.cloud.libvirt_pool.view import kept_current, kept_image
from coppice.cloud.model import ImageState, Presentation
from coppice.errors import (
    CloudAnswerError,
    CloudCredentialError,
    CloudDriverError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageGoneError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudRefusedImageError,
    CloudTimeoutError,
    CloudUnreachableError,
    MarkerError,
)
from coppice.model.operating_system import Firmware
from coppice.model.requirements import DiskBus, Requirements
from coppice.testing.contracts.cloud_faults import HOSTILE_TITLES
from coppice.testing.desired import SITE, converted_image, desired_image, marker_of

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.cloud.libvirt_pool.reading import Definition
    from coppice.cloud.model import OwnershipMarker

pytestmark = pytest.mark.unit

MACHINE = Machine(hypervisor="qemu", network="user")
TEXTS = st.text(max_size=60)


def record_of(tmp_path: Path, presentation: Presentation | None = None, **hardware: Any) -> Record:
    desired = desired_image()
    converted = replace(converted_image(desired, tmp_path), hardware=Requirements(**hardware))
    shown = presentation or Presentation(name="Debian", facts={"architecture": "x86_64"})
    return Record.of(converted, marker_of(desired), shown, pool="images", volume="coppice.qcow2")


def defined(record: Record, **changes: Any) -> Definition:
    facts = {
        "identifier": naming.image_uuid(record.marker(SITE)),
        "name": "debian",
        "disk_path": "/pool/coppice.qcow2",
        "machine": MACHINE,
        "remark": "Version 1",
    }
    return read_definition(image_definition(record, **(facts | changes)))


def elements(xml: str) -> list[str]:
    """Return the names of all elements, in their order."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _: found.append(name)
    parser.Parse(xml, True)  # noqa: FBT003 - the library takes it by place only
    return found


def test_a_definition_says_what_was_written_on_it(tmp_path: Path) -> None:
    record = record_of(tmp_path)
    definition = defined(record)
    assert (definition.kind, definition.name) == ("image", "debian")
    assert Record.parse(definition.text) == record
    assert definition.disks == {"/pool/coppice.qcow2"}
    assert definition.lasting == frozenset()
    kept = kept_image(None, definition, SITE)
    assert kept is not None
    assert kept.marker == marker_of(desired_image())


@pytest.mark.threat("T72", "T73")
@pytest.mark.parametrize("title", sorted(HOSTILE_TITLES))
def test_hostile_texts_are_texts(tmp_path: Path, title: str) -> None:
    text = HOSTILE_TITLES[title]
    hostile = Presentation(name=text, facts=dict.fromkeys(("title", "description", "os_version"), text))
    plain = Presentation(name="x", facts=dict.fromkeys(("title", "description", "os_version"), "x"))
    record, other = record_of(tmp_path, hostile), record_of(tmp_path, plain)
    facts: Any = {"identifier": str(uuid.UUID(int=0)), "name": "n", "disk_path": "/d", "machine": MACHINE}
    xml, expected = (image_definition(each, remark="r", **facts) for each in (record, other))
    assert elements(xml) == elements(expected)
    assert Record.parse(read_definition(xml).text) == record
    current = CurrentRecord(site=SITE, key=text, leads_to=text)
    xml = current_definition(record, current, **facts)
    assert elements(xml) == [each.replace("image", "current") for each in elements(expected)]
    assert CurrentRecord.parse(read_definition(xml).text) == current


@given(text=TEXTS)
def test_every_text_stays_one_text(text: str) -> None:
    assert elements(f"<a b={attribute(text)}>{escaped(text)}</a>") == ["a"]
    found = read_definition(f"<domain><uuid>{escaped(text)}</uuid><name>n</name></domain>")
    assert found.identifier == escaped_back(text)


def escaped_back(text: str) -> str:
    return "".join(
        char
        for char in text
        if char in "\t\n\r" or " " <= char <= "\ud7ff" or "\ue000" <= char <= "\ufffd" or char >= "\U00010000"
    )


@pytest.mark.parametrize("length", [0, 1, 10**15])
def test_a_file_is_asked_for_by_name_and_length(length: int) -> None:
    assert f"<capacity unit='bytes'>{length}</capacity>" in volume_definition("a&b", length)
    assert "<name>a&amp;b</name>" in volume_definition("a&b", length)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ("1024", "1")),
        ({"minimum_ram_mib": "512", "minimum_cores": "2"}, ("512", "2")),
        ({"minimum_ram_mib": "512", "recommended_ram_mib": "2048", "recommended_cores": "4"}, ("2048", "4")),
        ({"minimum_ram_mib": "0", "minimum_cores": "-1"}, ("1024", "1")),
        ({"minimum_ram_mib": "9" * 5000, "minimum_cores": "1</vcpu>"}, ("1024", "1")),
        ({"minimum_ram_mib": "٣", "minimum_cores": "²"}, ("1024", "1")),
    ],
)
def test_a_machine_has_what_its_image_asks_for_within_bounds(
    tmp_path: Path, facts: dict[str, str], expected: tuple[str, str]
) -> None:
    xml = xml_of(record_of(tmp_path, Presentation(name="x", facts=facts)))
    memory, cores = expected
    assert f"<memory unit='MiB'>{memory}</memory>" in xml
    assert f"<vcpu>{cores}</vcpu>" in xml


def xml_of(record: Record, machine: Machine = MACHINE) -> str:
    return image_definition(
        record, identifier=str(uuid.UUID(int=0)), name="n", disk_path="/d", machine=machine, remark="r"
    )


def test_what_the_site_says_of_a_machine_goes_before_what_a_list_says(tmp_path: Path) -> None:
    said = Presentation(
        name="x", facts={"minimum_ram_mib": "512"}, properties={"memory_mib": "4096", "cores": "8", "firmware": "uefi"}
    )
    xml = xml_of(record_of(tmp_path, said))
    assert "<memory unit='MiB'>4096</memory>" in xml
    assert "<vcpu>8</vcpu>" in xml
    assert "<os firmware='efi'>" in xml


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("amd64", "arch='x86_64' machine='q35'"), ("arm64", "arch='aarch64' machine='virt'"), ("' x='", "arch='x86_64'")],
)
def test_an_architecture_is_one_that_libvirt_knows(tmp_path: Path, architecture: str, expected: str) -> None:
    assert expected in xml_of(record_of(tmp_path, Presentation(name="x", facts={"architecture": architecture})))


def test_what_an_archive_says_of_firmware_and_bus_is_followed(tmp_path: Path) -> None:
    xml = xml_of(record_of(tmp_path, firmware=Firmware.UEFI, disk_bus=DiskBus.SCSI))
    assert "<os firmware='efi'>" in xml
    assert "<target dev='sda' bus='scsi'/><transient shareBacking='yes'/>" in xml
    assert "model='virtio-scsi'" in xml
    assert "bus='sata'/><transient/>" in xml_of(record_of(tmp_path, disk_bus=DiskBus.IDE))


@pytest.mark.parametrize(
    ("network", "expected"),
    [("user", "<interface type='user'>"), ("a'b", "<source network='a&apos;b'/>"), ("none", None)],
)
def test_a_machine_is_in_the_sites_network(tmp_path: Path, network: str, expected: str | None) -> None:
    xml = xml_of(record_of(tmp_path), Machine(hypervisor="kvm", network=network))
    assert (expected in xml) if expected else ("<interface" not in xml)
    assert xml.startswith("<domain type='kvm'>")


def test_a_network_card_has_the_same_address_each_time() -> None:
    assert naming.network_address("a") == naming.network_address("a") != naming.network_address("b")
    assert naming.network_address("a").startswith("52:54:00:")


def test_names_end_in_what_no_list_can_choose() -> None:
    one, two = marker_of(desired_image(version="1")), marker_of(desired_image(version="2"))
    assert naming.image_uuid(one) != naming.image_uuid(two)
    assert naming.current_uuid(SITE, str(one.key)) == naming.current_uuid(SITE, str(two.key))
    assert naming.image_uuid(one) != naming.image_uuid(replace(one, site="another"))
    assert naming.is_version_of(naming.image_name(two, "x"), one)
    assert not naming.is_version_of(naming.image_name(marker_of(desired_image("alma")), "x"), one)
    for title in sorted(HOSTILE_TITLES.values()):
        name = naming.image_name(one, title)
        assert len(name) < 100
        assert name.isascii()
        assert "/" not in name
        assert not name.startswith((".", "-"))


@pytest.mark.parametrize("identifier", ["", "x", str(uuid.UUID(int=0)), "1f136de9-01b5-40b9-b04e-c72701bcbd21"])
def test_uuids_that_libvirt_made_are_not_looked_at(identifier: str) -> None:
    assert not naming.may_be_ours(identifier)
    assert naming.may_be_ours(naming.image_uuid(marker_of(desired_image())))


def test_a_copy_of_a_definition_is_not_the_image(tmp_path: Path) -> None:
    definition = defined(record_of(tmp_path), identifier=str(uuid.uuid4()))
    assert kept_image(None, definition, SITE) is None


def test_a_definition_of_another_site_or_of_nobody_is_not_an_image(tmp_path: Path) -> None:
    definition = defined(record_of(tmp_path))
    assert kept_image(None, definition, "another-site") is None
    assert kept_image(None, replace(definition, text="{not json"), "another-site") is None
    assert kept_image(None, replace(definition, kind=None), SITE) is None
    assert kept_current(None, definition, SITE) is None
    assert kept_current(None, replace(definition, kind="current", text="[]"), SITE) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"marker": {', '"marker": ['),
        ('"disk": {', '"no_disk": {'),
        ('"format": "qcow2"', '"format": "floppy"'),
        ('"volume": "coppice.qcow2"', '"volume": "../../etc/passwd"'),
        ('"checksum": "sha512:', '"checksum": "sha512:00'),
        ('"size_bytes": ', '"size_bytes": "x", "y": '),
        ('"coppice_state": "available"', '"coppice_state": "ripe"'),
    ],
)
def test_a_damaged_record_of_this_site_is_an_error_that_names_the_definition(
    tmp_path: Path, before: str, after: str
) -> None:
    definition = defined(record_of(tmp_path))
    assert before in definition.text
    with pytest.raises(MarkerError, match=definition.identifier):
        kept_image(None, replace(definition, text=definition.text.replace(before, after)), SITE)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain",
        "<!DOCTYPE d [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>",
        "<a>" * 100 + "</a>" * 100,
        f"<domain><name>{'x' * 5_000_000}</name></domain>",
        "<domain><name>\ud800</name>",
    ],
    ids=["nothing", "cut", "document type", "deep", "long", "lone surrogate"],
)
def test_xml_that_is_none_is_an_error(xml: str) -> None:
    with pytest.raises(CloudAnswerError):
        read_definition(xml)


def test_everything_that_a_disk_is_made_of_is_found() -> None:
    xml = """<domain><uuid>u</uuid><name>n</name><devices>
      <disk><source file='/a/overlay'/><backingStore><source file='/a/base'/>
        <backingStore><source file='/a/bottom'/></backingStore></backingStore><transient/></disk>
      <disk><source pool='p' volume='v'/><mirror><source dev='/dev/x'/></mirror></disk>
      <disk device='cdrom'/></devices></domain>"""
    found = read_definition(xml)
    assert found.files == {"/a/overlay", "/a/base", "/a/bottom", "v", "/dev/x"}
    assert found.disks == {"/a/overlay", "v"}
    assert found.lasting == {"v"}
    volume = "<volume><name>o</name><backingStore><path>/a/base</path><format type='qcow2'/></backingStore></volume>"
    assert read_backing(volume) == {"/a/base"}
    pool = read_pool("<pool type='dir'><name>p</name><target><path>/a</path></target></pool>")
    assert (pool.kind, pool.path) == ("dir", "/a")


@dataclass
class Problem:
    code: int
    said: str = ""
    number: int = 0

    def get_error_code(self) -> int:
        return self.code

    def get_int1(self) -> int:
        return self.number

    def get_error_message(self) -> str:
        return self.said


@pytest.mark.threat("T88")
@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (Problem(5), CloudUnreachableError),
        (Problem(38, number=111), CloudUnreachableError),
        (Problem(38, number=13), CloudForbiddenError),
        (Problem(38, number=28), CloudQuotaError),
        (Problem(38, number=5), CloudFaultError),
        (Problem(38, "cannot write: No space left on device"), CloudQuotaError),
        (Problem(1, "client socket is closed"), CloudUnreachableError),
        (Problem(9, "domain 'a' already exists with uuid b"), CloudNameTakenError),
        (Problem(42), CloudImageGoneError),
        (Problem(50), CloudImageGoneError),
        (Problem(45), CloudCredentialError),
        (Problem(94), CloudCredentialError),
        (Problem(29), CloudForbiddenError),
        (Problem(67), CloudRefusedImageError),
        (Problem(90), CloudNameTakenError),
        (Problem(1), CloudFaultError),
        (Problem(0), CloudFaultError),
    ],
)
def test_each_of_libvirts_errors_is_one_of_ours(problem: Problem, kind: type[CloudError]) -> None:
    error = translated(problem, "lab", "looking")
    assert type(error) is kind
    assert "cloud lab: looking failed" in error.message
    assert error.resolution


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu+unix:///session?socket=/run/x", True),
        ("qemu+ssh://user@host/system", False),
        ("qemu://host/system", False),
        ("qemu+tls://host/system", False),
    ],
)
def test_files_are_looked_at_on_this_machine_alone(uri: str, *, local: bool) -> None:
    assert is_local(uri) is local


class Library:
    """As much of libvirt's library as a session asks for."""

    class libvirtError(Exception):  # noqa: N801 - the library's own name
        pass

    def __init__(self) -> None:
        self.opened = 0

    def registerErrorHandler(self, *_: object) -> None:  # noqa: N802 - the library's own name
        pass

    def openAuth(self, uri: str, auth: list[Any], flags: int) -> Library:  # noqa: N802 - the library's own name
        del uri, flags
        assert auth[1]([], None) == -1
        self.opened += 1
        return self

    def getLibVersion(self) -> int:  # noqa: N802 - the library's own name
        return 9_000_000


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    stand_in = Library()
    monkeypatch.setitem(sys.modules, "libvirt", stand_in)  # type: ignore[arg-type]
    return stand_in


@pytest.mark.usefixtures("library")
def test_work_that_gives_no_sign_of_life_is_given_up_and_changes_nothing_afterwards() -> None:
    goes_on, changed = threading.Event(), threading.Event()
    ended = threading.Event()

    def work(host: Any) -> None:
        try:
            goes_on.wait(60)
            host.beat()
            changed.set()
        finally:
            ended.set()

    session = Session("lab", "qemu:///system", 0.05)
    with pytest.raises(CloudTimeoutError, match="did not answer"):
        session.run("working", work)
    goes_on.set()
    assert ended.wait(60)
    assert not changed.is_set()


def test_a_connection_is_kept_and_made_anew_after_work_was_given_up(library: Library) -> None:
    session = Session("lab", "qemu:///system", 60.0)
    assert [session.run("working", lambda host: host.library is library) for _ in range(3)] == [True] * 3
    assert library.opened == 1
    hasty = Session("lab", "qemu:///system", 0.01)
    waits = threading.Event()
    with pytest.raises(CloudTimeoutError):
        hasty.run("working", lambda _: waits.wait(60))
    waits.set()
    hasty.call_seconds = 60.0
    assert hasty.run("working", lambda _: True)
    assert library.opened == 3


@pytest.mark.usefixtures("library")
def test_what_goes_wrong_in_work_is_raised_where_it_is_waited_for() -> None:
    def work(_: Any) -> None:
        raise MarkerError("damaged")

    with pytest.raises(MarkerError, match="damaged"):
        Session("lab", "qemu:///system", 60.0).run("working", work)


def test_a_missing_library_is_an_error_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(CloudDriverError) as caught:
        Session("lab", "qemu:///system", 1.0).run("working", lambda _: None)
    assert "coppice[libvirt]" in (caught.value.resolution or "")


def test_the_name_of_the_path_that_is_not_there_says_why() -> None:
    assert blocked_path("/pool/a.qcow2", str(ImageState.REVOKED)) == "/pool/a.qcow2.not-startable-revoked"
    assert transfer.PIECE_BYTES < 256 * 1024


def marker_with(**changes: Any) -> OwnershipMarker:
    return replace(marker_of(desired_image()), **changes)


@given(reason=TEXTS, vo=TEXTS)
def test_a_marker_comes_back_whatever_is_in_it(reason: str, vo: str) -> None:
    marker = marker_with(vo=vo, reason=reason)
    record = Record.parse(BASE.with_marker(marker).as_text())
    assert record == BASE.with_marker(marker)
    assert record.marker(SITE).vo == vo


def _base() -> Record:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as directory:
        return record_of(Path(directory))


BASE = _base()
