# SPDX-License-Identifier: Apache-2.0
"""What is known of the RPM family: releases, keys, repositories, the overlay, labels, recorded headers."""

from __future__ import annotations

import json
import sqlite3
import struct
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from coppice.definition.model import (
    Access,
    Boot,
    Contextualisation,
    DefinedFile,
    FileSystemKind,
    Firewall,
    Provisioner,
    ProvisionerKind,
    Services,
)
from coppice.definition.read import find_definitions, read_definition
from coppice.errors import BuildError, DefinitionError, DocumentError
from coppice.factory.audit_contents import CONTENT_CHECKS
from coppice.factory.audit_model import Subject
from coppice.factory.bootstrap.listing import Kind, Node
from coppice.factory.bootstrap.rpm_keys import find_keys
from coppice.factory.bootstrap.rpm_labels import Labels, label_script, labels_of, policy_folder
from coppice.factory.bootstrap.rpm_overlay import LINKS_PROGRAM, make_rpm_overlay, rpm_packages_for
from coppice.factory.bootstrap.rpm_releases import find_release, is_rpm_release
from coppice.factory.bootstrap.rpm_repositories import dnf_configuration, repositories, rpm_macros
from coppice.factory.bootstrap.rpm_supported import check_rpm_supported
from coppice.factory.evidence import rpm_database
from coppice.factory.evidence.ownership import Ownership, of_rpm
from coppice.factory.evidence.rpm_database import find_record, packages_of, read_headers, read_record
from coppice.factory.evidence.tree import GuestTree
from coppice.factory.evidence.tree import Node as TreeNode
from coppice.factory.model import BuildOptions
from coppice.formats.openpgp import armour, read_keyring, split_keyring
from coppice.formats.rpm_header import read_rpm_header
from coppice.model.operating_system import Architecture
from coppice.testing.rpm_record import rpm_record

SHIPPED = Path(__file__).parents[3] / "definitions"
ALMA = read_definition(SHIPPED / "almalinux-9")
ROOT = UUID(int=7)
NONE = BuildOptions()


def overlay(definition=ALMA):
    return make_rpm_overlay(definition, root_uuid=ROOT, private_mirror=False)


def text(path, definition=ALMA):
    return overlay(definition).entries[path].content.decode()


# Releases and definitions


def test_every_shipped_definition_of_the_family_is_one_that_the_builder_takes():
    found = [each for each in find_definitions(SHIPPED) if each.builder == "bootstrap" and is_rpm_release(each.suite)]
    assert {each.name for each in found} >= {
        "almalinux-9",
        "almalinux-10",
        "rocky-9",
        "rocky-10",
        "centos-stream-9",
        "centos-stream-10",
        "fedora-44",
    }
    for each in found:
        check_rpm_supported(each, NONE)
        assert find_release(each.suite).name == each.name
        assert each.tests


@pytest.mark.parametrize("name", ["almalinux-8", "rocky-8", "opensuse-leap-16.0"])
def test_a_release_that_cannot_be_built_is_refused_by_name(name):
    assert is_rpm_release(name)
    with pytest.raises(BuildError, match=name):
        check_rpm_supported(replace(ALMA, suite=name), NONE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"file_system": FileSystemKind.XFS}, "root of xfs"),
        ({"is_encrypted": True}, "encrypted"),
        ({"boot": Boot(secure_boot=True)}, "secure boot"),
        ({"access": Access(vnc=True)}, "desktop"),
        ({"platforms": {"qemu": {}}}, "hypervisors"),
        ({"disk_size_bytes": 1024**2}, "too small"),
        ({"operating_system": replace(ALMA.operating_system, architecture=Architecture.AARCH64.value)}, "x86_64 alone"),
    ],
)
def test_what_is_not_done_for_the_family_is_refused(change, told):
    with pytest.raises(BuildError, match=told):
        check_rpm_supported(replace(ALMA, **change), NONE)


def test_puppet_is_refused_and_says_so():
    puppet = Provisioner(name="web", kind=ProvisionerKind.PUPPET, files={"site.pp": b""}, entry="site.pp")
    with pytest.raises(BuildError, match="Puppet"):
        check_rpm_supported(replace(ALMA, provisioners=(puppet,)), NONE)


