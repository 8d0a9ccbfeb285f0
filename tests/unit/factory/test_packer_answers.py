# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from coppice.errors import DefinitionError
from coppice.factory.packer.answers import Installation, answers_of
from coppice.factory.packer.kickstart import quoted
from coppice.factory.packer.options import Installer
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 " + "A" * 68
PLAIN = Installation(
    device="/dev/vda",
    firmware=Firmware.BIOS,
    public_key=KEY,
    packages=("jq", "nginx"),
    kernel_options=("console=tty0", "quiet"),
    menu_seconds=3,
    major=9,
)
HOSTILE = "x\nd-i preseed/late_command string rm -rf /"
YAST = "{http://www.suse.com/1.0/yast2ns}"


def only(installer, installation=PLAIN):
    """Return the file that holds the answers."""
    return next(iter(answers_of(installer, installation).files.values()))


def directives(text):
    return {tuple(line.split()[1:2]): line.split(maxsplit=3)[3:] for line in text.splitlines()}


@pytest.mark.parametrize("installer", list(Installer))
@pytest.mark.parametrize("firmware", [Firmware.BIOS, Firmware.UEFI])
def test_every_installer_gets_the_key_the_packages_and_no_password(installer, firmware):
    text = only(installer, replace(PLAIN, firmware=firmware))
    assert KEY in text
    for word in ("jq", "nginx", "cloud-init", "quiet", "/dev/vda"[5:]):
        assert word in text
    assert "cloud-init.disabled" in text
    for line in text.splitlines():
        assert not line.startswith("rootpw ") or line == "rootpw --lock"
    answers = answers_of(installer, replace(PLAIN, firmware=firmware))
    assert "{address}" in "".join(answers.command)


@pytest.mark.parametrize("installer", list(Installer))
@pytest.mark.parametrize(
    "fields",
    [
        {"packages": (HOSTILE,)},
        {"packages": ("a b",)},
        {"packages": ("-o",)},
        {"packages": ("x;reboot",)},
        {"kernel_options": ("a\nb",)},
        {"kernel_options": ('a"b',)},
        {"kernel_options": ("a b",)},
        {"public_key": "ssh-ed25519 AAAA' && reboot"},
        {"device": "/dev/vda --all"},
        {"menu_seconds": -1},
    ],
)
def test_what_could_end_a_word_or_a_line_is_refused_before_any_file_is_written(installer, fields):
    with pytest.raises(DefinitionError):
        answers_of(installer, replace(PLAIN, **fields))


def test_a_preseed_is_one_answer_a_line_and_partitions_with_the_root_last():
    text = only(Installer.PRESEED)
    assert all(len(line.split()) >= 3 for line in text.splitlines())
    said = directives(text)
    recipe = said["partman-auto/expert_recipe",][0]
    assert "biosgrub" in recipe
    assert recipe.index("biosgrub") < recipe.index("mountpoint{ / }")
    assert "swap" not in recipe
    uefi = directives(only(Installer.PRESEED, replace(PLAIN, firmware=Firmware.UEFI)))
    assert "method{ efi }" in uefi["partman-auto/expert_recipe",][0]
    assert uefi["grub-installer/force-efi-extra-removable",] == ["true"]
    assert said["passwd/make-user",] == ["false"]
    assert said["passwd/root-password-crypted",] == ["!"]


def test_a_preseed_names_the_mirror_of_the_site_and_only_one_that_it_can_name():
    assert "mirror/" not in only(Installer.PRESEED)
    said = directives(only(Installer.PRESEED, replace(PLAIN, mirror="http://mirror.example:3142/debian")))
    assert said["mirror/http/hostname",] == ["mirror.example:3142"]
    assert said["mirror/http/directory",] == ["/debian"]


@pytest.mark.parametrize(
    "mirror",
    [
        "file:///srv/debian",
        "http://user:secret@mirror.example/debian",
        "http://mirror.example/{snapshot}",
        "http://a b/c",
        "http://a/c\\",
    ],
)
def test_no_installer_is_given_a_mirror_with_a_password_or_what_it_could_not_read(mirror):
    with pytest.raises(DefinitionError, match="mirror") as caught:
        replace(PLAIN, mirror=mirror)
    assert "secret" not in caught.value.message


