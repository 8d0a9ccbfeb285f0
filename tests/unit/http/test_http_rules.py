# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

import pytest

from coppice.errors import AddressRefusedError, RedirectRefusedError, UnreachableError
from coppice.http import same_origin
from coppice.http.address import addresses_of, refusal
from coppice.http.location import parse_location, redirected, show

pytestmark = pytest.mark.unit

NEVER = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
]
PRIVATE = [
    "fec0::1",
    "64:ff9b:1::a00:1",
    "10.0.0.1",
    "127.0.0.1",
    "192.168.1.1",
    "::1",
    "fd12::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "::7f00:1",
]


@pytest.mark.threat("T53")
@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_connected_to(address):
    assert refusal(address, allow_private=True)
    assert refusal(address, allow_private=False)


@pytest.mark.threat("T53")
@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_the_setting(address):
    assert refusal(address, allow_private=False)
    assert refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", ["8.8.8.8", "2600::1", "64:ff9b::808:808"])
def test_global_addresses_are_fine(address):
    assert refusal(address, allow_private=False) is None


@pytest.mark.threat("T53")
def test_one_bad_address_refuses_the_name():
    with pytest.raises(AddressRefusedError, match=r"mixed\.example"):
        addresses_of("mixed.example", 80, resolver=lambda *_: ["8.8.8.8", "10.0.0.1"], allow_private=False)


def test_a_name_without_an_answer_is_unreachable():
    def fail(*_):
        raise OSError("no such name")

    with pytest.raises(UnreachableError):
        addresses_of("gone.example", 80, resolver=fail, allow_private=False)


@pytest.mark.threat("T57")
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.example/x",
        "data:,x",
        "http://",
        "http://a.example:0/",
        "http://a.example:99999/",
        "http://a.example:x/",
        "http://a.example/\nX: y",
        "http://a.example/\u202ex",
        "http://a.example/\0",
        "http://user:secret@a.example/",
        "http://a b.example/",
        "http://[fe80::1%25eth0]/",
        "http://a.example/" + "x" * 10_000,
    ],
)
def test_urls_that_cannot_be_asked_for_safely_are_refused(url):
    with pytest.raises(AddressRefusedError) as caught:
        parse_location(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.threat("T57")
def test_odd_characters_of_a_path_are_encoded():
    location = parse_location("http://A.example/a b;$(id)\"'é?q=1 2")
    assert location.target == "/a%20b;$(id)%22'%C3%A9?q=1%202"
    assert location.host == "a.example"


@pytest.mark.threat("T54")
def test_credentials_stay_with_their_server_and_are_not_shown():
    location = parse_location("https://tok:secret@a.example/list")
    assert location.authorization
    assert "secret" not in repr(location) + location.url + show("https://tok:secret@a.example/list")
    assert redirected(location, "/other").authorization == location.authorization
    assert redirected(location, "https://b.example/").authorization is None
    assert redirected(location, "https://a.example:8443/").authorization is None


@pytest.mark.threat("T53")
@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://b.example/", "data:,x", "https://u:p@b.example/", "http://a.example/"]
)
def test_redirects_that_lead_away_are_refused(target):
    with pytest.raises(RedirectRefusedError):
        redirected(parse_location("https://a.example/x"), target)


def test_a_unit_test_that_starts_a_program_fails():
    with pytest.raises(AssertionError, match="a unit test called"):
        subprocess.run(["true"], check=False)  # the guard is what is tested


@pytest.mark.threat("T54")
def test_the_secrets_of_a_signed_url_are_not_shown():
    url = "https://store.example.org/a?part=1&X-Amz-Signature=canary&access_token=canary&x=%20&sig="
    assert show(url) == "'https://store.example.org/a?part=1&X-Amz-Signature=…&access_token=…&x=%20&sig='"
    location = parse_location(url)
    assert "canary" not in location.shown
    assert "canary" in location.url


def test_an_origin_is_scheme_host_and_port():
    assert same_origin("https://a.example.org/x", "https://A.example.org:443/y?z")
    for other in ("http://a.example.org/x", "https://a.example.org:444/", "https://b.example.org/"):
        assert not same_origin("https://a.example.org/x", other)
