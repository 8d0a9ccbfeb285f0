# SPDX-License-Identifier: Apache-2.0
"""What a boot test looks at inside its guest, and what is wrong with it. The judging is pure."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from coppice.factory.boot_channel import MARK
from coppice.model.operating_system import Firmware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.factory.boot_model import Promise
    from coppice.factory.boot_sources import Source

_FACT_CHARACTERS = 500
_MACHINE_ID_DIGITS = 32
# File systems keep a few percent for themselves.
_GROWN = 0.85

# Each line that it writes is a fact: name=value.
_LOOK_AROUND = r"""
set -u
cloud-init status --wait >/dev/null 2>&1
echo "cloud-init-exit=$?"
timeout 300 systemctl is-system-running --wait >/dev/null 2>&1
echo "system-state=$(systemctl is-system-running)"
echo "cloud-init=$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')"
echo "cloud-init-result=$(tr -d '\n' < /run/cloud-init/result.json)"
echo "instance=$(cat /var/lib/cloud/data/instance-id)"
echo "handed-script=$(cat {mark} 2>/dev/null)"
# The mark is there although there was nothing to run; that what ran failed, cloud-init's errors say.
if [ -n "$(ls /var/lib/cloud/scripts/per-instance 2>/dev/null)" ]; then
  echo "own-script=$(if [ -e /var/lib/cloud/instance/sem/config_scripts_per_instance ]; then echo ran; fi)"
fi
if command -v sshd >/dev/null; then
  sshd -T 2>/dev/null | sed -n -E 's/^(passwordauthentication|kbdinteractiveauthentication|permitrootlogin) /sshd-\1=/p'
fi
echo "host-keys=$(ls /etc/ssh/ssh_host_*_key 2>/dev/null | wc -l)"
echo "host-keys-older-than-boot=$(find /etc/ssh -name 'ssh_host_*' ! -newer /proc/1 2>/dev/null | wc -l)"
echo "host-keys-digest=$(cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null | sha256sum | cut -c1-16)"
echo "machine-id=$(cat /etc/machine-id)"
echo "root-password=$(getent shadow root | cut -d: -f2 | cut -c1)"
echo "root-bytes=$(df --output=size -B1 / | tail -n 1 | tr -d ' ')"
echo "firmware=$(if [ -d /sys/firmware/efi ]; then echo uefi; else echo bios; fi)"
echo "secure-boot=$(od -An -t u1 -j 4 /sys/firmware/efi/efivars/SecureBoot-* 2>/dev/null | tr -d ' \n')"
echo "kernel=$(uname -r)"
echo "system=$(. /etc/os-release && echo "$PRETTY_NAME")"
echo "failed-units=$(systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ' | sed 's/ $//')"
for unit in {units}; do
  said=$(systemctl show --property=ActiveState,Type,Result,ConditionResult,ConditionTimestampMonotonic "$unit")
  echo "unit-$unit=$(echo "$said" | sort | tr '\n' ' ' | sed 's/ $//')"
done
"""


def look_around(promise: Promise) -> str:
    """Return the script that looks around in the guest once cloud-init has finished."""
    units = " ".join(shlex.quote(unit) for unit in promise.units)
    return _LOOK_AROUND.replace("{mark}", shlex.quote(MARK)).replace("{units}", units)


def read_facts(said: str) -> dict[str, str]:
    """Return the facts in what the guest said; cloud-init's own result is taken apart."""
    facts: dict[str, str] = {}
    told = ""
    for line in said.splitlines():
        name, separator, value = line.partition("=")
        if name == "cloud-init-result":
            told = value
        elif separator:
            facts[name] = printable(value)[:_FACT_CHARACTERS]
    try:
        result = json.loads(told)["v1"]
        facts["datasource"] = printable(str(result["datasource"]))[:_FACT_CHARACTERS]
        facts["cloud-init-errors"] = printable("; ".join(str(error) for error in result["errors"]))[:_FACT_CHARACTERS]
    except (ValueError, KeyError, TypeError, RecursionError):
        facts["cloud-init-errors"] = "its result could not be read"
    return facts


def judge(
    facts: dict[str, str], promise: Promise, *, firmware: Firmware, source: Source, instance: str, disk_bytes: int
) -> list[str]:
    """Return what is wrong with a machine at its first start, by the facts about it; empty: nothing."""
    wrong = [*_of_cloud_init(facts, promise, source=source, instance=instance), *_of_system(facts, promise, firmware)]
    if promise.access.ssh:
        wrong += _of_ssh(facts)
    root_bytes = int(facts["root-bytes"]) if facts.get("root-bytes", "").isdigit() else 0
    if root_bytes <= disk_bytes * _GROWN:
        wrong.append(f"the root file system did not grow: {root_bytes} of {disk_bytes} bytes")
    return wrong


