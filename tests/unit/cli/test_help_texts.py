# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import click
import pytest

from coppice.cli.main import root

pytestmark = pytest.mark.unit


def _commands(command, context):
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        yield from _commands(found, click.Context(found, info_name=name, parent=context))


COMMANDS = list(_commands(root, click.Context(root, info_name="coppice")))


@pytest.mark.parametrize("context", COMMANDS, ids=lambda each: each.command_path)
def test_help_has_examples_and_its_exit_codes_are_no_wider_than_the_rest(context):
    text = context.get_help()
    assert "Examples:" in text
    assert all(len(line) <= 80 for line in text.partition("Exit codes:")[2].splitlines()), text
