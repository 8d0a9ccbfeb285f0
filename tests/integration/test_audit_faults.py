# SPDX-License-Identifier: Apache-2.0
"""The audit, on real file systems: a clean one passes, and each fault that is planted in it is found by its check.

The faults are written into the image's bytes by debugfs, as a careless build would have left them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.clock import SystemClock
from coppice.definition.model import AuditException, Definition, Firewall, OpenPort
from coppice.errors import AuditError, BuildError
from coppice.factory.audit import CHECKS, GATE, audit, judge, read_subject
from coppice.factory.bootstrap.overlay_cloud import BAKED_SCRIPT
from coppice.factory.evidence import contents as contents_module
from coppice.factory.evidence.contents import FILE_NAME, read_contents
from coppice.factory.model import BuiltImage, Outcome
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.testing.rpm_record import rpm_record

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
DISK_BYTES, ROOT_AT = 12 * MIB, 1 * MIB
CLOCK = SystemClock()
TOOL = b"#!/bin/sh\necho tool\n"
DEFINITION = Definition(
    name="tiny",
    path=Path("/definitions/tiny/appliance.toml"),
    title="Tiny",
    description="",
    groups=(),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    suite="bookworm",
    builder="bootstrap",
    packages=(),
    disk_size_bytes=DISK_BYTES,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.RAW,),
    user="debian",
    requirements=Requirements(),
)
SSHD = b"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n"
CLEAN: dict[str, bytes] = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n",
    "/etc/shadow": b"root:*:19000:0:99999:7:::\ndaemon:!:19000:0:99999:7:::\n",
    "/etc/machine-id": b"",
    "/etc/fstab": b"UUID=x / ext4 defaults 0 1\n",
    "/etc/hostname": b"localhost\n",
    "/etc/sudoers": b"Defaults\tenv_reset\nroot\tALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n"
    b"@includedir /etc/sudoers.d\n",
    "/etc/ssh/sshd_config": b"Include /etc/ssh/sshd_config.d/*.conf\n",
    "/etc/ssh/sshd_config.d/00-coppice.conf": SSHD,
    "/etc/apt/sources.list": b"deb http://mirror.example/debian bookworm main\n",
    "/usr/bin/tool": TOOL,
    "/usr/lib/systemd/system/apache2.service": b"[Service]\nExecStart=/usr/sbin/apache2\n",
    "/usr/lib/systemd/system/odd.socket": b"[Socket]\nListenStream=0.0.0.0:7777\n",
    "/usr/lib/systemd/system/quiet.socket": b"[Socket]\nListenStream=/run/quiet\nListenStream=127.0.0.1:99\n",
    "/var/lib/dpkg/info/tool.list": b"/.\n/bin\n/bin/tool\n/etc/machine-id\n",
    "/var/lib/dpkg/info/tool.md5sums": f"{hashlib.md5(TOOL, usedforsecurity=False).hexdigest()}  bin/tool\n".encode(),
    "/var/log/lastlog": b"",
    "/var/cache/apt/archives/lock": b"",
}
LINKS = {
    "/bin": "usr/bin",
    "/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "/etc/systemd/system/multi-user.target.wants/ssh.service": "/usr/lib/systemd/system/ssh.service",
    "/etc/systemd/system/sockets.target.wants/quiet.socket": "/usr/lib/systemd/system/quiet.socket",
}
FOLDERS = ("/tmp", "/var/tmp", "/var/log", "/var/lib/cloud", "/var/lib/systemd", "/root", "/dev")  # noqa: S108
WANTS = "/etc/systemd/system/multi-user.target.wants"
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"
HASH = "$y$j9T$abcdefgh$0123456789012345678901234567890123456789012"


class Disk:
    """A raw disk with one ext4 partition, changed by debugfs."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.folder = folder / "disk.raw", folder
        self._staged = 0

    def make(self, feature: str = "^has_journal") -> None:
        with self.raw.open("wb") as stream:
            stream.truncate(DISK_BYTES)
        script = f"label: gpt\nstart={ROOT_AT // 512}, size={(DISK_BYTES - 2 * MIB) // 512}, name=root\n"
        subprocess.run(["sfdisk", "--quiet", self.raw], input=script, text=True, check=True, capture_output=True)
        blocks = str((DISK_BYTES - 2 * MIB) // 1024)
        mke2fs = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", feature, "-E", f"offset={ROOT_AT}"]
        subprocess.run([*mke2fs, self.raw, blocks], check=True, capture_output=True)

    def change(self, *commands: str) -> None:
        script = self.folder / "script"
        script.write_text("\n".join(commands) + "\n")
        place = f"{self.raw}?offset={ROOT_AT}"
        said = subprocess.run(["debugfs", "-w", "-f", script, place], check=True, capture_output=True, text=True)
        complaints = [line for line in said.stderr.splitlines() if not line.startswith("debugfs ")]
        assert complaints == [], complaints

    def put(self, path: str, content: bytes, mode: int = 0o644) -> list[str]:
        self._staged += 1
        staged = self.folder / str(self._staged)
        staged.write_bytes(content)
        return [f'write "{staged}" "{path}"', f'set_inode_field "{path}" mode 0{0o100000 | mode:o}']

    def image(self) -> BuiltImage:
        size = self.raw.stat().st_size
        facts = Image(format=DiskFormat.RAW, size_bytes=size, virtual_size_bytes=size, checksum=Checksum.of(b"disk"))
        return BuiltImage(path=self.raw, image=facts)

    def twin(self, folder: Path) -> Disk:
        found = Disk(folder)
        shutil.copyfile(self.raw, found.raw)
        return found


def parents_of(paths) -> list[str]:
    found = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
    return sorted(found, key=lambda path: (path.count("/"), path))


THERE = tuple(dict.fromkeys([*parents_of([*CLEAN, *LINKS]), *FOLDERS]))


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Disk:
    disk = Disk(tmp_path_factory.mktemp("clean"))
    disk.make()
    commands = [f"mkdir {folder}" for folder in THERE]
    commands += [f"set_inode_field {folder} mode 041777" for folder in FOLDERS[:2]]
    for path, content in CLEAN.items():
        commands += disk.put(path, content)
    commands += [f"symlink {path} {target}" for path, target in LINKS.items()]
    disk.change(*commands)
    return disk


@pytest.fixture
def disk(clean, tmp_path) -> Disk:
    return clean.twin(tmp_path)


def look(disk: Disk, definition: Definition = DEFINITION):
    return audit(disk.image(), definition, work_directory=disk.folder / "work", clock=CLOCK)


# Name, what is planted (a file's path and content, or commands of debugfs), the check that finds it, and where.
FAULTS: tuple[tuple[str, object, str, str], ...] = (
    ("a root that needs no password", ("/etc/shadow", "root::19000::::::\n"), "empty-password", "/etc/shadow"),
    ("a password beside its name", ("/etc/passwd", f"root:{HASH}:0:0::/:/bin/sh\n"), "empty-password", "/etc/passwd"),
    ("a password of root", ("/etc/shadow", f"root:{HASH}:19000::::::\n"), "password", "/etc/shadow"),
    ("a locked account's password", ("/etc/shadow", f"root:!{HASH}:19000::::::\n"), "password", "/etc/shadow"),
    (
        "root by another name",
        ("/etc/passwd", "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n"),
        "second-root",
        "/etc/passwd",
    ),
    ("an authorised key", ("/root/.ssh/authorized_keys", "ssh-ed25519 A me\n"), "authorised-key", "/root/.ssh/*"),
    ("a host key", ("/etc/ssh/ssh_host_ed25519_key", KEY.decode()), "host-key", "/etc/ssh/ssh_host_*"),
    ("a private key", ("/etc/ssl/private/web.pem", KEY.decode()), "private-key", "/etc/ssl/private/web.pem"),
    ("the build's credentials", ("/root/.netrc", "machine x login y password z\n"), "credential", "/root/.netrc"),
    (
        "an address with a password",
        ("/etc/apt/sources.list.d/site.list", "deb https://jane:secret@repo.example/ x main\n"),
        "credential",
        "/etc/apt/sources.list.d/site.list",
    ),
    ("sudo for somebody", ("/etc/sudoers.d/90-x", "packer ALL=(ALL) NOPASSWD:ALL\n"), "sudo", "/etc/sudoers.d/90-x"),
    ("a host that is trusted", ("/root/.rhosts", "+ +\n"), "trusted-host", "/root/.rhosts"),
    (
        "a console without a login",
        ("/etc/systemd/system/getty@tty1.service.d/x.conf", "[Service]\nExecStart=-/sbin/agetty -a root\n"),
        "automatic-login",
        "/etc/systemd/system/getty@tty1.service.d/x.conf",
    ),
    ("a machine-id", ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"), "machine-id", "/etc/machine-id"),
    ("a random seed", ("/var/lib/systemd/random-seed", "x"), "seed", "/var/lib/systemd/random-seed"),
    ("a log", ("/var/log/syslog", "booted\n"), "log", "/var/log/syslog"),
    ("cloud-init's notes", ("/var/lib/cloud/instance/user-data.txt", "x"), "cloud-state", "/var/lib/cloud/instance/*"),
    ("a package's file", ("/var/cache/apt/archives/x.deb", "deb"), "package-cache", "/var/cache/apt/archives/x.deb"),
    ("a lease", ("/var/lib/dhcp/dhclient.leases", "lease {}"), "lease", "/var/lib/dhcp/dhclient.leases"),
    ("a history", ("/root/.bash_history", "secret\n"), "history", "/root/.bash_history"),
    ("a file in /tmp", ("/tmp/script.sh", "#!/bin/sh\n"), "temporary-file", "/tmp/script.sh"),  # noqa: S108
    ("name servers", (), "resolver", "/etc/resolv.conf"),
    (
        "a proxy",
        ("/etc/apt/apt.conf.d/01p", 'Acquire::http::Proxy "http://p:3142";\n'),
        "proxy",
        "/etc/apt/apt.conf.d/01p",
    ),
    ("swap of another machine", ("/etc/fstab", "UUID=y none swap sw 0 0\n"), "swap", "/etc/fstab"),
    (
        "sshd that takes passwords",
        ("/etc/ssh/sshd_config.d/00-a.conf", "PasswordAuthentication yes\n"),
        "sshd",
        "/etc/ssh/*",
    ),
    (
        "a web server",
        (f"symlink {WANTS}/apache2.service /usr/lib/systemd/system/apache2.service",),
        "listening-service",
        f"{WANTS}/*",
    ),
    (
        "a socket that is open",
        ("symlink /etc/systemd/system/sockets.target.wants/odd.socket /usr/lib/systemd/system/odd.socket",),
        "listening-service",
        "/etc/systemd/system/sockets.target.wants/*",
    ),
    (
        "a source that is trusted blindly",
        ("/etc/apt/sources.list.d/x.list", "deb [arch=amd64 trusted=yes] http://repo.example/ x main\n"),
        "package-source",
        "/etc/apt/sources.list.d/x.list",
    ),
    (
        "apt that asks for no signature",
        ("/etc/apt/apt.conf.d/99x", 'APT::Get::AllowUnauthenticated "true";\n'),
        "package-source",
        "/etc/apt/apt.conf.d/99x",
    ),
    (
        "a file for everybody to write",
        ("set_inode_field /etc/hostname mode 0100666",),
        "world-writable",
        "/etc/hostname",
    ),
    ("a folder for everybody to write", ("mkdir /srv", "set_inode_field /srv mode 040777"), "world-writable", "/srv"),
    (
        "a program that is root",
        ("mkdir /opt", "write /bin/true /opt/su", "set_inode_field /opt/su mode 0104755"),
        "setuid",
        "/opt/su",
    ),
    (
        "a program that may do what root may",
        (
            "mkdir /opt",
            "write /bin/true /opt/net",
            "set_inode_field /opt/net mode 0100755",
            "ea_set /opt/net security.capability cap",
        ),
        "setuid",
        "/opt/net",
    ),
    ("a disk for everybody", ("mkdir /opt", "cd /opt", "mknod disk b 8 0"), "device-node", "/opt/disk"),
    ("a program that was changed", ("/usr/bin/tool", "#!/bin/sh\necho other\n"), "modified-file", "/usr/bin/tool"),
    ("a program that is gone", ("rm /usr/bin/tool",), "modified-file", "/usr/bin/tool"),
    ("an RPM that nobody signed", ("/var/lib/rpm/rpmdb.sqlite", rpm_record("bare")), "unsigned-package", "/bare"),
)


def plant(disk: Disk, what: tuple[str, ...], where: str) -> None:
    if not what:
        disk.change(f"rm {where}", *disk.put(where, b"nameserver 10.0.0.1\n"))
    elif what[0].startswith("/"):
        path, content = what
        folders = [folder for folder in parents_of([path]) if folder not in THERE]
        gone = [f"rm {path}"] if path in CLEAN else []
        disk.change(
            *(f"mkdir {folder}" for folder in folders),
            *gone,
            *disk.put(path, content if isinstance(content, bytes) else content.encode()),
        )
    else:
        disk.change(*what)


def test_a_clean_image_passes_with_every_check_told(clean):
    report = look(clean)
    assert report.verdict.gate == GATE
    assert report.verdict.outcome is Outcome.PASSED
    assert dict(report.verdict.facts) == {check.name: "passed" for check in CHECKS}
    assert report.unused == ()
    assert report.inventory.files["/usr/bin/tool"].package == "tool"
    assert report.inventory.files["/usr/bin/tool"].sha256 == hashlib.sha256(TOOL).hexdigest()
    assert report.inventory.files["/bin"].target == "usr/bin"


def test_what_is_known_of_a_parents_contents_is_not_hashed_again_and_a_file_that_was_changed_is_found(
    disk, monkeypatch
):
    tool = TOOL + bytes(8192)
    sums = f"{hashlib.md5(tool, usedforsecurity=False).hexdigest()}  bin/tool\n".encode()
    sums_path = "/var/lib/dpkg/info/tool.md5sums"
    disk.change(
        "rm /usr/bin/tool", f"rm {sums_path}", *disk.put("/usr/bin/tool", tool, 0o755), *disk.put(sums_path, sums)
    )
    look(disk).contents.write(disk.folder / FILE_NAME)
    seen, real = [], contents_module.hashed
    monkeypatch.setattr(contents_module, "hashed", lambda pieces, **words: seen.append(0) or real(pieces, **words))
    known = read_contents(disk.folder)
    subject = read_subject(disk.raw, DEFINITION, disk.folder, known)
    assert judge(subject).findings == ()
    with_it = len(seen)
    read_subject(disk.raw, DEFINITION, disk.folder)
    assert len(seen) == 2 * with_it + 1
    changed = tool[:-1] + b"!"
    disk.change("rm /usr/bin/tool", *disk.put("/usr/bin/tool", changed, 0o755))
    found = judge(read_subject(disk.raw, DEFINITION, disk.folder, read_contents(disk.folder))).findings
    assert [(finding.check, finding.path) for finding in found] == [("modified-file", "/usr/bin/tool")]


def test_files_that_are_much_longer_than_their_disk_are_not_read(disk):
    disk.change(*disk.put("/huge", b"x"), f"set_inode_field /huge size {1 << 40}")
    with pytest.raises(BuildError) as caught:
        read_subject(disk.raw, DEFINITION, disk.folder)
    assert "its files have" in (caught.value.details or "")


def beside(disk: Disk, folder: Path, kind: str) -> Path:
    """Return a disk with what ``disk`` has, and a smaller partition of some kind behind it."""
    raw, part, end = folder / "beside.raw", folder / "part.raw", ROOT_AT + 2 * PART_BYTES
    with part.open("wb") as stream:
        stream.truncate(PART_BYTES)
    for words in KINDS[kind]:
        given = {"input": "label: dos\nsize=2048\n", "text": True} if words[0] == "sfdisk" else {}
        subprocess.run([*words, part], check=True, capture_output=True, **given)
    if kind.startswith("ext4 with "):
        name = kind.removeprefix("ext4 with ")
        subprocess.run(["debugfs", "-w", "-R", f"mkdir {name}", part], check=True, capture_output=True)
    shutil.copyfile(disk.raw, raw)
    with raw.open("r+b") as stream:
        stream.truncate(end + PART_BYTES + MIB)
    rows = (f"start={ROOT_AT // 512}, size={2 * PART_BYTES // 512}", f"start={end // 512}, size={PART_BYTES // 512}")
    table = "label: gpt\n" + "\n".join(rows)
    subprocess.run(["sfdisk", "--quiet", "--wipe=never", raw], input=table, text=True, check=True)
    with raw.open("r+b") as stream:
        stream.seek(end)
        stream.write(b"of no known kind" * 100 if kind == "what nobody knows" else part.read_bytes())
    return raw


PART_BYTES = 32 * MIB
MKE2FS = ("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024")
KINDS: dict[str, list[tuple[str, ...]]] = {
    "nothing": [],
    "swap": [("mkswap",)],
    "FAT": [("mkfs.vfat",)],
    "ext4 with grub": [MKE2FS],
    "ext4 with EFI": [MKE2FS],
    "ext4 with etc": [MKE2FS],
    "ext4 with ostree": [MKE2FS],
    "ext4 with home": [MKE2FS],
    "btrfs": [("mkfs.btrfs", "-q", "--mixed")],
    "more partitions": [("sfdisk", "--quiet")],
    "what nobody knows": [],
    "a journal to be replayed": [MKE2FS, ("debugfs", "-w", "-R", "feature needs_recovery")],
}


@pytest.mark.parametrize("kind", ["nothing", "swap", "FAT", "ext4 with grub", "ext4 with EFI"])
def test_another_partition_that_has_no_system_is_no_matter(disk, tmp_path, kind):
    assert read_subject(beside(disk, tmp_path, kind), DEFINITION, tmp_path).tree.get("/etc/shadow") is not None


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("ext4 with etc", r"has /etc, and only the root is audited"),
        ("ext4 with ostree", r"has /ostree, and"),
        ("ext4 with home", r"has /home, and"),
        ("btrfs", "is of btrfs: its files cannot be audited"),
        ("more partitions", "has a partition table of its own"),
        ("a journal to be replayed", "looking into the image failed"),
        ("what nobody knows", r"what is in the partition at byte \d+ is not known"),
    ],
)
def test_a_disk_that_could_start_from_another_partition_is_not_audited(disk, tmp_path, kind, told):
    with pytest.raises(BuildError, match=told):
        read_subject(beside(disk, tmp_path, kind), DEFINITION, tmp_path)