def test_a_kickstart_follows_the_release_that_reads_it():
    nine, ten, fedora = (only(Installer.KICKSTART, replace(PLAIN, major=major)) for major in (9, 10, 43))
    eight = only(Installer.KICKSTART, replace(PLAIN, major=8))
    assert "%packages --exclude-weakdeps" in nine
    assert "\n%packages\n" in eight
    assert "@^minimal-environment" in ten
    assert "@core" in fedora
    typed = [answers_of(Installer.KICKSTART, replace(PLAIN, major=each)).command for each in (9, 10)]
    assert "<tab>" in typed[0][0]
    assert "<tab>" not in typed[1][0]
    assert "cdrom\n" in nine
    netinst = only(Installer.KICKSTART, replace(PLAIN, install_url="https://mirror.example/9/BaseOS/"))
    assert 'url --url="https://mirror.example/9/BaseOS/"\n' in netinst


def test_a_word_of_a_kickstart_cannot_end_early():
    assert quoted('a "b" \\ c') == '"a \\"b\\" \\\\ c"'
    with pytest.raises(DefinitionError):
        quoted("a\n%post")


def test_an_autoinstall_is_a_document_that_its_installer_knows_every_key_of():
    answers = answers_of(Installer.AUTOINSTALL, replace(PLAIN, mirror="http://mirror.example/ubuntu"))
    assert answers.files["meta-data"] == ""
    head, _, body = answers.files["user-data"].partition("\n")
    assert head == "#cloud-config"
    said = json.loads(body)["autoinstall"]
    known = {
        "version", "early-commands", "locale", "refresh-installer", "keyboard", "source", "network", "proxy", "apt",
        "storage", "identity", "active-directory", "ubuntu-pro", "ssh", "codecs", "drivers", "oem", "snaps",
        "debconf-selections", "packages", "kernel", "kernel-crash-dumps", "timezone", "updates", "shutdown",
        "late-commands", "error-commands", "reporting", "user-data", "interactive-sections",
    }  # fmt: skip
    assert said.keys() <= known
    assert said["version"] == 1
    # Without user-data, the installer insists on an account with a password.
    assert "user-data" in said
    assert "identity" not in said
    assert said["storage"]["layout"]["name"] == "direct"
    assert said["storage"]["swap"] == {"size": 0}
    for command in said["late-commands"]:
        assert isinstance(command, list)
        assert all(isinstance(word, str) for word in command)
        # A shell's program is one that stands here; what varies is a word of its own.
        assert command[:2] != ["sh", "-c"] or command[2] == 'printf %s "$1" > "$2"'


def test_an_autoyast_profile_is_a_tree_with_a_type_for_all_that_is_no_text():
    for firmware, loader, first in ((Firmware.BIOS, "grub2", "263"), (Firmware.UEFI, "grub2-efi", "259")):
        root = ET.fromstring(only(Installer.AUTOYAST, replace(PLAIN, firmware=firmware)))  # noqa: S314 - own text
        assert root.tag == f"{YAST}profile"
        assert root.findtext(f"{YAST}bootloader/{YAST}loader_type") == loader
        drive = root.find(f"{YAST}partitioning/{YAST}drive")
        kinds = [each.findtext(f"{YAST}partition_id") for each in drive.iter(f"{YAST}partition")]
        assert kinds == [first, "131"]
        kind = "{http://www.suse.com/1.0/configns}type"
        for element in root.iter():
            text = (element.text or "").strip()
            if text in {"true", "false"}:
                assert element.get(kind) == "boolean"
            if len(element) and all(child.tag == element[0].tag for child in element) and len(element) > 1:
                assert element.get(kind) == "list"
        packages = [each.text for each in root.iter(f"{YAST}package")]
        assert {"jq", "nginx", "cloud-init", "openssh"} <= set(packages)
        (user,) = root.iter(f"{YAST}user")
        assert user.findtext(f"{YAST}user_password") == "!"
