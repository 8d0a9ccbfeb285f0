# SPDX-License-Identifier: Apache-2.0
"""The options that say what kind of source a subscription has, and what its lists are trusted by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coppice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.clock import Clock
    from coppice.formats.limits import ListLimits
    from coppice.subscription.model import Subscription

_Callback = TypeVar("_Callback", bound="Callable[..., Any]")

FILE = click.Path(path_type=Path)
_FILES = ("keyring", "cosign_key")
"""Options of sources that have an option of the command line, of the same name."""
_OPTIONS = (
    click.option(
        "--source",
        "driver",
        metavar="DRIVER",
        help="What kind of source is at URI: hepix (a signed image list), oci, simplestreams, files, catalogue, "
        "descriptors.  [default: hepix]",
    ),
    click.option(
        "--option",
        "source_options",
        multiple=True,
        metavar="KEY=VALUE",
        help="An option of the source (may be repeated); an empty value takes it away.",
    ),
    click.option(
        "--keyring",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="OpenPGP keys, any one of which must have signed what is there (may be repeated).",
    ),
    click.option(
        "--cosign-key",
        "cosign_key",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="Public key that must have signed each manifest (may be repeated).",
    ),
    click.option(
        "--trust",
        type=click.Choice(["transport", "local"]),
        help="Believe what nobody signed: the server alone (transport), or whoever may write there (local).",
    ),
)


def source_options(callback: _Callback) -> _Callback:
    """Add the options of a subscription's source."""
    for option in reversed(_OPTIONS):
        callback = option(callback)
    return callback


def apply_source(subscription: Subscription, given: Mapping[str, Any]) -> Subscription:
    """Return ``subscription`` with the source that the options ask for; what was not given stays.

    Raises:
        UsageError: An option is no ``KEY=VALUE``, or is given twice.
    """
    options = dict(subscription.source.options)
    named: dict[str, object] = {}
    for text in given["source_options"]:
        key, sign, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key:
            raise UsageError(f"--option takes KEY=VALUE, not {text[:80]!r}")
        _name(named, key, value.strip())
    for key in _FILES:
        if given[key]:
            # Not one text: a name may have a comma.
            _name(named, key, [str(path.absolute()) for path in dict.fromkeys(given[key])])
    if given["trust"] is not None:
        _name(named, "trust", given["trust"])
    for key, wanted in named.items():
        if wanted:
            options[key] = wanted
        else:
            options.pop(key, None)
    driver = given["driver"] or subscription.source.driver
    return replace(subscription, source=replace(subscription.source, driver=driver, options=options))


def try_source(subscription: Subscription, limits: ListLimits, clock: Clock) -> None:
    """Read the keys that a subscription names, so that it is not found out at night that there are none.

    Raises:
        TrustAnchorError, KeyringError: They cannot be used.
        InputError: The source, its address or its options cannot be.
    """
    from coppice.subscription.changes import check_subscription
    from coppice.subscription.source.drivers import judging_shelf

    check_subscription(subscription)
    judging_shelf(clock, limits).open(subscription.source).trust_state(subscription)


def _name(named: dict[str, object], key: str, value: object) -> None:
    if key in named:
        raise UsageError(f"the option {key[:80]!r} of the source is given twice")
    named[key] = value