def test_two_firewalls_contradict_each_other():
    with pytest.raises(DefinitionError, match="firewalld"):
        check_rpm_supported(replace(ALMA, packages=("firewalld",)), NONE)
    check_rpm_supported(replace(ALMA, packages=("firewalld",), firewall=Firewall(enabled=False)), NONE)


def test_what_the_builder_writes_itself_is_not_laid_in():
    for path in ("/boot/grub/grub.cfg", "/etc/resolv.conf", "/var/cache/dnf/x"):
        with pytest.raises(DefinitionError, match=path):
            check_rpm_supported(replace(ALMA, files=(DefinedFile(path=path, content=b""),)), NONE)


def test_the_units_of_the_builder_are_not_switched():
    with pytest.raises(DefinitionError, match="coppice-firewall"):
        check_rpm_supported(replace(ALMA, services=Services(disabled=("coppice-firewall.service",))), NONE)


# Repositories and keys


def test_a_mirror_is_laid_out_as_its_distribution_lays_it_out():
    assert repositories(find_release("almalinux-9"), None) == (
        ("baseos", "https://repo.almalinux.org/almalinux/9/BaseOS/x86_64/os/"),
        ("appstream", "https://repo.almalinux.org/almalinux/9/AppStream/x86_64/os/"),
    )
    assert repositories(find_release("fedora-44"), "https://m.example/fedora/")[1] == (
        "updates",
        "https://m.example/fedora/updates/44/Everything/x86_64/",
    )
    assert repositories(find_release("centos-stream-9"), "https://m.example/{snapshot}", "2026-11-01")[0][1] == (
        "https://m.example/2026-11-01/9-stream/BaseOS/x86_64/os/"
    )


@pytest.mark.parametrize(
    ("mirror", "snapshot"),
    [
        ("http://mirror.example/almalinux", ""),
        ("ftp://mirror.example", ""),
        ("https://m.example/a b", ""),
        ("https://m.example/a\n[x]", ""),
        ("https://m.example", "2026"),
        ("https://m.example/{snapshot}", ""),
        (None, "2026"),
        ("https://m.example/{snapshot}", "../x"),
    ],
)
def test_a_mirror_that_nobody_vouches_for_is_refused(mirror, snapshot):
    with pytest.raises(BuildError):
        repositories(find_release("almalinux-9"), mirror, snapshot)


def test_dnf_checks_every_package_and_takes_nothing_of_the_machine():
    release = find_release("rocky-10")
    said = dnf_configuration(release, repositories(release, None))
    assert said.count("gpgcheck=1") == 1 + 1 + 2
    assert "gpgkey" not in said
    assert "gpgcheck=0" not in said
    assert "module_platform_id=platform:el10" in said
    assert "module_platform_id" not in dnf_configuration(find_release("fedora-44"), ())
    assert "%_dbpath /usr/lib/sysimage/rpm\n" in rpm_macros(release)
    assert "%_dbpath /var/lib/rpm\n" in rpm_macros(find_release("rocky-9"))
    assert "%_pkgverify_level all\n" in rpm_macros(release)


def key_packet(number):
    # A version 4 RSA key of 2048 bits, as far as one looks at it.
    modulus = (1 << 2047 | number).to_bytes(256, "big")
    body = b"\4\0\0\0\1\1" + struct.pack(">H", 2048) + modulus + struct.pack(">H", 17) + b"\1\0\1"
    user = b"Somebody"
    return b"\xc6\xff" + struct.pack(">I", len(body)) + body + b"\xcd" + bytes((len(user),)) + user + b"\xcc\1\6"


def test_a_keyring_is_split_by_its_primary_keys_and_put_into_armour():
    one, two = key_packet(1), key_packet(2)
    binary, keys = read_keyring(one + two)
    blocks = split_keyring(binary)
    assert list(blocks) == [key.fingerprint for key in keys]
    # What this machine trusts is not handed on.
    assert blocks[keys[0].fingerprint] == one[:-3].replace(b"\xcd\x08Some", b"\xcd\xff\0\0\0\x08Some")
    again, _ = read_keyring(armour(blocks[keys[1].fingerprint]).encode())
    assert again == blocks[keys[1].fingerprint]


