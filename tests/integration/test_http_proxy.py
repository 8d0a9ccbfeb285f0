# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from coppice.cache.partial import PartialFile
from coppice.cache.transfer import fetch_file
from coppice.errors import AddressRefusedError, HttpStatusError, RedirectRefusedError, SettingsError, UnreachableError
from coppice.http import Credential
from coppice.http.address import resolve
from coppice.model.checksum import Checksum
from coppice.testing import server as behave
from coppice.testing.client import loopback_client
from coppice.testing.proxy import LoopbackProxy
from coppice.testing.server import LoopbackServer, throw_away_tls

pytestmark = pytest.mark.integration
DATA = os.urandom(2_000_000)


def unknown(*_):
    raise OSError("Name or service not known")


@pytest.fixture
def proxy():
    with LoopbackProxy() as found:
        yield found


@pytest.fixture
def tls_server(tmp_path):
    tls, trusted = throw_away_tls(tmp_path, "mirror.example")
    with LoopbackServer(tls=tls) as server:
        yield server, trusted


def named(answers):
    """Return a resolver for some names; numeric addresses are what they are."""
    return lambda host, _: answers.get(host, [host])


def test_http_goes_through_the_proxy_by_its_whole_address(loopback_server, proxy):
    url = loopback_server.set("x", behave.serve(b"ok"))
    assert loopback_client(proxy=proxy.url).get_bytes(f"{url}?a=1", limit_bytes=10) == b"ok"
    assert proxy.asked == [("GET", f"{url}?a=1")]
    assert loopback_server.requests[0].headers["Host"] == f"127.0.0.1:{loopback_server.port}"


def test_https_goes_through_a_tunnel_to_the_judged_address_and_the_name_is_verified(tls_server, proxy):
    server, trusted = tls_server
    server.set("x", behave.serve(b"ok"))
    client = loopback_client(
        proxy=proxy.url, ca_file=trusted, resolver=named({"mirror.example": ["127.0.0.1"], "other": ["127.0.0.1"]})
    )
    assert client.get_bytes(server.url("x", "mirror.example"), limit_bytes=10) == b"ok"
    assert proxy.asked == [("CONNECT", f"127.0.0.1:{server.port}")]
    with pytest.raises(UnreachableError, match="TLS"):
        client.get_bytes(server.url("x", "other"), limit_bytes=10)


def test_a_name_that_only_the_proxy_knows_is_told_to_it(tls_server):
    server, trusted = tls_server
    server.set("x", behave.serve(b"ok"))
    with LoopbackProxy(port_of={"mirror.example": server.port}) as proxy:
        client = loopback_client(
            proxy=proxy.url, ca_file=trusted, resolver=lambda host, _: unknown() if host != "127.0.0.1" else [host]
        )
        assert client.get_bytes(server.url("x", "mirror.example"), limit_bytes=10) == b"ok"
    assert proxy.asked == [("CONNECT", f"mirror.example:{server.port}")]


@pytest.mark.threat("T53")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[::ffff:a9fe:a9fe]", "trap.example"])
def test_metadata_is_not_asked_for_through_the_proxy_either(proxy, loopback_server, scheme, host):
    client = loopback_client(
        proxy=proxy.url,
        resolver=lambda name, port: ["169.254.169.254"] if name == "trap.example" else resolve(name, port),
    )
    with pytest.raises(AddressRefusedError):
        client.get_bytes(f"{scheme}://{host}/x", limit_bytes=10)
    assert proxy.asked == []
    with pytest.raises(AddressRefusedError):
        client.get_bytes(loopback_server.set("x", behave.redirect(f"{scheme}://{host}/x")), limit_bytes=10)
    assert len(proxy.asked) == 1


@pytest.mark.threat("T53")
def test_private_addresses_need_the_setting_behind_a_proxy_too_but_not_the_proxys_own(proxy):
    client = loopback_client(proxy=proxy.url, allow_private_addresses=False)
    with pytest.raises(AddressRefusedError):
        client.get_bytes("http://10.0.0.1/x", limit_bytes=10)
    assert proxy.asked == []


