# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest

from coppice.definition.defaults import site_defaults
from coppice.definition.layers import dotted, leaves
from coppice.definition.model import DefinedUser, FileSystemKind, OpenPort, ProvisionerKind
from coppice.definition.read import (
    find_definition,
    find_definitions,
    find_lineage,
    read_definition,
    resolve_definition,
)
from coppice.errors import DefinitionError, NotFoundError
from coppice.formats.definition import definition_document, definition_from
from coppice.settings.model import FactorySettings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

BASE = """\
[appliance]
title = "Base"
description = "A base."
groups = ["General"]

[operating-system]
distribution = "Debian"
version = "12"
suite = "bookworm"

[build]
disk-size = "4 GiB"
user = "debian"
packages = ["jq"]

[[file]]
path = "/etc/motd"
content = "base"
mode = "0600"
"""
WHOLE = """\
from = "base"

[appliance]
title = "Whole"
vo = "vo.example.org"
validity-days = 90
identifier = "COMFY-$n-$v"
version = "$t"

[operating-system]
end-of-life = 2028-06-30

[build]
packages = ["nginx"]
formats = ["raw"]
file-system = "xfs"
encrypted = true
snapshot = "20260401T000000Z"

[[file]]
path = "/etc/motd"
source = "files/motd"
template = true

[[file]]
path = "/etc/site.conf"
content = "x"
owner = "www-data"
group = "www-data"

[[user]]
name = "worker"
comment = "Runs jobs"
groups = ["docker", "adm", "docker"]
sudo = true

[[user]]
name = "daemon2"
system = true
home = "/srv/daemon"
shell = "/usr/sbin/nologin"

[services]
enabled = ["nginx.service"]
masked = ["exim4.service"]

[access]
vnc = true
ssh = false

[firewall]
open = ["80/tcp", "10.0.0.0/8 5432/tcp", "2001:db8::/32 53/udp", "80/tcp"]

[contextualisation]
sources = ["OpenNebula", "None"]
user-data-file = "user-data"
guest-agent = true
automatic-updates = true

[[provisioner]]
name = "setup"
kind = "shell"
source = "scripts"
interpreter = ["/bin/bash", "-eu"]
timeout = "10 min"

[[provisioner]]
name = "puppet"
kind = "puppet"
source = "puppet"
entry = "manifests/site.pp"
variables = { role = "web" }
stays = true

[boot]
kernel-options = ["quiet", "console=tty1"]
menu-seconds = 3
secure-boot = true

[[test]]
name = "answers"
script = "curl -f http://localhost/"
timeout = 60

[[audit-exception]]
check = "setuid"
path = "/usr/bin/*"
reason = "The job starter needs it."

[rebuild]
interval-days = 30
keep-versions = 5

[variables]
site = "example"

[platform.qemu]
machine = "q35"

[metadata]
owner = "ops"
since = 2026-01-01
nested = { list = [1, true, 2.5] }
"""


def write(root: Path, name: str, text: str, **files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "appliance.toml").write_text(text)
    for path, content in files.items():
        put(folder, path.replace("__", "/"), content)
    return folder


def put(folder: Path, path: str, content: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content)


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "base", BASE)
    return tmp_path


def whole(root: Path) -> Path:
    folder = write(root, "whole", WHOLE)
    put(folder, "files/motd", "hello ${site}")
    put(folder, "user-data", "#cloud-config\n")
    put(folder, "scripts/20-b.sh", "b")
    put(folder, "scripts/10-a.sh", "a")
    put(folder, "puppet/manifests/site.pp", "p")
    put(folder, "puppet/modules/m/init.pp", "m")
    return folder


