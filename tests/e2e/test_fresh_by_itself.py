# SPDX-License-Identifier: Apache-2.0
"""From a security update in a package repository to every cloud: noticed, built, tested, published, fetched, hidden.

A publisher and two sites, a directory and a real OpenStack, by the real command line; each step is timed, and what a
site fetched is read from the web server's log. In the short form a stand-in for mmdebstrap lays out what the real,
signed repository has, and nothing is booted. The long form builds and boots Debian 12, from the packages of the build
that ``COPPICE_TEST_CACHE`` (default ``.cache/tests``) keeps.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

from coppice.cli.main import main
from coppice.clock import SystemClock
from coppice.definition.read import read_definition
from coppice.errors import BootTestError
from coppice.factory.boot import boot_gate
from coppice.factory.bootstrap import supported
from coppice.factory.build import build
from coppice.factory.model import BuildOptions, Outcome, Verdict
from coppice.monitor import SILENT
from coppice.testing.authority import Authority
from coppice.testing.factory_site import CommandSite, Ended, FactorySite, fill, kept_package
from coppice.testing.nginx import Nginx
from coppice.testing.openpgp import GnuPg
from coppice.testing.repository import PackageMirror
from coppice.testing.used_clouds import UsedDirectory
from coppice.testing.used_servers import UsedOpenStack
from coppice.workflows import build as building

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("COPPICE_TEST_CACHE", CHECKOUT / ".cache" / "tests")) / "factory"
BASE = """\
[appliance]
title = "Base"
description = "For a test."
[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"
[build]
builder = "bootstrap"
disk-size = "{size}"
firmware = ["bios"]
formats = ["qcow2"]
user = "debian"
[[test]]
name = "pager"
source = "pager.sh"
"""
WEB = """\
from = "base"
[appliance]
title = "Web"
[build]
packages = ["page"]
"""
PAGER = """\
#!/bin/sh
lesspipe | grep LESSOPEN
"""
PUBLISHING = """\
[publishing]
deltas = true
[publishers.web]
driver = "directory"
path = "{root}/published"
url = "{url}"
"""
SITE = """\
state_directory = "{root}/state"
[transfer]
allow_private_addresses = true
"""
# Lays out what the repositories have, as mmdebstrap would: the newest version of each package.
BOOTSTRAPPER = """\
#!{python}
import os, re, shutil, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
words = sys.argv[1:]
root = Path(next(word for word in words if word.endswith("/space/root")))
is_base = "--variant=minbase" in words
there = {{}}
lists = root / "var/lib/apt/lists"
for line in sys.stdin:
    address, suite = re.match(r"deb (?:\\[.*?\\] )?copy:(\\S+) (\\S+)", line).groups()
    folder = Path(address) / "dists" / suite
    lists.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "InRelease", lists / f"mirror_dists_{{suite}}_InRelease")
    for paragraph in (folder / "main/binary-amd64/Packages").read_text().split("\\n\\n"):
        said = dict(re.findall(r"^(\\w+): (.*)$", paragraph, re.MULTILINE))
        if said:
            there[said["Package"]] = said["Version"]
status = root / "var/lib/dpkg/status"
if is_base:
    grub = ("usr/lib/grub/i386-pc", "boot/grub/i386-pc", "boot/grub/x86_64-efi")
    for path in ("etc", "usr/bin", "var/lib/dpkg/info", "run", "tmp", *grub):
        (root / path).mkdir(parents=True, exist_ok=True)
    (root / "etc/ssh").mkdir()
    (root / "etc/ssh/sshd_config").write_text("Include /etc/ssh/sshd_config.d/*.conf\\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\\n")
    (root / "etc/shadow").chmod(0o640)
    (root / "usr/lib/grub/i386-pc/boot.img").write_bytes(bytes(510) + b"\\x55\\xaa")
    (root / "boot/grub/i386-pc/core.img").write_bytes(b"x" * 4096)
    (root / "boot/grub/x86_64-efi/core.efi").write_bytes(b"y" * 4096)
    wanted = set(there) - {{"page"}}
else:
    hook = next(word for word in words if "dist-upgrade" in word)
    wanted = set(re.findall(r"^Package: (.*)$", status.read_text(), re.MULTILINE))
    wanted |= set(hook.rpartition(" -- ")[2].split()) & set(there)
