# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shlex

import pytest

from coppice.definition.model import Access
from coppice.factory.boot_judge import judge, judge_restart, look_around, printable, read_facts
from coppice.factory.boot_model import Promise
from coppice.factory.boot_sources import Source
from coppice.model.operating_system import Firmware

pytestmark = pytest.mark.unit

PROMISE = Promise(user="debian", has_script=True, units=("nginx.service", "once.service"), is_signed=True)
GOOD = {
    "cloud-init": "done",
    "cloud-init-errors": "",
    "datasource": "DataSourceNoCloud [seed=/dev/vdb]",
    "instance": "boot-test-1",
    "handed-script": "boot-test-1",
    "own-script": "ran",
    "sshd-passwordauthentication": "no",
    "sshd-kbdinteractiveauthentication": "no",
    "sshd-permitrootlogin": "no",
    "ssh-methods": "publickey",
    "host-keys": "2",
    "host-keys-older-than-boot": "0",
    "host-keys-digest": "0123456789abcdef",
    "machine-id": "0" * 32,
    "root-password": "*",
    "root-bytes": "950",
    "failed-units": "",
    "firmware": "uefi",
    "secure-boot": "1",
    "unit-nginx.service": "ActiveState=active ConditionResult=yes Result=success Type=forking",
    "unit-once.service": "ActiveState=inactive ConditionResult=yes ConditionTimestampMonotonic=9 Result=success "
    "Type=oneshot",
}
FIRST = {**GOOD, "powered-off": "yes"}
NOT_JUDGED_AT_FIRST = {"instance", "host-keys-digest"}


def judged(facts, promise=PROMISE, firmware=Firmware.UEFI):
    return judge(facts, promise, firmware=firmware, source=Source.NO_CLOUD, instance="boot-test-1", disk_bytes=1000)


def test_a_good_appliance_has_nothing_wrong():
    assert judged(GOOD) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cloud-init", "error", "cloud-init says 'error'"),
        ("cloud-init", "running", "cloud-init says 'running'"),
        ("cloud-init-errors", "boom", "boom"),
        ("datasource", "DataSourceNone", "DataSourceNone"),
        ("handed-script", "", "did not run"),
        ("handed-script", "boot-test-0", "did not run"),
        ("own-script", "", "its own script"),
        ("sshd-passwordauthentication", "yes", "by password"),
        ("sshd-kbdinteractiveauthentication", "yes", "keyboard-interactive"),
        ("sshd-permitrootlogin", "yes", "root may log in"),
        ("ssh-methods", "publickey,password", "publickey,password"),
        ("host-keys", "0", "no SSH host keys"),
        ("host-keys-older-than-boot", "1", "older than the machine"),
        ("machine-id", "", "no machine-id"),
        ("root-password", "$", "root has a password"),
        ("root-password", "", "root has a password"),
        ("root-bytes", "500", "did not grow"),
        ("failed-units", "nftables.service", "nftables.service"),
        ("firmware", "bios", "started by 'bios'"),
        ("secure-boot", "0", "secure boot was not on"),
        ("unit-nginx.service", "ActiveState=inactive Result=success Type=forking", "nginx.service is inactive"),
        ("unit-nginx.service", "ActiveState=activating Result=success Type=notify", "nginx.service is activating"),
        ("unit-once.service", "ActiveState=inactive Result=exit-code Type=oneshot", "once.service is inactive"),
    ],
)
def test_each_fact_that_is_wrong_is_told(name, value, said):
    wrong = judged({**GOOD, name: value})
    assert len(wrong) == 1
    assert said in wrong[0]


@pytest.mark.parametrize("name", sorted(GOOD.keys() - NOT_JUDGED_AT_FIRST))
def test_a_fact_that_could_not_be_found_out_is_wrong_too(name):
    assert judged({key: value for key, value in GOOD.items() if key != name})


def test_a_unit_whose_condition_does_not_hold_has_no_work():
    condition = "ActiveState=inactive ConditionResult=no ConditionTimestampMonotonic=9 Result=success Type=simple"
    assert judged({**GOOD, "unit-nginx.service": condition}) == []


