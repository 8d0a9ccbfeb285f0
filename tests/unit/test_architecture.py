# SPDX-License-Identifier: Apache-2.0
"""The rules of ARCHITECTURE.md hold, and the checker that says so sees what it must see."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    # As when it is run: what it imports lies beside it.
    spec = importlib.util.spec_from_file_location("architecture_rules", ROOT / "scripts" / "architecture_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "scripts")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def product(rules: ModuleType) -> dict[str, object]:
    """Return all modules of the product: to read them takes seconds, so it is done once."""
    found: dict[str, object] = rules.read_modules(SOURCE)
    return found


def test_the_product_keeps_every_rule(rules, product):
    assert [str(finding) for finding in rules.findings_in(product)] == []


def test_the_checker_looks_at_the_whole_product(rules, product):
    assert {f"coppice.{stage}.model" for stage in rules.STAGES} <= product.keys()
    assert len(product) == len(list((SOURCE / "coppice").rglob("*.py")))


def test_a_forbidden_import_added_to_the_tree_is_reported(rules, product):
    name, victim = "coppice.definition", SOURCE / "coppice" / "definition" / "__init__.py"
    text = victim.read_text(encoding="utf-8") + "\nimport coppice.catalogue.catalogue\n"
    (finding,) = rules.findings_in(
        {**product, name: sys.modules["architecture_source"].read_module(name, victim, text, product.keys())}
    )
    assert str(victim) in str(finding)
    assert "coppice.definition imports coppice.catalogue.catalogue" in str(finding)
    assert "workflows/ joins stages" in str(finding)


def planted(rules: ModuleType, tmp_path: Path, files: dict[str, str]) -> list[str]:
    tree = {"coppice/__init__.py": "", **files}
    for name, text in tree.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LICENCE + text, encoding="utf-8")
    return [finding.message for finding in rules.check(tmp_path)]


REFUSED = {
    "a later hand-over type": ("cache/fetch.py", "from coppice.conversion.model import ConvertedImage"),
    "another stage's workings": ("cloud/plan.py", "from coppice.cache.store import open_store"),
    "another stage's package": ("cloud/plan.py", "import coppice.cache"),
    "another stage by a name from the product": ("cloud/plan.py", "from coppice import cache"),
    "another stage by a relative name": ("cloud/plan.py", "from ..cache import store"),
    "another stage for annotations": ("cloud/plan.py", "if TYPE_CHECKING:\n    import coppice.cache.store"),
    "another stage inside a function": ("cloud/plan.py", "def f():\n    import coppice.cache.store"),
    "a workflow in a stage": ("cloud/plan.py", "import coppice.workflows.sync"),
    "the command line in a workflow": ("workflows/sync.py", "import coppice.cli.main"),
    "the test kit in a stage": ("cache/fetch.py", "import coppice.testing.simulator"),
    "the test kit in a workflow": ("workflows/sync.py", "import coppice.testing.simulator"),
    "a library in the nouns": ("model/image.py", "import pydantic"),
    "a shared module in the nouns": ("model/image.py", "import coppice.errors"),
    "a stage in a shared module": ("http.py", "import coppice.cache.model"),
    "a stage's workings in a format": ("formats/hepix.py", "import coppice.imagelist.sign"),
    "the database in a format": ("formats/hepix.py", "import coppice.database"),
    "errors made by a hand-over type": ("cloud/model.py", "from coppice.errors import CloudError"),
    "the database in a hand-over type": ("cloud/model.py", "import coppice.database"),
    "a stage in the dashboard": ("web/pages.py", "import coppice.cloud.apply"),
    "a stage in the schedule": ("schedule/due.py", "import coppice.cloud.apply"),
    "a workflow in the lock": ("schedule/lock.py", "import coppice.workflows.sync"),
    "a stage's tables in the command line": ("cli/image.py", "import coppice.catalogue.tables"),
    "a module outside every layer": ("extras/x.py", "X = 1"),
    "a function too long": ("cache/fetch.py", "def f():\n" + "    g()\n" * 51),
    "a module too long": ("cache/fetch.py", "X = 1\n" * 401),
    "a module of odds and ends": ("cache/utils.py", "X = 1"),
    "a base module": ("cache/base_store.py", "X = 1"),
    "a verified list made by hand": ("workflows/sync.py", "def f():\n    return VerifiedImageList(content=None)"),
    "a verified list under another name": (
        "workflows/sync.py",
        "from coppice.subscription.model import VerifiedImageList as V\nV()",
    ),
    "a cached image made by hand": ("workflows/sync.py", "import coppice.cache.model as m\nm.CachedImage()"),
    "a converted image made by hand": ("cloud/memory.py", "ConvertedImage()"),
    "a removal outside apply": ("workflows/retire.py", "def f(cloud):\n    cloud.remove(1)"),
    "a registration handed on": ("workflows/sync.py", "def f(cloud, pool):\n    pool.submit(cloud.register, 1)"),
    "a changed state outside apply": ("cli/image.py", "def f(clouds):\n    clouds['a'].change_state(1, 2)"),
    "a removal from a cloud that is kept": ("cli/x.py", "class C:\n    def f(self):\n        self.cloud.remove(1)"),
    "a removal from a cloud just opened": ("cli/x.py", "def f(s):\n    open_cloud(s).remove(1)"),
    "metadata changed outside apply": ("cloud/plan.py", "def f(target):\n    target.update_metadata()"),
    "a program run directly": ("conversion/convert.py", "import subprocess"),
    "a shell": ("process.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
    "a shell if asked": ("process.py", "import subprocess\ndef f(s):\n    subprocess.run('ls', shell=s)"),
    "a shell by another door": ("cache/fetch.py", "import os\nos.system('ls')"),
    "catching everything": ("workflows/sync.py", "try:\n    f()\nexcept Exception:\n    g()"),
    "catching everything and raising again": ("workflows/sync.py", "try:\n    f()\nexcept Exception:\n    raise"),
    "catching everything without a name": ("workflows/sync.py", "try:\n    f()\nexcept:\n    g()"),
    "a heavy library at the start": ("cli/main.py", "import rich"),
    "a heavy library two imports from the start": ("cli/main.py", "import coppice.database"),
}
SURROUNDINGS = {
    "coppice/cache/__init__.py": "",
    "coppice/cache/store.py": "",
    "coppice/database.py": "import sqlalchemy\n",
}


@pytest.mark.parametrize(("path", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_each_way_to_break_a_rule_is_reported_once(rules, tmp_path, path, text):
    assert planted(rules, tmp_path / "before", SURROUNDINGS) == []
    assert len(planted(rules, tmp_path / "after", {**SURROUNDINGS, f"coppice/{path}": text})) == 1


ALLOWED = {
    "an earlier hand-over type": ("conversion/convert.py", "from coppice.cache.model import CachedImage"),
    "a shared module": ("cache/fetch.py", "import coppice.http\nfrom coppice import errors"),
    "a hand-over type in a format": ("formats/hepix.py", "from coppice.imagelist.model import ImageList"),
    "errors for annotations": ("cloud/model.py", "if TYPE_CHECKING:\n    from coppice.errors import CoppiceError"),
    "stages in a workflow": ("workflows/sync.py", "import coppice.cache.store\nimport coppice.cloud.apply"),
    "the lock in a workflow": ("workflows/sync.py", "import coppice.schedule.lock"),
    "the test kit in the demonstration": ("workflows/demonstration.py", "import coppice.testing.authority"),
    "the time in a format": ("formats/hepix.py", "from coppice.clock import to_rfc3339"),
    "an image made up by the test kit": ("testing/made.py", "CachedImage()"),
    "a driver's own method": ("cloud/directory.py", "class C:\n    def f(self):\n        self.remove(1)"),
    "a verified list from the rules": ("subscription/rules.py", "VerifiedImageList()"),
    "a change from apply": ("cloud/apply.py", "def f(cloud):\n    cloud.remove(1)"),
    "a removal that is no cloud's": ("cache/fetch.py", "import os\nos.remove('x')"),
    "a subscription's removal": ("cli/x.py", "def f(d):\n    SubscriptionStore(d).remove(1)"),
    "clean-up that raises again": ("cache/fetch.py", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"),
    "a heavy library when it is needed": ("cli/main.py", "def f():\n    import rich"),
    "a docstring of any length": ("cache/fetch.py", 'def f():\n    """One.\n' + "\n" * 60 + '    """\n'),
}


@pytest.mark.parametrize(("path", "text"), ALLOWED.values(), ids=ALLOWED.keys())
def test_what_is_allowed_is_not_reported(rules, tmp_path, path, text):
    assert planted(rules, tmp_path, {**SURROUNDINGS, f"coppice/{path}": text}) == []


def test_an_import_cycle_is_reported_once_with_its_path(rules, tmp_path):
    files = {
        "coppice/cache/a.py": "import coppice.cache.b",
        "coppice/cache/b.py": "import coppice.cache.c",
        "coppice/cache/c.py": "import coppice.cache.a",
    }
    (message,) = planted(rules, tmp_path, files)
    assert message == "import cycle: coppice.cache.a -> coppice.cache.b -> coppice.cache.c -> coppice.cache.a"


def test_a_cycle_for_annotations_or_inside_functions_is_none(rules, tmp_path):
    files = {
        "coppice/cache/a.py": "import coppice.cache.b",
        "coppice/cache/b.py": "if TYPE_CHECKING:\n    import coppice.cache.a\ndef f():\n    import coppice.cache.a",
    }
    assert planted(rules, tmp_path, files) == []


def test_a_file_without_its_licence_line_is_reported(rules, tmp_path):
    (tmp_path / "coppice").mkdir()
    (tmp_path / "coppice" / "__init__.py").write_text('"""Text."""\n', encoding="utf-8")
    (finding,) = rules.check(tmp_path)
    assert "SPDX" in finding.message


def test_the_checker_run_as_a_program_prints_findings_and_fails(rules, tmp_path, capsys):
    planted(rules, tmp_path, {})
    assert rules.main([str(tmp_path)]) == 0
    planted(rules, tmp_path, {"coppice/cache/utils.py": ""})
    assert rules.main([str(tmp_path)]) == 1
    assert "utils.py:1: 'utils' names no noun" in capsys.readouterr().out