def refused(root: Path, name: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        find_definition(root, name)
    return f"{caught.value.message}\n{caught.value.details}"


def test_all_that_can_be_said_is_in_the_definition(root):
    whole(root)
    found = find_definition(root, "whole")
    assert (found.title, found.description, found.groups) == ("Whole", "A base.", ("General",))
    assert (found.parent, found.vo, found.validity_days) == ("base", "vo.example.org", 90)
    assert (found.identifier_template, found.version_template) == ("COMFY-$n-$v", "$t")
    assert found.end_of_life == date(2028, 6, 30)
    assert found.packages == ("jq", "nginx")
    assert (found.file_system, found.is_encrypted) == (FileSystemKind.XFS, True)
    assert found.snapshot == "20260401T000000Z"
    motd, conf = found.files
    assert (motd.path, motd.content, motd.mode, motd.is_template) == ("/etc/motd", b"hello ${site}", 0o600, True)
    assert (conf.owner, conf.group, conf.mode) == ("www-data", "www-data", 0o644)
    assert found.users[0] == DefinedUser(name="worker", comment="Runs jobs", groups=("docker", "adm"), sudo=True)
    assert (found.users[1].is_system, found.users[1].home) == (True, "/srv/daemon")
    assert found.services.masked == ("exim4.service",)
    assert (found.access.ssh, found.access.vnc, found.access.web_console) == (False, True, False)
    assert found.firewall.open_ports == (
        OpenPort(port=80),
        OpenPort(port=5432, source="10.0.0.0/8"),
        OpenPort(port=53, protocol="udp", source="2001:db8::/32"),
    )
    assert found.contextualisation.user_data == b"#cloud-config\n"
    assert found.contextualisation.sources == ("OpenNebula", "None")
    assert found.boot.kernel_options == ("quiet", "console=tty1")
    assert (found.tests[0].script, found.tests[0].timeout_seconds) == (b"curl -f http://localhost/", 60.0)
    assert found.audit_exceptions[0].reason == "The job starter needs it."
    assert (found.rebuild.interval_days, found.rebuild.keep_versions, found.rebuild.before_expiry_days) == (30, 5, 14)
    assert found.variables == {"site": "example"}
    assert found.platforms == {"qemu": {"machine": "q35"}}
    assert found.metadata == {"owner": "ops", "since": "2026-01-01", "nested": {"list": [1, True, 2.5]}}


def test_scripts_of_a_folder_are_run_by_name_and_what_has_an_entry_keeps_its_folder(root):
    whole(root)
    first, second, puppet = find_definition(root, "whole").provisioners
    assert [first.name, second.name] == ["setup-10-a.sh", "setup-20-b.sh"]
    assert (first.files, first.entry) == ({"10-a.sh": b"a"}, "10-a.sh")
    assert (first.interpreter, first.timeout_seconds) == (("/bin/bash", "-eu"), 600.0)
    assert (puppet.kind, puppet.entry, puppet.stays) == (ProvisionerKind.PUPPET, "manifests/site.pp", True)
    assert set(puppet.files) == {"manifests/site.pp", "modules/m/init.pp"}
    assert puppet.variables == {"role": "web"}


def test_a_whole_definition_comes_back_from_its_record(root):
    whole(root)
    found = find_definition(root, "whole")
    again = definition_from(definition_document(found))
    assert again == found
    assert again.digest() == found.digest()


def test_where_a_definition_lies_does_not_change_its_digest_and_each_file_does(root, tmp_path):
    folder = whole(root)
    before = find_definition(root, "whole").digest()
    moved = tmp_path / "elsewhere" / "deep"
    moved.parent.mkdir()
    root_names = ["base", "whole"]
    moved.mkdir()
    for name in root_names:
        (root / name).rename(moved / name)
    assert find_definition(moved, "whole").digest() == before
    put(moved / folder.name, "scripts/10-a.sh", "changed")
    assert find_definition(moved, "whole").digest() != before


def test_a_value_of_the_base_counts_five_definitions_further_up(root):
    for number in range(5):
        below = f"level-{number - 1}" if number else "base"
        write(root, f"level-{number}", f'from = "{below}"\nbuild.packages = ["pkg{number}"]\n')
    found = find_definition(root, "level-4")
    assert found.packages == ("jq", "pkg0", "pkg1", "pkg2", "pkg3", "pkg4")
    assert found.title == "Base"
    assert [each.name for each in find_lineage(root, "level-4")] == [
        *(f"level-{number}" for number in range(4, -1, -1)),
        "base",
    ]


def test_each_value_is_told_with_its_file_and_line(root):
    write(root, "web", 'from = "base"\n\n[build]\npackages = [\n  "nginx",\n]\n')
    origins = {dotted(path): str(leaf.origin) for path, leaf in leaves(resolve_definition(root, "web").document)}
    assert origins["build.packages[0]"] == f"{root}/base/appliance.toml:14"
    assert origins["build.packages[1]"] == f"{root}/web/appliance.toml:5"
    assert origins["appliance.title"] == f"{root}/base/appliance.toml:2"


def test_a_problem_is_told_with_the_line_and_that_of_a_parent_with_its_file(root):
    write(root, "web", 'from = "middle"\n[build]\npakages = []\n')
    write(root, "middle", 'from = "base"\n\n\naccess = { shh = true }\n')
    told = refused(root, "web")
    assert "line 3: unknown key 'build.pakages'; did you mean 'build.packages'?" in told
    assert f"{root}/middle/appliance.toml:4: unknown key 'access.shh'; did you mean 'access.ssh'?" in told


def test_a_file_of_a_parent_is_read_from_the_parents_folder(root):
    write(root, "middle", 'from = "base"\n[[file]]\npath = "/etc/m"\nsource = "m"\n', m="of middle")
    write(root, "web", 'from = "middle"\n[[file]]\npath = "/etc/m"\nmode = "0640"\n', m="of web")
    found = find_definition(root, "web").files[1]
    assert (found.content, found.mode) == (b"of middle", 0o640)


def test_definitions_that_are_built_upon_each_other_are_refused_with_the_circle(root):
    write(root, "a", 'from = "b"\n')
    write(root, "b", 'from = "c"\n')
    write(root, "c", 'from = "a"\n')
    assert "a → b → c → a" in refused(root, "a")
    write(root, "self", 'from = "self"\n')
    assert "self → self" in refused(root, "self")


def test_an_unknown_parent_is_refused_with_the_chain_and_the_nearest(root):
    write(root, "middle", 'from = "bose"\n')
    write(root, "web", '\nfrom = "middle"\n')
    told = refused(root, "web")
    assert f"{root}/middle/appliance.toml:1: from: there is no definition 'bose' (web → middle → bose)" in told
    assert "did you mean 'base'" in told


@pytest.mark.threat("T78")
@pytest.mark.parametrize("name", ["../base", "/etc", "Base", "base/../base", "", "base@", "base@../x"])
def test_a_parent_that_is_no_name_is_refused(root, name):
    write(root, "web", f'from = "{name}"\n')
    refused(root, "web")


def test_more_than_sixteen_levels_are_refused(root):
    for number in range(18):
        write(root, f"l{number}", f'from = "{f"l{number - 1}" if number else "base"}"\n')
    assert find_definition(root, "l15").packages == ("jq",)
    assert "more than 16 definitions" in refused(root, "l16")
    assert "more than 16 definitions" in refused(root, "l17")


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ('operating-system.suite = "trixie"', "operating-system.suite"),
        ('operating-system.distribution = "Ubuntu"', "operating-system.distribution"),
        ('operating-system.architecture = "aarch64"', "operating-system.architecture"),
        ('build.builder = "elsewhere"', "build.builder"),
    ],
)
def test_a_child_of_another_system_or_builder_is_refused_with_the_chain(root, said, key):
    write(root, "middle", 'from = "base"\n')
    write(root, "web", f'from = "middle"\n{said}\n')
    told = refused(root, "web")
    assert f"line 2: {key}" in told
    assert "web → middle → base" in told


