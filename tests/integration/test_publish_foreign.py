# SPDX-License-Identifier: Apache-2.0
"""A foreign image is believed in nothing that its descriptor says."""

from __future__ import annotations

import json

import pytest

from coppice.database import Database
from coppice.errors import InputError, SizeMismatchError, UnreadableFileError
from coppice.model.checksum import Checksum
from coppice.settings.load import load_settings
from coppice.testing import images
from coppice.workflows.add import add_descriptor

pytestmark = pytest.mark.integration


@pytest.fixture
def add(tmp_path):
    settings = load_settings(config=None, environ={"HOME": str(tmp_path)}, options={"state_directory": str(tmp_path)})
    database = Database(settings.database_url)
    content = images.raw_disk()
    (tmp_path / "disk.raw").write_bytes(content)

    def run(action="registration", **disk):
        described = {
            "path": "disk.raw",
            "format": "raw",
            "size_bytes": len(content),
            "virtual_size_bytes": len(content),
            "sha512": Checksum.of(content).hexdigest,
            **disk,
        }
        document = {
            "action": action,
            "identifier": "foreign",
            "version": "1.0",
            "title": "Foreign",
            "os": {"distribution": "Debian", "version": "12"},
            "created": "2026-11-20T00:00:00Z",
            "disks": [described],
        }
        path = tmp_path / "foreign.json"
        path.write_text(json.dumps(document))
        return add_descriptor(path, settings=settings, database=database)

    yield run
    database.close()


def test_a_true_descriptor_is_added_and_its_image_is_held(add, tmp_path):
    added = add()
    (tmp_path / "disk.raw").unlink()
    assert added.path.read_bytes() == images.raw_disk()


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ({"format": "qcow2"}, InputError),
        ({"virtual_size_bytes": 5}, InputError),
        ({"size_bytes": 5}, SizeMismatchError),
        ({"path": "absent.raw"}, UnreadableFileError),
        ({"action": "expiration"}, InputError),
    ],
)
def test_a_false_one_is_refused(add, lie, error):
    with pytest.raises(error):
        add(**lie)
