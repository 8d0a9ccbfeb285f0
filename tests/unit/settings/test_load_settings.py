# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from coppice.errors import SettingsError, UnreadableFileError
from coppice.settings.describe import describe_settings
from coppice.settings.load import load_settings
from coppice.settings.quantities import format_duration, format_size, parse_duration, parse_size

pytestmark = pytest.mark.unit


@pytest.fixture
def load(tmp_path):
    def _load(text="", *, environ=None, options=None, system="", user=""):
        system_file = tmp_path / "etc.toml"
        system_file.write_text(system)
        user_file = tmp_path / "xdg/coppice/coppice.toml"
        user_file.parent.mkdir(parents=True, exist_ok=True)
        user_file.write_text(user)
        config = tmp_path / "site.toml"
        config.write_text(text)
        return load_settings(
            config=config,
            environ={
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
                **(environ or {}),
            },
            options=options or {},
            system_file=system_file,
        )

    return _load


def _problems(error: pytest.ExceptionInfo[SettingsError]) -> str:
    return f"{error.value.message}\n{error.value.details or ''}"


def test_defaults_are_safe(load):
    settings = load()
    assert settings.transfer.list_size_limit_bytes == 16 * 1024**2
    assert settings.transfer.image_size_limit_bytes == 64 * 1024**3
    assert settings.transfer.allow_private_addresses is False
    assert settings.transfer.attempts == 3
    assert settings.plan.grace_days == 7
    assert settings.plan.maximum_withdrawn_share == 0.5
    assert settings.conversion.maximum_virtual_size_bytes == 1024**4
    assert settings.factory.boot_timeout_seconds == 1800
    assert set(settings.origins.values()) == {"default"}


def test_each_source_overrides_the_weaker_ones_and_is_named_as_origin(load, tmp_path):
    names = ["grace_days = 1", "grace_days = 2", "grace_days = 3"]
    system, user, config = (f"[plan]\n{name}\n" for name in names)
    variable = {"COPPICE_PLAN__GRACE_DAYS": "4"}
    option = {"plan.grace_days": 5}
    key = "plan.grace_days"
    steps = [
        (load(system=system), 1, str(tmp_path / "etc.toml")),
        (load(system=system, user=user), 2, str(tmp_path / "xdg/coppice/coppice.toml")),
        (load(config, system=system, user=user), 3, str(tmp_path / "site.toml")),
        (load(config, system=system, user=user, environ=variable), 4, "environment"),
        (load(config, system=system, user=user, environ=variable, options=option), 5, "option"),
    ]
    for settings, value, origin in steps:
        assert (settings.plan.grace_days, settings.origins[key]) == (value, origin)


def test_an_option_that_was_not_given_overrides_nothing(load):
    assert load("[plan]\ngrace_days = 3", options={"plan.grace_days": None}).plan.grace_days == 3


def test_an_unknown_key_names_file_key_and_the_nearest_valid_one(load, tmp_path):
    with pytest.raises(SettingsError) as error:
        load("[plan]\ngracedays = 3")
    assert str(tmp_path / "site.toml") in error.value.message
    assert "'plan.gracedays'" in error.value.message
    assert "did you mean 'plan.grace_days'" in error.value.message


def test_a_key_in_the_wrong_section_is_pointed_to_the_right_one(load):
    with pytest.raises(SettingsError, match=r"did you mean 'transfer\.attempts'"):
        load("attempts = 3")


@pytest.mark.threat("T25")
@pytest.mark.parametrize("variable", ["COPPICE_PLAN__GRACE", "COPPICE_NONSENSE", "COPPICE_PLAN__", "COPPICE_"])
def test_an_unknown_variable_is_refused_by_its_name(load, variable):
    with pytest.raises(SettingsError, match=variable):
        load(environ={variable: "1"})


@pytest.mark.threat("T25")
@pytest.mark.parametrize("value", ['"flase"', '"False"', "0", "1", '""', "[true]", "{}"])
def test_a_switch_that_is_neither_true_nor_false_is_refused(load, value):
    with pytest.raises(SettingsError, match=r"transfer\.allow_private_addresses: expected"):
        load(f"[transfer]\nallow_private_addresses = {value}")


