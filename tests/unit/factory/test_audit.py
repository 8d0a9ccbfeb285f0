# SPDX-License-Identifier: Apache-2.0
"""What the audit makes of a tree; that it finds each fault in real bytes is tested with real file systems."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import Access, Contextualisation, DefinedFile, DefinedUser, Definition, Services
from coppice.errors import BuildError
from coppice.factory.audit import judge
from coppice.factory.audit_model import Subject
from coppice.factory.audit_network import enabled_units, sshd_settings
from coppice.factory.evidence.contents import Digests
from coppice.factory.evidence.ownership import ownership_of
from coppice.factory.evidence.tree import MAX_TEXT_BYTES, GuestTree, Node
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit

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
    disk_size_bytes=1 << 30,
    firmware=(Firmware.BIOS,),
    formats=(DiskFormat.RAW,),
    user="debian",
    requirements=Requirements(),
    contextualisation=Contextualisation(),
)
CLEAN = {
    "/etc/passwd": "root:x:0:0::/root:/bin/bash\n",
    "/etc/shadow": "root:*:19000::::::\n",
    "/etc/machine-id": "uninitialized\n",
    "/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n",
    "/etc/ssh/sshd_config.d/00-coppice.conf": (
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n"
    ),
}


def tree_of(files, links=(), sizes=()) -> GuestTree:
    nodes = {}
    links, sizes = dict(links), dict(sizes)
    for number, path in enumerate((*files, *links), start=20):
        for parent in list(Path(path).parents)[:-1]:
            nodes.setdefault(str(parent), Node(path=str(parent), inode=number, mode=stat.S_IFDIR | 0o755))
        kind = stat.S_IFLNK | 0o777 if path in links else stat.S_IFREG | 0o644
        size = sizes.get(path, len(files.get(path, "")))
        nodes[path] = Node(path=path, inode=number, mode=kind, size_bytes=size, target=links.get(path, ""))
    return GuestTree(nodes, lambda node: files[node.path].encode())


def subject_of(files, links=(), definition=DEFINITION) -> Subject:
    tree = tree_of(files, links)
    digests = {path: Digests(sha256="0" * 64, md5="0" * 32, sha1="0" * 40) for path in files}
    return Subject(tree=tree, definition=definition, ownership=ownership_of(tree), digests=digests)


def found(files, links=(), definition=DEFINITION):
    return {finding.check for finding in judge(subject_of({**CLEAN, **files}, links, definition)).findings}


def test_a_clean_tree_has_no_findings():
    assert found({}) == set()


def test_links_among_directories_are_followed_inside_of_the_tree_and_in_circles_end():
    tree = tree_of(
        {"/usr/bin/su": "x"},
        {"/bin": "usr/bin", "/lib": "/usr/lib", "/a": "b", "/b": "a", "/up": "../../../usr", "/etc/rc": "/bin/su"},
    )
    assert tree.find("/bin/su").path == "/usr/bin/su"
    assert tree.find("/up/bin/su").path == "/usr/bin/su"
    assert tree.find("/etc/rc").path == "/usr/bin/su"
    assert tree.get("/etc/rc").is_link
    assert tree.find("/a") is None
    assert tree.find("/a/x") is None
    assert [node.path for node in tree.inside("/bin")] == ["/usr/bin/su"]


def test_a_folder_whose_name_begins_alike_is_another():
    tree = tree_of({"/etc/x": "", "/etc-old/y": "", "/etc.d/z": ""})
    assert [node.path for node in tree.below("/etc")] == ["/etc/x"]


def test_a_text_that_is_too_long_to_be_one_is_not_read():
    tree = tree_of({"/etc/shadow": "x"}, sizes={"/etc/shadow": MAX_TEXT_BYTES + 1})
    with pytest.raises(BuildError, match="/etc/shadow"):
        tree.text("/etc/shadow")


def test_sshd_is_read_as_sshd_reads_itself():
    later = {"/etc/ssh/sshd_config.d/99.conf": "PasswordAuthentication yes\nPermitRootLogin yes\n"}
    assert found(later) == set()
    assert found({"/etc/ssh/sshd_config.d/00-aaa.conf": "ChallengeResponseAuthentication=yes\n"}) == {"sshd"}
    assert found({"/etc/ssh/sshd_config.d/00-aaa.conf": 'permitRootLogin "yes" # no\n'}) == {"sshd"}
    circle = {"/etc/ssh/sshd_config.d/zz.conf": "Include /etc/ssh/sshd_config.d/*.conf\n"}
    assert sshd_settings(subject_of({**CLEAN, **circle}))["passwordauthentication"] == "no"
    assert found({"/etc/ssh/sshd_config.d/00-coppice.conf": ""}) == {"sshd"}


@pytest.mark.parametrize("place", ["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/99.conf"])
@pytest.mark.parametrize(
    "line",
    [
        "Match all\nPermitRootLogin yes",
        "Match User x\n  PasswordAuthentication=yes",
        "Port 2222",
        "Port=2222",
        "ListenAddress 0.0.0.0:2222",
        "ListenAddress [::]:2222",
        "AuthorizedKeysFile /opt/keys",
        "AuthorizedKeysFile .ssh/authorized_keys /opt/keys",
        "TrustedUserCAKeys /etc/ssh/ca.pub",
    ],
)
def test_no_other_way_in_is_open_by_sshd_for_anybody(place, line):
    text = CLEAN["/etc/ssh/sshd_config"] if place in CLEAN else ""
    files = {place: f"{text}{line}\n"}
    assert found(files) == {"sshd"}
    assert found(files, definition=replace(DEFINITION, files=(DefinedFile(path=place, content=b""),))) == set()


@pytest.mark.parametrize(
    "line",
    [
        "Match User x\nPermitRootLogin no\nX11Forwarding no",
        "Port 22",
        "#Port 2222",
        "ListenAddress 0.0.0.0",
        "ListenAddress ::",
        "AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2",
        "AuthorizedKeysCommand none",
    ],
)
def test_what_opens_nothing_may_stand_in_sshds_configuration(line):
    assert found({"/etc/ssh/sshd_config.d/99.conf": f"{line}\n"}) == set()


def test_without_sshd_an_appliance_passes_only_if_it_does_not_declare_ssh():
    files = {path: text for path, text in CLEAN.items() if not path.startswith("/etc/ssh")}
    silent = replace(DEFINITION, access=Access(ssh=False))
    assert judge(subject_of(files, definition=silent)).findings == ()
    assert {each.check for each in judge(subject_of(files)).findings} == {"sshd"}


def test_a_missing_shadow_file_is_no_proof_that_there_are_no_passwords():
    files = {path: text for path, text in CLEAN.items() if path != "/etc/shadow"}
    assert {each.check for each in judge(subject_of(files)).findings} == {"password"}


def test_units_that_are_masked_or_have_a_unit_beside_their_script_do_not_start():
    wants = "/etc/systemd/system/multi-user.target.wants"
    links = {
        f"{wants}/nginx.service": "/usr/lib/systemd/system/nginx.service",
        f"{wants}/apache2.service": "/usr/lib/systemd/system/apache2.service",
        "/etc/systemd/system/nginx.service": "/dev/null",
        "/etc/rc2.d/S01exim4": "../init.d/exim4",
        "/etc/rc2.d/S01apache2": "../init.d/apache2",
        "/etc/rc2.d/K01squid": "../init.d/squid",
    }
    units = enabled_units(subject_of({"/usr/lib/systemd/system/apache2.service": ""}, links))
    assert units == {"apache2.service": f"{wants}/apache2.service", "exim4.service": "/etc/rc2.d/S01exim4"}
    assert found({}, links) == {"listening-service"}
    named = replace(DEFINITION, services=Services(enabled=("apache2", "exim4.service")))
    assert found({}, links, named) == set()


def test_ssh_that_is_not_declared_is_a_service_that_listens():
    links = {"/etc/systemd/system/multi-user.target.wants/ssh.service": "/usr/lib/systemd/system/ssh.service"}
    assert found({}, links) == set()
    assert found({}, links, replace(DEFINITION, access=Access(ssh=False))) == {"listening-service"}


def test_sudo_is_for_whom_the_definition_names():
    line = {"/etc/sudoers.d/10-ops": "ops ALL=(ALL) NOPASSWD: ALL\n"}
    assert found(line) == {"sudo"}
    assert found(line, definition=replace(DEFINITION, users=(DefinedUser(name="ops", sudo=True),))) == set()
    assert found(line, definition=replace(DEFINITION, users=(DefinedUser(name="ops"),))) == {"sudo"}
    assert found({"/etc/sudoers.d/x": "# ops ALL=NOPASSWD: ALL\n%sudo ALL=(ALL) ALL\n"}) == set()
    assert found({"/etc/sudoers.d/x": "%sudo ALL=(ALL) \\\n NOPASSWD: ALL\n"}) == {"sudo"}
    assert found({"/etc/sudoers.d/x": "Defaults !authenticate\n"}) == {"sudo"}


@pytest.mark.parametrize("line", ["#1000 ALL=(ALL) NOPASSWD: ALL", "@includedir /opt/sudo", "#include /opt/sudoers"])
def test_rules_of_sudo_that_look_like_comments_or_lie_elsewhere_are_found(line):
    assert found({"/etc/sudoers": f"{line}\n"}) == {"sudo"}


@pytest.mark.parametrize(
    "line", ["#includedir /etc/sudoers.d", "@includedir /etc/sudoers.d", "# 1000 is a number", "#"]
)
def test_what_distributions_write_into_the_rules_of_sudo_is_no_rule(line):
    assert found({"/etc/sudoers": f"{line}\n"}) == set()


def test_a_key_that_a_package_brings_is_published_already():
    key = "-----BEGIN RSA PRIVATE KEY-----\n"
    place = "/usr/local/share/test.key"
    assert found({place: key}) == {"private-key"}
    assert found({place: key, "/var/lib/dpkg/info/x.list": f"{place}\n"}) == set()


def test_a_proxy_that_the_definition_lays_in_is_meant():
    place, text = "/etc/environment", "http_proxy=http://proxy.example:3128\n"
    assert found({place: text}) == {"proxy"}
    assert found({place: text}, definition=replace(DEFINITION, files=(DefinedFile(path=place, content=b""),))) == set()
    assert found({place: f"# {text}"}) == set()


def test_a_package_is_held_against_its_sums_where_its_files_really_are():
    info = "/var/lib/dpkg/info"
    sums = f"{'0' * 32}  bin/su\n{'1' * 32}  usr/share/doc/su/changelog.gz\n"
    files = {"/usr/bin/su": "x", f"{info}/su.list": "/bin/su\n", f"{info}/su:amd64.md5sums": sums}
    assert found(files, {"/bin": "usr/bin"}) == set()
    changed = {**files, f"{info}/su:amd64.md5sums": f"{'2' * 32}  bin/su\n"}
    assert found(changed, {"/bin": "usr/bin"}) == {"modified-file"}
    declared = replace(DEFINITION, files=(DefinedFile(path="/bin/su", content=b""),))
    assert found(changed, {"/bin": "usr/bin"}, declared) == set()


def test_a_link_in_the_place_of_a_packages_file_is_found():
    info = "/var/lib/dpkg/info"
    files = {f"{info}/su.list": "/usr/bin/su\n", f"{info}/su.md5sums": f"{'0' * 32}  usr/bin/su\n", "/opt/su": "x"}
    assert found({**files, "/usr/bin/su": "x"}) == set()
    assert found(files, {"/usr/bin/su": "/opt/su"}) == {"modified-file"}


def test_a_file_that_was_diverted_is_looked_for_where_it_went():
    info = "/var/lib/dpkg/info"
    files = {
        "/usr/bin/pager": "new",
        "/usr/bin/pager.old": "old",
        f"{info}/less.list": "/usr/bin/pager\n",
        f"{info}/less.md5sums": f"{'0' * 32}  usr/bin/pager\n",
        f"{info}/most.list": "/usr/bin/pager\n",
        "/var/lib/dpkg/diversions": "/usr/bin/pager\n/usr/bin/pager.old\nmost\n",
    }
    ownership = ownership_of(tree_of(files))
    assert (ownership.packages["/usr/bin/pager"], ownership.packages["/usr/bin/pager.old"]) == ("most", "less")
    assert [each.true_path for each in ownership.delivered] == ["/usr/bin/pager.old"]
    assert found(files) == set()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/apt/sources.list", "deb [trusted=true] http://x.example/ y main\n"),
        ("/etc/apt/sources.list", "deb [arch=amd64 allow-insecure=1] http://x.example/ y main\n"),
        ("/etc/apt/sources.list", "  deb file:/srv/x y main\n"),
        ("/etc/apt/sources.list.d/x.sources", "Trusted: on\nURIs: http://x.example/\n"),
        ("/etc/apt/sources.list.d/x.sources", "uris: file:/srv/x\n"),
        ("/etc/apt/apt.conf.d/x", 'APT::Get::AllowUnauthenticated "on";\n'),
        ("/etc/apt/apt.conf.d/x", 'Acquire::https::Verify-Peer "off";\n'),
        ("/etc/yum.repos.d/x.repo", "[x]\ngpgcheck=off\n"),
        ("/etc/dnf/dnf.conf", "[main]\ngpgcheck = False\n"),
    ],
)
def test_every_word_by_which_signatures_are_not_asked_for_is_known(path, text):
    assert found({path: text}) == {"package-source"}


def test_sources_that_ask_for_signatures_are_good():
    assert found({"/etc/apt/sources.list": "deb [trusted=no] http://x.example/ y main\n"}) == set()
    assert found({"/etc/yum.repos.d/x.repo": "[x]\nrepo_gpgcheck=0\ngpgcheck=1\nsslverify=on\n"}) == set()


@pytest.mark.parametrize(
    ("path", "text", "check"),
    [
        ("/etc/sudoers.d/x", "ops ALL=(ALL) NOPASSWD: ALL\n", "sudo"),
        ("/etc/sudoers.d/README", "ops ALL=(ALL) NOPASSWD: ALL\n", "sudo"),
        ("/etc/ssh/sshd_config.d/x.conf", "Port 2222\n", "sshd"),
        ("/etc/apt/sources.list.d/x.list", "deb [trusted=yes] http://x.example/ y main\n", "package-source"),
        ("/etc/apt/apt.conf.d/x", 'APT::Get::AllowUnauthenticated "true";\n', "package-source"),
        ("/etc/yum.repos.d/x.repo", "gpgcheck=0\n", "package-source"),
    ],
)
def test_what_lies_behind_a_link_is_looked_at_as_programs_do(path, text, check):
    assert found({"/opt/x": text}, {path: "/opt/x"}) == {check}
    assert found({path: text}) == {check}
    assert found({}, {path: "/opt/nothing"}) == set()


def test_a_terminal_that_logs_in_by_itself_is_found_wherever_it_is_said():
    text = "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root tty1\n"
    place = "/etc/systemd/system/getty@tty1.service.d/x.conf"
    assert found({place: text}) == {"automatic-login"}
    assert found({"/opt/x": text}, {place: "/opt/x"}) == {"automatic-login"}
    assert found({"/usr/local/lib/systemd/system/getty@.service": text}) == {"automatic-login"}


def test_ports_that_are_added_to_a_socket_are_its_ports():
    wants = {"/etc/systemd/system/sockets.target.wants/ssh.socket": "/usr/lib/systemd/system/ssh.socket"}
    unit = {"/usr/lib/systemd/system/ssh.socket": "[Socket]\nListenStream=22\n"}
    assert found(unit, wants) == set()
    more = {"/etc/systemd/system/ssh.socket.d/x.conf": "[Socket]\nListenStream=2222\n"}
    assert found({**unit, **more}, wants) == {"listening-service"}
    own = {"/usr/local/lib/systemd/system/x.socket": "[Socket]\nListenStream=99\n"}
    wants = {"/etc/systemd/system/sockets.target.wants/x.socket": "/usr/local/lib/systemd/system/x.socket"}
    assert found(own, wants) == {"listening-service"}
