# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from coppice.cloud.clouds import open_cloud
from coppice.cloud.opennebula import OPTIONS
from coppice.cloud.opennebula.failures import Failures
from coppice.cloud.opennebula.options import FrontEndSettings
from coppice.cloud.opennebula.pieces import read_pieces
from coppice.errors import (
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageGoneError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudRefusedImageError,
    CredentialError,
    SettingsError,
)
from coppice.settings.clouds import CloudSettings, ImageSettings, VoSettings
from coppice.settings.driver_options import Secret

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def settings(tmp_path: Path, changes: dict[str, object] | None = None, **others: Any) -> CloudSettings:
    options: dict[str, object] = {
        "endpoint": "http://localhost:2633/RPC2",
        "secret_file": str(tmp_path / "one_auth"),
        "transport": {"driver": "path", "directory": str(tmp_path)},
        **(changes or {}),
    }
    return CloudSettings(
        name="one",
        driver="opennebula",
        site="test-site",
        formats=others.pop("formats", ()),
        options={key: value for key, value in options.items() if value is not None},
        **others,
    )


def test_a_cloud_is_opened_without_asking_it(tmp_path: Path):
    cloud = open_cloud(
        settings(tmp_path, {"datastores": ["default", 101], "networks": "public", "group": "users", "timeout": "1 min"})
    )
    assert cloud.name == "one"
    assert cloud.placing.datastores == ("default", "101")
    assert cloud.placing.networks == ("public",)
    assert cloud.front_end.settings.call_seconds == 60


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"endpoint": None}, "endpoint"),
        ({"endpoint": "one.example.org"}, "XML-RPC"),
        ({"endpoint": "https://a:b@one.example.org/RPC2"}, "XML-RPC"),
        ({"endpoint": "http://[::1"}, "XML-RPC"),
        ({"endpoint": "http://one.example.org:2633/RPC2"}, "in the clear"),
        ({"endpoint": "http://localhost.example.org:2633/RPC2"}, "in the clear"),
        ({"secret_file": None}, "secret_file"),
        ({"transport": None}, "transport"),
        ({"transport": {"driver": "carrier-pigeon"}}, "carrier-pigeon"),
        ({"datastores": {"a": 1}}, "datastores"),
        ({"datastores": ["a", "a"]}, "datastores"),
        ({"networks": [""]}, "networks"),
        ({"networks": [True]}, "networks"),
        ({"networks": ["/public"]}, "networks"),
        ({"networks": ["a/b/c"]}, "networks"),
        ({"datastore": ["a"]}, "datastores"),
        ({"timeout": -1}, "timeout"),
        ({"template_file": "/nowhere/pieces"}, "No such file"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path: Path, changes: dict[str, object], says: str):
    with pytest.raises(SettingsError, match=says):
        open_cloud(settings(tmp_path, changes))


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:2633/RPC2", "http://[::1]:2633/RPC2", "https://one.example.org/RPC2"]
)
def test_a_password_goes_where_it_cannot_be_read_on_its_way(tmp_path: Path, endpoint: str):
    assert open_cloud(settings(tmp_path, {"endpoint": endpoint}))


def test_a_password_goes_in_the_clear_where_the_site_says_so(tmp_path: Path):
    assert open_cloud(settings(tmp_path, {"endpoint": "http://one.example.org/RPC2", "allow_plain_http": True}))


def test_formats_that_opennebula_does_not_take_are_told(tmp_path: Path):
    with pytest.raises(SettingsError, match="vmdk"):
        open_cloud(settings(tmp_path, formats=("vmdk",)))


@pytest.mark.threat("T72")
@pytest.mark.parametrize(
    "name", ["PATH", "SOURCE", "COPPICE_SITE", "NAME", "VMCATCHER_EVENT_VO", "logo", "A B", "DISK"]
)
def test_a_site_sets_no_attribute_that_is_coppices(tmp_path: Path, name: str):
    with pytest.raises(SettingsError, match="attribute"):
        open_cloud(settings(tmp_path, properties={name: "x"}))
    with pytest.raises(SettingsError, match="attribute"):
        open_cloud(settings(tmp_path, vos={"biomed": VoSettings(properties={name: "x"})}))
    with pytest.raises(SettingsError, match="attribute"):
        open_cloud(settings(tmp_path, images={"x": ImageSettings(properties={name: "x"})}))


def test_a_vo_has_one_group(tmp_path: Path):
    with pytest.raises(SettingsError, match="2 groups"):
        open_cloud(settings(tmp_path, vos={"biomed": VoSettings(members=("a", "b"))}))


def test_the_options_that_are_named_are_those_that_are_read(tmp_path: Path):
    with pytest.raises(SettingsError, match="Did you mean 'endpoint'"):
        open_cloud(settings(tmp_path, {"endpont": "x"}))
    assert "transport" in OPTIONS


@pytest.mark.parametrize("text", ["oneadmin", ":", "oneadmin:", ":secret"])
def test_a_session_is_a_name_and_a_password(tmp_path: Path, text: str):
    path = tmp_path / "one_auth"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(CredentialError) as caught:
        FrontEndSettings(endpoint="x", secret=Secret(file=path)).session()
    assert "secret" not in caught.value.message.replace("the secret of OpenNebula", "")


