# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coppice.catalogue.catalogue import Catalogue
from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.images import keep_image
from coppice.catalogue.model import EndorserIdentity
from coppice.catalogue.selections import Selections
from coppice.database import Database
from coppice.descriptor.model import Action, Descriptor, Disk
from coppice.errors import (
    ChecksumMismatchError,
    ExistsError,
    InputError,
    NotFoundError,
    SizeMismatchError,
    UnreadableFileError,
    VersionExistsError,
)
from coppice.model.checksum import Checksum
from coppice.model.identifiers import is_uuid
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/c.db")
    yield database
    database.close()


def image(content: bytes) -> Image:
    return Image(
        format=DiskFormat.QCOW2,
        size_bytes=len(content),
        virtual_size_bytes=8 * 1024**3,
        checksum=Checksum.of(content),
    )


def descriptor(version: str = "1", content: bytes = b"one") -> Descriptor:
    return Descriptor(
        action=Action.REGISTRATION,
        identifier="debian-12",
        version=version,
        title="Debian 12",
        description="A minimal Debian",
        groups=("general",),
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        requirements=Requirements(minimum_cores=1, minimum_ram_mib=512),
        disks=(Disk(path="disk.qcow2", image=image(content)),),
        created=NOW,
        provenance="build.json",
    )


def add(database: Database, version: str = "1", content: bytes = b"one") -> str:
    added = Catalogue(database).add("debian-12", descriptor(version, content), directory=Path("/builds"))
    return added.appliance.identifier


def test_what_a_version_is_built_on_and_the_evidence_of_its_build_are_kept(database: Database) -> None:
    parents = (Checksum.of(b"parent"), Checksum.of(b"grandparent"))
    told = replace(descriptor(), built_on=parents)
    Catalogue(database).add("web", told, directory=Path("/builds"), evidence=Path("/kept/abc"))
    [kept] = Catalogue(database).versions("web")
    assert (kept.built_on, kept.evidence) == (parents, Path("/kept/abc"))
    add(database)
    [plain] = Catalogue(database).versions("debian-12")
    assert (plain.built_on, plain.evidence) == ((), None)
    again = replace(descriptor(), built_on=parents)
    for place in ("/kept/abc", "/kept/other"):
        Catalogue(database).add("debian-12", again, directory=Path("/builds"), evidence=Path(place))
    [plain] = Catalogue(database).versions("debian-12")
    assert (plain.built_on, plain.evidence) == (parents, Path("/kept/abc"))


def test_an_appliance_keeps_its_identifier_over_its_versions(database: Database) -> None:
    first = add(database, "1", b"one")
    assert is_uuid(first)
    assert add(database, "2", b"two") == first
    versions = Catalogue(database).versions("debian-12")
    assert [version.version for version in versions] == ["1", "2"]
    assert versions[1].image == image(b"two")
    assert versions[1].path == Path("/builds/disk.qcow2")
    assert versions[1].created == NOW
    assert versions[1].appliance.requirements == Requirements(minimum_cores=1, minimum_ram_mib=512)


def test_versions_are_ordered_as_versions_not_as_text(database: Database) -> None:
    for number in ("1.9", "1.10", "1.11"):
        add(database, number, number.encode())
    assert [version.version for version in Catalogue(database).versions("debian-12")] == ["1.9", "1.10", "1.11"]


def test_adding_the_same_bytes_again_changes_nothing(database: Database) -> None:
    add(database)
    add(database)
    assert len(Catalogue(database).versions("debian-12")) == 1


def test_a_version_never_gets_other_content(database: Database) -> None:
    add(database, "1", b"one")
    with pytest.raises(VersionExistsError, match="other content"):
        add(database, "1", b"another")
    assert Catalogue(database).versions("debian-12")[0].image == image(b"one")


def test_a_version_older_than_the_newest_is_refused(database: Database) -> None:
    add(database, "2", b"two")
    with pytest.raises(VersionExistsError, match="does not come after 2"):
        add(database, "1", b"one")


