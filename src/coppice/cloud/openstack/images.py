# SPDX-License-Identifier: Apache-2.0
"""What Glance says of images, and the requests that change one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coppice.cloud.openstack.failures import Asked, gone, identifier_taken, not_understood
from coppice.cloud.openstack.words import GLANCES_OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from coppice.cloud.openstack.session import Api

PATCH_TYPE = "application/openstack-images-v2.1-json-patch"
_IDENTIFIER = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MEMBER = re.compile(r"[A-Za-z0-9_\-]{1,255}")
_PAGE = 500
_MAX_IMAGES = 200_000
_MAX_LIST_BYTES = 512 * 1024 * 1024
_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403
FAILED_IMPORT = "os_glance_failed_import"
ACTIVE, DEACTIVATED = "active", "deactivated"


@dataclass(frozen=True, slots=True, kw_only=True)
class GlanceImage:
    """An image as Glance describes it.

    Attributes:
        identifier: Glance's own.
        name: May be empty.
        status: ``queued``, ``saving``, ``importing``, ``active``, ``deactivated``, ``killed`` …
        owner: The project.
        visibility: ``private``, ``shared``, ``community`` or ``public``.
        hidden: Whether it is left out of lists.
        protected: Whether it cannot be removed.
        size_bytes: None: it has no bytes yet.
        virtual_size_bytes: None: Glance did not look.
        hash_algorithm: Of `hash_value`.
        hash_value: Of the bytes; means something only when there are any.
        min_disk: In GiB.
        min_ram: In MiB.
        updated_at: As Glance writes it.
        properties: All others.
    """

    identifier: str
    name: str
    status: str
    owner: str
    visibility: str
    hidden: bool
    protected: bool
    size_bytes: int | None
    virtual_size_bytes: int | None
    hash_algorithm: str | None
    hash_value: str | None
    min_disk: int
    min_ram: int
    updated_at: str
    properties: Mapping[str, str]

    @property
    def is_whole(self) -> bool:
        """Whether Glance has all of its bytes."""
        return self.status in {ACTIVE, DEACTIVATED}

    @classmethod
    def parse(cls, document: object, asked: Asked) -> GlanceImage:
        """Read one.

        Raises:
            CloudAnswerError: It is none.
        """
        if not isinstance(document, dict) or not _IDENTIFIER.fullmatch(str(document.get("id"))):
            raise not_understood(asked, "an image in it has no identifier")
        status = document.get("status")
        if not isinstance(status, str):
            raise not_understood(asked, f"the image {document['id']} in it has no status")
        return cls(
            identifier=str(document["id"]),
            name=str(document.get("name") or ""),
            status=status,
            owner=str(document.get("owner") or ""),
            visibility=str(document.get("visibility") or ""),
            hidden=document.get("os_hidden") is True,
            protected=document.get("protected") is True,
            size_bytes=_number(document.get("size")),
            virtual_size_bytes=_number(document.get("virtual_size")),
            hash_algorithm=_text(document.get("os_hash_algo")),
            hash_value=_text(document.get("os_hash_value")),
            min_disk=_number(document.get("min_disk")) or 0,
            min_ram=_number(document.get("min_ram")) or 0,
            updated_at=str(document.get("updated_at") or ""),
            properties={
                str(key): value for key, value in document.items() if key not in GLANCES_OWN and isinstance(value, str)
            },
        )

    def updated_before(self, moment: datetime) -> bool:
        """Tell whether nothing happened to it since; what cannot be read is as new as can be."""
        from datetime import datetime as clock

        try:
            return clock.fromisoformat(self.updated_at) < moment
        except (ValueError, TypeError):
            return False


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


class Images:
    """The images of one project.

    Args:
        name: Of the target.
        api: Whom to ask.
    """

    def __init__(self, name: str, api: Api) -> None:
        self.name = name
        self.api = api

    def all(self, **wanted: str) -> tuple[GlanceImage, ...]:
        """Return every image of the project with these properties, hidden and not, of whatever visibility.

        Glance says at the end of a page where the next begins; a page that does not say so is not believed to be the
        last before one that begins after it was found to be empty. What belongs to another project is left out,
        whatever is written on it.

        Raises:
            CloudError: They could not all be had.
        """
        owner = self.api.project()
        found: dict[str, GlanceImage] = {}
        for hidden in ("true", "false"):
            params = {"owner": owner, "visibility": "all", "os_hidden": hidden, **wanted}
            for image in self._pages(params):
                # One that was hidden or shown by somebody between the two questions is in both answers.
                if image.owner == owner and all(image.properties.get(key) == text for key, text in wanted.items()):
                    found[image.identifier] = image
        return tuple(found[identifier] for identifier in sorted(found))

    def _pages(self, params: dict[str, str]) -> list[GlanceImage]:
        asked = Asked(cloud=self.name, method="GET", what="describe images")
        found: list[GlanceImage] = []
        seen: set[str] = set()
        size_bytes = 0
        marker: dict[str, str] = {}
        order = {"limit": str(_PAGE), "sort": "created_at:asc,id:asc"}
        while True:
            answer = self.api.ask("GET", "/images", asked.what, params={**params, **order, **marker})
            page = answer.document(asked).get("images")
            if not isinstance(page, list):
                raise not_understood(asked, "there is no list of images in it")
            if not page:
                return found
            images = [GlanceImage.parse(document, asked) for document in page]
            repeated = next((image.identifier for image in images if image.identifier in seen), None)
            if repeated is not None:
                raise not_understood(asked, f"the image {repeated} is on two pages")
            seen.update(image.identifier for image in images)
            found += images
            size_bytes += answer.size_bytes
            if size_bytes > _MAX_LIST_BYTES or len(found) > _MAX_IMAGES or len(seen) != len(found):
                raise not_understood(asked, "it does not end, or an image is in it twice")
            marker = {"marker": images[-1].identifier}

    def get(self, identifier: str) -> GlanceImage | None:
        """Return one; None: there is none, or these credentials do not see it.

        Raises:
            CloudError: It could not be found out.
        """
        asked = Asked(cloud=self.name, method="GET", what=f"describe image {identifier}")
        answer = self.api.ask("GET", f"/images/{identifier}", asked.what, allowed=[_NOT_FOUND])
        return None if answer.status == _NOT_FOUND else GlanceImage.parse(answer.said, asked)

    def create(self, identifier: str, fields: Mapping[str, object]) -> GlanceImage:
        """Make an image without bytes under an identifier that was chosen here, so that it can be asked for twice.

        Raises:
            CloudError: It could not be made.
        """
        asked = Asked(cloud=self.name, method="POST", what="register an image")
        body = {"id": identifier, **fields}
        answer = self.api.ask("POST", "/images", asked.what, body=body, allowed=[_CONFLICT])
        if answer.status != _CONFLICT:
            return GlanceImage.parse(answer.said, asked)
        # An earlier attempt was heard, and its answer was lost.
        found = self.get(identifier)
        if found is None or found.owner != self.api.project():
            raise identifier_taken(self.name, identifier)
        return found

    def change(self, identifier: str, what: str, change: Callable[[GlanceImage], list[dict[str, Any]]]) -> GlanceImage:
        """Change an image in one step; ``change`` is asked for the operations anew at each attempt.

        Raises:
            CloudError: It could not be changed.
        """
        asked = Asked(cloud=self.name, method="PATCH", what=what)

        def attempt() -> GlanceImage:
            current = self.get(identifier)
            if current is None:
                raise gone(self.name, identifier)
            operations = change(current)
            if not operations:
                return current
            answer = self.api.ask(
                "PATCH",
                f"/images/{identifier}",
                what,
                body=operations,
                content_type=PATCH_TYPE,
                again=False,
            )
            return GlanceImage.parse(answer.said, asked)

        return self.api.retrying(attempt)

    def act(self, identifier: str, action: str) -> None:
        """Deactivate or reactivate an image.

        Raises:
            CloudError: It could not be done.
        """
        self.api.ask("POST", f"/images/{identifier}/actions/{action}", f"{action} image {identifier}")

    def delete(self, identifier: str) -> None:
        """Remove an image; one that is gone is fine.

        Raises:
            CloudError: It could not be removed.
        """
        self.api.ask("DELETE", f"/images/{identifier}", f"remove image {identifier}", allowed=[_NOT_FOUND, 410])

    def members(self, identifier: str) -> dict[str, str]:
        """Return with whom an image is shared, and whether they accepted it; its visibility is ``shared``.

        Raises:
            CloudError: It could not be found out.
        """
        asked = Asked(cloud=self.name, method="GET", what=f"list the members of image {identifier}")
        answer = self.api.ask("GET", f"/images/{identifier}/members", asked.what)
        members = answer.document(asked).get("members")
        if not isinstance(members, list) or not all(
            isinstance(member, dict) and _MEMBER.fullmatch(str(member.get("member_id"))) for member in members
        ):
            raise not_understood(asked, "there is no list of members in it")
        return {str(member["member_id"]): str(member.get("status")) for member in members}

    def add_member(self, identifier: str, project: str) -> None:
        """Share an image with a project.

        Raises:
            CloudError: It could not be shared.
        """
        what = f"share image {identifier} with project {project}"
        self.api.ask("POST", f"/images/{identifier}/members", what, body={"member": project}, allowed=[_CONFLICT])

    def remove_member(self, identifier: str, project: str) -> None:
        """Share an image with a project no longer.

        Raises:
            CloudError: It could not be done.
        """
        what = f"share image {identifier} with project {project} no longer"
        self.api.ask("DELETE", f"/images/{identifier}/members/{project}", what, allowed=[_NOT_FOUND])

    def accept(self, identifier: str, project: str) -> None:
        """Accept an image on behalf of a project that it is shared with.

        Raises:
            CloudError: These credentials may not.
        """
        what = f"accept image {identifier} on behalf of project {project}"
        other = self.api.as_project(project)
        other.ask("PUT", f"/images/{identifier}/members/{project}", what, body={"status": "accepted"})


def operation(name: str, value: object) -> dict[str, Any]:
    """Return the operation that sets an attribute or a property; over one that is there already too."""
    return {"op": "add", "path": f"/{_pointer(name)}", "value": value}


def removal(name: str) -> dict[str, Any]:
    """Return the operation that removes a property that is there."""
    return {"op": "remove", "path": f"/{_pointer(name)}"}


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
