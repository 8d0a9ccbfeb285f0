# SPDX-License-Identifier: Apache-2.0
"""The unit of a host that builds: what it must not forbid, what it may at most, and that a tree can be made under it.

There is no systemd here that would start it. Its limits are laid upon a process as systemd would: a file system that is
read-only but for the state directory and two empty places for temporary files, no homes, few devices, a user without a
capability, and the same bound on what set-user-ID programs get.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "systemd" / "coppice-factory.service"
PAGE = ROOT / "docs" / "how-to" / "set-up-a-factory-host.md"
MOST_EXPOSED = 66
"""Tenths, as `systemd-analyze security` counts. Most of it is what cannot be had together with newuidmap."""
GAINS_NO_PRIVILEGES = {
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "PrivateDevices",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "SystemCallArchitectures",
    "SystemCallFilter",
    "SystemCallLog",
}
"""With each of these, systemd sets NoNewPrivileges= for whoever has no CAP_SYS_ADMIN."""
USER = 64123


def settings():
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


def test_nothing_in_it_keeps_newuidmap_from_its_rights():
    said = settings()
    assert GAINS_NO_PRIVILEGES.isdisjoint(said)
    assert said["NoNewPrivileges"] == "no"
    # The page and the comment say why.
    assert set(re.findall(r"\b\w+(?==[,. ])", UNIT.read_text())) >= GAINS_NO_PRIVILEGES - {"SystemCallLog"}


def test_what_it_may_do_is_bounded(tmp_path):
    # As somebody who is not root; that user need not be there.
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("/opt/coppice/bin/coppice", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSED}", str(installed)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


ENTER = """
set -eu
cd {place}
for file in passwd group subuid subgid; do
    [ -e /etc/$file ] || touch /etc/$file
    cp /etc/$file .
done
echo 'coppice:x:{user}:{user}::/var/lib/coppice:/usr/sbin/nologin' >> passwd
echo 'coppice:x:{user}:' >> group
echo 'coppice:1000000:65536' | tee subuid > subgid
for file in passwd group subuid subgid; do mount --bind $file /etc/$file; done
for program in {programs}; do mount --bind $program $(command -v $program); done
# StateDirectory=
mkdir state
chown {user}:{user} state
# ProtectHome=: what the tests themselves run by stays.
mkdir home python
mount --bind {python} python
mount -t tmpfs -o mode=755 tmpfs /root
mkdir -p {python}
mount --move python {python}
mount -t tmpfs -o mode=000 tmpfs /home
# DevicePolicy=closed
mkdir devices
mount -t tmpfs -o mode=755 tmpfs devices
mkdir devices/shm devices/pts
mount -t tmpfs -o mode=1777 tmpfs devices/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts devices/pts
ln -s pts/ptmx devices/ptmx
ln -s /proc/self/fd devices/fd
for name in null zero full random urandom tty; do
    touch devices/$name
    mount --bind /dev/$name devices/$name
done
mount --rbind devices /dev
# ProtectSystem=strict, PrivateTmp=
mount --bind state state
grep -v -E ' (proc|sysfs|cgroup2?|devpts|tmpfs) ' /proc/self/mounts | cut -d' ' -f2 | while read -r point; do
    case $point in {place}/state|/dev/*|{place}/devices/*) ;; *) mount -o remount,bind,ro "$point" || true ;; esac
done
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
umask {umask}
cd /
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/var/tmp HOME=/var/lib/coppice PYTHONPATH={source} STATE={place}/state
exec setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all --ambient-caps=-all \
    --bounding-set=-all,{bound} {interpreter} -c "$1" {tests}
"""
INSIDE = """
import json, os, sys, tempfile
from pathlib import Path
from coppice.cage.trial import find_means
from coppice.factory.bootstrap import supported
from coppice.factory.bootstrap.tree import can_make_trees, own_namespaces
from coppice.process import run

sys.path.insert(0, sys.argv[1])
from test_bootstrap_builds import BASE, CHILD, CHILD_OF_BASE, STAND_IN, made

# As provisioners are run.
NESTED = '''bwrap --unshare-ipc --unshare-pid --unshare-uts --unshare-cgroup-try --unshare-net --die-with-parent
    --cap-drop ALL --cap-add CAP_CHOWN --bind / / --proc /proc --dev /dev --tmpfs /run id -u'''.split()

def writes(place):
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True

def built(work):
    tools = work / "tools"
    tools.mkdir(parents=True)
    for name, text in (("mmdebstrap", STAND_IN.format(place=tools)), ("base.sh", BASE), ("child.sh", CHILD)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    supported._LEAST_ROOT_BYTES = 0
    base = made(work)
    child = made(work, CHILD_OF_BASE, "two", ancestors=(base,))
    return [[each.name for each in result.packages] for result in (base, child)]

status = dict(line.split(":\\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
state = os.environ["STATE"]
places = ("/etc", "/root", "/usr", "/var/lib", "/var/tmp", state)
print(json.dumps({
    "user": os.geteuid(),
    "capabilities": int(status["CapPrm"], 16),
    "trees": can_make_trees(),
    "cage": find_means().strength.value,
    "nested": run([*own_namespaces(is_mapped=True), *NESTED], timeout_seconds=60).combined.strip(),
    "built": built(Path(state) / "builds"),
    "writes": [place for place in places if writes(place)],
}))
"""


def limited(place, bound, programs=()):
    """Run `INSIDE` as the unit would; return what it says."""
    for name in programs:
        shutil.copy(shutil.which(name), place)
        (place / name).chmod(0o755)
        right = "cap_setuid" if "uid" in name else "cap_setgid"
        subprocess.run(["setcap", f"{right}=ep", str(place / name)], check=True, timeout=60)
    script = ENTER.format(
        place=place,
        user=USER,
        programs=" ".join(programs),
        python=sys.base_prefix,
        source=ROOT / "src",
        tests=Path(__file__).parent,
        umask=settings()["UMask"],
        interpreter=sys.executable,
        bound=",".join(f"+{each.removeprefix('CAP_').lower()}" for each in bound.split()),
    )
    argv = ["unshare", "--mount", "--ipc", "--propagation", "private", "sh", "-c", script, "sh", INSIDE]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def place():
    # Where nothing that is mounted over it would hide it.
    found = Path("/var/cache") / f"coppice-unit-{os.getpid()}"
    found.mkdir()
    yield found
    shutil.rmtree(found)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can lay a service's limits upon a process")


@needs_root
@pytest.mark.parametrize("how", ["set-user-ID", "file capabilities"])
def test_an_appliance_and_one_upon_it_are_built_under_its_limits(place, how):
    if how == "set-user-ID":
        said = limited(place, settings()["CapabilityBoundingSet"])
    else:
        # As the page says for systems whose newuidmap has them; it needs less.
        bound = re.search(r"^CapabilityBoundingSet=(CAP_.*)$", PAGE.read_text(), re.MULTILINE)
        assert bound is not None
        assert "ADMIN" not in bound[1]
        said = limited(place, bound[1], ("newuidmap", "newgidmap"))
    assert (said["user"], said["capabilities"]) == (USER, 0)
    assert (said["trees"], said["cage"], said["nested"]) == (True, "full", "0")
    assert said["built"] == [["base"], ["base", "more"]]
    assert said["writes"] == ["/var/tmp", f"{place}/state"]  # noqa: S108 - of the unit
