# SPDX-License-Identifier: Apache-2.0
"""Provisioning in a small tree that is put together from programs of this machine; no package is fetched."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coppice.definition.model import DefinedFile, DefinedUser, Provisioner, ProvisionerKind, Services
from coppice.definition.read import read_definition
from coppice.errors import BuildError, DefinitionError, NoSpaceError, ProvisionError
from coppice.factory.provision import cage as cages
from coppice.factory.provision.hook import prepare_provision
from coppice.factory.provision.run import lay_materials, provision

pytestmark = pytest.mark.integration

DEBIAN_12 = replace(read_definition(Path(__file__).parents[2] / "definitions" / "debian-12"), packages=())
EPOCH = 1_700_000_000
SH = {"shell": "/bin/sh"}
FISH = {"shell": "/bin/fish"}
PROGRAMS = (
    *("sh", "bash", "test", "cat", "rm", "ls", "id", "env", "sleep", "yes", "head", "touch", "mkdir", "mknod", "mount"),
    *(
        "chown",
        "getent",
        "groupadd",
        "useradd",
        "usermod",
        "tar",
        "systemctl",
        "dpkg-query",
        "setsid",
        "hostname",
        "setpriv",
    ),
)
TOY = b"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\nadm:x:4:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\nwww-data:*::\nadm:*::\n",
    "etc/login.defs": "UID_MIN 1000\nUID_MAX 60000\nSYS_UID_MIN 100\nSYS_UID_MAX 999\nUMASK 022\n",
}


@pytest.fixture(scope="module")
def model_tree(tmp_path_factory):
    """Return a tree with a shell, accounts and systemd's units, to be copied."""
    root = tmp_path_factory.mktemp("model") / "tree"
    for name in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "etc/skel", "root", "home", "var/lib/dpkg", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    programs = [shutil.which(name) for name in PROGRAMS]
    assert None not in programs
    needed = subprocess.check_output(["ldd", *programs], text=True)
    libraries = sorted(set(re.findall(r"(/\S+) \(0x", needed)))
    for path in (*programs, *libraries):
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for name, text in ACCOUNTS.items():
        (root / name).write_text(text)
    (root / "etc/shadow").chmod(0o640)
    units = root / "lib/systemd/system"
    units.mkdir(parents=True)
    (units / "toy.service").write_bytes(TOY)
    (units / "toy@.service").write_bytes(TOY)
    (units / "bound.service").write_bytes(b"[Service]\nExecStart=/bin/true\n")
    (root / "var/lib/dpkg/status").write_bytes(b"")
    return root


@pytest.fixture
def tree(model_tree, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(model_tree, root, symlinks=True)
    return root


def do(tree, tmp_path, *, parent=None, **changes):
    definition = replace(DEBIAN_12, **changes)
    materials = tmp_path / "materials"
    shutil.rmtree(materials, ignore_errors=True)
    lay_materials(definition, materials)
    said: list[str] = []
    provision(
        tree,
        definition,
        parent=parent,
        materials=materials,
        apt_config=None,
        epoch=EPOCH,
        tell=said.append,
    )
    return definition, "".join(said)


def script(text, *, name="script", **changes):
    return Provisioner(
        name=name,
        kind=ProvisionerKind.SHELL,
        files={"run": text.encode() if text.startswith("#!") else f"#!/bin/sh -eu\n{text}\n".encode()},
        entry="run",
        **{"timeout_seconds": 60, **changes},
    )


def running_with(text):
    words = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    return [each for each in words if text.encode() in each]


def within(seconds, is_so):
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)
    return is_so()


def test_files_are_laid_in_with_their_owners_modes_and_variables(tree, tmp_path):
    (tree / "srv").symlink_to("/var/www")
    (tree / "var/www").mkdir()
    files = (
        DefinedFile(path="/etc/toy/toy.conf", content=b"name=${name}\n", is_template=True),
        DefinedFile(path="/lib/systemd/system/new.service", content=TOY),
        DefinedFile(path="/srv/page", content=b"hi", mode=0o640, owner="www-data", group="adm"),
    )
    do(tree, tmp_path, files=files, variables={"name": "Ann"}, services=Services(enabled=("new",)))
    assert (tree / "etc/toy/toy.conf").read_text() == "name=Ann\n"
    assert (tree / "etc/toy").stat().st_mode & 0o777 == 0o755
    assert (tree / "etc/toy/toy.conf").stat().st_mtime == EPOCH
    # A link that leads to / leads to the tree's own.
    facts = (tree / "var/www/page").stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (33, 4, 0o640)
    assert not Path("/var/www/page").exists()
    link = tree / "etc/systemd/system/multi-user.target.wants/new.service"
    assert str(link.readlink()) == "/lib/systemd/system/new.service"


