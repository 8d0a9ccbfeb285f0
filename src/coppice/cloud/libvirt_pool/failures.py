# SPDX-License-Identifier: Apache-2.0
"""What libvirt's errors mean, by its numbers (``virErrorNumber``) and the system's."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

from coppice.errors import (
    CloudCredentialError,
    CloudError,
    CloudFaultError,
    CloudForbiddenError,
    CloudImageGoneError,
    CloudNameTakenError,
    CloudQuotaError,
    CloudRefusedImageError,
    CloudUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYSTEM, _RPC, _NO_CONNECT = 38, 39, 5

NO_DOMAIN, NO_POOL, NO_VOLUME = 42, 49, 50
OPERATION_INVALID = 55
_KINDS: Mapping[int, type[CloudError]] = {
    _NO_CONNECT: CloudUnreachableError,
    _RPC: CloudUnreachableError,
    NO_DOMAIN: CloudImageGoneError,
    NO_VOLUME: CloudImageGoneError,
    45: CloudCredentialError,  # VIR_ERR_AUTH_FAILED
    79: CloudCredentialError,  # VIR_ERR_AUTH_CANCELLED
    94: CloudCredentialError,  # VIR_ERR_AUTH_UNAVAILABLE
    29: CloudForbiddenError,  # VIR_ERR_OPERATION_DENIED
    88: CloudForbiddenError,  # VIR_ERR_ACCESS_DENIED
    28: CloudNameTakenError,  # VIR_ERR_DOM_EXIST
    90: CloudNameTakenError,  # VIR_ERR_STORAGE_VOL_EXIST
    67: CloudRefusedImageError,  # VIR_ERR_CONFIG_UNSUPPORTED
    27: CloudRefusedImageError,  # VIR_ERR_XML_ERROR
    92: CloudRefusedImageError,  # VIR_ERR_XML_INVALID_SCHEMA
}
_SYSTEM_KINDS: Mapping[int, type[CloudError]] = {
    errno.ENOSPC: CloudQuotaError,
    errno.EDQUOT: CloudQuotaError,
    errno.EACCES: CloudForbiddenError,
    errno.EPERM: CloudForbiddenError,
    errno.ECONNREFUSED: CloudUnreachableError,
    errno.ECONNRESET: CloudUnreachableError,
    errno.ENOENT: CloudUnreachableError,
    errno.EPIPE: CloudUnreachableError,
    errno.ETIMEDOUT: CloudUnreachableError,
    errno.EHOSTUNREACH: CloudUnreachableError,
}
_TEXTS: Mapping[str, type[CloudError]] = {
    "No space left on device": CloudQuotaError,
    "Disk quota exceeded": CloudQuotaError,
    "client socket is closed": CloudUnreachableError,
    "End of file while reading data": CloudUnreachableError,
    "already exists with uuid": CloudNameTakenError,
}
"""Where the number says nothing: what was written in another process, and a connection's end."""
_RESOLUTIONS: Mapping[type[CloudError], str] = {
    CloudUnreachableError: "Look whether the libvirtd of that URI runs (virsh -c URI version), then run again.",
    CloudCredentialError: "Nobody can be asked for a password: let this user in by the socket's group, or by an SSH "
    "key without a passphrase.",
    CloudForbiddenError: "Let this user do it: usually by the group libvirt, or by polkit's rules.",
    CloudQuotaError: "Make room in the pool, or choose another one, then run again.",
    CloudImageGoneError: "Nothing was changed. Run again: a new plan is made from what is there now.",
    CloudNameTakenError: "Rename what has that name, then run again.",
    CloudRefusedImageError: "Look at what that libvirt and its QEMU can do: virsh domcapabilities.",
}


class LibvirtProblem(Protocol):
    """The part of ``libvirt.libvirtError`` that is looked at."""

    def get_error_code(self) -> int | None:
        """Return the number of the error."""
        ...

    def get_int1(self) -> int | None:
        """Return a number beside it: the system's, where the system failed."""
        ...

    def get_error_message(self) -> str | None:
        """Return what libvirt says of it."""
        ...


def is_about(problem: LibvirtProblem, *codes: int) -> bool:
    """Tell whether an error has one of these numbers."""
    return problem.get_error_code() in codes


def translated(problem: LibvirtProblem, cloud: str, doing: str) -> CloudError:
    """Return Coppice's error for one of libvirt's."""
    said = (problem.get_error_message() or str(problem))[:1000]
    kind = _kind(problem, said)
    return kind(
        f"cloud {cloud}: {doing} failed: {said}",
        resolution=_RESOLUTIONS.get(kind, "Look into the log of that libvirtd, then run again."),
        context={"cloud": cloud, "libvirt_code": problem.get_error_code()},
    )


def _kind(problem: LibvirtProblem, said: str) -> type[CloudError]:
    for text, kind in _TEXTS.items():
        if text in said:
            return kind
    code = problem.get_error_code()
    if code == _SYSTEM:
        return _SYSTEM_KINDS.get(problem.get_int1() or 0, CloudFaultError)
    return _KINDS.get(code or 0, CloudFaultError)
