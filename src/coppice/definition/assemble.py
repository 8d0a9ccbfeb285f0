# SPDX-License-Identifier: Apache-2.0
"""A `Definition` out of what the schema took, with the files that it names."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.definition.folder import FILE_LIMIT_BYTES, SCRIPT_LIMIT_BYTES, Sources
from coppice.definition.layers import origin_near
from coppice.definition.model import (
    Access,
    AuditException,
    Boot,
    Contextualisation,
    DefinedFile,
    DefinedUser,
    Definition,
    Firewall,
    GuestTest,
    Page,
    Provisioner,
    ProvisionerKind,
    RebuildPolicy,
    Services,
    Start,
)
from coppice.definition.problems import Problem
from coppice.definition.values import MIB, parse_open_port, parse_page
from coppice.model.identifiers import is_name
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.definition.layers import Node
    from coppice.definition.lines import KeyPath
    from coppice.definition.schema import DefinitionFile, RequirementsSection
    from coppice.definition.schema_items import ProvisionerSection


# `$${` stands for `${`.
_PLACE = re.compile(r"\$(?:(\$\{)|\{([^}\n]*)\})")


@dataclass(slots=True)
class Assembly:
    """Puts a definition together, and collects what is wrong with the files that it names.

    Attributes:
        document: What was said, with places: a source lies in the folder of the file that names it.
        problems: What was found wrong.
    """

    document: Node
    problems: list[Problem] = field(default_factory=list)
    _sources: Sources = field(default_factory=Sources)

    def definition(self, parsed: DefinitionFile, *, name: str, path: Path, variant: str) -> Definition:
        """Return the definition; it is whole only when there are no problems.

        Args:
            parsed: What the schema took.
            name: Its name.
            path: Its ``appliance.toml``.
            variant: Which variant it is; empty: none.
        """
        build = parsed.build
        return Definition(
            name=name,
            path=path,
            variant=variant,
            parent=parsed.parent,
            **_identity(parsed),
            builder=build.builder,
            packages=tuple(sorted(set(build.packages))),
            disk_size_bytes=build.disk_size,
            firmware=tuple(dict.fromkeys(build.firmware)),
            formats=tuple(dict.fromkeys(build.formats)),
            user=build.user,
            snapshot=build.snapshot or "",
            file_system=build.file_system,
            is_encrypted=build.encrypted,
            requirements=_requirements(parsed.requirements, build.disk_size),
            start=self._start(parsed),
            files=self._files(parsed),
            users=_users(parsed),
            contextualisation=self._contextualisation(parsed),
            provisioners=self._provisioners(parsed),
            tests=self._tests(parsed),
            pages=_pages(parsed),
            **_behaviour(parsed),
            rebuild=RebuildPolicy(**parsed.rebuild.model_dump()),
            variables=dict(sorted(parsed.variables.items())),
            platforms=dict(parsed.platforms),
            metadata=dict(parsed.metadata),
        )

    def _start(self, parsed: DefinitionFile) -> Start | None:
        said = parsed.start
        if said is None:
            return None
        named = {name: value or "" for name, value in said.model_dump(exclude={"key"}).items()}
        key = b"" if said.key is None else self._content(("start",), None, said.key, SCRIPT_LIMIT_BYTES, key="key")
        return Start(**named, key=key)

    def _files(self, parsed: DefinitionFile) -> tuple[DefinedFile, ...]:
        found = tuple(
            DefinedFile(
                path=each.path,
                content=self._content(("file", number), each.content, each.source, FILE_LIMIT_BYTES),
                mode=int(each.mode, 8),
                owner=each.owner,
                group=each.group,
                is_template=each.template,
            )
            for number, each in enumerate(parsed.files)
        )
        for number, file in enumerate(found):
            for name in _unknown_variables(file, parsed.variables) if file.is_template else ():
                near = difflib.get_close_matches(name, parsed.variables, n=1)
                known = f"did you mean {near[0]}?" if near else f"there are {', '.join(parsed.variables) or 'none'}"
                text = (
                    f"the template of {file.path} names the variable {name[:100]!r}, which [variables] lacks; {known}"
                )
                self._note(("file", number), text)
        return found

    def _tests(self, parsed: DefinitionFile) -> tuple[GuestTest, ...]:
        return tuple(
            GuestTest(
                name=each.name,
                script=self._content(("test", number), each.script, each.source, SCRIPT_LIMIT_BYTES),
                timeout_seconds=each.timeout,
            )
            for number, each in enumerate(parsed.tests)
        )

    def _contextualisation(self, parsed: DefinitionFile) -> Contextualisation:
        said = parsed.contextualisation
        user_data = None
        if said.user_data is not None or said.user_data_file is not None:
            location = ("contextualisation",)
            user_data = self._content(
                location, said.user_data, said.user_data_file, SCRIPT_LIMIT_BYTES, key="user-data-file"
            )
        return Contextualisation(
            sources=tuple(dict.fromkeys(said.sources)),
            user_data=user_data,
            guest_agent=said.guest_agent,
            automatic_updates=said.automatic_updates,
        )

    def _provisioners(self, parsed: DefinitionFile) -> tuple[Provisioner, ...]:
        found: list[Provisioner] = []
        for number, each in enumerate(parsed.provisioners):
            location: KeyPath = ("provisioner", number)
            try:
                files = self._sources.read_tree(self._folder((*location, "source")), each.source)
                found += _provisioners(each, files)
            except ValueError as problem:
                self._note((*location, "source"), str(problem))
        names = [each.name for each in found]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._note(("provisioner",), f"there are several provisioners {name!r}")
        return tuple(found)

    def _content(
        self, location: KeyPath, text: str | None, source: str | None, limit_bytes: int, *, key: str = "source"
    ) -> bytes:
        if source is None:
            return (text or "").encode()
        try:
            return self._sources.read_file(self._folder((*location, key)), source, limit_bytes)
        except ValueError as problem:
            self._note((*location, key), str(problem))
            return b""

    def _folder(self, location: KeyPath) -> Path:
        return Path(origin_near(self.document, location).source).parent

    def _note(self, location: KeyPath, text: str) -> None:
        self.problems.append(Problem(text, origin_near(self.document, location)))


def _identity(parsed: DefinitionFile) -> dict[str, Any]:
    appliance, system = parsed.appliance, parsed.operating_system
    return {
        "title": appliance.title,
        "description": appliance.description,
        "groups": tuple(dict.fromkeys(appliance.groups)),
        "vo": appliance.vo,
        "validity_days": appliance.validity_days,
        "identifier_template": appliance.identifier or "",
        "version_template": appliance.version or "",
        "operating_system": OperatingSystem(
            kind=system.kind,
            distribution=system.distribution,
            version=system.version,
            architecture=system.architecture.value,
        ),
        "suite": system.suite,
        "end_of_life": system.end_of_life,
    }


def _behaviour(parsed: DefinitionFile) -> dict[str, Any]:
    units, boot = parsed.services, parsed.boot
    return {
        "services": Services(
            enabled=tuple(dict.fromkeys(units.enabled)),
            disabled=tuple(dict.fromkeys(units.disabled)),
            masked=tuple(dict.fromkeys(units.masked)),
        ),
        "access": Access(**parsed.access.model_dump()),
        "firewall": Firewall(
            enabled=parsed.firewall.enabled,
            open_ports=tuple(dict.fromkeys(parse_open_port(each) for each in parsed.firewall.open)),
        ),
        "boot": Boot(**{**boot.model_dump(), "kernel_options": tuple(boot.kernel_options)}),
        "audit_exceptions": tuple(
            AuditException(check=each.check, path=each.path, reason=each.reason) for each in parsed.audit_exceptions
        ),
    }


def _unknown_variables(file: DefinedFile, variables: Mapping[str, str]) -> list[str]:
    named = _PLACE.findall(file.content.decode("utf-8", errors="replace"))
    return list(dict.fromkeys(name for escaped, name in named if not escaped and name not in variables))


def _pages(parsed: DefinitionFile) -> tuple[Page, ...]:
    found = []
    for each in parsed.pages:
        is_encrypted, port, path = parse_page(each.address)
        page = Page(name=each.name, port=port, path=path, is_encrypted=is_encrypted, status=each.status)
        found.append(replace(page, contains=each.contains or ""))
    return tuple(found)


def _users(parsed: DefinitionFile) -> tuple[DefinedUser, ...]:
    return tuple(
        DefinedUser(
            **{
                **each.model_dump(exclude={"system"}),
                "groups": tuple(dict.fromkeys(each.groups)),
                "is_system": each.system,
            }
        )
        for each in parsed.users
    )


def _provisioners(said: ProvisionerSection, files: dict[str, bytes]) -> list[Provisioner]:
    is_file = list(files) == [said.source.rpartition("/")[2]]
    entry = said.entry or (next(iter(files)) if is_file else None)
    if entry is None and said.kind is not ProvisionerKind.SHELL:
        message = f"{said.source!r} is a folder: say with entry what in it is run"
        raise ValueError(message)
    if entry is not None and entry not in files:
        message = f"entry: there is no {entry!r} in {said.source!r}; there is {', '.join(list(files)[:10])}"
        raise ValueError(message)
    parts = {said.name: (files, entry)} if entry is not None else _scripts(said.name, files)
    return [
        Provisioner(
            name=name,
            kind=said.kind,
            files=its_files,
            entry=its_entry,
            interpreter=tuple(said.interpreter),
            variables=dict(sorted(said.variables.items())),
            stays=said.stays,
            timeout_seconds=said.timeout,
        )
        for name, (its_files, its_entry) in parts.items()
    ]


def _scripts(name: str, files: dict[str, bytes]) -> dict[str, tuple[dict[str, bytes], str]]:
    parts = {}
    for file, content in files.items():
        full = f"{name}-{file.lower()}"
        if "/" in file or not is_name(full):
            message = (
                f"{file!r}: a folder of scripts without entry holds only files whose names are made of a-z 0-9 . _ -"
            )
            raise ValueError(message)
        parts[full] = ({file: content}, file)
    return parts


def _requirements(needs: RequirementsSection, disk_size_bytes: int) -> Requirements:
    return Requirements(
        minimum_cores=needs.minimum_cores,
        minimum_ram_mib=None if needs.minimum_ram is None else needs.minimum_ram // MIB,
        minimum_disk_bytes=disk_size_bytes if needs.minimum_disk is None else needs.minimum_disk,
        recommended_cores=needs.recommended_cores,
        recommended_ram_mib=None if needs.recommended_ram is None else needs.recommended_ram // MIB,
    )