lines = []
for name in sorted(wanted):
    folder = root / "usr/share" / name
    folder.mkdir(parents=True, exist_ok=True)
    said = "".join(f"{{name}} {{there[name]}} {{number}}\\n" for number in range(30000))
    if not (folder / "text").exists() or (folder / "text").read_text() != said:
        (folder / "text").write_text(said)
    lines.append(f"Package: {{name}}\\nStatus: install ok installed\\nArchitecture: amd64\\n")
    lines.append(f"Version: {{there[name]}}\\n\\n")
    (root / "var/lib/dpkg/info" / f"{{name}}.list").write_text(f"/usr/share/{{name}}\\n/usr/share/{{name}}/text\\n")
status.write_text("".join(lines))
"""


class InThisProcess:
    """Commands of the short form: in this process, where tests can put themselves in the place of machines."""

    def run(self, *words):
        stream = io.StringIO()
        with redirect_stdout(stream):
            code = main(["--config", str(self.file), "--json", *map(str, words)])
        return Ended(code=code, document=json.loads(stream.getvalue()), said="")


class ShortFactorySite(InThisProcess, FactorySite):
    """A site that builds, of the short form."""


class ShortCommandSite(InThisProcess, CommandSite):
    """A site that follows, of the short form."""


class Steps:
    """Steps of a life, each with how long it took."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def step(self, title):
        started, said = time.monotonic(), []
        yield said.append
        self.lines.append(f"{time.monotonic() - started:7.1f} s  {title}{''.join(f'; {each}' for each in said)}")


class Life:
    """A publisher whose web server's log tells what it gave, and sites that follow it."""

    def __init__(self, place, mirror, *, size, uri="", names=("base", "web"), kinds=(FactorySite, CommandSite)) -> None:
        self.web, self.clouds, self.names, self.steps = place.web, place.clouds, names, Steps()
        root, web, clouds = place.root, place.web, place.clouds
        self.publisher = kinds[0](
            root / "publisher",
            mirror,
            {"base": BASE.format(size=size), "web": WEB},
            uri=uri,
            factory=PUBLISHING.format(root=web.root, url=web.url("/published")),
        )
        (self.publisher.root / "definitions" / "base" / "pager.sh").write_text(PAGER)
        (web.root / "published").mkdir(parents=True)
        authority = Authority.create("Example CA")
        self.anchors = authority.write_to(root / "anchors", crl=authority.crl())
        self.certificate, self.key = authority.issue("Jane").write_to(root / "keys", "jane")
        self.sites = {}
        for cloud in clouds:
            place = root / cloud.name
            self.sites[cloud.name] = kinds[1](place, SITE.format(root=place) + cloud.section('formats = ["qcow2"]'))

    def begin(self, *, build_words=(), add_words=()):
        """Build and publish the first versions, and have every site follow them."""
        do = self.publisher.ok
        with self.steps.step(f"build {' and '.join(self.names)} from nothing") as say:
            made = do("build", *self.names, *build_words)["builds"]
            say(f"{' and '.join(str(each['packages']) for each in made)} packages")
        with self.steps.step("publish"):
            for name in self.names:
                do("appliance", "add", name, *add_words)
            do(
                "endorser",
                "add",
                "jane",
                "--email",
                "j@example.org",
                "--certificate",
                self.certificate,
                "--key",
                self.key,
            )
            do(
                *("imagelist", "create", "general", "--endorser", "jane", "--publisher", "web"),
                *("--title", "General", "--vo", "vo.example.org"),
            )
            for name in self.names:
                do("imagelist", "add", "general", name)
            do("imagelist", "publish", "general")
        for name, site in self.sites.items():
            uri = self.web.url("/published/general.list")
            site.ok(
                *("subscription", "add", "general", uri, "--endorser-certificate", self.certificate),
                *("--anchors", self.anchors),
            )
            self.sync(name)

    def sync(self, name):
        """Have a site follow; return how many bytes the web server gave it."""
        before = self.given()
        with self.steps.step(f"sync the site with {name}") as say:
            self.sites[name].ok("sync")
            there = self.given() - before
            say(f"{there:,} bytes fetched of {self.whole_bytes():,} that the images have")
        return there

    def given(self):
        """Return how many bytes the web server has given."""
        log = self.web.directory / "access.log"
        return sum(int(each) for each in re.findall(r'" 20\d (\d+) "', log.read_text())) if log.exists() else 0

    def versions(self):
        """Return the newest versions of the publisher's appliances."""
        return {each["version"] for each in self.publisher.ok("appliance", "list")}

    def whole_bytes(self):
        """Return how large the images are that are published now."""
        return sum(each["size_bytes"] for each in self.publisher.ok("appliance", "list"))


