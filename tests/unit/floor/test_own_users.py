# SPDX-License-Identifier: Apache-2.0
"""A command in a user namespace of its own; the kernel is a stand-in."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

from coppice.process import own_users

pytestmark = pytest.mark.unit


class Library:
    def unshare(self, flags):
        return 0

    def prctl(self, option, number):
        return 0


class LeftError(Exception):
    """The process ended, or became another program."""


@pytest.mark.parametrize(("parents", "becomes"), [((7, 7), "the program"), ((7, 1), "nothing")])
def test_a_command_whose_parent_ended_meanwhile_is_not_begun(monkeypatch, parents, becomes):
    def ended(status):
        raise LeftError(f"nothing, {status}")

    def became(program, words):
        raise LeftError(f"the program {program} {words}")

    left = list(parents)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    monkeypatch.setattr(os, "fork", lambda: 99)
    monkeypatch.setattr(os, "waitpid", lambda pid, _: (pid, 0))
    monkeypatch.setattr(os, "getppid", lambda: left.pop(0))
    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(os, "execvp", became)
    monkeypatch.setattr(sys, "argv", ["own_users", "true"])
    with pytest.raises(LeftError, match=becomes):
        own_users.main()