XML_PIECES = (
    "<TEMPLATE>\n<MEMORY>2048</MEMORY><GRAPHICS> <TYPE>SPICE</TYPE><LISTEN>127.0.0.1</LISTEN></GRAPHICS>"
    '<SCHED>A="1"</SCHED></TEMPLATE>'
)


@pytest.mark.parametrize(
    "text",
    [
        '# a comment\nMEMORY = 2048\n\nGRAPHICS/TYPE = SPICE\nGRAPHICS/LISTEN = 127.0.0.1\nSCHED = A="1"\n',
        XML_PIECES,
    ],
)
def test_pieces_are_read_from_lines_and_from_xml(tmp_path: Path, text: str):
    path = tmp_path / "pieces"
    path.write_text(text)
    assert read_pieces(path) == (
        ("MEMORY", "2048"),
        ("GRAPHICS", (("TYPE", "SPICE"), ("LISTEN", "127.0.0.1"))),
        ("SCHED", 'A="1"'),
    )


def test_a_part_that_comes_again_begins_another_of_that_name(tmp_path: Path):
    path = tmp_path / "pieces"
    path.write_text("NIC/NETWORK = a\nNIC/MODEL = virtio\nNIC/NETWORK = b\n")
    assert read_pieces(path) == (
        ("NIC", (("NETWORK", "a"), ("MODEL", "virtio"))),
        ("NIC", (("NETWORK", "b"),)),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("MEMORY", "line 1"),
        ("MEMORY =", "line 1"),
        ("memory = 1", "no name"),
        ("OS/a = 1", "no name"),
        ("DISK/IMAGE_ID = 1", "DISK"),
        ("NAME = x", "NAME"),
        ("COPPICE_SITE = x", "COPPICE_SITE"),
        ("<TEMPLATE><A>", "no XML"),
        ("<VM><A>1</A></VM>", "root"),
        ("<TEMPLATE><A><B><C>1</C></B></A></TEMPLATE>", "two levels"),
        ('<!DOCTYPE T [<!ENTITY b SYSTEM "file:///etc/passwd">]><TEMPLATE><A>&b;</A></TEMPLATE>', "document type"),
        ("\xff", "UTF-8"),
        ("A = " + "x" * 300_000, "longer"),
    ],
)
def test_pieces_that_cannot_be_used_are_told(tmp_path: Path, text: str, says: str):
    path = tmp_path / "pieces"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=says):
        read_pieces(path)


RECORDED = [
    (
        0x4000,
        "[one.image.allocate] Error allocating a new image. NAME is already taken by IMAGE 0.",
        CloudNameTakenError,
    ),
    (0x2000, "[one.template.allocate] NAME is already taken by TEMPLATE 0.", CloudNameTakenError),
    (0x0800, "image cannot be renamed to raw8 because it collides with image 1", CloudNameTakenError),
    (0x2000, "Parse error: syntax error, unexpected VARIABLE", CloudRefusedImageError),
    (0x4000, "Invalid NAME, char '&' is not allowed", CloudRefusedImageError),
    (0x2000, "Cannot parse image SIZE: Runtime error during size estimation", CloudRefusedImageError),
    (0x0400, "[one.image.info] Error getting image [9999].", CloudImageGoneError),
    (0x0800, "[one.image.delete] Cannot delete image. There are 1 VMs using it.", CloudImageInUseError),
    (0x0800, "[one.image.delete] Cannot delete image. There are 2 active clone operations.", CloudImageInUseError),
    (0x2000, "[one.image.enable] Could not disable image: Image cannot be in state USED.", CloudImageInUseError),
    (
        0x2000,
        "Image locked, use --force flag to remove the image. Force delete may leave some files",
        CloudImageInUseError,
    ),
    (0x0800, "Not enough space in datastore", CloudQuotaError),
    (0x0200, "user [3] limit of 1 reached for IMAGES quota in DATASTORE with ID: 1.", CloudQuotaError),
    (0x0200, "User [2] : Not authorized to perform MANAGE IMAGE [0].", CloudForbiddenError),
    (0x0200, "Template includes a restricted attribute SOURCE", CloudForbiddenError),
    (
        0x2000,
        "[one.template.update] Cannot update template. User Template includes a restricted attribute PCI",
        CloudForbiddenError,
    ),
    (0x2000, "Something else", CloudFaultError),
    (0x9999, "Something new", CloudError),
]


@pytest.mark.threat("T89")
@pytest.mark.parametrize(("code", "text", "error"), RECORDED)
def test_a_recorded_refusal_is_the_error_that_it_means(code: int, text: str, error: type[CloudError]):
    found = Failures("one", "http://localhost").of_refusal("one.image.x", code, text + "\x1b[2J\n" + "x" * 5000)
    assert type(found) is error
    assert found.resolution
    assert "\x1b" not in found.message
    assert len(found.message) < 1000