@pytest.fixture(scope="module")
def gnupg():
    with GnuPg() as found:
        yield found


@pytest.fixture
def web(tmp_path):
    with Nginx(tmp_path / "nginx") as server:
        yield server


@pytest.fixture
def place(web, openstack, tmp_path):
    """Return where a life is lived: a web server, and two clouds."""
    clouds = (UsedDirectory(tmp_path / "cloud"), UsedOpenStack(openstack))
    return SimpleNamespace(root=tmp_path, web=web, clouds=clouds)


@pytest.fixture
def machines(monkeypatch):
    """Let no machine be started; return a switch: whether they would boot."""
    switch = SimpleNamespace(boots=True)

    def boot(image, *, firmware, clock, **_):
        if not switch.boots:
            raise BootTestError(f"{image.path.stem} does not boot")
        return Verdict(
            gate=boot_gate(firmware),
            image_digest=str(image.image.checksum),
            outcome=Outcome.PASSED,
            decided_at=clock.now(),
            seconds=1,
            facts=(),
        )

    monkeypatch.setattr(building, "boot_test", boot)
    # Commands run in this process, and this variable is no setting of theirs.
    monkeypatch.delenv("COPPICE_TEST_CACHE", raising=False)
    return switch


@pytest.fixture
def short_life(gnupg, place, machines, tmp_path, monkeypatch):
    """Return a life of one appliance, whose packages hold nothing."""
    mirror = PackageMirror(tmp_path / "mirror", gnupg, gnupg.make_key("Archive"))
    for name, version in {"less": "590-2", "jq": "1.6-2"}.items():
        mirror.main.add(name, version)
    mirror.publish()
    tools = tmp_path / "tools"
    tools.mkdir()
    program = tools / "mmdebstrap"
    program.write_text(BOOTSTRAPPER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(supported, "_LEAST_ROOT_BYTES", 0)
    kinds = (ShortFactorySite, ShortCommandSite)
    return Life(place, mirror, size="512 MiB", names=("base",), kinds=kinds)


@pytest.fixture
def real_packages():
    """Return the packages of Debian 12, and where their files are."""
    definition = read_definition(CHECKOUT / "definitions" / "debian-12")
    built = build(definition, root=CACHE, options=BuildOptions(), clock=SystemClock(), monitor=SILENT)
    return built.packages, CACHE / "parents" / "packages" / "debian"


@pytest.fixture
def real_mirror(real_packages, gnupg, web):
    """Return a mirror of just what Debian 12 is made of, and one package more; the web server has it."""
    packages, kept = real_packages
    mirror = PackageMirror(web.root / "archive", gnupg, gnupg.make_key("Archive"))
    fill(mirror.main, packages, kept)
    mirror.main.add("page", "1.0")
    mirror.publish()
    return mirror


@pytest.fixture
def less(real_packages):
    """Return the pager's package, and its file."""
    packages, kept = real_packages
    [found] = [each for each in packages if each.name == "less"]
    return found, kept_package(found, kept)


def check_the_same_everywhere(life, versions):
    """Check that every cloud has these versions of each appliance, and that only the newest one is found."""
    for cloud in life.clouds:
        states = cloud.states()
        assert len(states) == len(life.names)
        for image, found in states.items():
            assert found == versions, (cloud.name, image)
            newest = next(version for version, state in versions.items() if state == "available")
            assert cloud.usable(image) == newest


def improve(tree):
    pager = tree / "usr" / "bin" / "lesspipe"
    pager.write_bytes(pager.read_bytes() + b"# The hole is closed.\n")


def spoil(tree):
    (tree / "usr" / "bin" / "lesspipe").write_text("#!/bin/sh\nexit 3\n")


def bill_of(life, name, version):
    """Return which version of less the bill of materials of an appliance names."""
    file = life.publisher.home / "bill.json"
    file.unlink(missing_ok=True)
    life.publisher.ok("appliance", "sbom", name, file, "--version", version)
    [found] = [each["version"] for each in json.loads(file.read_text())["components"] if each["name"] == "less"]
    return found


def test_a_security_update_comes_to_every_cloud_and_what_does_not_boot_comes_to_none(short_life, machines):
    life, security = short_life, short_life.publisher.mirror.security
    life.begin()
    [first] = life.versions()
    check_the_same_everywhere(life, {first: "available"})
    security.add("less", "590-2+fix1")
    security.publish()
    second = rebuilt_everywhere(life, first)
    machines.boots = False
    security.add("less", "590-2+fix2")
    security.publish()
    refused_everywhere(life, first, second)


@pytest.mark.soak
def test_real_builds_are_the_same_twice_and_an_update_comes_to_every_cloud(real_mirror, less, place, machines):
    kinds = (ShortFactorySite, ShortCommandSite)
    life = Life(place, real_mirror, size="4 GiB", uri=place.web.url("/archive/debian"), kinds=kinds)
    live(life, less, lambda: setattr(machines, "boots", False), first_words=(), add_words=())


@pytest.mark.soak
def test_real_builds_are_booted_before_they_come_to_any_cloud(real_mirror, less, place):
    life = Life(place, real_mirror, size="4 GiB", uri=place.web.url("/archive/debian"))
    live(life, less, lambda: None, first_words=("--no-boot-test",), add_words=("--untested",))


def rebuilt_everywhere(life, first):
    """Have what is stale rebuilt, and every site follow; return the new version."""
    do, names, steps = life.publisher.ok, list(life.names), life.steps
    with steps.step("ask how stale they are"):
        for each in do("appliance", "staleness"):
            assert (each["decision"], each["security_updates"]) == ("rebuild", 1)
            assert [one["name"] for one in each["packages"]] == ["less"]
    with steps.step("rebuild, test, publish") as say:
        said = do("rebuild", "--at-once", "1")
        assert [(each["appliance"], each["is_new"]) for each in said["rebuilt"]] == [(name, True) for name in names]
        say(f"{said['published']['lists'][0]['bytes_written']:,} bytes published")
    [second] = life.versions()
    for name in life.sites:
        assert life.sync(name) < life.whole_bytes() / 4
    check_the_same_everywhere(life, {first: "superseded", second: "available"})
    return second


def refused_everywhere(life, first, second):
    """Have what is stale rebuilt, which fails its test; nothing of it comes anywhere."""
    with life.steps.step("rebuild what does not pass its test"):
        ended = life.publisher.run("rebuild", "--at-once", "1")
    assert ended.codes == ["boot-test-failed"]
    kept_by = {each["appliance"]: each["kept_by"] for each in ended.data["rebuilt"]}
    assert kept_by == {"base": None, **({"web": "base"} if "web" in life.names else {})}
    assert life.versions() == {second}
    for name in life.sites:
        life.sync(name)
    check_the_same_everywhere(life, {first: "superseded", second: "available"})


def live(life, less, break_machines, *, first_words, add_words):
    """Live the whole life with the packages of Debian 12."""
    (package, file), steps, do = less, life.steps, life.publisher.ok
    security = life.publisher.mirror.security
    life.begin(build_words=(*first_words, "--at-once", "1"), add_words=add_words)
    [first] = life.versions()
    check_the_same_everywhere(life, {first: "available"})
    with steps.step("build base a second time") as say:
        [verified] = do("build", "base", "--no-boot-test", "--verify")["verified"]
        [(name, digest)] = verified["digests"].items()
        say(f"{name} has {digest} both times")
    fixed, worse = (f"{package.version}+fix{number}" for number in (1, 2))
    with steps.step("a security update of less is placed in the repository"):
        security.put(file, fixed, improve)
        security.publish()
    second = rebuilt_everywhere(life, first)
    for name in life.names:
        changed = do("appliance", "difference", name, first, second)
        steps.lines.append(f"           {name} {first} → {second}: {json.dumps(changed)}"[:500])
        assert [bill_of(life, name, version) for version in (first, second)] == [package.version, fixed]
    break_machines()
    with steps.step("an update that does not work is placed in the repository"):
        security.put(file, worse, spoil)
        security.publish()
    refused_everywhere(life, first, second)
    print("", *steps.lines, sep="\n")  # noqa: T201 - figures of the long form
