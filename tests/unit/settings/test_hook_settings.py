# SPDX-License-Identifier: Apache-2.0
"""A hook that cannot work is refused when the settings are read, with what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coppice.errors import SettingsError
from coppice.settings.load import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.settings.model import HookSettings

pytestmark = pytest.mark.unit
WEBHOOK = 'kind = "webhook"\nurl = "https://example.org/hook"\nsecret_env = "S"\n'


def load(path: Path, text: str) -> HookSettings:
    file = path / "coppice.toml"
    file.write_text(f'state_directory = "{path}"\n[hooks.h]\n{text}')
    return load_settings(config=file, environ={}, options={}, system_file=file).hooks["h"]


def test_each_kind_of_hook_is_read(tmp_path: Path) -> None:
    program = load(tmp_path, 'kind = "program"\ncommand = ["/usr/bin/x", "a b"]\ncompat = "vmcatcher"\n')
    assert (program.command, program.compat) == (("/usr/bin/x", "a b"), "vmcatcher")
    assert load(tmp_path, WEBHOOK).url == "https://example.org/hook"
    assert load(tmp_path, 'kind = "file"\npath = "lines"\nevents = ["ImageCached"]\n').path == tmp_path / "lines"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "program"\n', "a program needs 'command'"),
        ('kind = "program"\ncommand = ["a/b"]\n', "absolute path"),
        ('kind = "program"\ncommand = ["x"]\nurl = "https://x/"\n', "a program has no 'url': it is for a webhook"),
        ('kind = "webhook"\n', "a webhook needs 'url'"),
        ('kind = "webhook"\nurl = "https://x/"\n', "needs a secret"),
        (WEBHOOK + 'secret_file = "x"\n', "one of 'secret_file' and 'secret_env'"),
        (WEBHOOK.replace("https", "http"), "must begin with https://"),
        (WEBHOOK.replace("example.org", "user:geheim@example.org"), "carries a user name or a password"),
        (WEBHOOK.replace("https://example.org/hook", "https:///x"), "name a server"),
        (WEBHOOK.replace("https://example.org/hook", "https://[x/"), "is no address"),
        (WEBHOOK.replace('"S"', '"a b"'), "cannot name a variable"),
        (WEBHOOK + 'compat = "vmcatcher"\n', "a webhook has no 'compat': it is for a program"),
        ('kind = "file"\n', "a file needs 'path'"),
        ('kind = "file"\npath = "x"\ncommand = ["true"]\n', "a file has no 'command'"),
        ('kind = "file"\npath = "x"\nevents = ["ImageCachd"]\n', "did you mean 'ImageCached'?"),
        ('kind = "file"\npath = "x"\nevents = ["imagecached"]\n', "did you mean 'ImageCached'?"),
        ('kind = "file"\npath = "x"\nevents = ["zzz"]\n', "there are ApplianceBuilt"),
        (
            'kind = "program"\ncommand = ["x"]\ncompat = "vmcatcher"\nevents = ["ImageRemoved"]\n',
            "vmcatcher has no event like 'ImageRemoved'",
        ),
        ('kind = "program"\ncommand = ["x"]\noutput_limit_bytes = "1 GiB"\n', "is more than"),
        ('kind = "carrier pigeon"\n', "expected program or webhook or file"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert said in caught.value.message
    assert "geheim" not in caught.value.message