def test_a_child_may_be_built_by_packer_upon_the_image_of_a_parent_that_another_built(root):
    write(root, "web", 'from = "base"\nbuild.builder = "packer"\n')
    assert find_definition(root, "web").builder == "packer"


def test_a_child_may_say_its_parents_system_once_more(root):
    write(root, "web", 'from = "base"\noperating-system.suite = "bookworm"\nbuild.builder = "bootstrap"\n')
    assert find_definition(root, "web").suite == "bookworm"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("build.packages = { replace = ['nginx'] }", "build.packages: takes away what its parent's tree has: jq"),
        ("file = { replace = [] }", "file: takes away what its parent's tree has: /etc/motd"),
    ],
)
def test_a_child_cannot_take_away_what_is_in_its_parents_tree_and_a_variant_can(root, said, told):
    write(root, "web", f'from = "base"\n{said}\n')
    assert f"line 2: {told}" in refused(root, "web")
    own = "build.packages = ['apache2']\n[[file]]\npath = '/etc/x'\ncontent = ''\n"
    write(root, "shop", f'from = "base"\n{own}[variants.small]\n{said}\n')
    assert f"{told}" in refused(root, "shop@small")
    keep = "build.packages = { replace = ['jq', 'nginx'] }"
    (root / "shop" / "appliance.toml").write_text(f'from = "base"\n{own}[variants.small]\n{keep}\n')
    assert find_definition(root, "shop@small").packages == ("jq", "nginx")


