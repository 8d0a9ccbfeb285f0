# SPDX-License-Identifier: Apache-2.0
"""``coppice image revoke``, ``revoked``, ``unrevoke``, ``rollback`` and ``release``."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result
from coppice.cli.words import examples, pass_context, verb
from coppice.cloud.model import ImageState
from coppice.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.cloud.revocations import KeptRevocation, Target
    from coppice.workflows.converge import CloudReport, Site, SyncReport
    from coppice.workflows.revoke import RevokeReport

_MAX_REASON_LENGTH = 1000
_EXITS = "0 done, 1 some clouds failed, 8 all did, 12 no such image"


def _on_clouds(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run to end."
        ),
        click.option("--cloud", "clouds", multiple=True, metavar="NAME", help="Only this cloud (may be repeated)."),
        click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing."),
    ):
        function = option(function)
    return function


def _which(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--every-version", is_flag=True, help="Every version of IMAGE, those to come as well."),
        click.option("--image-version", metavar="VERSION", help="Only this version of IMAGE."),
        click.argument("image"),
    ):
        function = option(function)
    return function


@verb(
    "revoke",
    epilog=examples(
        "coppice image revoke egi/8a1f2f60-… --image-version 12.7 --reason 'a password was left in it' --dry-run",
        "coppice image revoke sha512:3f9a1c… --reason 'the mirror was broken into'",
        "coppice image revoke 8a1f2f60-… --every-version --reason 'its maintainer is gone'",
        exits=_EXITS,
    ),
)
@_which
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is written on the image, and in the journal.")
@_on_clouds
@pass_context
def revoke_command(
    context: Context,
    *,
    image: str,
    image_version: str | None,
    every_version: bool,
    reason: str,
    dry_run: bool,
    clouds: tuple[str, ...],
    wait: float,
) -> Result:
    """Let nothing new start from IMAGE in any cloud, at once, nor from what is known to be built on it.

    IMAGE is LIST/IMAGE, an image that `coppice image list` shows, or the digest of the published file, whatever list
    names it. Machines that run go on. It holds until `coppice image unrevoke`, and for what is registered later too.
    """
    from coppice.workflows.revoke import revoke, target_of

    reason = " ".join(reason.split())
    if not reason or len(reason) > _MAX_REASON_LENGTH:
        raise InputError(f"a reason has 1 to {_MAX_REASON_LENGTH} characters")
    site = _site(context)
    target = target_of(image, version=image_version, every_version=every_version, site=site)
    _refuse_mistyped(target, site)
    opened, unopened = _open_each(context, clouds)
    report = revoke(target, reason, opened, site, dry_run=dry_run, wait_seconds=wait)
    report = replace(report, run=replace(report.run, clouds=(*report.run.clouds, *unopened)))
    said = "would be revoked" if dry_run else "is revoked" if report.is_new else "was revoked already"
    told = f"{target} {said}.{_if_unknown(report)}"
    return _result(context, "image revoke", report.run, told, report.revocations, dry_run=dry_run)


@verb(
    "unrevoke",
    epilog=examples(
        "coppice image unrevoke egi/8a1f2f60-… --image-version 12.7",
        "coppice image unrevoke sha512:3f9a1c… --dry-run",
        exits=_EXITS,
    ),
)
@_which
@_on_clouds
@pass_context
def unrevoke_command(
    context: Context,
    *,
    image: str,
    image_version: str | None,
    every_version: bool,
    dry_run: bool,
    clouds: tuple[str, ...],
    wait: float,
) -> Result:
    """Take a revocation back; what is listed becomes available with the next sync.

    It may be repeated for clouds that failed: what is revoked in a cloud stays so until this command says otherwise
    there.
    """
    from coppice.workflows.revoke import take_back, target_of

    site = _site(context)
    target = target_of(image, version=image_version, every_version=every_version, site=site)
    report = take_back(target, _open(context, clouds), site, dry_run=dry_run, wait_seconds=wait)
    word = "would be taken back" if dry_run else "taken back"
    told = f"{len(report.revocations)} {'revocation' if len(report.revocations) == 1 else 'revocations'} {word}."
    return _result(context, "image unrevoke", report.run, told, report.revocations, dry_run=dry_run)


@verb("revoked", epilog=examples("coppice image revoked", "coppice image revoked --json"))
@pass_context
def revoked_command(context: Context) -> Result:
    """List what is revoked, and why."""
    from coppice.cloud.revocations import Revocations

    database = context.existing_database()
    kept = Revocations(database).all() if database is not None else ()

    def render(output: Output) -> None:
        rows = [
            [
                each.number,
                str(each.revocation.digest or each.revocation.key),
                each.revocation.version or ("" if each.revocation.digest else "every"),
                each.revocation.at,
                each.revocation.reason,
            ]
            for each in kept
        ]
        output.table(["number", "what", "version", "since", "reason"], rows)

    return Result(
        command="image revoked",
        data={"revocations": [_as_data(each) for each in kept]},
        messages=() if kept else ("Nothing is revoked.",),
        show=render,
    )


@verb(
    "rollback",
    epilog=examples(
        "coppice image rollback egi/8a1f2f60-… --to 12.6 --dry-run",
        "coppice image rollback 8a1f2f60-… --to 12.6 --cloud main --reason 'its kernel does not start'",
        exits=_EXITS,
    ),
)
@click.argument("image")
@click.option("--to", "version", required=True, metavar="VERSION", help="The version to go back to.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the journal.")
@click.option("--alone", is_flag=True, help="Leave the other images of its set as they are.")
@_on_clouds
@pass_context
def rollback_command(
    context: Context,
    *,
    image: str,
    version: str,
    reason: str | None,
    alone: bool,
    dry_run: bool,
    clouds: tuple[str, ...],
    wait: float,
) -> Result:
    """Make an earlier version of IMAGE, that a cloud still has, the one to use, and let newer ones wait.

    All images of its set go back to the same release. It holds until `coppice image release`, the version's own end,
    or its revocation.
    """
    from coppice.workflows.revoke import key_of
    from coppice.workflows.rollback import rollback

    if reason is not None and len(reason) > _MAX_REASON_LENGTH:
        raise InputError(f"a reason has at most {_MAX_REASON_LENGTH} characters")
    site = _site(context)
    key = key_of(image, site)
    report = rollback(
        key,
        version,
        _open(context, clouds),
        site,
        reason=reason,
        alone=alone,
        dry_run=dry_run,
        wait_seconds=wait,
    )
    told = "" if dry_run or report.errors else "`coppice image release` lets newer versions come again."
    return _result(context, "image rollback", report, told, (), dry_run=dry_run)


@verb(
    "release",
    epilog=examples(
        "coppice image release egi/8a1f2f60-…", "coppice image release 8a1f2f60-… --cloud main", exits=_EXITS
    ),
)
@click.argument("image")
@_on_clouds
@pass_context
def release_command(context: Context, *, image: str, dry_run: bool, clouds: tuple[str, ...], wait: float) -> Result:
    """Let IMAGE, and all of its set, follow its list again after a rollback."""
    from coppice.workflows.revoke import key_of
    from coppice.workflows.rollback import release

    site = _site(context)
    report = release(key_of(image, site), _open(context, clouds), site, dry_run=dry_run, wait_seconds=wait)
    told = "" if dry_run or report.errors else "The next sync makes the newest version available."
    return _result(context, "image release", report, told, (), dry_run=dry_run)


def _site(context: Context) -> Site:
    from coppice.workflows.converge import Site

    return Site(settings=context.settings, database=context.database, clock=context.clock, monitor=context.monitor)


def _open(context: Context, names: tuple[str, ...]) -> dict[str, Any]:
    from coppice.cli.clouds import open_clouds

    # What is revoked here before any cloud is set up is revoked when one is.
    return dict(open_clouds(context, names)) if names or context.settings.clouds else {}


def _refuse_mistyped(target: Target, site: Site) -> None:
    """Refuse what is almost the name of a subscription: taken for a list's identifier, it revokes nothing.

    Raises:
        NotFoundError: It is neither a subscription's name nor a list's identifier.
    """
    from coppice.model.identifiers import is_uuid
    from coppice.subscription.store import SubscriptionStore

    if target.key is None or is_uuid(named := target.key.list_identifier):
        return
    followed = SubscriptionStore(site.database).all()
    near = difflib.get_close_matches(named, [each.name for each in followed], n=1)
    if near and named not in {each.list_identifier for each in followed}:
        raise NotFoundError(
            f"there is neither a subscription nor a list {named[:80]!r}; nothing was revoked",
            resolution=f"Did you mean '{near[0]}/{target.key.image_identifier}'?",
        )


def _if_unknown(report: RevokeReport) -> str:
    """Return what makes a name that was mistyped be noticed."""
    plans = [each.plan for each in report.run.clouds]
    if not report.is_new or not plans:
        return ""
    if any(plan is None or any(action.state is ImageState.REVOKED for action in plan.actions) for plan in plans):
        return ""
    return " Nothing could start from it in any cloud; it counts for what comes."


def _open_each(context: Context, names: tuple[str, ...]) -> tuple[dict[str, Any], list[CloudReport]]:
    """Return the clouds that can be opened, and why others cannot: a mistake about one holds up no revocation."""
    from coppice.errors import CloudError, SettingsError
    from coppice.workflows.converge import CloudReport

    opened: dict[str, Any] = {}
    failed = []
    for name in dict.fromkeys(names) or context.settings.clouds:
        try:
            opened |= _open(context, (name,))
        except (CloudError, SettingsError) as problem:
            failed.append(CloudReport(cloud=name, error=problem))
    return opened, failed


def _result(
    context: Context,
    command: str,
    run: SyncReport,
    told: str,
    revocations: Sequence[KeptRevocation],
    *,
    dry_run: bool,
) -> Result:
    from coppice.cli.run import run_result

    if not dry_run:
        context.tell_hooks()
    result = run_result(command, run, dry_run=dry_run)
    data = {"run": result.data, "revocations": [_as_data(each) for each in revocations]}
    return replace(result, data=data, messages=(*((told,) if told else ()), *result.messages))


def _as_data(kept: KeptRevocation) -> dict[str, object]:
    revocation = kept.revocation
    key = revocation.key
    return {
        "number": kept.number or None,
        "digest": None if revocation.digest is None else str(revocation.digest),
        "list": None if key is None else key.list_identifier,
        "image": None if key is None else key.image_identifier,
        "version": revocation.version,
        "reason": revocation.reason,
        "at": revocation.at,
    }