@pytest.mark.threat("T54")
def test_a_credential_goes_through_a_tunnel_only_and_the_proxy_does_not_see_it(tls_server, proxy, loopback_server):
    server, trusted = tls_server
    token = Credential.bearer("sesame-open")
    client = loopback_client(proxy=proxy.url, ca_file=trusted, resolver=named({"mirror.example": ["127.0.0.1"]}))
    url = server.set("x", behave.guarded("Bearer sesame-open", behave.serve(b"ok")))
    url = url.replace("127.0.0.1", "mirror.example")
    assert client.get_bytes(url, limit_bytes=10, credential=token) == b"ok"
    assert "sesame" not in repr(proxy.headers) + repr(proxy.asked)
    with pytest.raises(AddressRefusedError, match="clear text"):
        client.get_bytes(loopback_server.set("x", behave.serve(b"ok")), limit_bytes=10, credential=token)
    assert len(proxy.asked) == 1


@pytest.mark.threat("T53")
def test_a_redirect_through_the_proxy_from_https_to_http_is_refused(tls_server, proxy, loopback_server):
    server, trusted = tls_server
    client = loopback_client(proxy=proxy.url, ca_file=trusted, resolver=named({"mirror.example": ["127.0.0.1"]}))
    server.set("x", behave.redirect(loopback_server.set("x", behave.serve(b"ok"))))
    with pytest.raises(RedirectRefusedError):
        client.get_bytes(server.url("x", "mirror.example"), limit_bytes=10)


@pytest.mark.parametrize("excepted", ["127.0.0.1", "near.example", ".example"])
def test_some_need_no_proxy(loopback_server, proxy, excepted):
    host = "127.0.0.1" if excepted == "127.0.0.1" else "near.example"
    client = loopback_client(proxy=proxy.url, no_proxy=(excepted,), resolver=named({"near.example": ["127.0.0.1"]}))
    url = loopback_server.set("x", behave.serve(b"ok")).replace("127.0.0.1", host)
    assert client.get_bytes(url, limit_bytes=10) == b"ok"
    assert proxy.asked == []


def test_variables_of_the_environment_name_no_proxy(loopback_server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert loopback_client().get_bytes(loopback_server.set("x", behave.serve(b"ok")), limit_bytes=10) == b"ok"


@pytest.mark.parametrize(
    "text", ["proxy:3128", "https://proxy:1", "socks5://proxy:1", "http://u:p@proxy:1", "http://p/x"]
)
def test_what_is_no_proxy_is_refused(text):
    with pytest.raises(SettingsError, match="transfer"):
        loopback_client(proxy=text)


def test_a_proxy_that_refuses_or_is_not_there_is_told_as_such(tls_server, loopback_server):
    server, trusted = tls_server
    here = {"ca_file": trusted, "resolver": named({"mirror.example": ["127.0.0.1"]})}
    with LoopbackProxy(refuses=403) as proxy:
        client = loopback_client(proxy=proxy.url, **here)
        with pytest.raises(UnreachableError, match=r"the proxy .* does not connect to mirror.example .*403"):
            client.get_bytes(server.url("x", "mirror.example"), limit_bytes=10)
        assert len(proxy.asked) == 1
        with pytest.raises(HttpStatusError):
            client.get_bytes(loopback_server.url("x"), limit_bytes=10)
    with pytest.raises(UnreachableError, match=r"the proxy 127.0.0.1:1 cannot be reached"):
        loopback_client(proxy="http://127.0.0.1:1", **here).get_bytes("http://127.0.0.1:2/x", limit_bytes=10)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_image_is_gone_on_with_through_the_proxy(tls_server, proxy, loopback_server, tmp_path, scheme):
    server, trusted = tls_server if scheme == "https" else (loopback_server, None)
    host = "mirror.example" if scheme == "https" else "127.0.0.1"
    url = server.set("x", behave.Ranged(data=DATA, cut_after=1_200_000)).replace("127.0.0.1", host)
    client = loopback_client(proxy=proxy.url, ca_file=trusted, resolver=named({"mirror.example": ["127.0.0.1"]}))
    with PartialFile(tmp_path / "x") as partial:
        transfer = fetch_file([url], size_bytes=len(DATA), partial=partial, client=client, expected=Checksum.of(DATA))
    assert transfer.fetched_bytes == len(DATA)
    assert len(proxy.asked) == 2