def judge_restart(facts: dict[str, str], before: dict[str, str], promise: Promise, firmware: Firmware) -> list[str]:
    """Return what is wrong with a machine at its second start, by the facts then and at the first; empty: nothing."""
    wrong = [
        f"after a restart, {what} is another: {before.get(name)!r}, then {facts.get(name)!r}"
        for name, what in (
            ("machine-id", "its machine-id"),
            ("host-keys-digest", "its set of SSH host keys"),
            ("instance", "the instance that cloud-init sees"),
        )
        if facts.get(name) != before.get(name) or not facts.get(name)
    ]
    if before.get("powered-off") != "yes":
        wrong.append("it did not come to its end when it was told to restart")
    if facts.get("handed-script") != "":
        wrong.append("after a restart, what the cloud hands over for the first start ran again")
    return wrong + [
        f"after a restart, {complaint}" for complaint in (*_is_done(facts), *_of_system(facts, promise, firmware))
    ]


def printable(text: str) -> str:
    """Return ``text`` without what a terminal would obey: a guest's words are its own."""
    return "".join(character for character in text if character.isprintable())


def _is_done(facts: dict[str, str]) -> Iterator[str]:
    if facts.get("cloud-init") != "done":
        yield f"cloud-init says {facts.get('cloud-init', 'nothing')!r}, not 'done'"
    if facts.get("cloud-init-errors") != "":
        yield f"cloud-init had errors: {facts.get('cloud-init-errors')}"


def _of_cloud_init(facts: dict[str, str], promise: Promise, *, source: Source, instance: str) -> Iterator[str]:
    yield from _is_done(facts)
    if source not in facts.get("datasource", ""):
        yield f"cloud-init's data came from {facts.get('datasource')!r}, not from {source}"
    if facts.get("handed-script") != instance:
        yield "a script that the cloud hands over for the first start did not run"
    if promise.has_script and facts.get("own-script") != "ran":
        yield "its own script for the first start did not run"


def _of_ssh(facts: dict[str, str]) -> list[str]:
    wanted = (
        (facts.get("sshd-passwordauthentication") == "no", "sshd lets people in by password"),
        (facts.get("sshd-kbdinteractiveauthentication") == "no", "sshd lets people in by keyboard-interactive"),
        (
            facts.get("sshd-permitrootlogin") in {"no", "without-password", "prohibit-password"},
            "root may log in by SSH",
        ),
        (facts.get("ssh-methods") == "publickey", f"SSH offers {facts.get('ssh-methods')!r}, not publickey alone"),
        (facts.get("host-keys", "0").isdigit() and facts.get("host-keys", "0") != "0", "there are no SSH host keys"),
        (facts.get("host-keys-older-than-boot") == "0", "SSH host keys are older than the machine"),
    )
    return [complaint for good, complaint in wanted if not good]


def _of_system(facts: dict[str, str], promise: Promise, firmware: Firmware) -> Iterator[str]:
    if len(facts.get("machine-id", "")) != _MACHINE_ID_DIGITS:
        yield "there is no machine-id"
    if facts.get("root-password") not in {"*", "!"}:
        yield "root has a password"
    if facts.get("failed-units") != "":
        yield f"units failed while it started: {facts.get('failed-units')}"
    if facts.get("firmware") != firmware.value:
        yield f"it started by {facts.get('firmware')!r}"
    if promise.is_signed and firmware is Firmware.UEFI and facts.get("secure-boot") != "1":
        yield "secure boot was not on when it started"
    yield from _of_units(facts, promise)


def _of_units(facts: dict[str, str], promise: Promise) -> Iterator[str]:
    for unit in promise.units:
        words = dict(word.partition("=")[::2] for word in facts.get(f"unit-{unit}", "").split())
        state, ended_well = words.get("ActiveState", "unknown"), words.get("Result") == "success"
        # What nobody tried to start, and what does not exist, say of themselves that no condition held, and no more.
        was_tried = words.get("ConditionTimestampMonotonic", "0") != "0"
        # What runs once has ended; what has a condition may have had no work.
        has_ended = state == "inactive" and (words.get("Type") == "oneshot" or words.get("ConditionResult") == "no")
        if state != "active" and not (has_ended and ended_well and was_tried):
            yield f"{unit} is {state}"