def test_only_pinned_keys_are_taken_from_a_keyring(tmp_path):
    place = tmp_path / "keyring"
    place.write_bytes(key_packet(1) + key_packet(2))
    fingerprints = [key.fingerprint for key in read_keyring(place.read_bytes())[1]]
    release = replace(find_release("almalinux-9"), fingerprints=(fingerprints[1],))
    _, keys = read_keyring(find_keys(release, place).encode())
    assert [key.fingerprint for key in keys] == [fingerprints[1]]
    with pytest.raises(BuildError, match="no key here that signs the packages of AlmaLinux 10"):
        find_keys(find_release("almalinux-10"), place)
    with pytest.raises(BuildError, match="no key here") as caught:
        find_keys(release, None, folders=(tmp_path / "nowhere",))
    assert "factory.keyring" in (caught.value.resolution or "")


def test_keys_that_a_distribution_lays_there_are_found(tmp_path):
    release = find_release("almalinux-9")
    (tmp_path / "alma").mkdir()
    (tmp_path / release.key_names[0]).write_bytes(key_packet(3))
    fingerprint = read_keyring(key_packet(3))[1][0].fingerprint
    assert find_keys(replace(release, fingerprints=(fingerprint,)), None, folders=(tmp_path,)).count("BEGIN") == 1


# The overlay


def test_the_account_of_cloud_init_is_in_the_group_that_may_use_sudo_here():
    assert '"groups": ["adm", "systemd-journal", "wheel"]' in text("/etc/cloud/cloud.cfg.d/99-coppice.cfg")
    assert "apt:" not in text("/etc/cloud/cloud.cfg.d/99-coppice.cfg")


def test_the_boot_menu_and_kernel_install_name_the_same_root():
    assert f"linux /vmlinuz root=UUID={ROOT} ro console=tty0" in text("/boot/grub/grub.cfg")
    assert text("/etc/kernel/cmdline").startswith(f"root=UUID={ROOT} ro console=tty0")
    assert overlay().entries[LINKS_PROGRAM].mode == 0o755


def test_the_firewall_is_a_unit_of_its_own_and_firewalld_stays_out():
    entries = overlay().entries
    assert (
        "/usr/sbin/nft -f /etc/nftables.conf"
        in entries["/etc/systemd/system/coppice-firewall.service"].content.decode()
    )
    assert entries["/etc/systemd/system/firewalld.service"].target == "/dev/null"
    open_one = overlay(replace(ALMA, firewall=Firewall(enabled=False))).entries
    assert not [path for path in open_one if "firewall" in path or "nftables" in path]
    assert "nftables" in rpm_packages_for(ALMA)


def test_updates_install_themselves_where_that_is_asked_for():
    asked = replace(ALMA, contextualisation=Contextualisation(automatic_updates=True, guest_agent=True))
    assert "upgrade_type = security" in text("/etc/dnf/automatic.conf", asked)
    link = "/etc/systemd/system/timers.target.wants/dnf-automatic.timer"
    assert link in overlay(asked).entries
    assert overlay().leaves_out(link)
    assert {"dnf-automatic", "qemu-guest-agent"} <= set(rpm_packages_for(asked))
    fedora = replace(asked, suite="fedora-44")
    assert "dnf5-plugin-automatic" in rpm_packages_for(fedora)


def test_nothing_of_a_machine_and_of_the_build_is_kept():
    for path in (
        "/etc/resolv.conf",
        "/etc/ssh/ssh_host_rsa_key",
        "/var/lib/NetworkManager/secret_key",
        "/var/lib/dnf/history.sqlite-wal",
        "/var/lib/rpm/.rpm.lock",
        "/usr/lib/sysimage/rpm/rpmdb.sqlite-shm",
        "/var/cache/dnf/fedora/packages/x.rpm",
        "/var/log/dnf.rpm.log",
    ):
        assert overlay().leaves_out(path), path
    for path in ("/var/lib/rpm/rpmdb.sqlite", "/etc/machine-info", "/var/lib/dnf/modules"):
        assert not overlay().leaves_out(path), path


