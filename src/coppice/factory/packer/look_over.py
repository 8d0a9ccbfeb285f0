# SPDX-License-Identifier: Apache-2.0
"""Have other programs look at what the builder ``packer`` would be run with, without building anything."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, DefinitionError, ToolFailedError
from coppice.factory.model import BuildOptions
from coppice.factory.packer.options import Installer, OpenStackOptions
from coppice.factory.packer.prepared import lay_out
from coppice.factory.packer.runner import PROGRAM, PackerRun
from coppice.factory.packer.supported import check_rendered
from coppice.factory.packer.systems import installer_of
from coppice.factory.packer.template import Start
from coppice.factory.workplace import workplace
from coppice.process import run, search_path

if TYPE_CHECKING:
    from coppice.definition.model import Definition

_SECONDS = 120.0
_START_BYTES = 64 * 1024 * 1024
_FIRST_FEDORA = 20
_NO_CHECKSUM = f"sha256:{'0' * 64}"
_VALIDATORS = {
    Installer.PRESEED: ("debconf-set-selections", "preseed.cfg"),
    Installer.KICKSTART: ("ksvalidator", "ks.cfg"),
    Installer.AUTOINSTALL: ("cloud-init", "user-data"),
}


def look_over(definition: Definition) -> tuple[str, ...]:
    """Have the programs that are installed here look at what ``definition`` becomes; return their names.

    The template for OpenStack is looked at by logging in to the cloud that it names.

    Raises:
        DefinitionError: One of them does not take it; the details say why.
        BuildError: It asks for what the builder does not do.
        StorageError: The disk failed.
    """
    said = check_rendered(definition)
    asked: list[str] = []
    with workplace() as work:
        work.chmod(0o700)
        start: Start | None = None
        if not isinstance(said, OpenStackOptions):
            address, checksum = said.iso_url, said.iso_checksum
            place = address or str(_empty_disk(work))
            start = Start(address=place, checksum=checksum or _NO_CHECKSUM, is_disk=address is None)
        laid = lay_out(definition, said, start=start, options=BuildOptions(), work=work, is_run=False)
        if start is not None and not start.is_disk and not isinstance(said, OpenStackOptions):
            asked += _answers(definition, installer_of(definition, said.installer), work / "served")
        if shutil.which(PROGRAM, path=search_path()) is not None:
            packer = PackerRun(
                template=laid.template,
                variables=laid.variables,
                work=work,
                cache=work,
                serial_log=laid.serial_log,
                provisioners=(),
            )
            try:
                packer.validate()
            except BuildError as problem:
                raise _refused(definition, PROGRAM, problem.details) from problem
            asked.append(PROGRAM)
    return tuple(asked)


def _empty_disk(work: Path) -> Path:
    # Nothing is started from it.
    disk = work / "start.img"
    with storage_errors("making", disk), disk.open("wb") as stream:
        stream.truncate(_START_BYTES)
    return disk


def _answers(definition: Definition, installer: Installer, served: Path) -> list[str]:
    name, file = _VALIDATORS.get(installer, ("", ""))
    program = _find(name) if name else None
    if program is None:
        return []
    options = {
        "debconf-set-selections": ["-c"],
        "ksvalidator": ["-v", _release(definition)],
        "cloud-init": ["schema", "--config-file"],
    }
    try:
        run([program, *options[name], served / file], timeout_seconds=_SECONDS)
    except ToolFailedError as problem:
        raise _refused(definition, name, problem.details) from problem
    return [name]


def _find(name: str) -> str | None:
    # Those that are written in Python may lie beside it.
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name, path=search_path())


def _release(definition: Definition) -> str:
    major = definition.operating_system.version.partition(".")[0]
    is_fedora = major.isdigit() and int(major) >= _FIRST_FEDORA
    return f"F{major}" if is_fedora else f"RHEL{major}"


def _refused(definition: Definition, program: str, details: str | None) -> DefinitionError:
    return DefinitionError(
        f"{definition.path}: {program} does not take what it becomes",
        details=details,
        resolution="Correct what its words point to.",
        context={"path": str(definition.path), "tool": program},
    )
