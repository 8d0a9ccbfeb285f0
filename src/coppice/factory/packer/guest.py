# SPDX-License-Identifier: Apache-2.0
"""What is done in the machine that becomes an appliance: steps, and the archive of what they need. Pure.

The steps themselves are shell scripts that lie beside this module and read what they are to do from one file of
settings. Every value in that file is quoted; none stands in a command that Packer writes.
"""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from coppice.definition.model import DefinedFile, DefinedUser, ProvisionerKind
from coppice.errors import BuildError, DefinitionError
from coppice.factory.packer.laid import laid_over
from coppice.factory.packer.systems import Family, system_of
from coppice.factory.provision.accounts import sudo_rules
from coppice.factory.provision.commands import command_of, package_of
from coppice.factory.provision.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coppice.definition.model import Definition, Provisioner
    from coppice.factory.packer.laid import Laid
    from coppice.factory.provision.plan import Plan

FOLDER = "/var/tmp/coppice-build"  # noqa: S108 - of the guest; root's alone, and gone in the end
FAILED = "appliance-failed: "
"""What a line begins with that says why a step failed."""
MAX_LOG_BYTES = 16 * 1024 * 1024
_SCRIPTS = ("begin.sh", "prepare.sh", "finish.sh", "farewell.sh")
_SOURCES = (
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.curtin.old",
    "/etc/apt/sources.list.d/ubuntu.sources",
)
"""Where installers write which mirror they were given; cloud-init writes the distribution's own there."""
_CONSOLE = ("console=tty0", "console=ttyS0,115200")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step in the guest.

    Attributes:
        title: For people.
        script: Name of its script in `FOLDER`; empty: Chef's, which Packer itself runs.
        provisioner: That it is of; None: of none.
    """

    title: str
    script: str = ""
    provisioner: Provisioner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestWork:
    """All that is done in the guest.

    Attributes:
        steps: In this order.
        archive: A tar archive with all that they need, to be unpacked in `FOLDER`.
    """

    steps: tuple[Step, ...]
    archive: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSetting:
    """In what machine the work is done.

    Attributes:
        login: Who logs in.
        was_installed: Whether an installer made its system just now, with all packages.
        is_from_mirror: Whether that took them from a site's own mirror, whose address is nobody else's affair.
        sources: Lines of ``sources.list`` of a site's own mirror; empty: the guest's own.
        keyring: Keys that sign what that mirror has; None: those that the guest has.
    """

    login: str
    was_installed: bool
    is_from_mirror: bool = False
    sources: tuple[str, ...] = ()
    keyring: bytes | None = None


def kernel_options(definition: Definition) -> tuple[str, ...]:
    """Return the options of the kernel of ``definition``, those of every builder first."""
    return (*_CONSOLE, *definition.boot.kernel_options)


def guest_work(definition: Definition, parent: Definition | None, setting: GuestSetting) -> GuestWork:
    """Return what is done for ``definition`` in a machine that has what ``parent`` says; None: packages alone.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: It asks for what cannot be done.
    """
    plan = plan_of(definition, parent)
    laid = laid_over(definition, private_mirror=bool(setting.sources) or setting.is_from_mirror)
    members = {name: _resource(name) for name in _SCRIPTS}
    members["settings.sh"] = _settings(definition, parent, plan, laid, setting).encode()
    members["overlay.tar"] = laid.archive()
    steps = [Step(title="preparing the machine", script="prepare.sh")]
    if plan.users or plan.files or plan.no_more_sudo:
        rules = sudo_rules(plan.users)
        members["files.tar"] = _files_archive((*rules, *plan.files))
        members["accounts.sh"] = _accounts(plan, rules).encode()
        steps.append(Step(title="making accounts and laying in files", script="accounts.sh"))
    for number, provisioner in enumerate(plan.provisioners):
        steps.append(_provisioner_step(number, provisioner, definition, members))
    steps.append(Step(title="finishing the appliance", script="finish.sh"))
    if setting.sources:
        members["sources.list"] = "".join(f"{line}\n" for line in setting.sources).encode()
    if setting.keyring is not None:
        members["mirror.gpg"] = setting.keyring
    return GuestWork(steps=tuple(steps), archive=_archive(members))


def plan_of(definition: Definition, parent: Definition | None) -> Plan:
    """Return what is to be done for ``definition``, Chef's provisioners among it.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: It takes away what its parent has.
    """
    plan = make_plan(_without_chef(definition), None if parent is None else _without_chef(parent))
    done = () if parent is None else tuple(each for each in parent.provisioners if each.kind is ProvisionerKind.CHEF)
    cooked = tuple(each for each in definition.provisioners if each.kind is ProvisionerKind.CHEF and each not in done)
    wanted = (*plan.provisioners, *cooked)
    return replace(plan, provisioners=tuple(each for each in definition.provisioners if each in wanted))


def _without_chef(definition: Definition) -> Definition:
    kept = tuple(each for each in definition.provisioners if each.kind is not ProvisionerKind.CHEF)
    return replace(definition, provisioners=kept)


def packages_of(definition: Definition, *, private_mirror: bool) -> tuple[str, ...]:
    """Return every package that ``definition`` needs.

    Raises:
        DefinitionError: A value in it cannot be what it says.
        BuildError: Its distribution cannot have what it asks for.
    """
    laid = laid_over(definition, private_mirror=private_mirror)
    return tuple(sorted({*definition.packages, *laid.packages}))


def _settings(definition: Definition, parent: Definition | None, plan: Plan, laid: Laid, setting: GuestSetting) -> str:
    family = system_of(definition).family
    packages = () if setting.was_installed else tuple(sorted({*definition.packages, *laid.packages}))
    borrowed, staying = _tools(definition, plan, family)
    sets_boot = not setting.was_installed and definition.boot != (parent.boot if parent is not None else None)
    values = {
        "family": family.value,
        "login": setting.login,
        "was_installed": _yes(setting.was_installed),
        "waits_for_cloud_init": _yes(not setting.was_installed),
        "packages": " ".join(packages),
        "borrowed": " ".join(borrowed),
        "staying": " ".join(staying),
        "own_accounts": " ".join(name for user in definition.users for name in (user.name, *user.groups)),
        "enabled": " ".join(plan.services.enabled),
        "disabled": " ".join(plan.services.disabled),
        "masked": " ".join(plan.services.masked),
        "released": " ".join(plan.released),
        "left_out": " ".join((*laid.left_out, *(_SOURCES if setting.is_from_mirror else ()))),
        "own_firewall": _yes(laid.has_own_firewall),
        "sets_boot": _yes(sets_boot and family is Family.DEBIAN),
        "menu_seconds": str(definition.boot.menu_seconds),
        "kernel_options": " ".join(kernel_options(definition)),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _tools(definition: Definition, plan: Plan, family: Family) -> tuple[tuple[str, ...], tuple[str, ...]]:
    tools: dict[bool, set[str]] = {True: set(), False: set()}
    for each in plan.provisioners:
        package = package_of(each.kind, definition.suite)
        if package is None or each.kind is ProvisionerKind.CHEF or package in definition.packages:
            continue
        if family is not Family.DEBIAN:
            raise BuildError(
                f"{definition.name}: what runs the provisioner {each.name} is borrowed on Debian and Ubuntu alone",
                resolution=f"Add {package} to build.packages: it stays installed.",
            )
        tools[each.stays].add(package)
    return tuple(sorted(tools[False])), tuple(sorted(tools[True]))


def _accounts(plan: Plan, rules: Iterable[DefinedFile]) -> str:
    lines = [f". {FOLDER}/begin.sh"]
    for user in plan.users:
        lines += _account(user)
    lines += [f"rm -f -- {shlex.quote(f'/etc/sudoers.d/90-coppice-{name}')}" for name in plan.no_more_sudo]
    for file in (*rules, *plan.files):
        for database, name in (("passwd", file.owner), ("group", file.group)):
            why = shlex.quote(f"the file {file.path} cannot belong to {name}, which is not there")
            lines.append(f"getent {database} {shlex.quote(name)} > /dev/null || fail {why}")
    words = "--extract --same-owner --preserve-permissions --overwrite --directory=/"
    return "\n".join([*lines, f"tar {words} --file={FOLDER}/files.tar"]) + "\n"


def _account(user: DefinedUser) -> list[str]:
    name, quote = shlex.quote(user.name), shlex.quote
    why = quote(f"the account {user.name} cannot have the shell {user.shell}, which is not there")
    lines = [f"test -x {quote(user.shell)} || fail {why}"]
    lines += [
        f"getent group {quote(group)} > /dev/null || groupadd --system -- {quote(group)}" for group in user.groups
    ]
    both = f"--shell {quote(user.shell)} --comment {quote(user.comment)}"
    groups = f" --groups {quote(','.join(user.groups))}" if user.groups else ""
    home = f" --home {quote(user.home)}" if user.home is not None else ""
    kind = "--system --no-create-home" if user.is_system else "--create-home"
    made = f"--home-dir {quote(user.home or f'/home/{user.name}')} {both}{groups} {kind}"
    return [
        *lines,
        f"if getent passwd {name} > /dev/null; then",
        f"  usermod {both}{home}{f' --append{groups}' if groups else ''} -- {name}",
        f"  usermod --lock -- {name}",
        f"elif getent group {name} > /dev/null; then",
        f"  useradd {made} --gid {name} -- {name}",
        "else",
        f"  useradd {made} --user-group -- {name}",
        "fi",
    ]


def _provisioner_step(number: int, provisioner: Provisioner, definition: Definition, members: dict[str, bytes]) -> Step:
    title = f"running the provisioner {provisioner.name} ({provisioner.kind})"
    if provisioner.kind is ProvisionerKind.CHEF:
        return Step(title=title, provisioner=provisioner)
    name = f"provision/{number:03d}-{provisioner.name}"
    folder = f"{FOLDER}/{name}"
    command = command_of(provisioner, definition, folder)
    for path, content in provisioner.files.items():
        members[f"{name}/{path}"] = content
    if command.variables_file is not None:
        members[f"{name}.json"] = command.variables_file
    what = f"the provisioner {provisioner.name}"
    ok = " | ".join(str(status) for status in command.ok)
    late = f"{what} did not end within {provisioner.timeout_seconds:.0f} s"
    lines = [
        f". {FOLDER}/begin.sh",
        *(f"export {key}={shlex.quote(value)}" for key, value in sorted(command.environment.items())),
        f"cd {shlex.quote(folder)}",
        "status=0",
        _run(command.words, provisioner.timeout_seconds),
        'status=$(cat "$here/status" 2> /dev/null || echo 141)',
        f'[ "$(wc -c < "$here/log")" -lt {MAX_LOG_BYTES} ] || fail '
        + shlex.quote(f"{what} said more than {MAX_LOG_BYTES // 1024 // 1024} MiB"),
        _judged(ok, what, late),
    ]
    if command.proof:
        proof, nothing = shlex.quote(f"^{command.proof}"), shlex.quote(f"{what} did nothing")
        lines.append(f'grep -Eq {proof} "$here/log" || fail {nothing}')
    lines.append('rm -f "$here/status" "$here/log"')
    script = f"provision/{number:03d}.sh"
    members[script] = ("\n".join(lines) + "\n").encode()
    return Step(title=title, script=script, provisioner=provisioner)


def _run(words: Sequence[str], seconds: float) -> str:
    what = f"setsid --wait timeout --kill-after=10 {seconds:.0f} {shlex.join(words)} < /dev/null || status=$?"
    return f'{{ {what}; echo "$status" > "$here/status"; }} 2>&1 | head -c {MAX_LOG_BYTES} | tee "$here/log"'


def _judged(ok: str, what: str, late: str) -> str:
    failed = f'fail {shlex.quote(what)}" ended with status $status"'
    return f'case "$status" in {ok}) ;; 124 | 137) fail {shlex.quote(late)} ;; *) {failed} ;; esac'


def chef_attributes(provisioner: Provisioner, definition: Definition) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return the run list and the attributes that Chef is given: those of its entry, and the variables.

    Raises:
        DefinitionError: Its entry is no such document.
    """
    try:
        said = json.loads(provisioner.files[provisioner.entry])
        run_list = said.pop("run_list")
        if not isinstance(run_list, list) or not run_list or not all(isinstance(each, str) for each in run_list):
            raise ValueError("run_list is no list of recipes and roles")  # noqa: TRY301 - told as the others are
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise DefinitionError(
            f"the entry of the provisioner {provisioner.name}, {provisioner.entry}, does not say what Chef runs",
            details=str(problem),
            resolution='Write it as JSON with attributes and a run_list: {"run_list": ["recipe[NAME]"]}.',
        ) from problem
    return tuple(run_list), {**said, **definition.variables, **provisioner.variables}


def _files_archive(laid_in: Iterable[DefinedFile]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(laid_in, key=lambda each: each.path):
            entry = tarfile.TarInfo(file.path.removeprefix("/"))
            entry.size, entry.mode = len(file.content), file.mode
            # The guest's own names count; the numbers are for nobody.
            entry.uname, entry.gname = file.owner, file.group
            tar.addfile(entry, io.BytesIO(file.content))
    return archive.getvalue()


def _archive(members: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            # Scripts call each other.
            entry.size, entry.mode = len(content), 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def _resource(name: str) -> bytes:
    return (files("coppice.factory.packer") / "guest" / name).read_bytes()


def _yes(value: bool) -> str:
    return "yes" if value else "no"