@pytest.mark.parametrize("kind", ["simple", "oneshot", ""])
def test_a_unit_that_nobody_tried_to_start_is_not_up(kind):
    never = f"ActiveState=inactive ConditionResult=no ConditionTimestampMonotonic=0 Result=success Type={kind}"
    assert judged({**GOOD, "unit-nginx.service": never}) == ["nginx.service is inactive"]


def test_who_has_no_ssh_is_not_asked_about_it():
    facts = {key: value for key, value in GOOD.items() if not key.startswith(("ssh", "host-keys"))}
    assert judged(facts, Promise(user="debian", access=Access(ssh=False))) == []


def test_an_image_that_is_not_signed_may_start_without_secure_boot():
    assert judged({**GOOD, "secure-boot": ""}, Promise(user="debian")) == []


def test_a_second_start_is_the_same_machine():
    again = {**GOOD, "handed-script": ""}
    assert judge_restart(again, FIRST, PROMISE, Firmware.UEFI) == []


def test_a_machine_that_has_to_be_killed_has_not_restarted():
    again = {**GOOD, "handed-script": ""}
    for before in (GOOD, {**GOOD, "powered-off": "no"}):
        wrong = judge_restart(again, before, PROMISE, Firmware.UEFI)
        assert wrong == ["it did not come to its end when it was told to restart"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("machine-id", "1" * 32, "its machine-id is another"),
        ("host-keys-digest", "f", "SSH host keys is another"),
        ("host-keys-digest", "", "SSH host keys is another"),
        ("instance", "boot-test-2", "the instance that cloud-init sees is another"),
        ("handed-script", "boot-test-1", "ran again"),
        ("failed-units", "ssh.service", "after a restart, units failed"),
        ("cloud-init", "error", "after a restart, cloud-init says"),
        ("unit-nginx.service", "ActiveState=failed", "after a restart, nginx.service is failed"),
    ],
)
def test_a_second_start_that_differs_is_told(name, value, said):
    wrong = judge_restart({**GOOD, "handed-script": "", name: value}, FIRST, PROMISE, Firmware.UEFI)
    assert len(wrong) == 1
    assert said in wrong[0]


def test_facts_are_read_line_by_line_and_cloud_inits_result_taken_apart():
    result = json.dumps({"v1": {"datasource": "DataSourceNoCloud", "errors": ["a", "b"]}})
    facts = read_facts(f"kernel=6.1\nnoise\ncloud-init-result={result}\nsystem=De\x1b[31mbian\n")
    assert facts == {
        "kernel": "6.1",
        "system": "De[31mbian",
        "datasource": "DataSourceNoCloud",
        "cloud-init-errors": "a; b",
    }


def test_long_errors_of_cloud_init_are_told_as_far_as_there_is_room():
    result = json.dumps({"v1": {"datasource": "DataSourceNoCloud", "errors": [f"what is wrong: {'x' * 1000}"]}})
    facts = read_facts(f"cloud-init-result={result}\n")
    assert facts["datasource"] == "DataSourceNoCloud"
    assert facts["cloud-init-errors"].startswith("what is wrong: xxx")
    assert len(facts["cloud-init-errors"]) == 500


@pytest.mark.parametrize("result", ["", "[]", "{", '{"v1": {}}'])
def test_an_unreadable_result_of_cloud_init_is_an_error(result):
    assert read_facts(f"cloud-init-result={result}")["cloud-init-errors"]


def test_what_a_terminal_would_obey_is_taken_out():
    assert printable("a\x1b]0;b\x07\u202ec") == "a]0;bc"


def test_names_of_units_are_words_and_nothing_else_to_the_guests_shell():
    odd = "getty@tty1;reboot.service"
    line = next(line for line in look_around(Promise(user="u", units=(odd,))).splitlines() if line.startswith("for "))
    assert line == f"for unit in {shlex.quote(odd)}; do"
    assert "for unit in ; do" in look_around(Promise(user="u"))
