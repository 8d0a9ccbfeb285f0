# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.errors import SettingsError
from coppice.execution.scheduler import check_address, connect
from coppice.settings.model import ClusterSettings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("address", ["tls://scheduler.example:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:8786"])
def test_an_address_with_tls_or_of_this_machine_is_used(address):
    assert check_address(ClusterSettings(scheduler=address)) == address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "not set"),
        ("tcp://scheduler.example:8786", "not one of TLS"),
        ("tcp://10.0.0.7:8786", "not one of TLS"),
        # A name says nothing: it may be made to mean another machine.
        ("tcp://localhost:8786", "not one of TLS"),
        ("scheduler.example:8786", "no address"),
        ("inproc://1/2/3", "no address"),
        ("tls://scheduler.example", "no address"),
        ("tls://scheduler.example:port", "no address"),
        ("tls://:8786", "no address"),
        ("tls://user@scheduler.example:8786", "no address"),
        ("tls://scheduler.example:8786/path", "no address"),
        ("tls://[::1:8786", "no address"),
    ],
)
def test_any_other_is_refused(address, said):
    with pytest.raises(SettingsError, match=said):
        check_address(ClusterSettings(scheduler=address))


def test_tls_needs_all_three_files_before_anything_is_asked(tmp_path):
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    settings = ClusterSettings(scheduler="tls://127.0.0.1:1", ca_file=authority)
    with (
        pytest.raises(SettingsError, match=r"cluster.certificate_file, cluster.key_file is not set"),
        connect(settings),
    ):
        pass


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "ca.pem"
    files = {"ca_file": path, "certificate_file": path, "key_file": path}
    with (
        pytest.raises(SettingsError, match=r"`cluster.ca_file` cannot be read"),
        connect(ClusterSettings(scheduler="tls://127.0.0.1:1", **files)),
    ):
        pass