def test_a_value_of_another_form_than_the_parents_is_refused_with_both_places(root):
    write(root, "web", 'from = "base"\n[build]\npackages = "nginx"\n')
    told = refused(root, "web")
    assert "line 3: build.packages" in told
    assert "base/appliance.toml:14" in told


def test_a_unit_that_is_two_things_is_refused(root):
    write(root, "middle", 'from = "base"\nservices.enabled = ["x.service"]\n')
    write(root, "web", 'from = "middle"\nservices.masked = ["x.service"]\n')
    assert "x.service is both enabled and masked" in refused(root, "web")
    (root / "web" / "appliance.toml").write_text(
        'from = "middle"\nservices.masked = ["x.service"]\nservices.enabled = { replace = [] }\n'
    )
    assert find_definition(root, "web").services.masked == ("x.service",)


@pytest.mark.parametrize("table", ['file]]\npath = "/x"\ncontent = "', 'user]]\nname = "x"\ncomment = "'])
def test_the_same_entry_twice_in_one_file_is_refused(root, table):
    write(root, "web", f'from = "base"\n[[{table}1"\n[[{table}2"\n')
    told = refused(root, "web")
    assert "line 5: " in told
    assert "there are two of" in told


def test_what_the_site_says_lies_under_every_definition(root):
    defaults = {"build": {"disk-size": "8 GiB", "formats": ["raw"]}}
    text = BASE.replace('disk-size = "4 GiB"\n', "")
    write(root, "small", text)
    found = find_definition(root, "small", defaults=defaults)
    assert found.disk_size_bytes == 8 * 1024**3
    assert [str(each) for each in found.formats] == ["raw"]
    assert find_definition(root, "base", defaults=defaults).disk_size_bytes == 4 * 1024**3
    assert "'build.disk-size' is missing" in refused(root, "small")


def test_a_definitions_own_list_takes_the_place_of_the_sites(root):
    write(root, "web", 'from = "base"\nbuild.formats = ["qcow2"]\n')
    found = find_definition(root, "web", defaults={"build": {"formats": ["raw"]}})
    assert [str(each) for each in found.formats] == ["qcow2"]


def test_a_wrong_default_of_the_site_is_told_as_one_of_the_settings(root):
    with pytest.raises(DefinitionError, match=r"settings: build\.formats"):
        find_definition(root, "base", defaults={"build": {"formats": ["floppy"]}})


def test_the_sites_defaults_are_made_of_its_settings():
    settings = FactorySettings(mirror=None, build_timeout_seconds=1, boot_timeout_seconds=1)
    assert site_defaults(settings) == {}
    said = replace(settings, default_disk_size_bytes=4096, default_formats=("raw", "vmdk"))
    assert site_defaults(said) == {"build": {"disk-size": 4096, "formats": ["raw", "vmdk"]}}


VARIANTS = """\
from = "base"
[variants.small]
build.disk-size = "2 GiB"
appliance.title = "Small"
[variants.large]
build.packages = ["nginx"]
"""


def test_each_variant_is_a_definition_of_its_own(root):
    write(root, "web", VARIANTS)
    found = find_definition(root, "web@small")
    assert (found.name, found.variant, found.parent, found.title) == ("web-small", "small", "base", "Small")
    assert found.disk_size_bytes == 2 * 1024**3
    assert [each.name for each in find_definitions(root)] == ["base", "web", "web-small", "web-large"]
    assert len({each.digest() for each in find_definitions(root)}) == 4


def test_a_variant_can_be_a_parent_and_have_one_of_its_own(root):
    write(root, "trixie", BASE.replace("bookworm", "trixie").replace('"12"', '"13"'))
    write(root, "web", VARIANTS + '[variants.trixie]\nfrom = "trixie"\n')
    write(root, "shop", 'from = "web@large"\n')
    assert find_definition(root, "shop").packages == ("jq", "nginx")
    assert [each.name for each in find_lineage(root, "shop")] == ["shop", "web-large", "base"]
    assert find_definition(root, "web@trixie").suite == "trixie"


