# SPDX-License-Identifier: Apache-2.0
"""Where a request goes: a URL taken apart and judged, and the rule for redirects."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urljoin, urlsplit

from coppice.errors import AddressRefusedError, RedirectRefusedError

URL_LIMIT_CHARACTERS = 8192
_PORTS = {"http": 80, "https": 443}
_SAFE_IN_PATH = "/%:@!$&'()*+,;=~-._"
_HOST_LIMIT = 253
_SECRET_WORDS = ("auth", "credential", "key", "passw", "secret", "sig", "token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A URL that may be asked for.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name or numeric address, in lower case, international names in their ASCII form.
        port: 1 to 65535.
        target: Path and query as they go into the request.
        authorization: Value of the Authorization header, from user information in the URL; never shown.
    """

    scheme: str
    host: str
    port: int
    target: str
    authorization: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port, as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what is shown to one server is shown to no other."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The URL without user information."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """What messages show of the URL: neither user information nor what a query has of signatures and tokens."""
        return _without_secrets(self.url)


def parse_location(url: str) -> Location:
    """Take ``url`` apart.

    Spaces, quotes and other characters that a URL may not have are percent-encoded; control characters are refused.

    Raises:
        AddressRefusedError: It is not an ``http`` or ``https`` URL that can be asked for safely.
    """
    shown = show(url)
    if len(url) > URL_LIMIT_CHARACTERS:
        raise _refused(shown, f"is longer than {URL_LIMIT_CHARACTERS} characters")
    if any(not character.isprintable() for character in url):
        raise _refused(shown, "contains control or invisible characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        name = parts.hostname or ""
    except ValueError as problem:
        raise _refused(shown, f"is malformed ({problem})") from problem
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise _refused(shown, "is not an http or https URL")
    if port == 0:
        raise _refused(shown, "names port 0")
    path = quote(parts.path or "/", safe=_SAFE_IN_PATH)
    query = quote(parts.query, safe=_SAFE_IN_PATH + "?")
    return Location(
        scheme=scheme,
        host=_host(name, shown),
        port=port or _PORTS[scheme],
        target=f"{path}?{query}" if query else path,
        authorization=_authorization(scheme, parts.username, parts.password, shown),
    )


def redirected(origin: Location, header: str) -> Location:
    """Return where a redirect from ``origin`` leads.

    Credentials go along only to the same scheme, host and port.

    Raises:
        RedirectRefusedError: It leads away from HTTP, from https to http, or brings credentials of its own.
    """
    try:
        target = parse_location(urljoin(origin.url, header))
    except (AddressRefusedError, ValueError) as problem:
        raise _redirect_refused(origin, f"to {show(header)}, which is no http or https URL") from problem
    if origin.scheme == "https" and target.scheme == "http":
        raise _redirect_refused(origin, f"from https to plain http ({show(target.url)})")
    if target.authorization is not None:
        raise _redirect_refused(origin, "to a URL with credentials in it")
    same = origin.origin == target.origin
    return Location(
        scheme=target.scheme,
        host=target.host,
        port=target.port,
        target=target.target,
        authorization=origin.authorization if same else None,
    )


def show(url: str, limit: int = 200) -> str:
    """Return ``url`` for a message: user information left out, odd characters escaped, cut to ``limit`` characters."""
    before, separator, after = url.partition("://")
    if separator:
        authority = after.replace("\\", "/").split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]
        if "@" in authority:
            after = "…@" + after[authority.rindex("@") + 1 :]
        url = before + separator + after
    url = _without_secrets(url)
    escaped = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in url
    )
    return f"'{escaped if len(escaped) <= limit else escaped[:limit] + '…'}'"


def _without_secrets(url: str) -> str:
    """Hide the values of a query's secrets: who holds a signed URL needs no other credential."""
    path, mark, query = url.partition("?")
    if not mark:
        return url
    parts = []
    for part in query.split("&"):
        name, sign, value = part.partition("=")
        is_secret = value and any(word in name.lower() for word in _SECRET_WORDS)
        parts.append(f"{name}{sign}…" if is_secret else part)
    return path + mark + "&".join(parts)


def _host(name: str, shown: str) -> str:
    if not name:
        raise _refused(shown, "names no host")
    if "%" in name:
        raise _refused(shown, "has a percent sign in its host")
    if ":" in name:
        return name.lower()
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError as problem:
        raise _refused(shown, "has a host name that cannot be written in ASCII") from problem
    if len(ascii_name) > _HOST_LIMIT or not all(letter.isalnum() or letter in "-._" for letter in ascii_name):
        raise _refused(shown, "has a malformed host name")
    return ascii_name.lower()


def _authorization(scheme: str, username: str | None, password: str | None, shown: str) -> str | None:
    if username is None and password is None:
        return None
    if scheme != "https":
        raise _refused(shown, "would send credentials in clear text (http)")
    pair = f"{unquote(username or '')}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode("utf-8")).decode("ascii")


def _refused(shown: str, reason: str) -> AddressRefusedError:
    return AddressRefusedError(
        f"the URL {shown} {reason}", resolution="Correct the URL; it is not asked for.", context={"url": shown}
    )


def _redirect_refused(origin: Location, where: str) -> RedirectRefusedError:
    return RedirectRefusedError(
        f"{show(origin.url)} redirects {where}",
        resolution=f"Ask whoever runs {origin.host}; if the new place is right, use its URL.",
        context={"url": origin.shown, "host": origin.host},
    )
