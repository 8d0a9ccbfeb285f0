# SPDX-License-Identifier: Apache-2.0
"""What is run for a provisioner: its words, its environment, and what it needs installed. Pure.

Variables stand in the environment or in a file, never among the words: those are seen by everybody on the machine.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.definition.model import ProvisionerKind
from coppice.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.definition.model import Definition, Provisioner

PACKAGES = {ProvisionerKind.PUPPET: "puppet-agent", ProvisionerKind.ANSIBLE: "ansible-core"}
_OLDER_PACKAGES = {
    ("bullseye", ProvisionerKind.PUPPET): "puppet",
    ("bullseye", ProvisionerKind.ANSIBLE): "ansible-base",
    ("jammy", ProvisionerKind.PUPPET): "puppet",
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_SHEBANG = re.compile(rb"#![ \t]*(/[^ \t\n\0]+)(?:[ \t]+([^\n\0]*[^ \t\n\0]))?[ \t]*\n")
_OWN = frozenset(
    {
        "DEBIAN_FRONTEND",
        "HOME",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PATH",
        "PWD",
        "SOURCE_DATE_EPOCH",
        "SYSTEMD_OFFLINE",
        "TERM",
    }
)
# Puppet ends with 2 when it changed something.
_PUPPET_OK = (0, 2)
_ANSIBLE_ENVIRONMENT = {
    "ANSIBLE_HOME": "/tmp/ansible",  # noqa: S108 - of the cage, seen by nobody else
    "ANSIBLE_LOCAL_TEMP": "/tmp/ansible/local",  # noqa: S108 - likewise
    "ANSIBLE_REMOTE_TEMP": "/tmp/ansible/remote",  # noqa: S108 - likewise
    "ANSIBLE_LOCALHOST_WARNING": "0",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    "ANSIBLE_RETRY_FILES_ENABLED": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run for a provisioner.

    Attributes:
        words: Program and arguments.
        environment: Added to what every provisioner has.
        ok: Exit statuses that mean success.
        variables_file: What lies beside its folder, as ``<folder>.json``; None: nothing.
        proof: A pattern that a line of what it says must begin with when it ends well; empty: none must.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    ok: tuple[int, ...] = (0,)
    variables_file: bytes | None = None
    proof: str = ""


def package_of(kind: ProvisionerKind, suite: str) -> str | None:
    """Return the package of ``suite`` that runs provisioners of ``kind``; None: none is needed."""
    return _OLDER_PACKAGES.get((suite, kind), PACKAGES.get(kind))


def command_of(provisioner: Provisioner, definition: Definition, folder: str) -> Command:
    """Return what is run for ``provisioner``, whose files lie in ``folder`` of the tree.

    Raises:
        DefinitionError: Its script does not say what interprets it, or a variable has a name that cannot be one.
    """
    variables = {**definition.variables, **provisioner.variables}
    for name in variables:
        if not _NAME.fullmatch(name):
            raise DefinitionError(f"not the name of a variable for the provisioner {provisioner.name}: {name[:100]!r}")
    entry = f"{folder}/{provisioner.entry}"
    if provisioner.kind is ProvisionerKind.PUPPET:
        return _puppet(provisioner, entry, folder, variables)
    if provisioner.kind is ProvisionerKind.ANSIBLE:
        return _ansible(entry, folder, variables)
    return Command(
        words=(*_interpreter(provisioner), entry),
        environment=_named(provisioner, {name.replace("-", "_"): value for name, value in variables.items()}),
    )


def _interpreter(provisioner: Provisioner) -> tuple[str, ...]:
    stated = provisioner.interpreter
    if stated:
        if not stated[0].startswith("/"):
            raise DefinitionError(
                f"the interpreter of the provisioner {provisioner.name} is no whole path: {stated[0][:100]!r}",
                resolution='Write it like ["/bin/sh", "-eu"].',
            )
        return stated
    # Read here, not by the kernel: what is under /run may not be executable itself.
    found = _SHEBANG.match(provisioner.files[provisioner.entry])
    if found is None:
        raise DefinitionError(
            f"the script of the provisioner {provisioner.name} does not say what interprets it",
            resolution="Begin it with a line like #!/bin/sh, or set its interpreter.",
        )
    return tuple(part.decode("utf-8", errors="surrogateescape") for part in found.groups() if part)


def _puppet(provisioner: Provisioner, entry: str, folder: str, variables: Mapping[str, str]) -> Command:
    words = ["puppet", "apply", "--detailed-exitcodes", "--color=false", "--logdest=console", "--certname=appliance"]
    # What it keeps of its runs is not for the image.
    words += [f"--{name}dir=/run/puppet/{name}" for name in ("conf", "var", "run", "log")]
    words.append(f"--modulepath={folder}/modules")
    if "hiera.yaml" in provisioner.files:
        words.append(f"--hiera_config={folder}/hiera.yaml")
    facts = {f"FACTER_{name.replace('-', '_').lower()}": value for name, value in variables.items()}
    return Command(words=(*words, entry), environment=_named(provisioner, facts), ok=_PUPPET_OK)


def _ansible(entry: str, folder: str, variables: Mapping[str, str]) -> Command:
    words = ["ansible-playbook", "--connection=local", "--inventory=localhost,", f"--extra-vars=@{folder}.json", entry]
    values = {name.replace("-", "_"): value for name, value in variables.items()}
    return Command(
        words=tuple(words),
        environment={**_ANSIBLE_ENVIRONMENT, "ANSIBLE_ROLES_PATH": f"{folder}/roles"},
        variables_file=json.dumps(values, sort_keys=True).encode(),
        # It ends well, too, when its playbook is for other hosts and nothing was done.
        proof=r"localhost +: ok=[1-9]",
    )


def _named(provisioner: Provisioner, environment: dict[str, str]) -> dict[str, str]:
    taken = sorted(_OWN.intersection(environment))
    if taken:
        raise DefinitionError(
            f"the variable {taken[0]} of the provisioner {provisioner.name} is set by the builder",
            resolution="Choose another name.",
        )
    broken = sorted(name for name, value in environment.items() if "\0" in value)
    if broken:
        raise DefinitionError(f"the variable {broken[0]} of the provisioner {provisioner.name} has a null character")
    return environment