def test_a_file_of_nobody_known_is_refused(tree, tmp_path):
    with pytest.raises(DefinitionError, match="cannot belong to mallory"):
        do(tree, tmp_path, files=(DefinedFile(path="/etc/x", content=b"", owner="mallory"),))
    assert not (tree / "etc/x").exists()


def test_users_are_locked_and_have_their_groups_shell_home_and_sudo(tree, tmp_path):
    users = (
        DefinedUser(name="ann", comment="Ann", groups=("adm", "toys"), sudo=True),
        DefinedUser(name="toyd", is_system=True, **SH, home="/var/lib/toyd"),
        DefinedUser(name="www-data", groups=("toys",)),
    )
    do(tree, tmp_path, users=users, files=(DefinedFile(path="/home/ann/.profile", content=b"", owner="ann"),))
    rows = {line.split(":")[0]: line.split(":") for line in (tree / "etc/passwd").read_text().splitlines()}
    assert rows["ann"][4:] == ["Ann", "/home/ann", "/bin/bash"]
    assert int(rows["ann"][2]) >= 1000
    assert int(rows["toyd"][2]) < 1000
    assert rows["www-data"][6] == "/bin/bash"
    groups = {line.split(":")[0]: line.split(":")[3] for line in (tree / "etc/group").read_text().splitlines()}
    assert groups["toys"] == "ann,www-data"
    assert groups["adm"] == "ann"
    secrets = {line.split(":")[0]: line.split(":") for line in (tree / "etc/shadow").read_text().splitlines()}
    assert {secrets[name][1][0] for name in ("ann", "toyd", "www-data", "root")} <= {"!", "*"}
    # The day of a build does not get into the image.
    assert secrets["ann"][2] == str(EPOCH // 86400)
    assert (tree / "home/ann").is_dir()
    assert not (tree / "var/lib/toyd").exists()
    rule = tree / "etc/sudoers.d/90-coppice-ann"
    assert rule.read_text() == "ann ALL=(ALL:ALL) NOPASSWD:ALL\n"
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440


def test_a_shell_that_is_not_there_is_refused(tree, tmp_path):
    with pytest.raises(DefinitionError, match="/bin/fish"):
        do(tree, tmp_path, users=(replace(DefinedUser(name="ann", **SH), **FISH),))


def test_units_are_enabled_masked_and_disabled_without_anything_being_started(tree, tmp_path):
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    do(tree, tmp_path, services=Services(enabled=("toy", "toy@3.service"), masked=("bound.service",)))
    assert sorted(link.name for link in wants.iterdir()) == ["toy.service", "toy@3.service"]
    assert str((tree / "etc/systemd/system/bound.service").readlink()) == "/dev/null"
    do(tree, tmp_path, services=Services(disabled=("toy",)))
    assert sorted(link.name for link in wants.iterdir()) == ["toy@3.service"]


@pytest.mark.parametrize(
    ("services", "what"),
    [
        (Services(enabled=("nothing.service",)), "no unit nothing.service"),
        (Services(disabled=("nothing",)), "no unit nothing "),
        (Services(masked=("nothing",)), "no unit nothing "),
        (Services(enabled=("bound",)), "it is static"),
    ],
)
def test_a_unit_that_is_not_there_or_never_starts_by_itself_is_refused(tree, tmp_path, services, what):
    with pytest.raises(DefinitionError, match=what):
        do(tree, tmp_path, services=services)


def test_scripts_run_in_order_with_their_variables_and_interpreter_and_are_logged(tree, tmp_path):
    first = script('echo "$greeting from $0" > /etc/one; ls > /etc/files; echo done', name="10-first")
    second = replace(
        script("#!/nothing\n[[ -f /etc/one ]] && echo $BASH_VERSION > /etc/two", name="20-second"),
        interpreter=("/bin/bash", "-e"),
        files={"run": b"[[ -f /etc/one ]] && echo $BASH_VERSION > /etc/two", "more/data": b"x"},
    )
    _, said = do(tree, tmp_path, provisioners=(first, second), variables={"greeting": "Hello; $(reboot)"})
    assert (tree / "etc/one").read_text() == "Hello; $(reboot) from /run/coppice/000-10-first/run\n"
    assert (tree / "etc/files").read_text() == "run\n"
    assert (tree / "etc/two").read_text().startswith("5.")
    assert said.index("shell 10-first") < said.index("done") < said.index("shell 20-second")
    # Nothing of what it was run with stays.
    assert list((tree / "run").iterdir()) == []


def test_a_script_that_fails_is_told_with_the_end_of_its_log(tree, tmp_path):
    with pytest.raises(ProvisionError, match="the provisioner script failed: it ended with status 3") as caught:
        do(tree, tmp_path, provisioners=(script("echo before; echo the cause >&2; exit 3; echo after"),))
    assert (caught.value.details or "").endswith("the cause")


def test_a_script_that_hangs_is_ended_with_all_that_it_started(tree, tmp_path):
    with pytest.raises(ProvisionError, match="did not end within 1 s"):
        do(tree, tmp_path, provisioners=(script("sleep 86399 & echo waiting; sleep 86399", timeout_seconds=1),))
    assert not running_with("86399")


def test_what_a_script_leaves_running_ends_with_it(tree, tmp_path):
    do(tree, tmp_path, provisioners=(script("setsid sleep 86398 & exit 0"),))
    assert not running_with("86398")


def test_a_script_that_floods_its_log_is_ended(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(cages, "MAX_LOG_BYTES", 1_000_000)
    with pytest.raises(ProvisionError, match="said more than") as caught:
        do(tree, tmp_path, provisioners=(script("yes flooding"),))
    assert "flooding" in (caught.value.details or "")
    assert not running_with("yes\0flooding")


@pytest.mark.threat("T93")
def test_no_variable_is_seen_on_a_command_line_and_nothing_of_this_machine_in_the_tree(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "canary-env")
    outside = tmp_path / "outside"
    outside.write_text("canary-file")
    text = f"""
        cat /proc/[0-9]*/cmdline > /etc/lines
        env > /etc/seen
        ls /proc > /etc/processes
        ls /sys /run /run/coppice > /etc/places
        [ ! -e {outside} ]
        hostname > /etc/host
    """
    do(tree, tmp_path, provisioners=(script(text),), variables={"token": "canary-variable"})
    assert b"canary-variable" not in (tree / "etc/lines").read_bytes()
    assert "token=canary-variable" in (tree / "etc/seen").read_text()
    assert "canary-env" not in (tree / "etc/seen").read_text()
    assert str(os.getpid()) not in (tree / "etc/processes").read_text().split()
    assert (tree / "etc/host").read_text() == "localhost\n"


@pytest.mark.threat("T93")
@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /root",
        "mount -o remount,rw /run/coppice",
        "mknod /root/disk b 254 0",
        # What would do no harm if it were let through.
        "echo h > /proc/sysrq-trigger",
        "read -r value < /proc/sys/kernel/core_pattern; echo $value > /proc/sys/kernel/core_pattern",
        "ls /proc/acpi/*",
        "test -s /proc/keys",
        "touch /run/coppice/000-script/new",
        "ls /sys/kernel",
    ],
)
def test_a_script_cannot_reach_out_of_the_tree(tree, tmp_path, attempt):
    with pytest.raises(ProvisionError, match="it ended with status"):
        do(tree, tmp_path, provisioners=(script(attempt),))


