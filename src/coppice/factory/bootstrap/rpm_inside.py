# SPDX-License-Identifier: Apache-2.0
"""What installs packages into a tree of the RPM family, inside of the tree's own namespaces.

It is the command of an `Order`: ``python -m coppice.factory.bootstrap.rpm_inside PLAN TREE``. The packages come by dnf
of this machine, their scripts run in the tree. What makes the tree start comes last, by the tree's own programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from coppice.atomic import partial_path
from coppice.errors import CoppiceError, ToolFailedError
from coppice.factory.bootstrap.rpm_repositories import CACHE, STATE
from coppice.factory.lock import locked
from coppice.model.version import Version
from coppice.process import run

PLAN_VARIABLE = "COPPICE_DNF_PLAN"
_MACROS = Path("/usr/lib/rpm/macros.d")
_SECONDS = 7 * 24 * 3600.0
_MOUNT_SECONDS = 60.0
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_LINKS = {"vmlinuz": "vmlinuz-", "initrd.img": "initramfs-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmPlan:
    """What is to be installed, and what is done afterwards.

    Attributes:
        configuration: What dnf reads.
        macros: A directory with what RPM reads.
        keys: The keys of which one must have signed each package.
        version: What stands for ``$releasever``.
        packages: To be installed.
        is_base: Whether the tree is empty yet.
        provision: A program that does the rest; the tree is its last argument; none: there is nothing to do.
        core_images: Pairs of (path of a core image in the tree, words that make it).
        kept: A directory where packages are kept for other builds; None: they are not.
        facts: Where the digests of the repositories' indices are written, as JSON.
        is_mapped: Whether users in here are those of a namespace.
    """

    configuration: str
    macros: str
    keys: str
    version: str
    packages: tuple[str, ...]
    is_base: bool
    provision: tuple[str, ...]
    core_images: tuple[tuple[str, tuple[str, ...]], ...]
    kept: str | None
    facts: str
    is_mapped: bool

    def document(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


def read_plan(path: Path) -> RpmPlan:
    """Return the plan at ``path``."""
    said = json.loads(path.read_text(encoding="utf-8"))
    said |= {name: tuple(said[name]) for name in ("packages", "provision")}
    said["core_images"] = tuple((core, tuple(words)) for core, words in said["core_images"])
    return RpmPlan(**said)


def dnf_words(plan: RpmPlan, root: Path) -> tuple[str | Path, ...]:
    """Return dnf with all that it is told, but for what it is to do."""
    nothing = _nothing(plan)
    return (
        "dnf",
        "--assumeyes",
        f"--config={plan.configuration}",
        f"--installroot={root}",
        f"--releasever={plan.version}",
        f"--setopt=reposdir={nothing}",
        f"--setopt=varsdir={nothing}",
    )


def _nothing(plan: RpmPlan) -> Path:
    return Path(plan.macros).parent / "nothing"


def main(plan_path: Path, root: Path) -> int:
    """Carry out the plan; what the programs say goes to standard output as it comes."""
    plan = read_plan(plan_path)
    # What the user who builds has told RPM and dnf is not for the tree.
    os.environ["HOME"] = str(_nothing(plan))
    try:
        _prepare(plan, root)
        _install(plan, root)
        if plan.provision:
            environment = {PLAN_VARIABLE: str(plan_path)}
            run([*plan.provision, root], timeout_seconds=_SECONDS, env=environment, on_output=_say)
        _make_startable(plan, root)
        _finish(plan, root)
    except ToolFailedError:
        # It has been said why.
        return 1
    except CoppiceError as problem:
        _say(f"E: {problem.message}\n")
        return 1
    return 0


def _prepare(plan: RpmPlan, root: Path) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp", CACHE.lstrip("/")):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("dev", "run", "sys", "tmp"):
        mode = "1777" if name == "tmp" else "0755"
        _mount(["-t", "tmpfs", "-o", f"mode={mode}", "coppice", root / name])
    _show_kept(plan, root)
    _mount(["-t", "proc", "proc", root / "proc"])
    for device in _DEVICES:
        (root / "dev" / device).touch()
        _mount(["--bind", Path("/dev") / device, root / "dev" / device])
    _mount(["--bind", plan.macros, _MACROS])


def _install(plan: RpmPlan, root: Path) -> None:
    if plan.is_base:
        run(["rpmkeys", f"--root={root}", "--import", plan.keys], timeout_seconds=_SECONDS, on_output=_say)
    words = dnf_words(plan, root)
    # Kernel packages leave making their initial file system to whoever installs them.
    environment = {"KERNEL_INSTALL_BYPASS": "1", "LANG": "C.UTF-8"}
    if not plan.is_base:
        run([*words, "upgrade"], timeout_seconds=_SECONDS, env=environment, on_output=_say)
    if plan.packages:
        run([*words, "install", *plan.packages], timeout_seconds=_SECONDS, env=environment, on_output=_say)


def _show_kept(plan: RpmPlan, root: Path) -> None:
    """Show what is kept where dnf looks, which checks it as what it fetches; what it writes lands beside it."""
    space = root.parent
    new, work, kept = (space / f"rpm.{name}" for name in ("new", "work", "kept"))
    for directory in (new, work, kept):
        directory.mkdir()
    if plan.kept is not None:
        Path(plan.kept).mkdir(parents=True, exist_ok=True)
        # Bound to a place below, so that no character of its own name has a meaning to mount.
        _mount(["--bind", Path(plan.kept), kept])
    options = f"lowerdir={kept.name},upperdir={new.name},workdir={work.name}"
    options += ",userxattr" if plan.is_mapped else ",redirect_dir=off,metacopy=off,index=off"
    _mount(["-t", "overlay", "-o", options, "coppice", root / CACHE.lstrip("/")], space)


def _keep(kept: Path, new: Path) -> None:
    """Bring packages that are new into what is kept, each in one step."""
    with locked(kept.parent / f"{kept.name}.lock"):
        for package in sorted(new.glob("*/packages/*.rpm")):
            place = kept / package.relative_to(new)
            if package.is_file() and not package.is_symlink() and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                temporary = partial_path(place)
                shutil.copyfile(package, temporary)
                temporary.replace(place)


def _make_startable(plan: RpmPlan, root: Path) -> None:
    boot, modules = root / "boot", root / "usr/lib/modules"
    boot.mkdir(exist_ok=True)
    for kernel in sorted(modules.glob("*/vmlinuz")):
        version = kernel.parent.name
        if not (boot / f"vmlinuz-{version}").exists():
            shutil.copy2(kernel, boot / f"vmlinuz-{version}")
        initial = f"/boot/initramfs-{version}.img"
        if not (root / initial.lstrip("/")).exists():
            words = ("dracut", "--no-hostonly", "--reproducible", "--kver", version, initial)
            run(["chroot", root, *words], timeout_seconds=_SECONDS, on_output=_say)
    newest = _newest(boot)
    if newest is None:
        _say("E: no package brought a kernel\n")
        raise ToolFailedError("there is no kernel in the tree")
    for link, stem in _LINKS.items():
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(f"boot/{stem}{newest}{'.img' if stem == 'initramfs-' else ''}")
    for core, core_words in plan.core_images:
        (root / core.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        run(["chroot", root, *core_words], timeout_seconds=_SECONDS, on_output=_say)


def _newest(boot: Path) -> str | None:
    found = [path.name.removeprefix("vmlinuz-") for path in boot.glob("vmlinuz-*")]
    return max((version for version in found if "rescue" not in version), key=Version, default=None)


def _finish(plan: RpmPlan, root: Path) -> None:
    indices = {
        path.parents[1].name.rpartition("-")[0]: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / CACHE.lstrip("/")).glob("*/repodata/repomd.xml"))
    }
    Path(plan.facts).write_text(json.dumps(indices) + "\n", encoding="utf-8")
    if plan.kept is not None:
        _keep(Path(plan.kept), root.parent / "rpm.new")
    for name in (*(f"dev/{device}" for device in _DEVICES), "dev", "proc", "run", "sys", "tmp", CACHE.lstrip("/")):
        run(["umount", "--no-mtab", "--lazy", root / name], timeout_seconds=_MOUNT_SECONDS)
    # dnf's own notes of what it did and when are of this run, not of the appliance.
    left: list[Path] = [root / CACHE.lstrip("/"), *(root / STATE.lstrip("/")).glob("history.sqlite*")]
    left += [*(root / "var/log").glob("dnf*.log"), *(root / "var/log").glob("hawkey.log")]
    left += [*root.glob("var/lib/rpm/.rpm.lock"), *root.glob("usr/lib/sysimage/rpm/.rpm.lock")]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _mount(words: list[str | Path], directory: Path | None = None) -> None:
    run(["mount", "--no-mtab", *words], timeout_seconds=_MOUNT_SECONDS, cwd=directory, on_output=_say)


def _say(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
