# SPDX-License-Identifier: Apache-2.0
"""Mapping: from what a site wants to what it wants in one cloud, and how it treats what is there. Pure.

What is said of an image goes before what is said of its VO, and that before what is said of the cloud.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from coppice.cloud.clouds import refuse_shared_places
from coppice.cloud.model import Audience, Policy, Presentation, Retention, Visibility
from coppice.cloud.properties import MAX_TITLE_LENGTH, clean, metadata_of
from coppice.errors import InputError, SettingsError
from coppice.model.identifiers import ImageIdentifier, is_uuid
from coppice.settings.clouds import ImageSettings, VoSettings
from coppice.settings.name_template import NameTemplate, parse_template
from coppice.subscription.expression import parse_expression
from coppice.subscription.selection import Wish
from coppice.workflows.listed_sets import with_sets_in_doubt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coppice.cloud.model import Desired, DesiredImage, DesiredList
    from coppice.settings.clouds import CloudSettings
    from coppice.settings.model import Settings
    from coppice.subscription.expression import Condition

NO_VO = VoSettings()
NO_IMAGE = ImageSettings()


def desired_for(cloud: CloudSettings, desired: Desired) -> Desired:
    """Return what is wanted in ``cloud``, each image with how it is shown there.

    What the cloud leaves out is not selected, as if no subscription wanted it: what is registered of it is withdrawn,
    under the cap. An image of which it cannot be told whether the cloud takes it stays as it is.

    Raises:
        SettingsError: A template or an expression of the cloud is none.
    """
    mapping = CloudMapping(cloud)
    return replace(desired, lists=tuple(mapping.of_list(each) for each in desired.lists))


def policy_for(settings: Settings, cloud_name: str, *, allow_withdrawals: bool = False) -> Policy:
    """Return how the site treats what is registered in a cloud; one that the settings do not name has the defaults.

    Args:
        settings: All settings.
        cloud_name: Which cloud.
        allow_withdrawals: The administrator confirmed what the cap would hold.
    """
    plan = settings.plan
    general = Retention(grace=timedelta(days=plan.grace_days), keep_versions=plan.keep_versions)
    cloud = settings.clouds.get(cloud_name)
    vos: dict[str, Retention] = {}
    images: dict[ImageIdentifier, Retention] = {}
    images_of_vo: dict[tuple[str, ImageIdentifier], Retention] = {}
    if cloud is not None:
        general = _retention(general, cloud.grace_days, cloud.keep_versions)
        vos = {
            vo.casefold(): _retention(general, said.grace_days, said.keep_versions) for vo, said in cloud.vos.items()
        }
        for name, said in cloud.images.items():
            identifier = ImageIdentifier(name)
            images[identifier] = _retention(general, said.grace_days, said.keep_versions)
            for vo, of_vo in vos.items():
                images_of_vo[vo, identifier] = _retention(of_vo, said.grace_days, said.keep_versions)
    return Policy(
        grace=general.grace,
        keep_versions=general.keep_versions,
        by_vo=vos,
        by_image=images,
        by_image_of_vo=images_of_vo,
        maximum_withdrawn_share=plan.maximum_withdrawn_share,
        allow_withdrawals=allow_withdrawals,
    )


def check_clouds(clouds: Iterable[CloudSettings]) -> None:
    """Read the templates and expressions of all clouds, so that a mistake is found before anything is done.

    Raises:
        SettingsError: One is none, or two clouds are one; the message names the setting.
    """
    clouds = tuple(clouds)
    for cloud in clouds:
        CloudMapping(cloud)
    refuse_shared_places(clouds)


@dataclass(frozen=True, slots=True)
class SharedName:
    """A name that images of several lists would have in one cloud.

    Attributes:
        name: The name.
        images: Which images.
    """

    name: str
    images: tuple[DesiredImage, ...]


def shared_names(desired: Desired) -> tuple[SharedName, ...]:
    """Return the names that several of what `desired_for` gave have, in the order of the names.

    Within a list there are none. Between lists they are the site's to settle: a list must not be able to have the
    images of another renamed.
    """
    by_name: dict[str, list[DesiredImage]] = {}
    for each in desired.lists:
        for image in each.images:
            if image.presentation is not None:
                by_name.setdefault(image.presentation.name, []).append(image)
    return tuple(SharedName(name, tuple(images)) for name, images in sorted(by_name.items()) if len(images) > 1)


def unused_settings(cloud: CloudSettings, desired: Desired) -> tuple[str, ...]:
    """Return which settings of a cloud are about nothing that the site wants, one sentence each: they may be misspelt.

    Args:
        cloud: The settings.
        desired: What the site wants, of all clouds together.
    """
    wanted = [image for each in desired.lists for image in each.images]
    vos = {image.vo.casefold(): image.vo for image in wanted if image.vo is not None}
    images = {str(image.key.image_identifier) for image in wanted}
    images |= {str(identifier) for each in desired.lists for identifier in each.unknown}
    where = f"clouds.{cloud.name}"
    named = [(f"{where}.only_vos", vo) for vo in cloud.only_vos] + [(f"{where}.vos", vo) for vo in cloud.vos]
    said = [
        f"{setting}: no list is for the VO {vo!r}{_near(vo, vos.values())}"
        for setting, vo in named
        if vo.casefold() not in vos
    ]
    said += [
        f"{where}.images: no list names an image {name!r}{_near(name, images)}"
        for name in cloud.images
        if name not in images
    ]
    return tuple(said)


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name[:200], sorted(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


class CloudMapping:
    """The settings of one cloud, ready to be asked about images.

    Args:
        cloud: The settings.

    Raises:
        SettingsError: A template or an expression is none, or two VOs differ in nothing but case.
    """

    def __init__(self, cloud: CloudSettings) -> None:
        self._cloud = cloud
        where = f"clouds.{cloud.name}"
        self._include = _condition(cloud.include, f"{where}.include")
        self._exclude = _condition(cloud.exclude, f"{where}.exclude")
        self._only_vos = frozenset(vo.casefold() for vo in cloud.only_vos)
        self._vos = _folded(cloud.vos, where)
        self._name = _template(cloud.image_name, f"{where}.image_name")
        self._vo_names = {
            vo: _template(said.name, f"{where}.vos.{vo}.name")
            for vo, said in self._vos.items()
            if said.name is not None
        }
        self._image_names = {
            image: _template(said.name, f"{where}.images.{image}.name")
            for image, said in cloud.images.items()
            if said.name is not None
        }

    def of_list(self, wanted: DesiredList) -> DesiredList:
        """Return what the cloud takes of a list."""
        wishes = [(image, self.wish(image)) for image in wanted.images]
        taken = [(image, self.present(image)) for image, wish in wishes if wish is Wish.WANTED]
        in_doubt = [image for image, wish in wishes if wish is Wish.UNKNOWN]
        doubted = {image.key.image_identifier for image in in_doubt}
        named = _told_apart(taken)
        images = tuple(replace(image, presentation=shown) for (image, _), shown in zip(taken, named, strict=True))
        whole = tuple(with_sets_in_doubt(images, {image.set_identifier for image in in_doubt}))
        return replace(wanted, images=whole, unknown=wanted.unknown | doubted)

    def wish(self, image: DesiredImage) -> Wish:
        """Tell whether the cloud takes an image; to leave out goes before all else."""
        vo = image.vo or ""
        if self._only_vos and vo.casefold() not in self._only_vos:
            return Wish.UNWANTED
        left_out = False if self._exclude is None else self._exclude.holds(image.listed, vo)
        taken = True if self._include is None else self._include.holds(image.listed, vo)
        if left_out is True or taken is False:
            return Wish.UNWANTED
        return Wish.WANTED if taken and left_out is False else Wish.UNKNOWN

    def present(self, image: DesiredImage) -> Presentation:
        """Return how an image is shown in the cloud."""
        of_vo, of_image = self._said_of(image)
        facts = metadata_of(image)
        return Presentation(
            name=self._named(image, facts),
            facts=facts,
            properties={**self._cloud.properties, **of_vo.properties, **of_image.properties},
            audience=self._audience(of_vo),
            datastores=of_vo.datastores,
        )

    def _said_of(self, image: DesiredImage) -> tuple[VoSettings, ImageSettings]:
        of_vo = NO_VO if image.vo is None else self._vos.get(image.vo.casefold(), NO_VO)
        return of_vo, self._cloud.images.get(image.key.image_identifier, NO_IMAGE)

    def _named(self, image: DesiredImage, facts: Mapping[str, str]) -> str:
        vo = "" if image.vo is None else image.vo.casefold()
        template = self._image_names.get(image.key.image_identifier) or self._vo_names.get(vo) or self._name
        filled = template.fill(
            {
                **facts,
                "list": image.key.list_identifier,
                "image": image.key.image_identifier,
                "vo": image.vo or "",
                "site": self._cloud.site,
            }
        )
        return clean(filled, MAX_TITLE_LENGTH) or facts.get("title") or "image"

    def _audience(self, of_vo: VoSettings) -> Audience:
        members = tuple(sorted(set(of_vo.members)))
        said = of_vo.visibility or ("shared" if members else self._cloud.visibility)
        return Audience(visibility=None if said is None else Visibility(said), members=members)


def _told_apart(taken: list[tuple[DesiredImage, Presentation]]) -> list[Presentation]:
    """Return the presentations with names that are each one image's of the list."""
    found = [shown for _, shown in taken]
    for marks_of in (_marks, _hashed):
        groups: dict[str, list[int]] = {}
        for position, shown in enumerate(found):
            groups.setdefault(shown.name, []).append(position)
        for name, positions in groups.items():
            if len(positions) == 1:
                continue
            for position, mark in zip(positions, marks_of([taken[each][0] for each in positions]), strict=True):
                kept = clean(name, MAX_TITLE_LENGTH - len(mark) - 3)
                found[position] = replace(found[position], name=f"{kept} ({mark})")
    return found