def test_a_script_sees_name_servers_and_an_appliance_that_systemd_will_start(tree, tmp_path):
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    # As apt reads it: not as root.
    text = "setpriv --reuid=33 --clear-groups cat /etc/resolv.conf > /etc/servers; cat /proc/1/comm > /etc/first"
    do(tree, tmp_path, provisioners=(script(text),))
    assert (tree / "etc/servers").read_text() == Path("/etc/resolv.conf").read_text()
    assert (tree / "etc/first").read_text() == "systemd\n"


def test_a_child_does_what_its_parent_has_not_done(tree, tmp_path):
    count = "cat /etc/count > /tmp/c 2>/dev/null || true; echo x >> /etc/count"
    parent, _ = do(
        tree,
        tmp_path,
        name="parent",
        files=(DefinedFile(path="/etc/a", content=b"a"),),
        users=(DefinedUser(name="ann", sudo=True),),
        provisioners=(script(count),),
        services=Services(enabled=("toy",), masked=("bound",)),
    )
    # What a script of the parent changed stays changed.
    (tree / "etc/a").write_text("changed")
    do(
        tree,
        tmp_path,
        parent=parent,
        files=(*parent.files, DefinedFile(path="/etc/b", content=b"b")),
        users=(replace(parent.users[0], sudo=False),),
        provisioners=(*parent.provisioners, script("echo y >> /etc/count", name="second")),
        services=Services(enabled=("toy@1",)),
    )
    assert (tree / "etc/count").read_text() == "x\ny\n"
    assert (tree / "etc/a").read_text() == "changed"
    assert (tree / "etc/b").read_text() == "b"
    assert not (tree / "etc/sudoers.d/90-coppice-ann").exists()
    assert not (tree / "etc/systemd/system/bound.service").is_symlink()