def test_without_ssh_its_service_does_not_start():
    closed = overlay(replace(ALMA, access=Access(ssh=False)))
    assert closed.entries["/etc/systemd/system/sshd.service"].target == "/dev/null"
    assert closed.leaves_out("/etc/systemd/system/multi-user.target.wants/sshd.service")


# Labels

POLICY = """\
# comment
/.*                         system_u:object_r:default_t:s0
/                      -d   system_u:object_r:root_t:s0
/etc/.*                     system_u:object_r:etc_t:s0
/etc/shadow.*          --   system_u:object_r:shadow_t:s0
/etc/shadows?d              system_u:object_r:odd_t:s0
/etc/selinux/config    --   system_u:object_r:config_t:s0
/usr/(.*/)?bin(/.*)?        system_u:object_r:bin_t:s0
/usr/lib(64)?/.*\\.so(\\.[^/]*)*  --  system_u:object_r:lib_t:s0
/dev/null              -c   system_u:object_r:null_t:s0
/proc                  -d   <<none>>
/a\\.b                       system_u:object_r:dot_t:s0
"""


@pytest.mark.parametrize(
    ("path", "kind", "label"),
    [
        ("/", Kind.DIRECTORY, "root_t"),
        ("/x", Kind.FILE, "default_t"),
        ("/etc/motd", Kind.FILE, "etc_t"),
        ("/etc/shadow-", Kind.FILE, "shadow_t"),
        ("/etc/shadow", Kind.SYMLINK, "etc_t"),
        ("/etc/shadowd", Kind.DIRECTORY, "odd_t"),
        ("/etc/selinux/config", Kind.FILE, "config_t"),
        ("/usr/bin/ls", Kind.FILE, "bin_t"),
        ("/usr/local/bin", Kind.DIRECTORY, "bin_t"),
        ("/usr/lib64/libc.so.6", Kind.FILE, "lib_t"),
        ("/a.b", Kind.FILE, "dot_t"),
        ("/axb", Kind.FILE, "default_t"),
        ("/sub/motd", Kind.FILE, "etc_t"),
        ("/subway", Kind.FILE, "default_t"),
    ],
)
def test_a_file_gets_the_label_of_the_strongest_rule(path, kind, label):
    labels = Labels([POLICY], ["/sub /etc\n"])
    assert labels.label(path, kind) == f"system_u:object_r:{label}:s0"
    assert labels.label("/proc", Kind.DIRECTORY) is None


@pytest.mark.parametrize("line", ["/x --  -d label", "/x -q label", "/( label", f"/x {'l' * 300}"])
def test_a_policy_that_cannot_be_read_is_no_policy(line):
    with pytest.raises(BuildError, match="SELinux policy"):
        Labels([f"{line}\n"])


def test_labels_are_written_once_for_each_file():
    listing = {
        "/": Node(kind=Kind.DIRECTORY),
        '/etc/a"b': Node(kind=Kind.FILE),
        "/etc/again": Node(kind=Kind.LINK, target='/etc/a"b'),
    }
    found = labels_of(listing, Labels([POLICY]))
    assert found == {"/": "system_u:object_r:root_t:s0", '/etc/a"b': "system_u:object_r:etc_t:s0"}
    script = label_script(found, {label: f"/w/{number}" for number, label in enumerate(found.values())})
    assert script.splitlines()[1] == 'ea_set -f "/w/1" "/etc/a""b" security.selinux'
    with pytest.raises(BuildError):
        label_script({"/a\nrm /": "x"}, {"x": "/w"})


def test_the_policy_is_the_one_that_the_tree_names():
    assert policy_folder("SELINUX=enforcing\nSELINUXTYPE=mls\n") == "/etc/selinux/mls/contexts/files"
    assert policy_folder("SELINUX=permissive\n") == "/etc/selinux/targeted/contexts/files"
    assert policy_folder("SELINUX=disabled\nSELINUXTYPE=targeted\n") is None
    assert policy_folder(None) is None


# Recorded headers


