# SPDX-License-Identifier: Apache-2.0
"""What a command gives back, and the one JSON object that ``--json`` prints of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from coppice import __version__
from coppice.clock import to_rfc3339
from coppice.log import redact, redact_value
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from coppice.cli.output import Output
    from coppice.errors import CoppiceError


class Status(StrEnum):
    """How a command ended."""

    SUCCESS = "success"
    PARTIAL = "partial"
    """It ended; some of its items failed, each with an error of its own."""
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command gives back; `coppice.cli.main` prints it.

    Attributes:
        command: Its words (``subscription add``).
        data: For machines; dataclasses, paths, enums and datetimes are fine.
        status: How it ended.
        messages: For people, one sentence each: standard error, or ``messages`` in JSON.
        errors: What went wrong.
        show: Prints the data for people; None: there is nothing to print.
        exit_code: When it is not the status's own (0; 1 for partial; the first error's for error).
    """

    command: str
    data: object = None
    status: Status = Status.SUCCESS
    messages: tuple[str, ...] = ()
    errors: tuple[CoppiceError, ...] = ()
    show: Callable[[Output], None] | None = field(default=None, repr=False)
    exit_code: int | None = None

    def exit_status(self) -> int:
        """Return what the process exits with."""
        if self.exit_code is not None:
            return self.exit_code
        if self.status is Status.SUCCESS:
            return 0
        return 1 if self.status is Status.PARTIAL or not self.errors else self.errors[0].exit_code


def envelope(result: Result) -> str:
    """Return the JSON object of ``result``; its keys are fixed."""
    return json.dumps(
        {
            "command": result.command,
            "version": __version__,
            "status": str(result.status),
            "data": plain(result.data),
            "errors": [_error(error) for error in result.errors],
            "messages": [redact(message) for message in result.messages],
        },
        ensure_ascii=True,
        indent=2,
    )


def plain(value: object) -> object:
    """Return ``value`` as JSON knows it.

    Raises:
        TypeError: It has no JSON form.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, Path, Checksum)):
        return str(value)
    if isinstance(value, datetime):
        return to_rfc3339(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    message = f"no JSON form for {type(value).__name__}"
    raise TypeError(message)


def _error(error: CoppiceError) -> object:
    said = {
        key: value if key == "context" else redact(value) if isinstance(value, str) else value
        for key, value in error.as_dict().items()
    }
    said["context"] = redact_value("context", plain(error.context) if _is_plain(error.context) else {})
    return said


def _is_plain(context: object) -> bool:
    try:
        plain(context)
    except TypeError:
        return False
    return True