def test_names_and_versions_that_cannot_be_are_refused(database: Database) -> None:
    with pytest.raises(InputError, match="cannot name"):
        Catalogue(database).add("../x", descriptor(), directory=Path("/"))
    with pytest.raises(InputError, match="not a version"):
        Catalogue(database).add("x", descriptor(version="..."), directory=Path("/"))
    with pytest.raises(InputError, match="no disk"):
        Catalogue(database).add("x", replace(descriptor(), disks=()), directory=Path("/"))
    assert Catalogue(database).appliances() == ()


def test_a_proposed_version_is_the_date_and_never_taken(database: Database) -> None:
    catalogue = Catalogue(database)
    assert catalogue.propose_version("debian-12", image(b"one"), NOW) == "2026.11.01"
    add(database, "2026.11.01", b"one")
    assert catalogue.propose_version("debian-12", image(b"one"), NOW) == "2026.11.01"
    assert catalogue.propose_version("debian-12", image(b"two"), NOW) == "2026.11.01.1"


def test_a_wanted_version_is_proposed_once_and_then_with_a_counter(database: Database) -> None:
    catalogue = Catalogue(database)
    assert catalogue.propose_version("debian-12", image(b"one"), NOW, wanted="12.4") == "12.4"
    add(database, "12.4", b"one")
    assert catalogue.propose_version("debian-12", image(b"one"), NOW, wanted="12.5") == "12.4"
    assert catalogue.propose_version("debian-12", image(b"two"), NOW, wanted="12.4") == "12.4.1"
    with pytest.raises(InputError, match="not a version"):
        catalogue.propose_version("debian-12", image(b"two"), NOW, wanted="...")


def identity(name: str = "jane") -> EndorserIdentity:
    return EndorserIdentity(
        name=name,
        certificate=Path("/keys/cert.pem"),
        key=Path("/keys/key.pem"),
        passphrase_file=None,
        creator="Jane Doe",
        email="jane@example.org",
    )


def make_list(database: Database, **changes: object) -> Selections:
    selections = Selections(database)
    Endorsers(database).add(identity())
    arguments: dict[str, object] = {
        "title": "Images",
        "description": "All of them",
        "source": "https://lists.example.org/",
        "endorser": "jane",
        "publisher": "web",
        **changes,
    }
    selections.create("general", **arguments)  # type: ignore[arg-type]
    return selections


def test_a_list_carries_the_newest_version_of_what_was_selected(database: Database) -> None:
    add(database, "1", b"one")
    selections = make_list(database)
    selections.select("general", "debian-12")
    selections.select("general", "debian-12")
    assert [version.version for version in selections.get("general").versions] == ["1"]
    add(database, "2", b"two")
    assert [version.version for version in selections.get("general").versions] == ["2"]
    assert is_uuid(selections.get("general").identifier)
    assert selections.deselect("general", "debian-12").versions == ()


def test_lists_need_what_they_name(database: Database) -> None:
    with pytest.raises(NotFoundError, match="endorser 'nobody'"):
        make_list(database, endorser="nobody")
    with pytest.raises(InputError, match="lifetime"):
        make_list(database, lifetime_days=0)
    selections = make_list(database)
    with pytest.raises(ExistsError):
        make_list(database)
    with pytest.raises(NotFoundError, match="no appliance 'debian-99'"):
        selections.select("general", "debian-99")
    with pytest.raises(NotFoundError, match="no image list 'other'"):
        selections.get("other")
    with pytest.raises(NotFoundError, match="does not carry"):
        selections.deselect("general", "debian-12")


def test_an_image_is_kept_once_and_only_as_it_was_described(tmp_path: Path) -> None:
    source = tmp_path / "disk.qcow2"
    source.write_bytes(b"one")
    kept = keep_image(tmp_path / "catalogue", source, image(b"one"))
    assert kept.read_bytes() == b"one"
    assert keep_image(tmp_path / "catalogue", source, image(b"one")) == kept
    with pytest.raises(SizeMismatchError, match="3 bytes"):
        keep_image(tmp_path / "catalogue", source, image(b"longer"))
    with pytest.raises(ChecksumMismatchError):
        keep_image(tmp_path / "catalogue", source, image(b"two"))
    with pytest.raises(UnreadableFileError, match="no image"):
        keep_image(tmp_path / "catalogue", tmp_path / "absent", image(b"four"))
    source.unlink()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