def header(**values):
    """Return a header with these entries, by tag number: (type, count, bytes)."""
    entries, store = b"", b""
    for tag, (kind, count, data) in values.items():
        entries += struct.pack(">IIII", int(tag[1:]), kind, len(store), count)
        store += data
    return struct.pack(">II", len(values), len(store)) + entries + store


def strings(*texts):
    return (8, len(texts), b"".join(each.encode() + b"\0" for each in texts))


def numbers(*given):
    return (4, len(given), struct.pack(f">{len(given)}I", *given))


TOOL = {
    "t1000": (6, 1, b"tool\0"),
    "t1001": (6, 1, b"1.2\0"),
    "t1002": (6, 1, b"3.el9\0"),
    "t1003": numbers(2),
    "t1014": (6, 1, b"MIT\0"),
    "t1022": (6, 1, b"x86_64\0"),
    "t1044": (6, 1, b"tools-1.2-3.el9.src.rpm\0"),
    "t1029": (1, 3, b"\0\0\2"),
    "t1030": (3, 3, struct.pack(">3H", 0o100755, 0o100644, 0o100644)),
    "t1035": strings("aa" * 32, "bb" * 32, "cc" * 32),
    "t1037": numbers(0, 1, 2),
    "t1116": numbers(0, 1, 1),
    "t1117": strings("tool", "tool.conf", "README"),
    "t1118": strings("/usr/bin/", "/etc/"),
    "t5011": numbers(8),
    "t268": (7, 1, b"s"),
}


def test_a_recorded_header_says_what_the_package_is_and_brought():
    found = read_rpm_header(header(**TOOL))
    assert (found.name, found.version, found.licence, found.is_signed) == ("tool", "2:1.2-3.el9", "MIT", True)
    assert [(each.path, each.is_configuration, each.is_vouched) for each in found.files] == [
        ("/usr/bin/tool", False, True),
        ("/etc/tool.conf", True, True),
        ("/etc/README", False, False),
    ]
    package = packages_of([found])[0]
    assert (package.source, package.source_version, package.manager) == ("tools", "", "rpm")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        header(**TOOL)[:-1],
        header(**TOOL)[:60],
        struct.pack(">II", 2**31, 0),
        header(**(TOOL | {"t1116": numbers(0, 1, 9)})),
        header(**(TOOL | {"t1117": strings("tool")})),
        header(**(TOOL | {"t1000": numbers(1)})),
        header(**(TOOL | {"t1030": (6, 1, b"x\0")})),
        header(
            **TOOL
            | {
                "t1029": (1, 100, bytes(100)),
                "t1030": (3, 100, bytes(200)),
                "t1035": strings(*[""] * 100),
                "t1037": numbers(*[0] * 100),
                "t1116": numbers(*[0] * 100),
                "t1117": strings(*["x"] * 100),
                "t1118": strings("/" * 1024**2),
            }
        ),
    ],
)
def test_a_header_that_is_none_is_a_document_error(data):
    with pytest.raises(DocumentError):
        read_rpm_header(data)


def test_files_belong_to_the_packages_that_brought_them_and_configuration_is_not_vouched_for():
    file = read_rpm_header(header(**TOOL))
    tree = GuestTree({"/usr": TreeNode(path="/usr", inode=3, mode=0o040755)}, lambda _: b"")
    unsigned = replace(file, name="bare", is_signed=False)
    found = of_rpm([file, unsigned], tree)
    assert found.packages["/usr/bin/tool"] == "bare"
    assert {(each.path, each.sha256) for each in found.delivered} == {("/usr/bin/tool", "aa" * 32)}
    assert found.unsigned == ("bare",)
    key = replace(unsigned, name="gpg-pubkey", architecture="(none)", files=())
    no_keys = [replace(unsigned, architecture="(none)"), replace(key, files=file.files)]
    assert of_rpm([key, *no_keys], tree).unsigned == ("bare", "gpg-pubkey")
    check = next(each for each in CONTENT_CHECKS if each.name == "unsigned-package")
    subject = Subject(tree=tree, definition=ALMA, ownership=found)
    assert [each.path for each in check.findings(subject)] == ["/bare"]
    assert check.findings(replace(subject, ownership=Ownership())) == ()


