# SPDX-License-Identifier: Apache-2.0
"""What a definition may say, and had better not: secrets, sources that nobody vouches for, doors left open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.definition.layers import Elements, known_by, node_at, origin_near
from coppice.definition.model import ProvisionerKind
from coppice.definition.places import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from coppice.definition.layers import Origin
    from coppice.definition.lines import KeyPath
    from coppice.definition.resolve import ResolvedDefinition

WARN_BEFORE_END = timedelta(days=90)
_HEAD_LINES = 40
_SCANNED_BYTES = 256 * 1024
_SCANNED_LINE = 1000


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that a definition had better not do.

    Attributes:
        code: Its name.
        severity: How bad it is.
        advice: What to do instead.
    """

    code: str
    severity: Severity
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that a definition breaks.

    Attributes:
        rule: Which.
        message: What was found.
        origin: Where.
    """

    rule: Rule
    message: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Text:
    what: str
    content: str
    location: KeyPath
    is_script: bool
    interpreter: tuple[str, ...] = ()


def _rule(code: str, severity: Severity, advice: str) -> tuple[str, Rule]:
    return code, Rule(code=code, severity=severity, advice=advice)


RULES: dict[str, Rule] = dict(
    (
        _rule(
            "password",
            Severity.ERROR,
            "Take it out: whoever has the image has it, and all machines share it. Have it made at first boot.",
        ),
        _rule("private-key", Severity.ERROR, "Take it out: whoever has the image has it. Have it made at first boot."),
        _rule(
            "authorised-key",
            Severity.ERROR,
            "Take it out: who may log in, the cloud says when a machine starts, through cloud-init.",
        ),
        _rule(
            "account-file",
            Severity.ERROR,
            "Make accounts with [[user]]: such a file takes the place of those that packages have made.",
        ),
        _rule("password-login", Severity.ERROR, "Take it out: people log in by SSH key; a password can be guessed."),
        _rule(
            "unverified-source",
            Severity.ERROR,
            "Fetch from a source whose signature is checked, or compare a checksum that stands in the script.",
        ),
        _rule(
            "plain-http",
            Severity.ERROR,
            "Fetch by https, or compare a checksum that stands in the same script.",
        ),
        _rule(
            "pipe-to-shell",
            Severity.ERROR,
            "Fetch the script to a file, compare its checksum, then run it; or keep it beside the definition.",
        ),
        _rule("world-writable", Severity.ERROR, "Give a mode that lets the owner write, or the group: 0644, 0664."),
        _rule(
            "setuid",
            Severity.WARNING,
            "Do without: give the right by sudo or by a service; otherwise add an [[audit-exception]] with its reason.",
        ),
        _rule("sudo-reason", Severity.WARNING, "Say in its comment why it may do everything; or leave sudo away."),
        _rule(
            "errors-ignored",
            Severity.WARNING,
            "Begin the script with `set -e`, or give the interpreter -e: else a failed command goes unnoticed.",
        ),
        _rule("no-firewall", Severity.WARNING, "Leave it on, and name what is to be reached in firewall.open."),
        _rule(
            "end-of-life",
            Severity.ERROR,
            "Move to a release that gets updates; from that day on nothing is built of it any more.",
        ),
        _rule("end-of-life-near", Severity.WARNING, "Move to a newer release in time."),
        _rule("title-inherited", Severity.WARNING, "Give appliance.title: people tell appliances apart by it."),
        _rule(
            "no-test", Severity.WARNING, "Add a [[test]]: a script that fails when the appliance does not do its work."
        ),
    )
)
"""By their codes."""

_FETCH = r"(?:curl|wget|get_url|url|source|uri|baseurl|git\s+clone|pip3?\s+install)\b"
_LOCAL = r"(?!localhost|127\.|\[::1\]|169\.254\.169\.254)"
_PATTERNS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("private-key", re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"), "a private key"),
    (
        "authorised-key",
        re.compile(r"\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) AAAA[A-Za-z0-9+/]{16}"),
        "a public SSH key",
    ),
    ("password", re.compile(r"\$(?:1|2[abxy]?|5|6|7|y|gy)\$[./A-Za-z0-9=,$]{16,}"), "the hash of a password"),
    (
        "password",
        re.compile(r"^[^#\n]*\b(?:chpasswd\b|plain_text_passwd\s*:|hashed_passwd\s*:|passwd\s*:\s*\S)", re.MULTILINE),
        "a password that is set",
    ),
    (
        "password",
        re.compile(
            r"^[^#\n]*\b(?:password|passphrase|secret)\s*[:=]\s*['\"]?[^\s'\"$%{<(]{4,}", re.MULTILINE | re.IGNORECASE
        ),
        "what looks like a password",
    ),
    (
        "password-login",
        re.compile(
            r"^\s*(?:PasswordAuthentication\s+yes|PermitRootLogin\s+yes|PermitEmptyPasswords\s+yes|ssh_pwauth\s*:\s*"
            r"(?:true|yes|1))\b",
            re.MULTILINE | re.IGNORECASE,
        ),
        "login by password",
    ),
    (
        "unverified-source",
        re.compile(
            r"\[[^\]\n]*\btrusted=yes|--allow-unauthenticated|--no-?gpg-?check|\bgpgcheck\s*=\s*0"
            r"|\bcurl\b[^\n|;]*\s(?:-[a-zA-Z]*k\b|--insecure)|--no-check-certificate|\bvalidate_certs\s*:\s*(?:no|false)"
        ),
        "a check of a source that is switched off",
    ),
    (
        "pipe-to-shell",
        re.compile(r"\b(?:curl|wget)\b[^\n|]*\|\s*(?:sudo\s+)?(?:\S*/)?(?:ba|da|z)?sh\b"),
        "what a server sends is run as it comes",
    ),
)
_PLAIN_HTTP = re.compile(rf"^[^#\n]*{_FETCH}[^\n]*\bhttp://{_LOCAL}", re.MULTILINE | re.IGNORECASE)
_VOUCHED = re.compile(
    r"\b(?:sha(?:256|384|512)(?:sum)?|b2sum|checksum|gpgv?|signed-by|minisign|cosign)\b", re.IGNORECASE
)
_SHELL = re.compile(r"(?:^|/)(?:ba|da|k|z)?sh$")
_STOPS = re.compile(r"^\s*set\s+(?:-[a-z]*e|-o\s+errexit)", re.MULTILINE)
_ACCOUNT_FILES = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow")


def lint(resolved: ResolvedDefinition, today: date) -> tuple[Finding, ...]:
    """Return what is found in a definition, its parents' part of it too, in the order of `RULES`.

    Args:
        resolved: The definition.
        today: For its end of life.
    """
    found = [*_texts_found(resolved), *_files(resolved), *_users(resolved), *_whole(resolved, today)]
    order = list(RULES)
    return tuple(sorted(dict.fromkeys(found), key=lambda each: order.index(each.rule.code)))


def _finding(resolved: ResolvedDefinition, code: str, message: str, location: KeyPath) -> Finding:
    return Finding(rule=RULES[code], message=message, origin=origin_near(resolved.document, location))


def _texts(resolved: ResolvedDefinition) -> Iterator[_Text]:
    definition = resolved.definition
    for number, file in enumerate(definition.files):
        yield _Text(file.path, _decoded(file.content), ("file", number), is_script=False)
    said = definition.contextualisation.user_data
    if said is not None:
        yield _Text("user-data", _decoded(said), ("contextualisation",), is_script=False)
    for number, test in enumerate(definition.tests):
        yield _Text(f"test {test.name}", _decoded(test.script), ("test", number), is_script=True)
    for each in definition.provisioners:
        location = _provisioner_at(resolved, each.name)
        for path, content in each.files.items():
            is_script = each.kind is ProvisionerKind.SHELL and path == each.entry
            yield _Text(f"{each.name}: {path}", _decoded(content), location, is_script, each.interpreter)


def _provisioner_at(resolved: ResolvedDefinition, name: str) -> KeyPath:
    items = node_at(resolved.document, ("provisioner",))
    for number, item in enumerate(items.items if isinstance(items, Elements) else ()):
        said = known_by(item, "name")
        # Scripts of a folder have their own names after that.
        if said is not None and (name == said or name.startswith(f"{said}-")):
            return ("provisioner", number)
    return ("provisioner",)


def _decoded(content: bytes) -> str:
    # Long lines are no text that people write, and make searching slow.
    text = content[:_SCANNED_BYTES].decode("utf-8", errors="replace")
    return "\n".join(line[:_SCANNED_LINE] for line in text.split("\n"))


def _texts_found(resolved: ResolvedDefinition) -> Iterator[Finding]:
    for text in _texts(resolved):
        for code, pattern, what in _PATTERNS:
            match = pattern.search(text.content)
            if match is not None:
                where = f"line {text.content.count(chr(10), 0, match.end()) + 1} of {text.what}"
                yield _finding(resolved, code, f"{what} in {where}", text.location)
        match = _PLAIN_HTTP.search(text.content)
        if match is not None and not _VOUCHED.search(text.content):
            where = f"line {text.content.count(chr(10), 0, match.end()) + 1} of {text.what}"
            yield _finding(
                resolved, "plain-http", f"an unencrypted source, without a checksum, in {where}", text.location
            )
        if text.is_script and _goes_on(text):
            yield _finding(resolved, "errors-ignored", f"{text.what} goes on after a command has failed", text.location)


def _goes_on(text: _Text) -> bool:
    first = text.content.partition("\n")[0]
    words = list(text.interpreter) or (first.removeprefix("#!").split() if first.startswith("#!") else ["sh"])
    if words[0].endswith("/env"):
        words = words[1:] or ["sh"]
    if not _SHELL.search(words[0]):
        return False
    lines = [each for each in text.content.splitlines() if each.strip() and not each.lstrip().startswith("#")]
    is_one_command = len(lines) <= 1
    stops = any(re.fullmatch(r"-[a-z]*e[a-z]*", word) for word in words[1:])
    return not (is_one_command or stops or _STOPS.search("\n".join(text.content.splitlines()[:_HEAD_LINES])))


def _files(resolved: ResolvedDefinition) -> Iterator[Finding]:
    for number, file in enumerate(resolved.definition.files):
        location = ("file", number)
        if file.mode & 0o002:
            yield _finding(resolved, "world-writable", f"everybody may write to {file.path}", location)
        if file.mode & 0o6000:
            yield _finding(resolved, "setuid", f"{file.path} runs with the rights of its owner or group", location)
        if file.path in _ACCOUNT_FILES:
            yield _finding(resolved, "account-file", f"{file.path} is laid in", location)
        if file.path.endswith("/.ssh/authorized_keys"):
            yield _finding(resolved, "authorised-key", f"{file.path} is laid in", location)


def _users(resolved: ResolvedDefinition) -> Iterator[Finding]:
    for number, user in enumerate(resolved.definition.users):
        if user.sudo and not user.comment.strip():
            yield _finding(
                resolved, "sudo-reason", f"{user.name} may do everything, and nothing says why", ("user", number)
            )


def _whole(resolved: ResolvedDefinition, today: date) -> Iterator[Finding]:
    definition, own = resolved.definition, str(resolved.chain[0].folder / FILE_NAME)
    if not definition.firewall.enabled:
        yield _finding(resolved, "no-firewall", "there is no firewall", ("firewall", "enabled"))
    end = definition.end_of_life
    if end is not None and end <= today:
        yield _finding(
            resolved, "end-of-life", f"there are no updates since {end}", ("operating-system", "end-of-life")
        )
    elif end is not None and end - today <= WARN_BEFORE_END:
        said = f"there are no updates from {end} on"
        yield _finding(resolved, "end-of-life-near", said, ("operating-system", "end-of-life"))
    title = origin_near(resolved.document, ("appliance", "title"))
    if definition.parent is not None and title.source != own:
        yield _finding(
            resolved, "title-inherited", f"its title is its parent's: {definition.title}", ("appliance", "title")
        )
    does_more = definition.provisioners or definition.services.enabled or definition.firewall.open_ports
    if does_more and not (definition.tests or definition.pages):
        yield _finding(resolved, "no-test", "nothing tests whether it does its work", ("appliance",))