def test_a_variant_that_is_wrong_makes_its_file_wrong_whatever_is_asked_for(root):
    write(root, "web", VARIANTS.replace("build.packages", "build.pakages"))
    assert "line 6: unknown key 'build.pakages'" in refused(root, "web")
    assert "line 6: unknown key 'build.pakages'" in refused(root, "web@small")


def test_an_unknown_variant_is_not_found_and_as_a_parent_refused(root):
    write(root, "web", VARIANTS)
    with pytest.raises(NotFoundError, match="no variant 'tiny'") as caught:
        find_definition(root, "web@tiny")
    assert "small, large" in (caught.value.resolution or "")
    write(root, "shop", 'from = "web@tiny"\n')
    assert "web has no variant 'tiny' (it has small, large)" in refused(root, "shop")


def test_a_variant_and_a_definition_of_the_same_name_are_refused(root):
    write(root, "web", VARIANTS)
    write(root, "web-small", 'from = "base"\n')
    assert "this variant is called web-small, and there is a definition of that name" in refused(root, "web")


def test_two_variants_that_come_to_one_name_are_refused(root):
    write(root, "web", 'from = "base"\n[variants.a-b]\n')
    write(root, "web-a", 'from = "base"\n[variants.b]\n')
    with pytest.raises(DefinitionError, match="web@a-b and web-a@b are both called web-a-b"):
        find_definitions(root)


def test_variants_of_a_variant_are_refused(root):
    write(root, "web", 'from = "base"\n[variants.a.variants.b]\n')
    assert "a variant has no variants of its own" in refused(root, "web")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('[[file]]\npath = "etc/x"\ncontent = ""', "not a path in the appliance"),
        ('[[file]]\npath = "/etc/../x"\ncontent = ""', "not a path in the appliance"),
        ('[[file]]\npath = "/etc//x"\ncontent = ""', "not a path in the appliance"),
        ('[[file]]\npath = "/proc/x"\ncontent = ""', "no place in an image"),
        ('[[file]]\npath = "/x"', "one of content and source must be given"),
        ('[[file]]\npath = "/x"\ncontent = ""\nsource = "x"', "are both given"),
        ('[[file]]\npath = "/x"\ncontent = ""\nmode = "rwx"', "not permissions"),
        ('[[file]]\npath = "/x"\ncontent = ""\nmode = 420', "valid string"),
        ('[[file]]\npath = "/x"\ncontent = ""\nowner = "a b"', "not the name of a user"),
        ('[[file]]\npath = "/x"\nsource = "../base/appliance.toml"', "not a path in the folder"),
        ('[[file]]\npath = "/x"\nsource = "/etc/passwd"', "not a path in the folder"),
        ('[[file]]\npath = "/x"\nsource = "none"', "No such file"),
        ('[[user]]\nname = "root"', "'root' is there already"),
        ('[[user]]\nname = "x"\ncomment = "a:b"', "pattern"),
        ('[[user]]\nname = "x"\ngroups = ["-G"]', "not the name of a user or a group"),
        ('services.enabled = ["nginx"]', "not a unit of systemd"),
        ('services.enabled = ["../x.service"]', "not a unit of systemd"),
        ('firewall.open = ["80"]', "not a port"),
        ('firewall.open = ["0/tcp"]', "not a port"),
        ('firewall.open = ["65536/udp"]', "not a port"),
        ('firewall.open = ["10.0.0.1/8 80/tcp"]', "host bits set"),
        ('firewall.open = ["80/tcp; drop"]', "not a port"),
        ('contextualisation.sources = ["Cloud"]', "'NoCloud'"),
        ('contextualisation = { user-data = "", user-data-file = "x" }', "both given"),
        ('boot.kernel-options = ["a b"]', "not a kernel option"),
        ("boot.kernel-options = ['x=\"y\"']", "not a kernel option"),
        ("boot.menu-seconds = -1", "greater than or equal"),
        ('[[audit-exception]]\ncheck = "keys"\npath = "/x"', "'audit-exception[0].reason' is missing"),
        ('[[audit-exception]]\ncheck = "keys"\npath = "/x"\nreason = " "', "at least 1 character"),
        ('[variables]\n"a-b" = "x"', "not the name of a variable"),
        ("[variables]\nx = 1", "valid string"),
        ("[metadata]\nx = nan", "not finite"),
        ('platform.qemu = "x"', "platform.qemu"),
        ('platform."../x" = {}', "not the name of a platform"),
        ('appliance.identifier = "$x"', "unknown needle at character 1"),
        ("appliance.validity-days = 0", "greater than or equal"),
        ('operating-system.end-of-life = "soon"', "operating-system.end-of-life"),
        ("operating-system.end-of-life = 2028-01-01T00:00:00", "not a day"),
        ('build.snapshot = "../x"', "not the name of a snapshot"),
        ('[[provisioner]]\nname = "x"\nkind = "shell"\nsource = "none"', "No such file"),
        ('[[provisioner]]\nname = "x"\nkind = "magic"\nsource = "none"', "'shell', 'puppet'"),
        ('[[test]]\nname = "x"\nscript = ""\ntimeout = "0 s"', "greater than or equal"),
        ('[variants."A b"]', "not the name of a variant"),
        ("variants = 1", "expected a table"),
        ("file = 1", "file: a single value here, and a list at"),
        ("replace = []", "unknown key 'replace'"),
    ],
)
def test_a_value_that_no_image_can_have_is_refused_with_its_place(root, said, told):
    write(root, "web", f'from = "base"\n{said}\n')
    text = refused(root, "web")
    assert told in text
    assert "line " in text


