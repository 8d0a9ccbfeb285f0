# SPDX-License-Identifier: Apache-2.0
"""The password of OpenNebula's user goes to a front-end that was verified, and to no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.cloud.opennebula.failures import Failures
from coppice.cloud.opennebula.options import FrontEndSettings
from coppice.cloud.opennebula.wire import connect
from coppice.errors import CloudError, CloudUnreachableError
from coppice.settings.driver_options import Secret
from coppice.testing.authority import Authority
from coppice.testing.server import LoopbackServer
from coppice.testing.tls import server_tls

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def authority() -> Authority:
    return Authority.create("Site CA")


def ask(server: LoopbackServer, tmp_path: Path, authority: Authority | None, host: str = "127.0.0.1") -> None:
    secret = tmp_path / "one_auth"
    secret.write_text("coppice:secret")
    secret.chmod(0o600)
    bundle = None
    if authority is not None:
        bundle = tmp_path / "authorities.pem"
        bundle.write_bytes(authority.identity.certificate.public_bytes(Encoding.PEM))
    endpoint = server.url("RPC2", host)
    settings = FrontEndSettings(endpoint=endpoint, secret=Secret(file=secret), authorities=bundle)
    connect(settings, Failures("one", endpoint)).system.version()


def test_a_front_end_that_nobody_vouches_for_is_told_nothing(tmp_path: Path, authority: Authority):
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        with pytest.raises(CloudUnreachableError, match="TLS failed"):
            ask(server, tmp_path, None)
        assert not server.requests


def test_a_front_end_with_another_ones_certificate_is_told_nothing(tmp_path: Path, authority: Authority):
    with LoopbackServer(tls=server_tls(tmp_path, authority, "other.example.org")) as server:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(CloudUnreachableError, match="TLS failed"):
                ask(server, tmp_path, authority, host)
        assert not server.requests


def test_a_front_end_of_the_sites_own_authority_is_asked(tmp_path: Path, authority: Authority):
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        # It is a web server, and no front-end: what it says to RPC2 is not XML-RPC.
        with pytest.raises(CloudError, match="HTTP status"):
            ask(server, tmp_path, authority)
        assert len(server.requests) == 1