@pytest.mark.threat("T25")
def test_a_misspelt_switch_in_a_variable_is_refused(load):
    with pytest.raises(SettingsError, match=r"COPPICE_TRANSFER__ALLOW_PRIVATE_ADDRESSES.*expected true or false"):
        load(environ={"COPPICE_TRANSFER__ALLOW_PRIVATE_ADDRESSES": "flase"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("transfer.attempts = 0", "a whole number above zero"),
        ("transfer.attempts = 2.5", "a whole number above zero"),
        ("transfer.attempts = true", "a whole number above zero"),
        ('plan.keep_versions = "two"', "a whole number, 0 or more"),
        ("plan.keep_versions = -1", "a whole number, 0 or more"),
        ('transfer.list_size_limit_bytes = "8 apples"', "a size"),
        ("transfer.list_size_limit_bytes = -1", "a size"),
        ("transfer.connect_timeout_seconds = 0", "a duration above zero"),
        ("transfer.connect_timeout_seconds = inf", "a duration"),
        ("plan.grace_days = nan", "a duration"),
        ("plan.grace_days = 1e12", "a duration of at most a hundred years"),
        ("plan.warn_image_days = 5_000_000", "a duration of at most a hundred years"),
        (f"service.sync_seconds = {10**400}", "a duration of at most a hundred years"),
        ('plan.grace_days = "6000 w"', "a duration of at most a hundred years"),
        ("plan.maximum_withdrawn_share = 1.5", "a number from 0 to 1"),
        ("plan = 3", "a table"),
        ("clouds = 3", "tables"),
        ("clouds.main = 3", "a table"),
        ('factory.mirror = ""', "one line of text"),
        ('clouds.main = {driver = "d", site = "s", formats = ["floppy"]}', "a list out of raw, qcow2"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_expected(load, text, expected):
    with pytest.raises(SettingsError) as error:
        load(text)
    assert f"expected {expected}" in _problems(error)
    assert "found" in _problems(error)


def test_all_problems_are_told_together(load):
    with pytest.raises(SettingsError) as error:
        load(
            '[transfer]\nattempts = "x"\n[plan]\ngrace = 1\n[clouds.main]\ndriver = "directory"',
            environ={"COPPICE_X": "1"},
        )
    assert "4 problems" in error.value.message
    for key in ("transfer.attempts", "plan.grace", "clouds.main.site", "COPPICE_X"):
        assert key in (error.value.details or "")


def test_a_cloud_without_a_site_is_told_why_it_needs_one(load):
    with pytest.raises(SettingsError, match="no default: two sites with the same identifier"):
        load('[clouds.main]\ndriver = "directory"')


def test_a_driver_gets_the_options_that_only_it_knows(load):
    settings = load('[clouds.main]\ndriver = "directory"\nsite = "here"\nformats = ["raw", "qcow2"]\npath = "/srv"')
    cloud = settings.clouds["main"]
    assert (cloud.name, cloud.driver, cloud.site, cloud.formats) == ("main", "directory", "here", ("raw", "qcow2"))
    assert dict(cloud.options) == {"path": "/srv"}


@pytest.mark.threat("T93")
@pytest.mark.parametrize("key", ["password", "api_token", "client-secret", "auth.password"])
def test_a_secret_written_into_the_settings_is_refused_without_repeating_it(load, key):
    with pytest.raises(SettingsError) as error:
        load(f'[clouds.main]\ndriver = "openstack"\nsite = "here"\n{key} = "canary-9731"')
    assert "_file" in _problems(error)
    assert "canary-9731" not in _problems(error)


def test_a_secret_may_be_named_by_file_or_variable(load):
    settings = load('[clouds.main]\ndriver="x"\nsite="s"\npassword_file="/run/p"\ntoken_env="TOKEN"')
    assert settings.clouds["main"].options.get("password_file") == "/run/p"


@pytest.mark.threat("T93")
def test_a_database_url_with_a_password_is_refused_without_repeating_it(load):
    with pytest.raises(SettingsError) as error:
        load('database_url = "postgresql://coppice:canary-9731@db/coppice"')
    assert "canary-9731" not in _problems(error)


def test_a_name_that_is_no_name_is_refused(load):
    with pytest.raises(SettingsError, match="cannot be a name"):
        load('[clouds."../x"]\ndriver="d"\nsite="s"')


def test_quantities_are_read_as_people_write_them(load):
    settings = load(
        '[transfer]\nimage_size_limit_bytes = "8 GiB"\ntotal_timeout_seconds = "90 min"\n[plan]\ngrace_days = "2 w"'
    )
    assert settings.transfer.image_size_limit_bytes == 8 * 1024**3
    assert settings.transfer.total_timeout_seconds == 5400
    assert settings.plan.grace_days == 14


def test_a_relative_path_in_a_file_starts_at_that_file(load, tmp_path):
    assert load('state_directory = "state"').state_directory == tmp_path / "state"
    assert load('state_directory = "~/state"').state_directory == tmp_path / "state"


def test_the_database_is_in_the_state_directory_by_default(load):
    assert load('state_directory = "/srv/c"').database_url == "sqlite:////srv/c/coppice.sqlite"


@pytest.mark.parametrize(("uid", "expected"), [(0, "/var/lib/coppice"), (1000, "/data/coppice")])
def test_root_and_others_have_their_own_state_directory(monkeypatch, uid, expected):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    settings = load_settings(
        config=None, environ={"XDG_DATA_HOME": "/data"}, options={}, system_file=Path("/nonexistent/x")
    )
    assert settings.state_directory == Path(expected)


@pytest.mark.threat("T94")
def test_settings_load_when_home_is_not_set():
    settings = load_settings(config=None, environ={}, options={}, system_file=Path("/nonexistent/x"))
    assert settings.state_directory.is_absolute()


@pytest.mark.threat("T94")
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def unknown(_uid):
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingsError) as error:
        load_settings(config=None, environ={}, options={}, system_file=Path("/nonexistent/x"))
    assert "COPPICE_STATE_DIRECTORY" in (error.value.resolution or "")
    settings = load_settings(
        config=None, environ={"COPPICE_STATE_DIRECTORY": "/srv/c"}, options={}, system_file=Path("/nonexistent/x")
    )
    assert settings.state_directory == Path("/srv/c")


def test_a_named_settings_file_must_exist(tmp_path):
    with pytest.raises(UnreadableFileError, match="there is no settings file"):
        load_settings(config=tmp_path / "none.toml", environ={}, options={}, system_file=tmp_path / "x")


def test_a_named_pipe_does_not_hold_the_start_up(tmp_path):
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    with pytest.raises(UnreadableFileError, match="is not a file"):
        load_settings(config=pipe, environ={}, options={}, system_file=tmp_path / "x")


@pytest.mark.parametrize("content", [b"[plan", b"\xff", b"a = " + b"[" * 5000])
def test_a_file_that_is_not_toml_is_refused_by_its_name(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"bad\.toml is not TOML"):
        load_settings(config=path, environ={}, options={}, system_file=tmp_path / "x")


def test_every_setting_is_described():
    for each in describe_settings():
        assert each.meaning
        assert each.variable.startswith("COPPICE_")
    by_name = {each.name: each for each in describe_settings()}
    assert by_name["transfer.list_size_limit_bytes"].default == "16 MiB"
    assert by_name["clouds.NAME.site"].default == "required"
    assert by_name["plan.grace_days"].variable == "COPPICE_PLAN__GRACE_DAYS"


@pytest.mark.parametrize(
    ("text", "size"), [("1 KiB", 1024), ("1.5KiB", 1536), ("2 MB", 2_000_000), ("7", 7), (9, 9), ("0 B", 0)]
)
def test_sizes_are_parsed(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "1 XiB", "-1", "1e3", True, 1.5, None, "0.3 B", "9" * 40])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        parse_size(text)


def test_durations_count_in_the_unit_of_their_setting():
    assert parse_duration("30 d", bare_unit="d") == 30
    assert parse_duration("12 h", bare_unit="d") == 0.5
    assert parse_duration(5) == 5


def test_sizes_and_durations_are_shown_to_three_figures():
    assert [format_size(each) for each in (0, 1023, 1024, 1536, 10 * 1024**2 + 1, 1024**4)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.50 KiB",
        "10.0 MiB",
        "1 TiB",
    ]
    assert [format_duration(each) for each in (0.25, 5, 61, 3600, 90061)] == [
        "0.2 s",
        "5 s",
        "1 min 1 s",
        "1 h",
        "1 d 1 h",
    ]