def _marks(images: list[DesiredImage]) -> list[str]:
    architectures = [clean(each.listed.operating_system.architecture, 20) for each in images]
    if all(architectures) and len(set(architectures)) == len(images):
        return architectures
    identifiers = [each.key.image_identifier for each in images]
    short = [each[:8].lower() for each in identifiers]
    if all(is_uuid(each) for each in identifiers) and len(set(short)) == len(images):
        return short
    return _hashed(images)


def _hashed(images: list[DesiredImage]) -> list[str]:
    texts = [each.key.image_identifier.encode("utf-8", "surrogatepass") for each in images]
    return [hashlib.sha256(text).hexdigest()[:12] for text in texts]


def _retention(general: Retention, grace_days: float | None, keep_versions: int | None) -> Retention:
    return Retention(
        grace=general.grace if grace_days is None else timedelta(days=grace_days),
        keep_versions=general.keep_versions if keep_versions is None else keep_versions,
    )


def _folded(vos: Mapping[str, VoSettings], where: str) -> dict[str, VoSettings]:
    # A VO that is written otherwise than its settings are must not fall back on what is more open.
    folded: dict[str, VoSettings] = {}
    for vo, said in vos.items():
        if said.members and said.visibility == Visibility.PRIVATE:
            raise SettingsError(
                f"{where}.vos.{vo} has members and is private: its images are either seen by them or not",
                resolution='Write visibility = "shared", or leave it out; or remove the members.',
                context={"setting": f"{where}.vos.{vo}.visibility"},
            )
        if vo.casefold() in folded:
            raise SettingsError(
                f"{where}.vos names {vo!r} twice, in other letters of the same case",
                resolution="Join the two tables: the case of a VO's name does not count.",
                context={"setting": f"{where}.vos"},
            )
        folded[vo.casefold()] = said
    return folded


def _template(text: str, where: str) -> NameTemplate:
    try:
        return parse_template(text)
    except ValueError as problem:
        raise SettingsError(
            f"{where}: {problem}", resolution="Correct the template, then run again.", context={"setting": where}
        ) from problem


def _condition(text: str | None, where: str) -> Condition | None:
    if text is None:
        return None
    try:
        return parse_expression(text)
    except InputError as problem:
        raise SettingsError(
            f"{where}: {problem.message}",
            details=problem.details,
            resolution=problem.resolution,
            context={"setting": where, **problem.context},
        ) from problem
