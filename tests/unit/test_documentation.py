# SPDX-License-Identifier: Apache-2.0
"""The documentation says what is there: all of it, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from coppice.cloud import properties
from coppice.definition.describe import describe_definition
from coppice.definition.read import read_definition
from coppice.errors import all_error_types
from coppice.process import TOOLS
from coppice.settings.describe import describe_settings
from coppice.settings.load import load_settings

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SETTINGS = re.compile(
    r"^ *```toml\n((?: *#.*\n)* *"
    r"\[(?:cache|clouds|events|hooks|plan|publishers|publishing|service|transfer)[.\]][^`]*)^ *```",
    re.MULTILINE,
)
DEFINITION = re.compile(
    r"^ *\[+(?:appliance|build|operating-system|access|firewall|file|user|provisioner|test|variants)[.\]]", re.MULTILINE
)
OTHER_EXITS = {0, 2, 143}
OUTSIDE = re.compile(r"(?<![\w.])/(?:root|home)/\w|(?<![\w/])\.\./\.\./\.\./")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "scripts" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    marks = re.findall(r'<a id="([\w-]+)"></a>', text)
    return {*marks, *(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)}


def commands_in(text: str) -> list[str]:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`(coppice [^`\n]+)`", text)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line.split("  #")[0].split(" # ")[0] for line in [*lines, *inline] if line.startswith("coppice ")]


def test_generated_tables_are_up_to_date(generator):
    stale = [str(path) for path, text in generator.pages().items() if read(path) != text]
    assert stale == [], "run `make docs`"


def test_every_error_code_stands_in_the_reference():
    page = read(REFERENCE / "errors.md")
    assert [kind.code for kind in all_error_types() if f"| `{kind.code}` | {kind.exit_code} |" not in page] == []


def test_the_exit_codes_are_those_that_exist():
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", read(REFERENCE / "exit-codes.md"), re.MULTILINE)}
    assert documented == {kind.exit_code for kind in all_error_types()} | OTHER_EXITS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_settings_that_a_page_shows_can_be_loaded(page: Path, tmp_path: Path):
    written = tmp_path / "coppice.toml"
    for block in SETTINGS.findall(read(page)):
        written.write_text(textwrap.dedent(block), encoding="utf-8")
        load_settings(config=written, environ={"HOME": str(tmp_path)}, options={}, system_file=tmp_path / "none.toml")


def test_every_setting_stands_in_the_reference():
    page = read(REFERENCE / "settings.md")
    assert [setting.name for setting in describe_settings() if f"| `{setting.name}` |" not in page] == []


def test_every_key_of_a_definition_stands_in_the_reference():
    page = read(REFERENCE / "definition.md")
    for table in describe_definition():
        _, heading, rest = page.partition(f"\n## {table.heading}\n")
        assert heading
        own = rest.partition("\n## ")[0]
        assert [key.name for key in table.keys if f"\n| `{key.name}` |" not in own] == []


def test_every_example_of_a_definition_can_be_read(tmp_path):
    shutil.copytree(ROOT / "definitions" / "debian-12", tmp_path / "debian-12")
    found = [
        textwrap.dedent(block)
        for page in PAGES
        for block in re.findall(r"^ *```toml\n([^`]*)^ *```", read(page), re.MULTILINE)
        if DEFINITION.search(block)
    ]
    assert len(found) >= 8
    for number, block in enumerate(found):
        folder = tmp_path / f"example-{number}"
        for name in re.findall(r'source = "([^"]+)"', block):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
        folder.mkdir(exist_ok=True)
        is_part = not re.search(r"^from = |^disk-size = ", block, re.MULTILINE)
        # A child is for its parent's processors: what is of another stands in a definition that is built upon none.
        first = 'from = "debian-12"'
        if "operating-system.architecture" in block:
            shutil.copytree(ROOT / "definitions" / "debian-11", folder, dirs_exist_ok=True)
            first = read(folder / "appliance.toml")
        (folder / "appliance.toml").write_text(f"{first}\n{block}" if is_part else block)
        read_definition(folder)


def test_every_property_of_the_marker_stands_in_the_reference():
    names = {value for name, value in vars(properties).items() if name.isupper() and name != "PREFIX"}
    names = {value for value in names if isinstance(value, str) and value.startswith(properties.PREFIX)}
    documented = set(re.findall(r"^\| `(coppice_\w+)` \|", read(REFERENCE / "ownership.md"), re.MULTILINE))
    assert documented == names


def test_every_command_stands_in_the_reference(generator):
    root = generator.find_commands()
    page = read(REFERENCE / "commands.md")
    missing = [
        " ".join(path) for path, _ in generator.walk(root, ("coppice",)) if f"### `{' '.join(path)}`" not in page
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_a_page_exist_with_their_options(generator, page):
    for line in commands_in(read(page)):
        command = generator.find_commands()
        words = shlex.split(line)[1:]
        while isinstance(command, click.Group):
            options = {name for item in command.params for name in item.opts} | {"--help"}
            while words and words[0].startswith("-"):
                word = words.pop(0)
                assert word.split("=")[0] in options, f"{line}: {command.name} has no {word}"
                if any(
                    word in item.opts and isinstance(item, click.Option) and not item.is_flag for item in command.params
                ):
                    words.pop(0)
            if not words or words[0] == "NOUN":
                break
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, f"{line}: there is no {words[0]}"
            command = found
            words.pop(0)
        known = {name for item in command.params for name in [*item.opts, *item.secondary_opts]} | {"--help"}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
        assert unknown == [], line


def test_every_threat_that_a_test_is_marked_with_stands_in_the_threat_model(generator):
    page = read(ROOT / "docs" / "explanation" / "threat-model.md")
    rows = re.findall(r"^\| (T\d+) \|.*\| (tested|later) \|$", page, re.MULTILINE)
    assert [number for number, _ in rows] == [f"T{count}" for count in range(1, len(rows) + 1)]
    assert {number for number, state in rows if state == "tested"} == generator.tested_threats()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not fragment or fragment in anchors(read(target)), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_place_that_only_its_writer_has(page):
    # What a program printed is shown as it was printed, wherever it ran.
    written = re.sub(r"(?ms)^```text$.*?^```$", "", read(page))
    assert OUTSIDE.findall(written) == []


def test_every_page_can_be_reached_from_the_read_me():
    seen, pending = set(), [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page not in seen:
            seen.add(page)
            links = re.findall(r"\]\(([^)\s:#]+\.md)(?:#[^)]*)?\)", read(page))
            pending.extend((page.parent / link).resolve() for link in links)
    assert [str(page) for page in PAGES if page not in seen] == []


def test_the_set_up_installs_the_package_of_every_tool():
    lines = read(ROOT / "scripts" / "debian-packages.txt").splitlines()
    packages = {line.split("#")[0].strip() for line in lines} - {""}
    assert {tool.package for tool in TOOLS.values()} - packages == set()
