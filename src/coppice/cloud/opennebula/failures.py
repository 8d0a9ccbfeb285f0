# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with OpenNebula, as errors of Coppice.

An answer that says no has a code (``RequestManager``/``Request.h``): 0x0100 not authenticated, 0x0200 not authorised,
0x0400 does not exist, 0x0800 wrong state, 0x1000 wrong arguments, 0x2000 internal, 0x4000 not allocated, 0x8000 locked.
What a code means for Coppice depends on its text as well: a quota that is reached is "not authorised", a duplicate name
"internal" for templates and "not allocated" for images.
"""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING

from coppice.cloud.properties import clean
from coppice.errors import (
    CloudAnswerError,
    CloudCredentialError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageGoneError,
    CloudImageInUseError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudRefusedImageError,
    CloudTimeoutError,
    CloudUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTHENTICATION = 0x0100
AUTHORIZATION = 0x0200
NO_EXISTS = 0x0400
ACTION = 0x0800
API = 0x1000
INTERNAL = 0x2000
ALLOCATE = 0x4000
LOCKED = 0x8000
_MAX_TEXT = 400
_TAKEN_BY = re.compile(r"NAME is already taken by (?:IMAGE|TEMPLATE) ([0-9]{1,9})\b")

_BY_TEXT: tuple[tuple[int, re.Pattern[str], type[CloudError]], ...] = (
    (AUTHORIZATION, re.compile(r"limit of .* reached|quota", re.IGNORECASE), CloudQuotaError),
    (ACTION, re.compile(r"not enough space", re.IGNORECASE), CloudQuotaError),
    (ACTION, re.compile(r"collides with", re.IGNORECASE), CloudNameTakenError),
    (
        ACTION,
        re.compile(r"VMs using it|active clone operations|being used|in state USED", re.IGNORECASE),
        CloudImageInUseError,
    ),
    (INTERNAL, re.compile(r"NAME is already taken", re.IGNORECASE), CloudNameTakenError),
    (INTERNAL, re.compile(r"Image locked|cannot be in state (?:USED|LOCKED|CLONE)"), CloudImageInUseError),
    (INTERNAL, re.compile(r"restricted attribute", re.IGNORECASE), CloudForbiddenError),
    (INTERNAL, re.compile(r"Cannot parse image SIZE|Parse error", re.IGNORECASE), CloudRefusedImageError),
    (ALLOCATE, re.compile(r"NAME is already taken", re.IGNORECASE), CloudNameTakenError),
    (ALLOCATE, re.compile(r"not enough space", re.IGNORECASE), CloudQuotaError),
)
"""Code, part of the text, and what it means; the first that fits."""
_BY_CODE: Mapping[int, type[CloudError]] = {
    AUTHENTICATION: CloudCredentialError,
    AUTHORIZATION: CloudForbiddenError,
    NO_EXISTS: CloudImageGoneError,
    ACTION: CloudError,
    API: CloudAnswerError,
    INTERNAL: CloudFaultError,
    ALLOCATE: CloudRefusedImageError,
    LOCKED: CloudImageInUseError,
}
_RESOLUTIONS: Mapping[type[CloudError], str] = {
    CloudCredentialError: "Give the name and password of an OpenNebula user, as `name:password`, in the file or "
    "variable that the settings name; a token may have expired.",
    CloudForbiddenError: "Give OpenNebula's user the right to do this (oneacl), or use another user.",
    CloudQuotaError: "Make room in the datastore, or raise the quota of OpenNebula's user or its group.",
    CloudNameTakenError: "Rename what has the name, or choose another template for names in the settings.",
    CloudImageGoneError: "Nothing was changed. Run again: a new plan is made from what is there now.",
    CloudImageInUseError: "Run again when nothing runs from it, and nothing is being copied, any more.",
    CloudRefusedImageError: "See what OpenNebula says of it. A path must lie in the datastore's SAFE_DIRS, and the "
    "front-end must be able to read it.",
    CloudFaultError: "Nothing is known to be damaged; run again. The front-end's /var/log/one/oned.log says more.",
    CloudAnswerError: "See whether this is the front-end's XML-RPC address, and a version of OpenNebula from 6 on.",
    CloudError: "The front-end's /var/log/one/oned.log says more. Run again when it is settled.",
}


class Failures:
    """Makes errors that say which cloud they are about.

    Args:
        cloud: Name of the target.
        endpoint: Its address, for people.
    """

    def __init__(self, cloud: str, endpoint: str) -> None:
        self.cloud = cloud
        self.endpoint = endpoint

    def of_refusal(self, method: str, code: int, text: str) -> CloudError:
        """Return the error of an answer that says no.

        Args:
            method: What was called.
            code: The answer's.
            text: And what it says.
        """
        kind = _kind(code, text)
        return kind(
            f"cloud {self.cloud}: {method} was refused: {_shown(text)}",
            details=f"OpenNebula's code {code:#06x}",
            resolution=_RESOLUTIONS[kind],
            context=self._context(method=method, code=code),
        )

    def of_fault(self, code: object, text: str) -> CloudError:
        """Return the error of an XML-RPC fault: the method is unknown, or its arguments are."""
        return CloudAnswerError(
            f"cloud {self.cloud}: a call is not answered as its interface says: {_shown(str(text))}",
            details=f"XML-RPC fault {code}",
            resolution=_RESOLUTIONS[CloudAnswerError],
            context=self._context(code=code),
        )

    def of_status(self, status: int) -> CloudError:
        """Return the error of an HTTP status that is not 200: ``oned`` itself gives none."""
        kind: type[CloudError] = CloudAnswerError
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}:
            kind = CloudCredentialError
        elif status == HTTPStatus.FORBIDDEN:
            kind = CloudForbiddenError
        elif status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT}:
            kind = CloudTimeoutError
        elif status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            kind = CloudFaultError
        return kind(
            f"cloud {self.cloud}: {self.endpoint} answers with HTTP status {status}",
            resolution="It comes from something before the front-end, which answers 200 to everything: see there. "
            "Then run again.",
            context=self._context(status=status),
        )

    def of_connection(self, problem: Exception) -> CloudError:
        """Return the error of a connection that failed."""
        if isinstance(problem, TimeoutError):
            return self.too_slow()
        if isinstance(problem, ssl.SSLError):
            reason = f"TLS failed: {_shown(str(problem))}"
        elif isinstance(problem, OSError):
            reason = _shown(problem.strerror or type(problem).__name__)
        else:
            reason = f"the answer was cut ({type(problem).__name__})"
        return CloudUnreachableError(
            f"cloud {self.cloud} cannot be reached at {self.endpoint}: {reason}",
            resolution="Nothing that is registered changes meanwhile. See whether oned runs and its port can be "
            "reached, then run again.",
            context=self._context(),
        )

    def too_slow(self) -> CloudError:
        """Return the error of an answer that did not come in time."""
        return CloudTimeoutError(
            f"cloud {self.cloud}: {self.endpoint} did not answer in time",
            resolution="Run again: what it has done meanwhile is found. Raise `timeout` in the cloud's settings when "
            "the front-end is slow.",
            context=self._context(),
        )

    def unreadable(self, why: str) -> CloudError:
        """Return the error of an answer that cannot be read."""
        return CloudAnswerError(
            f"cloud {self.cloud}: the answer of {self.endpoint} cannot be read: {_shown(why)}",
            resolution="Nothing was changed. " + _RESOLUTIONS[CloudAnswerError],
            context=self._context(),
        )

    def gone(self, identifier: str) -> CloudError:
        """Return the error of an image that is not there, or is somebody else's."""
        return CloudImageGoneError(
            f"image {identifier} in cloud {self.cloud} is not there, or is not this site's",
            resolution=_RESOLUTIONS[CloudImageGoneError],
            context=self._context(image=identifier),
        )

    def _context(self, **facts: object) -> dict[str, object]:
        return {"cloud": self.cloud, **facts}


def taken_by(problem: CloudNameTakenError) -> int | None:
    """Return the number of what has the name, as OpenNebula says it; None: it does not."""
    found = _TAKEN_BY.search(problem.message)
    return None if found is None else int(found[1])


def _kind(code: int, text: str) -> type[CloudError]:
    for known, pattern, kind in _BY_TEXT:
        if code == known and pattern.search(text[: _MAX_TEXT * 4]):
            return kind
    return _BY_CODE.get(code, CloudError)


def _shown(text: str) -> str:
    return clean(text, _MAX_TEXT)
