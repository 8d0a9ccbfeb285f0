# SPDX-License-Identifier: Apache-2.0
"""Appliances of the RPM family are never taken for fresh because nobody looked."""

from __future__ import annotations

from pathlib import Path

import pytest

from coppice.definition.read import read_definition
from coppice.factory.model import Package
from coppice.workflows.staleness import Appraiser

pytestmark = pytest.mark.unit


def test_what_updates_rpm_packages_have_is_told_as_unknown():
    definition = read_definition(Path(__file__).parents[3] / "definitions" / "almalinux-9")
    appraiser = object.__new__(Appraiser)
    installed = [Package(name="bash", version="5.1.8-9.el9", architecture="x86_64", manager="rpm")]
    known, errors = appraiser.updates(installed, definition)
    assert known is None
    assert "RPM repositories are not read" in errors[0].message
