# SPDX-License-Identifier: Apache-2.0
"""Load the settings: defaults < files < ``COPPICE_*`` variables < options; every value with its origin.

Whatever is not known or not of its type is refused, all problems at once: a misspelt setting must never look like an
obeyed one.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from coppice.errors import SettingsError, UnreadableFileError
from coppice.formats.limits import ListLimits
from coppice.settings.clouds import CloudSettings, ImageSettings, VoSettings
from coppice.settings.driver_sections import CloudSection, ImageSection, PublisherSection, VoSection
from coppice.settings.model import (
    CacheSettings,
    ClusterSettings,
    ConversionSettings,
    EventsSettings,
    FactorySettings,
    HookSettings,
    PlanSettings,
    PublisherSettings,
    PublishingSettings,
    ServiceSettings,
    Settings,
    SubscriptionsSettings,
    TransferSettings,
)
from coppice.settings.places import SYSTEM_FILE, default_state_directory, home_directory, settings_files
from coppice.settings.quantities import shown
from coppice.settings.schema import ClusterSection, HookSection, ServiceSection, SettingsFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

MAX_FILE_BYTES = 1024 * 1024
PREFIX = "COPPICE_"
ENVIRONMENT = "environment"
OPTION = "option"
DEFAULT = "default"
_NAMED: dict[str, type[BaseModel]] = {"clouds": CloudSection, "hooks": HookSection, "publishers": PublisherSection}

_WITHIN: dict[tuple[str, str], type[BaseModel]] = {("clouds", "vos"): VoSection, ("clouds", "images"): ImageSection}

KeyPath = tuple[str, ...]


def load_settings(
    *,
    config: Path | None,
    environ: Mapping[str, str],
    options: Mapping[str, object],
    system_file: Path = SYSTEM_FILE,
) -> Settings:
    """Return the settings of this run.

    Args:
        config: The file named with ``--config``; it must exist.
        environ: The environment; ``COPPICE_PLAN__GRACE_DAYS`` sets ``plan.grace_days``.
        options: Values by dotted key, from the command line; None counts as not given.
        system_file: The file for the whole machine.

    Raises:
        SettingsError: A key is unknown, a value is of the wrong type or missing; all of them are named.
        UnreadableFileError: A settings file is there and cannot be read.
    """
    merged: dict[str, Any] = {}
    origins: dict[KeyPath, str] = {}
    for path in settings_files(environ, config, system_file):
        document = _read(path, must_exist=path == config)
        if document is not None:
            _merge(merged, document, origins, str(path))
    _merge(merged, _from_environment(environ), origins, ENVIRONMENT)
    for key, value in options.items():
        if value is not None:
            _merge(merged, _nested(tuple(key.split(".")), value), origins, OPTION)
    try:
        parsed = SettingsFile.model_validate(merged)
    except ValidationError as problem:
        raise _refusal([_describe(error, origins) for error in problem.errors(include_url=False)]) from None
    return _settings(parsed, origins, environ)


def _read(path: Path, *, must_exist: bool) -> dict[str, Any] | None:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UnreadableFileError(f"the settings file {path} is not a file", context={"path": str(path)})
            content = stream.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as problem:
        if not must_exist:
            return None
        raise UnreadableFileError(
            f"there is no settings file {path}",
            resolution="`--config` takes a file that exists; `coppice config path` shows which files are read.",
            context={"path": str(path)},
        ) from problem
    except OSError as problem:
        raise UnreadableFileError(
            f"cannot read the settings file {path}: {problem.strerror}",
            resolution="Give this user the right to read it. It is not skipped, because it may forbid something.",
            context={"path": str(path)},
        ) from problem
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"the settings file {path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise SettingsError(
            f"the settings file {path} is not TOML: {problem}",
            resolution="Correct the file, then run again.",
            context={"path": str(path)},
        ) from problem


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            path = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            _merge(document, _nested(path, environ[variable]), {}, ENVIRONMENT)
    return document


def _nested(path: KeyPath, value: object) -> dict[str, Any]:
    document: Any = str(value) if isinstance(value, Path) else value
    for part in reversed(path):
        document = {part: document}
    return dict(document)


def _merge(
    into: dict[str, Any], document: Mapping[str, Any], origins: dict[KeyPath, str], origin: str, at: KeyPath = ()
) -> None:
    for key, value in document.items():
        path = (*at, key)
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
                origins.pop(path, None)
            if not value:
                origins[path] = origin
            _merge(into[key], value, origins, origin, path)
        else:
            for old in [known for known in origins if known[: len(path)] == path]:
                del origins[old]
            into[key] = value
            origins[path] = origin


def _refusal(problems: list[str]) -> SettingsError:
    one = len(problems) == 1
    return SettingsError(
        f"the settings are wrong: {problems[0]}" if one else f"the settings have {len(problems)} problems",
        details=None if one else "\n".join(problems),
        resolution="Correct them, then run again; nothing was done. `coppice config path` shows which files are read.",
        context={"problems": problems},
    )


def _describe(error: ErrorDetails, origins: Mapping[KeyPath, str]) -> str:
    path = tuple(str(part) for part in error["loc"])
    dotted = ".".join(path)
    where = _where(path, origins)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown setting {dotted!r}{_suggestion(path)}"
    if error["type"] == "missing":
        declared = _section(path[:-1])
        field = declared.model_fields.get(path[-1]) if declared else None
        return f"{where}: {dotted!r} is missing: {field.description if field else ''}".rstrip(": ")
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return f"{where}: {dotted}: expected a table [{dotted}], found {shown(error['input'])}"
    return f"{where}: {dotted}: {error['msg'].removeprefix('Value error, ')}"


def _where(path: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    # A missing key has no origin: that of its neighbours tells which file to open.
    for depth in range(len(path), 0, -1):
        for known, origin in origins.items():
            if known[:depth] == path[:depth]:
                return f"variable {PREFIX}{'__'.join(known).upper()}" if origin == ENVIRONMENT else origin
    return DEFAULT


def _section(path: KeyPath) -> type[BaseModel] | None:
    if not path:
        return SettingsFile
    if path[0] in _NAMED:
        if len(path) == 4:  # noqa: PLR2004 - clouds.NAME.vos.VO
            return _WITHIN.get((path[0], path[2]))
        return _NAMED[path[0]] if len(path) == 2 else None  # noqa: PLR2004 - clouds.NAME
    field = SettingsFile.model_fields.get(path[0])
    kind = field.annotation if field and len(path) == 1 else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def known_keys() -> Iterator[KeyPath]:
    """Yield the path of every declared setting; the name of a cloud, hook or publisher stands as ``NAME``."""
    for name, field in SettingsFile.model_fields.items():
        if name in _NAMED:
            yield from ((name, "NAME", key) for key in _NAMED[name].model_fields)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, key) for key in field.annotation.model_fields)
        else:
            yield (name,)


def _suggestion(path: KeyPath) -> str:
    section = _section(path[:-1])
    here = list(section.model_fields) if section else []
    prefix = "".join(f"{part}." for part in path[:-1])
    near = difflib.get_close_matches(path[-1], here, n=1)
    if near:
        return f"; did you mean {prefix + near[0]!r}?"
    everywhere = [".".join(key) for key in known_keys()]
    same_name = [key for key in everywhere if key.rpartition(".")[2] == path[-1]]
    closest = same_name or difflib.get_close_matches(".".join(path), everywhere, n=1, cutoff=0.5)
    if closest:
        return f"; did you mean {closest[0]!r}?"
    return f"; known here: {', '.join(here)}" if here else ""


def _settings(parsed: SettingsFile, origins: Mapping[KeyPath, str], environ: Mapping[str, str]) -> Settings:
    said = {".".join(path): origin for path, origin in origins.items()}
    flat = {".".join(path): DEFAULT for path in known_keys() if path[0] not in _NAMED}
    state = _path(parsed.state_directory, said.get("state_directory"), environ) or default_state_directory(environ)
    _keep_password_out(parsed.database_url, said)
    return Settings(
        state_directory=state,
        database_url=parsed.database_url or f"sqlite:///{state / 'coppice.sqlite'}",
        definitions_directory=_path(parsed.definitions_directory, said.get("definitions_directory"), environ),
        factory=FactorySettings(**parsed.factory.model_dump()),
        transfer=TransferSettings(**parsed.transfer.model_dump()),
        lists=ListLimits(
            size_bytes=parsed.transfer.list_size_limit_bytes,
            images=parsed.lists.maximum_images,
            depth=parsed.lists.maximum_depth,
            text_bytes=parsed.lists.maximum_text_bytes,
            title_bytes=parsed.lists.maximum_title_bytes,
        ),
        subscriptions=SubscriptionsSettings(**parsed.subscriptions.model_dump()),
        publishing=PublishingSettings(**parsed.publishing.model_dump()),
        cache=CacheSettings(**parsed.cache.model_dump()),
        events=EventsSettings(**parsed.events.model_dump()),
        hooks=MappingProxyType({name: _hook(name, each, said, environ) for name, each in sorted(parsed.hooks.items())}),
        conversion=ConversionSettings(**parsed.conversion.model_dump()),
        plan=PlanSettings(**parsed.plan.model_dump()),
        publishers=MappingProxyType(
            {
                name: PublisherSettings(name=name, driver=each.driver, options=MappingProxyType(each.model_extra or {}))
                for name, each in sorted(parsed.publishers.items())
            }
        ),
        clouds=MappingProxyType({name: _cloud(name, each) for name, each in sorted(parsed.clouds.items())}),
        service=_service(parsed.service),
        cluster=_cluster(parsed.cluster, said, environ),
        origins=MappingProxyType({**flat, **said}),
    )


def _cloud(name: str, section: CloudSection) -> CloudSettings:
    said = section.model_dump(exclude={*(section.model_extra or {}), "vos", "images"})
    return CloudSettings(
        name=name,
        options=MappingProxyType(section.model_extra or {}),
        vos=MappingProxyType({vo: VoSettings(**each.model_dump()) for vo, each in section.vos.items()}),
        images=MappingProxyType({image: ImageSettings(**each.model_dump()) for image, each in section.images.items()}),
        **said,
    )


def _service(section: ServiceSection) -> ServiceSettings:
    said = section.model_dump()
    return ServiceSettings(**{**said, "listen": None if said["listen"] == "none" else said["listen"]})


def _cluster(section: ClusterSection, said: Mapping[str, str], environ: Mapping[str, str]) -> ClusterSettings:
    values = section.model_dump()
    for key in ("ca_file", "certificate_file", "key_file"):
        values[key] = _path(values[key], said.get(f"cluster.{key}"), environ)
    return ClusterSettings(**values)


def _hook(name: str, section: HookSection, said: Mapping[str, str], environ: Mapping[str, str]) -> HookSettings:
    values = section.model_dump()
    for key in ("secret_file", "server_anchors", "path"):
        values[key] = _path(values[key], said.get(f"hooks.{name}.{key}"), environ)
    return HookSettings(name=name, **values)


def _path(text: str | None, origin: str | None, environ: Mapping[str, str]) -> Path | None:
    if text is None:
        return None
    home = home_directory(environ)
    if text == "~" or text.startswith("~/"):
        if home is None:
            raise SettingsError(f"{text!r} starts at a home directory, and this user has none")
        return home / text[2:]
    # What a file says does not depend on where the command is called: a relative path starts at the file.
    base = Path.cwd() if origin in {ENVIRONMENT, OPTION, None} else Path(str(origin)).absolute().parent
    return Path(os.path.normpath(base / text))


def _keep_password_out(url: str | None, origins: Mapping[str, str]) -> None:
    authority = (url or "").partition("://")[2].partition("/")[0]
    userinfo, at, _ = authority.rpartition("@")
    if at and ":" in userinfo:
        raise SettingsError(
            f"{origins.get('database_url', DEFAULT)}: database_url carries a password",
            resolution="Write the URL without it, and name a file that only Coppice can read: "
            "postgresql+psycopg://user@host/coppice?passfile=/etc/coppice/pgpass",
        )