def test_a_disk_that_does_not_fit_is_told_where_its_least_size_is_said(root):
    write(root, "middle", 'from = "base"\n\nrequirements.minimum-disk = "4 GiB"\n')
    write(root, "web", 'from = "middle"\nbuild.disk-size = "8 GiB"\n')
    told = refused(root, "web")
    assert f"{root}/middle/appliance.toml:3: requirements.minimum-disk is less than build.disk-size" in told


def test_a_template_that_names_no_variable_is_refused_with_the_nearest(root):
    file = '[[file]]\npath = "/x"\ntemplate = {}\ncontent = "${{sight}} $${{no}} ${{site}}"\n'
    write(root, "web", f'from = "base"\nvariables.site = "x"\n{file.format("true")}')
    told = refused(root, "web")
    assert "line 3: the template of /x names the variable 'sight', which [variables] lacks; did you mean site?" in told
    assert "'no'" not in told
    write(root, "plain", f'from = "base"\n{file.format("false")}')
    assert find_definition(root, "plain").files[-1].content == b"${sight} $${no} ${site}"


def test_metadata_has_bounds(root):
    write(root, "deep", f'from = "base"\n[metadata]\nx = {"[" * 20}{"]" * 20}\n')
    assert "nested more than 8 deep" in refused(root, "deep")
    write(root, "wide", f'from = "base"\n[metadata]\nx = [{"1," * 2000}]\n')
    assert "more than 1000 values" in refused(root, "wide")


@pytest.mark.parametrize(
    ("kind", "files", "entry", "told"),
    [
        ("puppet", ["p/a.pp"], "", "say with entry what in it is run"),
        ("puppet", ["p/a.pp"], 'entry = "b.pp"', "there is no 'b.pp'"),
        ("shell", ["p/sub/a.sh"], "", "a folder of scripts without entry holds only files"),
        ("shell", ["p/a b.sh"], "", "a folder of scripts without entry holds only files"),
    ],
)
def test_a_provisioner_whose_files_do_not_fit_is_refused(root, kind, files, entry, told):
    text = f'from = "base"\n[[provisioner]]\nname = "x"\nkind = "{kind}"\nsource = "p"\n{entry}\n'
    folder = write(root, "web", text)
    for each in files:
        put(folder, each, "x")
    assert told in refused(root, "web")


def test_two_provisioners_whose_scripts_come_to_the_same_name_are_refused(root):
    text = "".join(
        f'[[provisioner]]\nname = "{name}"\nkind = "shell"\nsource = "{source}"\n'
        for name, source in (("x", "p"), ("x-a.sh", "p/a.sh"))
    )
    put(write(root, "web", f'from = "base"\n{text}'), "p/a.sh", "x")
    assert "there are several provisioners 'x-a.sh'" in refused(root, "web")


def test_a_parent_elsewhere_is_found_in_the_other_roots(root, tmp_path):
    other = tmp_path / "other"
    folder = write(other, "web", 'from = "base"\n')
    assert read_definition(folder, roots=[root]).packages == ("jq",)
    assert find_definition([other, root], "web").packages == ("jq",)
    with pytest.raises(DefinitionError, match=r"no definition 'base'"):
        read_definition(folder)
