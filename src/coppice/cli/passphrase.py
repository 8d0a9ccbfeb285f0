# SPDX-License-Identifier: Apache-2.0
"""Asking a person for a passphrase or PIN: on the terminal only, and what is typed is not shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from coppice.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable


def asker() -> Callable[[str], str] | None:
    """Return what asks a person for a secret, given its name; None where no person is at a terminal.

    The terminal itself is spoken to, so that neither ``--json`` nor a pipe sees question or answer.
    """
    return _ask if sys.stdin is not None and sys.stdin.isatty() else None


def _ask(what: str) -> str:
    from getpass import getpass

    try:
        return getpass(f"Type {what}: ")
    except EOFError as problem:
        raise CredentialError(f"{what} was asked for, and nothing was typed") from problem
