# SPDX-License-Identifier: Apache-2.0
"""Puppet and Ansible as they are, in a tree of Debian 12 that mmdebstrap makes: minutes, and packages are fetched.

Where the tree without them is kept: ``COPPICE_TEST_CACHE``, or ``.cache/tests`` of the checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.atomic import replacing
from coppice.definition.model import Access, DefinedFile, DefinedUser, Provisioner, ProvisionerKind, Services
from coppice.definition.read import read_definition
from coppice.errors import ProvisionError
from coppice.factory.bootstrap.overlay import make_overlay, packages_for
from coppice.factory.bootstrap.overlay_access import PASSWORDS
from coppice.factory.provision.hook import prepare_provision

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "provision"
DEBIAN_12 = replace(read_definition(CHECKOUT / "definitions" / "debian-12"), packages=())
EPOCH = 1_686_355_200
INCLUDED = "systemd-sysv,systemd-resolved,sudo,nftables,openssh-server,dbus,cloud-init,iproute2"
SLIM = ("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*")
PUPPET = {
    "manifests/site.pp": b"include toy\n",
    "modules/toy/manifests/init.pp": b"""\
class toy {
  package { 'jq': ensure => installed }
  user { 'keeper': ensure => present, system => true, shell => '/usr/sbin/nologin' }
  file { '/etc/toy.conf':
    content => epp('toy/toy.conf.epp'), owner => 'keeper', mode => '0640', require => User['keeper']
  }
  service { 'toy': enable => true }
}
""",
    "modules/toy/templates/toy.conf.epp": b"greeting = <%= $facts['greeting'] %>\n",
}
ANSIBLE = {
    "site.yml": b"""\
- hosts: all
  become: true
  roles: [toy]
""",
    "roles/toy/tasks/main.yml": b"""\
- ansible.builtin.template: { src: toy.j2, dest: /etc/toy.conf, mode: "0640" }
- ansible.builtin.command: apt-get install -y --no-install-recommends tree
- ansible.builtin.systemd: { name: toy, enabled: true }
- ansible.builtin.command: id -un
  become_user: www-data
  register: who