def test_as_a_hook_it_does_the_same_and_its_error_comes_back(tree, tmp_path):
    definition = replace(DEBIAN_12, provisioners=(script("echo hooked > /etc/hooked; exit $end"),))
    good = replace(definition, variables={"end": "0"})
    hook = prepare_provision(good, parent=None, directory=tmp_path / "good", epoch=EPOCH)
    assert hook is not None
    subprocess.run(["/bin/sh", "-c", hook.command, "exec", tree], check=True, capture_output=True)
    hook.raise_failure()
    assert (tree / "etc/hooked").read_text() == "hooked\n"
    bad = replace(definition, variables={"end": "7"})
    hook = prepare_provision(bad, parent=None, directory=tmp_path / "bad", epoch=EPOCH)
    assert hook is not None
    ended = subprocess.run(["/bin/sh", "-c", hook.command, "exec", tree], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "ended with status 7" in ended.stdout
    with pytest.raises(ProvisionError, match="ended with status 7") as caught:
        hook.raise_failure()
    assert "Read the end" in (caught.value.resolution or "")


def test_a_hook_finds_its_own_processes_where_its_namespace_still_shows_others(tree, tmp_path):
    definition = replace(DEBIAN_12, provisioners=(script("echo hooked > /etc/hooked"),))
    hook = prepare_provision(definition, parent=None, directory=tmp_path / "hook", epoch=EPOCH)
    assert hook is not None
    # As mmdebstrap does it where it is not root.
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", hook.command, "exec", tree]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    assert (tree / "etc/hooked").read_text() == "hooked\n"


@pytest.mark.threat("T81")
def test_a_disk_that_is_full_comes_back_from_a_hook_as_that(tree, tmp_path):
    text = "echo 'tar: write: No space left on device' >&2; exit 2"
    hook = prepare_provision(
        replace(DEBIAN_12, provisioners=(script(text),)), parent=None, directory=tmp_path / "hook", epoch=EPOCH
    )
    assert hook is not None
    subprocess.run(["/bin/sh", "-c", hook.command, "exec", tree], check=False, capture_output=True)
    with pytest.raises(NoSpaceError) as caught:
        hook.raise_failure()
    assert "work directory" in (caught.value.resolution or "")


@pytest.mark.threat("T79")
def test_a_hook_that_is_killed_takes_all_that_it_runs_along(tree, tmp_path):
    definition = replace(DEBIAN_12, provisioners=(script("echo > /etc/started; setsid sleep 86397 & sleep 86397"),))
    hook = prepare_provision(definition, parent=None, directory=tmp_path / "hook", epoch=EPOCH)
    assert hook is not None
    child = subprocess.Popen(["/bin/sh", "-c", f"exec {hook.command}", "exec", tree], stdout=subprocess.DEVNULL)
    with child:
        assert within(60, (tree / "etc/started").exists)
        assert within(60, lambda: len(running_with("86397")) > 1)
        child.kill()
    assert within(60, lambda: not running_with("86397"))


def test_what_the_tree_lacks_comes_back_from_a_hook_as_what_it_is(tree, tmp_path):
    definition = replace(DEBIAN_12, services=Services(enabled=("nothing",)))
    hook = prepare_provision(definition, parent=None, directory=tmp_path / "hook", epoch=EPOCH)
    assert hook is not None
    subprocess.run(["/bin/sh", "-c", hook.command, "exec", tree], check=False, capture_output=True)
    with pytest.raises(DefinitionError, match="no unit nothing"):
        hook.raise_failure()
    (tmp_path / "hook/report/error.json").write_text(json.dumps([]))
    with pytest.raises(ProvisionError, match="cannot be read"):
        hook.raise_failure()


def test_a_provisioner_whose_packages_cannot_be_had_fails(tree, tmp_path):
    puppet = Provisioner(name="p", kind=ProvisionerKind.PUPPET, files={"site.pp": b""}, entry="site.pp")
    with pytest.raises(ProvisionError, match="no package manager"):
        do(tree, tmp_path, provisioners=(puppet,))


def test_a_program_that_fails_in_the_tree_is_named(tree, tmp_path):
    (tree / "usr/sbin/groupadd").write_bytes(b"#!/bin/sh\necho full >&2\nexit 10\n")
    with pytest.raises(BuildError, match="groupadd failed in the tree") as caught:
        do(tree, tmp_path, users=(DefinedUser(name="ann", groups=("toys",), **SH),))
    assert "full" in (caught.value.details or "")
