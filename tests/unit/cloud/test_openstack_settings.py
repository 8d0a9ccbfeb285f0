# SPDX-License-Identifier: Apache-2.0
"""Settings of the driver ``openstack``: wrong ones are told before anything is asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from coppice.cloud.clouds import open_cloud
from coppice.cloud.openstack.failures import Asked, error_of_status, line_of
from coppice.cloud.openstack.settings import ServerCheck, Transport, read_settings
from coppice.errors import (
    CloudCredentialError,
    CloudDriverError,
    CloudError,
    CloudFaultError,
    CloudQuotaError,
    SettingsError,
)
from coppice.settings.clouds import CloudSettings, VoSettings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def settings(**options: Any) -> CloudSettings:
    return CloudSettings(name="site", driver="openstack", site="here", formats=(), options=options)


def test_a_cloud_of_clouds_yaml_is_enough():
    found = read_settings(settings(cloud="site"))
    assert (found.cloud, found.transport, found.check_servers) == ("site", Transport.UPLOAD, ServerCheck.NONE)
    assert open_cloud(settings(cloud="site")).name == "site"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "either `cloud`"),
        ({"cloud": "x", "auth_url": "https://x", "username": "u", "password_env": "P", "project_name": "p"}, "either"),
        ({"auth_url": "https://x"}, "no credentials"),
        ({"auth_url": "keystone.example.org"}, "not the address"),
        ({"auth_url": "https://u:p@keystone.example.org"}, "not the address"),
        ({"auth_url": "http://[::1"}, "not the address"),
        ({"auth_url": "http://keystone.example.org/v3", "username": "u", "password_env": "P", "project_name": "p"},
         "in the clear"),
        ({"username": "u", "password_env": "P"}, "no `auth_url`"),
        ({"auth_url": "https://x", "username": "u"}, "password_file"),
        ({"auth_url": "https://x", "username": "u", "password_env": "P"}, "project_name"),
        ({"auth_url": "https://x", "application_credential_id": "i"}, "application_credential_secret_file"),
        ({"cloud": "x", "transport": "carrier-pigeon"}, "transport"),
        ({"cloud": "x", "transport": "web-download"}, "web_directory"),
        ({"cloud": "x", "web_directory": "/srv", "web_url": "https://x/"}, "web-download"),
        (
            {"cloud": "x", "transport": "web-download", "web_directory": "/srv", "web_url": "http://x.example.org/"},
            "https",
        ),
        ({"cloud": "x", "interface": "secret"}, "interface"),
        ({"cloud": "x", "attempts": 0}, "attempts"),
        ({"cloud": "x", "attempts": True}, "attempts"),
        ({"cloud": "x", "timeout": "0 s"}, "timeout"),
        ({"cloud": "x", "check_servers": "perhaps"}, "check_servers"),
        ({"clouds_file": "/etc/clouds.yaml", "auth_url": "https://x", "username": "u", "password_env": "P",
          "project_name": "p"}, "clouds_file"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(options: dict[str, Any], told: str):
    with pytest.raises(SettingsError, match=told) as caught:
        read_settings(settings(**options))
    assert caught.value.message.startswith("clouds.site: ")


def test_a_password_goes_in_the_clear_where_that_is_allowed_only():
    login = {"username": "u", "password_env": "P", "project_name": "p"}
    for url, others in (
        ("http://keystone.example.org/v3", {"allow_plain_http": True}),
        ("http://127.0.0.1:5000/v3", {}),
        ("https://keystone.example.org/v3", {}),
    ):
        found = read_settings(settings(auth_url=url, **login, **others)).login
        assert found is not None
        assert found.auth_url == url


def test_an_option_that_does_not_exist_is_told_with_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'region'"):
        open_cloud(settings(cloud="x", regoin="one"))


@pytest.mark.threat("T73")
@pytest.mark.parametrize("name", ["owner", "coppice_site", "os_glance_importing_to_stores"])
def test_properties_that_are_not_the_sites_are_refused(name: str):
    given = CloudSettings(
        name="site",
        driver="openstack",
        site="here",
        formats=(),
        options={"cloud": "x"},
        vos={"biomed": VoSettings(properties={name: "x"})},
    )
    with pytest.raises(SettingsError, match=name):
        read_settings(given)


def test_what_a_service_says_is_one_line_that_is_safe_to_show():
    page = "<html><head><title>413</title></head><body><h1>Quota\x1b[31m</h1>\n exceeded &lt;1 GiB&gt;</body></html>"
    assert line_of(page) == "Quota [31m exceeded <1 GiB>"
    assert len(line_of("x" * 10_000)) == 300


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 410, 413, 415, 418, 429, 500, 502, 503, 504])
def test_every_status_is_an_error_with_something_to_do(status: int):
    problem = error_of_status(Asked(cloud="site", method="GET", what="describe images"), status, "no")
    assert isinstance(problem, CloudError)
    assert problem.resolution
    assert str(status) in problem.message
    assert isinstance(problem, CloudFaultError) == (status >= 500 or status == 429)
    assert isinstance(problem, CloudQuotaError) == (status == 413)


def test_a_machine_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    cloud = open_cloud(settings(cloud="site"))
    monkeypatch.delitem(sys.modules, "coppice.cloud.openstack.session", raising=False)
    monkeypatch.setitem(sys.modules, "keystoneauth1.adapter", None)
    with pytest.raises(CloudDriverError, match="openstacksdk") as caught:
        cloud.describe()
    assert "coppice[openstack]" in (caught.value.resolution or "")


def test_a_file_of_clouds_that_is_not_there_is_told(tmp_path: Path):
    cloud = open_cloud(settings(cloud="site", clouds_file=str(tmp_path / "clouds.yaml")))
    with pytest.raises(CloudCredentialError, match=r"clouds\.yaml"):
        cloud.describe()


def test_an_entry_that_is_not_in_the_file_of_clouds_is_told_with_those_that_are(tmp_path: Path):
    path = tmp_path / "clouds.yaml"
    path.write_text("clouds: {mine: {auth: {auth_url: https://x}}, yours: {}}")
    cloud = open_cloud(settings(cloud="site", clouds_file=str(path)))
    with pytest.raises(CloudCredentialError, match=r"no entry 'site' in .*clouds\.yaml") as caught:
        cloud.describe()
    assert "mine, yours" in (caught.value.resolution or "")


@pytest.mark.parametrize(
    "text", ["clouds: [", "clouds: {other: {}}", "\x00", "[]", "clouds: {site: {auth: {auth_url: 7}}}"]
)
def test_a_file_of_clouds_that_says_too_little_is_told(tmp_path: Path, text: str):
    path = tmp_path / "clouds.yaml"
    path.write_text(text)
    cloud = open_cloud(settings(cloud="site", clouds_file=str(path)))
    with pytest.raises(CloudError) as caught:
        cloud.describe()
    assert caught.value.resolution
