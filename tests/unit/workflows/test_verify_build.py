# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest

from coppice.errors import BuildError
from coppice.factory.verification import Verification
from coppice.workflows import verify_build

pytestmark = pytest.mark.unit

DEFINITION = SimpleNamespace(name="web")


def verified(monkeypatch, tmp_path, found, lineage=()):
    first = SimpleNamespace(provenance=SimpleNamespace(lineage=tuple(SimpleNamespace(key=key) for key in lineage)))
    asked = {}

    def verify(result, *, options, monitor):
        asked.update(result=result, options=options, monitor=monitor)
        return found

    monkeypatch.setattr(verify_build, "find_build", lambda *_given, **_named: first)
    monkeypatch.setattr(verify_build, "load_build_result", lambda directory: directory.name)
    monkeypatch.setattr(verify_build, "build_options", lambda _settings, ancestors: ancestors)
    monkeypatch.setattr(verify_build, "verify_build", verify)
    settings = SimpleNamespace(state_directory=tmp_path)
    verify_build.verify_appliance(DEFINITION, settings=settings, monitor=None, find=None)
    return asked


def verification(second="sha512:1", differing=(), count=0, *, is_compared=True):
    return Verification(
        digests={"web.qcow2": ("sha512:1", second)}, differing=differing, count=count, is_compared=is_compared
    )


def test_the_second_build_stands_upon_the_parents_that_the_first_one_had(monkeypatch, tmp_path):
    asked = verified(monkeypatch, tmp_path, verification(), lineage=("nearest", "farthest"))
    assert asked["options"] == ("nearest", "farthest")


def test_other_bytes_are_an_error_that_names_the_files(monkeypatch, tmp_path):
    with pytest.raises(BuildError, match="2 files differ") as caught:
        verified(monkeypatch, tmp_path, verification("sha512:2", ("/etc/a",), 2))
    assert caught.value.details == "/etc/a\n…"
    assert "web.qcow2" in caught.value.message


@pytest.mark.parametrize(("is_compared", "said"), [(True, "at another place"), (False, "cannot be told")])
def test_other_bytes_without_a_file_that_differs_are_told_so(monkeypatch, tmp_path, is_compared, said):
    with pytest.raises(BuildError, match=said):
        verified(monkeypatch, tmp_path, verification("sha512:2", is_compared=is_compared))
