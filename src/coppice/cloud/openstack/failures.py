# SPDX-License-Identifier: Apache-2.0
"""What a refusal of Keystone, Glance or Nova means, and what can be done about it."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.properties import clean
from coppice.errors import (
    CloudAnswerError,
    CloudCredentialError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageBrokenError,
    CloudImageGoneError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudRefusedImageError,
    CloudTimeoutError,
    CloudUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_SAID = 300
_SERVER_ERROR = 500
_RESOLUTIONS: dict[int, tuple[type[CloudError], str, str]] = {
    400: (
        CloudRefusedImageError,
        "does not take what was sent",
        "The answer says which property or format; mend the settings of this cloud, or tell the image's publisher.",
    ),
    401: (
        CloudCredentialError,
        "does not know who asks",
        "Look whether the password or the application credential is still valid, and whether clocks agree.",
    ),
    403: (
        CloudForbiddenError,
        "does not let these credentials do this",
        "They need the role `member` in the project; for public images and for servers of others, an administrator's.",
    ),
    404: (
        CloudImageGoneError,
        "does not know it",
        "It was removed by somebody else, or belongs to another project. Run again: a new plan is made.",
    ),
    409: (
        CloudImageInUseError,
        "says that this is in conflict with what is there",
        "Something still uses it, or it is being changed. It is tried again with the next run.",
    ),
    410: (CloudImageGoneError, "does not know it any more", "Run again: a new plan is made from what is there now."),
    413: (
        CloudQuotaError,
        "has no room for this: a quota or a limit is reached",
        "Ask the cloud's administrator for a larger quota (storage, size of an image, properties, members).",
    ),
    415: (
        CloudRefusedImageError,
        "does not take these bytes as what they are said to be",
        "Look whether the cloud supports the format: `formats` of this cloud chooses another.",
    ),
    429: (CloudFaultError, "is asked too often", "Run again later."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked of a cloud.

    Attributes:
        cloud: Name of the target.
        method: Of HTTP.
        what: What was being done, for people: ``describe images``.
    """

    cloud: str
    method: str
    what: str

    def __str__(self) -> str:
        """Return how messages begin."""
        return f"cloud {self.cloud}: cannot {self.what}"


def error_of_status(asked: Asked, status: int, said: str) -> CloudError:
    """Return what a status of 400 and more means.

    Args:
        asked: What was asked.
        status: Of HTTP.
        said: The answer's text, of which a line is shown.
    """
    kind, meaning, resolution = _RESOLUTIONS.get(
        status,
        (CloudFaultError, "failed", "Nothing is lost: it is tried again with the next run. Look into its logs.")
        if status >= _SERVER_ERROR
        else (CloudError, "refuses", "The answer may say why."),
    )
    if status == 413 and "quota" not in said.lower() and "limit" not in said.lower():  # noqa: PLR2004 - HTTP's
        meaning = "has no room for this"
    return kind(
        f"{asked}: it {meaning} (HTTP {status})",
        details=line_of(said) or None,
        resolution=resolution,
        context={"cloud": asked.cloud, "status": status},
    )


def line_of(said: str) -> str:
    """Return a service's text (HTML, JSON or plain) as one line that is safe to show."""
    text = re.sub(
        r"<(?:head|title|style)\b.*?</(?:head|title|style)>", " ", said[:4000], flags=re.DOTALL | re.IGNORECASE
    )
    return clean(html.unescape(re.sub(r"<[^<>]{0,200}>", " ", text)), _MAX_SAID)


def unreachable(asked: Asked, problem: Exception) -> CloudUnreachableError:
    """Return: there is no connection, or it was cut."""
    return CloudUnreachableError(
        f"{asked}: it cannot be reached, or the connection was cut",
        details=clean(str(problem), _MAX_SAID),
        resolution="Look whether the services run and the network leads there; it is tried again with the next run.",
        context={"cloud": asked.cloud},
    )


def no_service(asked: Asked, problem: Exception) -> CloudUnreachableError:
    """Return: where the catalogue says that the service is, there is none, or none that is understood."""
    return CloudUnreachableError(
        f"{asked}: no service that is understood answers at the address in the catalogue",
        details=clean(str(problem), _MAX_SAID),
        resolution="Look whether the service runs, the network leads there, and `region` and `interface` of this cloud "
        "are meant; it is tried again with the next run.",
        context={"cloud": asked.cloud},
    )


def timed_out(asked: Asked) -> CloudTimeoutError:
    """Return: there was no answer in time."""
    return CloudTimeoutError(
        f"{asked}: it did not answer in time",
        resolution="It is tried again with the next run; `timeout` of this cloud says how long an answer may take.",
        context={"cloud": asked.cloud},
    )


def login_failed(asked: Asked, problem: Exception) -> CloudCredentialError:
    """Return: the libraries could not say who asks, or where the services are."""
    return CloudCredentialError(
        f"{asked}: logging in failed",
        details=clean(str(problem), _MAX_SAID),
        resolution="Look at the cloud's entry in clouds.yaml or at the credentials in the settings: address, user, "
        "project, domain, region, interface, and the authority of its certificate.",
        context={"cloud": asked.cloud},
    )


def no_entry(cloud: str, entry: str, file: str, known: Sequence[str]) -> CloudCredentialError:
    """Return: the file of clouds knows no such one."""
    return CloudCredentialError(
        f"cloud {cloud}: there is no entry {entry!r} in {file}",
        resolution=f"Correct `cloud`: entries that are there: {clean(', '.join(known), _MAX_SAID) or 'none'}.",
        context={"cloud": cloud},
    )


def not_understood(asked: Asked, why: str) -> CloudAnswerError:
    """Return: the answer is not what the interface says."""
    return CloudAnswerError(
        f"{asked}: its answer cannot be used: {why}",
        resolution="Nothing was changed by it. Look at what stands between here and the service (a proxy, a load "
        "balancer), and whether the endpoint in the catalogue is the right one.",
        context={"cloud": asked.cloud},
    )


def gone(cloud: str, identifier: str) -> CloudImageGoneError:
    """Return: an image is not there, or is not this site's."""
    return CloudImageGoneError(
        f"image {identifier} in cloud {cloud} is not there, or is not this site's",
        resolution="Nothing was changed. Run again: a new plan is made from what is there now.",
        context={"cloud": cloud, "image": identifier},
    )


def identifier_taken(cloud: str, identifier: str) -> CloudNameTakenError:
    """Return: somebody else's image has the identifier that was chosen."""
    return CloudNameTakenError(
        f"cloud {cloud}: the identifier {identifier} is taken by an image that is not this site's",
        resolution="Run again: another one is chosen.",
        context={"cloud": cloud, "image": identifier},
    )


def broken(cloud: str, identifier: str, why: str) -> CloudImageBrokenError:
    """Return: the cloud took an image and could not make it usable."""
    return CloudImageBrokenError(
        f"cloud {cloud}: image {identifier} did not become usable: {why}",
        resolution="It is made anew with the next run. Glance's log says more; for imports, look at its tasks too.",
        context={"cloud": cloud, "image": identifier},
    )