def test_a_record_says_what_is_installed_in_the_order_of_names():
    found = read_headers(rpm_record("two", "gpg-pubkey", "one"))
    assert [each.name for each in found] == ["two", "gpg-pubkey", "one"]
    assert [each.name for each in packages_of(found)] == ["one", "two"]


def test_a_record_gives_no_more_than_it_can_hold(monkeypatch, tmp_path):
    record = rpm_record("one", "two")
    (tmp_path / "record").write_bytes(record)
    blobs = rpm_database._blobs(tmp_path / "record", len(record))
    with pytest.raises(sqlite3.DatabaseError):
        rpm_database._blobs(tmp_path / "record", sum(map(len, blobs)) - 1)
    monkeypatch.setattr(rpm_database, "_MOST_PATHS", -1)
    with pytest.raises(BuildError, match="cannot be read") as caught:
        read_headers(record)
    assert "more paths than any system" in (caught.value.details or "")


def test_a_record_that_is_no_database_or_of_another_kind_is_told():
    with pytest.raises(BuildError, match="cannot be read"):
        read_headers(b"SQLite format 3\0" + bytes(200))
    with pytest.raises(BuildError, match="no package"):
        packages_of([])
    nodes = {
        path: TreeNode(path=path, inode=number, mode=mode)
        for number, (path, mode) in enumerate(
            [
                ("/var", 0o040755),
                ("/var/lib", 0o040755),
                ("/var/lib/rpm", 0o040755),
                ("/var/lib/rpm/Packages", 0o100644),
            ]
        )
    }
    with pytest.raises(BuildError, match="/var/lib/rpm/Packages"):
        find_record(GuestTree(nodes, lambda _: b""))
    assert find_record(GuestTree({}, lambda _: b"")) is None


def test_a_record_that_is_a_file_of_holes_is_refused_before_it_is_read():
    def never(_node):
        raise AssertionError("it was read")

    node = TreeNode(path="/usr/lib/sysimage/rpm/rpmdb.sqlite", inode=12, mode=0o100644, size_bytes=1 << 40)
    with pytest.raises(BuildError, match="too many for what it should be"):
        read_record(GuestTree({node.path: node}, never), node)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    from coppice.factory.bootstrap.rpm_inside import RpmPlan, dnf_words, read_plan

    plan = RpmPlan(
        configuration="/w/dnf/dnf.conf",
        macros="/w/dnf/macros",
        keys="/w/dnf/keys.asc",
        version="9",
        packages=("one",),
        is_base=True,
        provision=("python",),
        core_images=(("/boot/core", ("grub2-mkimage", "-O")),),
        kept=None,
        facts="/w/facts",
        is_mapped=False,
    )
    path = tmp_path / "plan"
    path.write_text(plan.document())
    assert read_plan(path) == plan
    assert json.loads(plan.document())["version"] == "9"
    words = [str(word) for word in dnf_words(plan, Path("/w/root"))]
    assert words[0] == "dnf"
    assert "--installroot=/w/root" in words
    assert "--setopt=reposdir=/w/dnf/nothing" in words


def test_a_mirrors_password_is_for_the_builder_alone_to_read(tmp_path, monkeypatch):
    from coppice.factory.bootstrap.rpm_tree import RpmTreeMaker
    from coppice.factory.bootstrap.suites import Suite

    release = find_release("almalinux-9")
    maker = RpmTreeMaker(
        suite=Suite(name=release.name, epoch=release.epoch, processor=release.processor),
        sources=(),
        work=tmp_path,
        timeout_seconds=1,
        on_output=print,
        release=release,
        repositories=repositories(release, "https://user:secret@mirror.example/alma"),
        keys="",
    )

    def nothing_is_made(*_, **__):
        raise BuildError("nothing is made here")

    monkeypatch.setattr(RpmTreeMaker, "_make", nothing_is_made)
    with pytest.raises(BuildError, match="nothing is made here"):
        maker.make_base()
    told = [path for path in tmp_path.rglob("*") if path.is_file() and "secret" in path.read_text()]
    assert [path.name for path in told] == ["dnf.conf"]
    assert told[0].stat().st_mode & 0o077 == 0