def planted(at: int, content: bytes):
    def plant_it(raw: Path) -> None:
        with raw.open("r+b") as stream:
            stream.seek(at)
            stream.write(content)

    return plant_it


def relabelled(table: str):
    def relabel(raw: Path) -> None:
        subprocess.run(["sfdisk", "--quiet", "--wipe=never", raw], input=table, text=True, check=True)

    return relabel


def cut(raw: Path) -> None:
    relabelled(f"label: dos\n{ROOT_ROW}, type=83\n")(raw)
    with raw.open("r+b") as stream:
        stream.truncate(DISK_BYTES - 4 * MIB)


SQUASHFS = b"hsqs" + bytes(24) + (4).to_bytes(2, "little") + bytes(66)
ROOT_ROW = f"start={ROOT_AT // 512}, size={(DISK_BYTES - 2 * MIB) // 512}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(planted(ROOT_AT, SQUASHFS), "looks like several", id="two file systems in one partition"),
        pytest.param(planted(32768, b"\x01CD001\x01"), "the disk as a whole looks like", id="the disk is a CD"),
        pytest.param(
            planted(512, bytes(512)), "first copy of its table is damaged", id="only the second table is whole"
        ),
        pytest.param(relabelled(f"label: dos\n{ROOT_ROW}, type=a5\n"), "of the type a5", id="a table in a partition"),
        pytest.param(relabelled("label: sgi\n"), "its table is sgi|no partition table", id="a table of another kind"),
        pytest.param(
            cut, r"a partition goes from byte \d+ to \d+, and it has", id="a partition goes on behind the end"
        ),
    ],
)
def test_a_disk_of_which_machines_could_read_different_things_is_not_audited(disk, tmp_path, change, told):
    change(disk.raw)
    with pytest.raises(BuildError, match=told):
        read_subject(disk.raw, DEFINITION, tmp_path)