- ansible.builtin.copy: { dest: /etc/who, content: "{{ who.stdout }} on {{ ansible_distribution }}" }
""",
    "roles/toy/templates/toy.j2": b"greeting = {{ greeting }}\n",
}
TOY = DefinedFile(
    path="/etc/systemd/system/toy.service",
    content=b"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
)


def mmdebstrap(tar, work, *options):
    argv = ["unshare", "--mount", "--propagation=private", "mmdebstrap", "--mode=root", "--format=tar"]
    argv += ["--components=main", *SLIM, *options, "bookworm", str(tar)]
    work.mkdir(exist_ok=True)
    for directory in (work, *work.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o011)
    environment = {**os.environ, "TMPDIR": str(work), "SOURCE_DATE_EPOCH": str(EPOCH)}
    return subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def base():
    tar = KEPT / "bookworm.tar"
    if not tar.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with replacing(tar) as temporary:
            made = mmdebstrap(temporary, KEPT / "work", "--variant=minbase", f"--include={INCLUDED}")
            assert made.returncode == 0, made.stderr[-2000:]
    return tar


def child(base, tmp_path, definition, *hooks):
    hook = prepare_provision(definition, parent=None, directory=tmp_path / "hook", epoch=EPOCH)
    assert hook is not None
    tar = tmp_path / "child.tar"
    options = ["--variant=custom", f"--setup-hook=tar-in {base} /"]
    options += [f"--customize-hook={each}" for each in (*hooks, hook.command)]
    made = mmdebstrap(tar, tmp_path / "work", *options)
    hook.raise_failure()
    assert made.returncode == 0, made.stderr[-3000:]
    return Tree(tar), made


class Tree:
    """What is in a tar file of a tree."""

    def __init__(self, tar: Path) -> None:
        self.tar = tarfile.open(tar)  # noqa: SIM115 - read until the test ends
        self.members = {member.name.removeprefix("."): member for member in self.tar}

    def text(self, path):
        return self.tar.extractfile(self.members[path]).read().decode()

    def packages(self):
        paragraphs = self.text("/var/lib/dpkg/status").split("\n\n")
        installed = [text for text in paragraphs if "\nStatus: install ok installed" in text]
        return {re.search(r"^Package: (\S+)", text, re.MULTILINE)[1] for text in installed}

    def accounts(self):
        return {line.split(":")[0] for line in self.text("/etc/passwd").splitlines()}


def provisioner(kind, files, entry, **changes):
    return Provisioner(name="toy", kind=kind, files=files, entry=entry, variables={"greeting": "hello you"}, **changes)


def test_a_puppet_appliance_has_what_its_modules_say_and_nothing_of_puppet(base, tmp_path):
    puppet = provisioner(ProvisionerKind.PUPPET, PUPPET, "manifests/site.pp")
    made, _ = child(base, tmp_path, replace(DEBIAN_12, files=(TOY,), provisioners=(puppet,)))
    before = Tree(base)
    assert made.text("/etc/toy.conf") == "greeting = hello you\n"
    assert made.members["/etc/toy.conf"].mode == 0o640
    assert "/etc/systemd/system/multi-user.target.wants/toy.service" in made.members
    added = made.packages() - before.packages()
    assert "jq" in added
    assert {name for name in added if re.search("puppet|ruby|facter", name)} == set()
    assert added <= {"jq", "libjq1", "libonig5"}
    assert before.packages() <= made.packages()
    assert made.accounts() - before.accounts() == {"keeper"}
    assert not [path for path in made.members.keys() - before.members.keys() if "puppet" in path]


def test_an_ansible_appliance_has_what_its_roles_say_and_nothing_of_ansible(base, tmp_path):
    ansible = provisioner(ProvisionerKind.ANSIBLE, ANSIBLE, "site.yml")
    made, _ = child(base, tmp_path, replace(DEBIAN_12, files=(TOY,), provisioners=(ansible,)))
    before = Tree(base)
    assert made.text("/etc/toy.conf") == "greeting = hello you\n"
    assert made.text("/etc/who") == "www-data on Debian"
    assert "/etc/systemd/system/multi-user.target.wants/toy.service" in made.members
    assert made.packages() - before.packages() == {"tree"}
    assert before.packages() <= made.packages()
    assert not [path for path in made.members.keys() - before.members.keys() if "ansible" in path]


def test_what_is_to_stay_stays(base, tmp_path):
    ansible = provisioner(ProvisionerKind.ANSIBLE, ANSIBLE, "site.yml", stays=True)
    made, _ = child(base, tmp_path, replace(DEBIAN_12, files=(TOY,), provisioners=(ansible,)))
    assert "ansible-core" in made.packages()


@pytest.mark.parametrize(
    ("kind", "text", "what"),
    [
        (ProvisionerKind.PUPPET, b"exec { '/bin/false': }\n", "ended with status"),
        (ProvisionerKind.ANSIBLE, b"- hosts: web\n  tasks: []\n", "did nothing"),
        (ProvisionerKind.ANSIBLE, b"- hosts: all\n  tasks: [{command: 'false'}]\n", "ended with status 2"),
    ],
)
def test_what_puppet_and_ansible_could_not_do_fails_the_build(base, tmp_path, kind, text, what):
    entry = "site.pp" if kind is ProvisionerKind.PUPPET else "site.yml"
    with pytest.raises(ProvisionError, match=what):
        child(base, tmp_path, replace(DEBIAN_12, provisioners=(provisioner(kind, {entry: text}, entry),)))


def test_real_accounts_services_and_all_that_access_needs_can_be_had(base, tmp_path):
    definition = replace(
        DEBIAN_12,
        access=Access(vnc=True, web_console=True),
        users=(DefinedUser(name="ann", groups=("docker", "adm"), sudo=True),),
        services=Services(enabled=("systemd-networkd",), masked=("apt-daily.timer",)),
    )
    apt = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -oDPkg::Chroot-Directory="$1" install --'
    made, _ = child(base, tmp_path, definition, f"{apt} {' '.join(packages_for(definition))}")
    assert set(packages_for(definition)) <= made.packages()
    assert made.members["/etc/systemd/system/apt-daily.timer"].linkname == "/dev/null"
    entries = make_overlay(definition, root_uuid=uuid.UUID(int=1), private_mirror=False).entries
    assert PASSWORDS in entries
    units = [entry.target for path, entry in entries.items() if ".wants/" in path]
    for unit in units:
        assert unit in entries or unit.replace("/lib/", "/usr/lib/", 1) in made.members or unit in made.members, unit
    for program in ("/usr/bin/Xtigervnc", "/usr/bin/icewm-session", "/usr/bin/xauth", "/usr/sbin/chpasswd"):
        assert program in made.members
    assert {"/usr/bin/tigervncpasswd", "/etc/alternatives/vncpasswd"} & made.members.keys()
    assert "ann:!:" in made.text("/etc/shadow")
