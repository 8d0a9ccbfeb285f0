# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coppice.definition.model import Access, Contextualisation, GuestTest, Page
from coppice.definition.read import read_definition
from coppice.factory.boot_model import LEVEL, PROMISE, BootLevel, Promise, covers, promise_of
from coppice.factory.model import Outcome, Verdict
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit

DATABASE = read_definition(Path(__file__).parents[3] / "definitions" / "database")


def verdict(promise, level, outcome=Outcome.PASSED):
    return Verdict(
        gate="boot-bios",
        image_digest="sha512:" + "0" * 128,
        outcome=outcome,
        decided_at=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=1,
        facts=((PROMISE, promise.digest()), (LEVEL, level)),
    )


def test_a_promise_is_what_the_definition_says():
    promise = promise_of(DATABASE)
    assert promise.user == "debian"
    assert promise.units == DATABASE.services.enabled
    assert [each.port for each in promise.open_ports] == [22, 5432, 5432, 5432, 5432]
    assert {test.name for test in promise.tests} == {test.name for test in DATABASE.tests}
    assert not promise.has_script
    assert promise.minimum_ram_mib == DATABASE.requirements.minimum_ram_mib
    assert promise_of(replace(DATABASE, requirements=Requirements())).minimum_ram_mib == 0


@pytest.mark.parametrize(("data", "has_script"), [(b"#!/bin/sh\n", True), (b"#cloud-config\n{}\n", False)])
def test_only_a_script_of_its_own_can_have_run(data, has_script):
    changed = replace(DATABASE, contextualisation=Contextualisation(user_data=data))
    assert promise_of(changed).has_script is has_script


@pytest.mark.parametrize(
    "change",
    [
        {"user": "other"},
        {"access": Access(ssh=False)},
        {"has_firewall": False},
        {"open_ports": ()},
        {"sources": ("Ec2",)},
        {"units": ("more.service",)},
        {"pages": (Page(name="web", port=80),)},
        {"tests": (GuestTest(name="more", script=b"true"),)},
        {"is_signed": True},
        {"minimum_ram_mib": 4096},
    ],
)
def test_what_passed_for_one_promise_has_not_passed_for_another(change):
    promise = promise_of(DATABASE)
    kept = verdict(promise, BootLevel.STANDARD)
    assert covers(kept, promise, BootLevel.STANDARD)
    assert not covers(kept, replace(promise, **change), BootLevel.STANDARD)


def test_a_thorough_test_stands_for_a_standard_one_and_not_the_other_way():
    promise = Promise(user="u")
    assert covers(verdict(promise, BootLevel.THOROUGH), promise, BootLevel.STANDARD)
    assert not covers(verdict(promise, BootLevel.STANDARD), promise, BootLevel.THOROUGH)
    assert not covers(verdict(promise, BootLevel.THOROUGH, Outcome.FAILED), promise, BootLevel.STANDARD)
    old = replace(verdict(promise, BootLevel.STANDARD), facts=(("cloud-init", "done"),))
    assert not covers(old, promise, BootLevel.STANDARD), "an older verdict says nothing of what is looked at now"