def test_a_dos_table_is_read_as_well(disk, tmp_path):
    relabelled(f"label: dos\n{ROOT_ROW}, type=83\n")(disk.raw)
    assert read_subject(disk.raw, DEFINITION, tmp_path).tree.get("/etc/shadow") is not None


def test_a_root_whose_files_have_many_names_is_not_audited(tmp_path):
    folded = Disk(tmp_path)
    folded.make("casefold")
    with pytest.raises(BuildError) as caught:
        read_subject(folded.raw, DEFINITION, tmp_path)
    assert "casefold" in (caught.value.details or "")


@pytest.mark.parametrize(("what", "check", "where"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_each_planted_fault_is_found_by_its_check_and_by_no_other(disk, what, check, where):
    plant(disk, what, where)
    subject = read_subject(disk.raw, DEFINITION, disk.folder)
    found = judge(subject).findings
    assert {finding.check for finding in found} == {check}
    assert all(Path(finding.path).match(where) or check == "sshd" for finding in found)
    exception = AuditException(check=check, path="/*", reason="a test")
    audited = judge(replace(subject, definition=replace(DEFINITION, audit_exceptions=(exception,))))
    assert (audited.findings, audited.excepted, audited.unused) == ((), found, ())


def test_an_image_with_faults_is_refused_and_every_one_is_told_with_its_reason(disk):
    plant(disk, ("/var/log/syslog", "x"), "")
    plant(disk, ("/root/.ssh/authorized_keys", "ssh-ed25519 A me\n"), "")
    with pytest.raises(AuditError, match=r"authorized_keys: a key that lets somebody in") as caught:
        look(disk)
    found = caught.value.context["findings"]
    assert [finding["check"] for finding in found] == ["authorised-key", "log"]
    assert all(f"{each['path']}: {each['text']}. {each['reason']}" in caught.value.details for each in found)


def test_every_check_has_its_planted_fault():
    assert {row[2] for row in FAULTS} == {check.name for check in CHECKS}


def test_a_fault_that_is_excepted_by_another_name_or_path_is_still_a_fault(disk):
    plant(disk, ("/var/log/syslog", "x"), "")
    exceptions = tuple(
        AuditException(check=check, path=path, reason="a test")
        for check, path in (("log", "/var/log/other"), ("history", "/var/log/syslog"))
    )
    with pytest.raises(AuditError, match="/var/log/syslog"):
        look(disk, replace(DEFINITION, audit_exceptions=exceptions))


def test_an_exception_that_covers_nothing_is_told(clean):
    stale = AuditException(check="log", path="/var/log/old", reason="of another day")
    report = look(clean, replace(DEFINITION, audit_exceptions=(stale,)))
    assert report.unused == (stale,)
    assert ("unused-exception", "log /var/log/old") in report.verdict.facts


def test_what_a_definition_opens_may_listen(disk):
    plant(disk, (f"symlink {WANTS}/apache2.service /usr/lib/systemd/system/apache2.service",), "")
    opened = replace(DEFINITION, firewall=Firewall(open_ports=(OpenPort(port=80),)))
    assert look(disk, opened).verdict.outcome is Outcome.PASSED


def test_a_script_that_is_baked_in_for_cloud_init_is_none_of_its_notes(disk):
    folders = ("scripts", "scripts/per-instance", "scripts/vendor")
    disk.change(*(f"mkdir /var/lib/cloud/{each}" for each in folders), *disk.put(BAKED_SCRIPT, b"#!/bin/sh\n"))
    assert look(disk).verdict.outcome is Outcome.PASSED
    disk.change(*disk.put("/var/lib/cloud/scripts/vendor/part-001", b"#!/bin/sh\n"))
    with pytest.raises(AuditError, match="vendor/part-001"):
        look(disk)


def test_a_name_that_imitates_debugfs_is_no_way_around_the_audit(disk):
    disk.change(*disk.put("/srvAAAAAAAAA", b"x"))
    raw = bytearray(disk.raw.read_bytes())
    at = raw.find(b"srvAAAAAAAAA")
    raw[at + 3 : at + 12] = b"\n/1/2/3/4"
    disk.raw.write_bytes(bytes(raw))
    with pytest.raises(BuildError, match="looking into the image failed"):
        look(disk)


def test_an_exception_for_a_check_that_is_none_is_refused_with_those_that_are(clean):
    wrong = replace(DEFINITION, audit_exceptions=(AuditException(check="logs", path="/x", reason="a test"),))
    with pytest.raises(AuditError, match="no such check") as caught:
        look(clean, wrong)
    assert "modified-file" in (caught.value.details or "")


def test_an_image_without_a_file_system_that_can_be_read_does_not_pass(tmp_path):
    disk = Disk(tmp_path)
    disk.raw.write_bytes(bytes(MIB))
    started = time.monotonic()
    with pytest.raises(BuildError, match="partition table"):
        look(disk)
    assert time.monotonic() - started < 60
    assert list((tmp_path / "work").iterdir()) == []


def test_contents_are_read_as_the_file_system_has_them_holes_and_all(disk):
    long_target = "/".join(["a" * 20] * 5)
    sparse = disk.folder / "sparse"
    with sparse.open("wb") as stream:
        stream.write(b"head")
        stream.seek(300_000)
        stream.write(b"tail")
        stream.truncate(400_001)
    big = bytes(range(256)) * 8192
    disk.change(
        f'write "{sparse}" /sparse',
        *disk.put("/big", big),
        *disk.put("/empty", b""),
        "ln /big /twin",
        "set_inode_field /big links_count 2",
        f"symlink /long {long_target}",
        "write /dev/null /reserved",
        "fallocate /reserved 0 3",
        "set_inode_field /reserved size 4000",
    )
    subject = read_subject(disk.raw, DEFINITION, disk.folder)
    tree = subject.tree
    expected = {"/sparse": sparse.read_bytes(), "/big": big, "/twin": big, "/empty": b"", "/reserved": bytes(4000)}
    for path, content in expected.items():
        node = tree.get(path)
        assert tree.content(node) == content, path
        assert subject.digests[path].sha256 == hashlib.sha256(content).hexdigest(), path
    assert tree.get("/long").target == long_target
    assert tree.get("/big").inode == tree.get("/twin").inode
