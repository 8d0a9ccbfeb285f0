# SPDX-License-Identifier: Apache-2.0
"""Lists that are signed well, by somebody whose certificate does not make them believed."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from world import DAY, Made, World, refused

from coppice.testing.authority import Authority, Identity, KeyType, make_key, make_name
from coppice.testing.odd import Oddity, altered

NAMES = "OpenSSL knows nothing of whom a subscription names"
NAMESPACES = "OpenSSL does not read namespaces and signing policies"
USAGE = "OpenSSL is told `-purpose any`, or it would refuse robots; usage is then for the caller to check"
PERMIT = 'TO Issuer "/DC=org/DC=example/CN=Example CA" PERMIT Subject "/DC=org/DC=example/CN=J.*"\n'
EXAMPLE_NAMESPACES = PERMIT.replace("CN=J.*", ".*").encode()
OTHER_NAMESPACES = b'TO Issuer "/DC=org/DC=example/CN=Other CA" PERMIT Subject "/DC=org/DC=elsewhere/.*"\n'


def igtf(world: World, **files: bytes) -> str:
    """Return a folder with two authorities, each with its namespaces."""
    content = {"ca0.namespaces": EXAMPLE_NAMESPACES, "ca1.namespaces": OTHER_NAMESPACES}
    content |= {name.replace("_", ".", 1): text for name, text in files.items()}
    name = "igtf-" + "-".join(sorted(files)) if files else "igtf"
    return world.trust(name, world.ca, world.other, files={each: text for each, text in content.items() if text})


def by(world: World, signer: Identity, **settings: object) -> Made:
    """Return the list, honestly signed by this one."""
    return Made(message=world.signed(signer=signer), **settings)


# The path.


@refused("signer-untrusted", "T17")
def authority_that_nobody_trusts(world: World) -> Made:
    return by(world, world.stranger.issue("Jane Doe"), endorsers=(world.stranger.issue("Jane Doe"),))


@refused("signer-untrusted", "T17")
def authority_of_the_same_name(world: World) -> Made:
    return by(world, Authority.create("Example CA").issue("Jane Doe"))


@refused("signer-untrusted", "T17")
def authority_of_the_same_name_along(world: World) -> Made:
    attacker = Authority.create("Example CA")
    return by(world, replace(attacker.issue("Jane Doe"), chain=(attacker.identity.certificate,)))


@refused("signer-untrusted", "T17")
def signed_by_itself(world: World) -> Made:
    key = make_key()
    name = make_name("Jane Doe")
    return by(world, Identity(certificate=world.certify(world.ca, name, key, signing_key=key, issuer=name), key=key))


@refused("signer-untrusted", "T22")
def end_entity_as_authority(world: World) -> Made:
    below = Authority(identity=replace(world.jane, chain=(world.jane.certificate,)))
    signer = replace(below.issue("Jane Doe"), chain=(world.jane.certificate,))
    return by(
        world,
        signer,
        trust=world.trust("with-end-entity", world.ca, crls=(world.ca.crl(), below.crl())),
        endorsers=(signer,),
    )


@refused("signer-untrusted")
def missing_intermediate(world: World) -> Made:
    signer = replace(world.sub.issue("Jane Doe"), chain=())
    return by(world, signer, endorsers=(signer,))


@refused("signer-untrusted", "T15")
def authority_certified_under_a_trusted_name(world: World) -> Made:
    imposter = world.other.issue_authority("Example CA")
    trust = world.trust("imposter", world.ca, world.other, crls=(world.ca.crl(), world.other.crl()))
    return by(world, imposter.issue("Jane Doe"), trust=trust)


@refused("signer-untrusted")
def authority_that_may_not_certify(world: World) -> Made:
    key = make_key()
    usage = x509.KeyUsage(**dict.fromkeys(_USAGES, False) | {"digital_signature": True})
    extensions = [(x509.BasicConstraints(ca=True, path_length=None), True), (usage, True)]
    certificate = world.certify(world.ca, make_name("No Signing CA"), key, extensions)
    below = Authority(identity=Identity(certificate=certificate, key=key, chain=(certificate,)))
    signer = replace(below.issue("Jane Doe"), chain=(certificate,))
    return by(
        world,
        signer,
        trust=world.trust("no-signing", world.ca, crls=(world.ca.crl(), below.crl())),
        endorsers=(signer,),
    )


@refused("signer-untrusted")
def path_longer_than_the_authority_allows(world: World) -> Made:
    key = make_key()
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(**dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(world.ca.identity.key.public_key()), False),
    ]
    certificate = world.certify(world.ca, make_name("Short CA"), key, extensions)
    short = Authority(identity=Identity(certificate=certificate, key=key, chain=()))
    below = short.issue_authority("Below CA")
    signer = replace(below.issue("Jane Doe"), chain=(below.identity.certificate, certificate))
    trust = world.trust("short", world.ca, crls=(world.ca.crl(), short.crl(), below.crl()))
    return by(world, signer, trust=trust, endorsers=(signer,))


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


# Dates.


@refused("signer-expired", "T18")
def yesterday(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", not_before=world.now - 90 * DAY, not_after=world.now - DAY))


@refused("signer-expired", "T18")
def not_before_tomorrow(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", not_before=world.now + DAY))


@refused("signer-expired", "T18")
def intermediate_yesterday(world: World) -> Made:
    old = world.ca.issue_authority("Old Sub CA", not_before=world.now - 90 * DAY, not_after=world.now - DAY)
    signer = old.issue("Jane Doe")
    return by(
        world, signer, trust=world.trust("old-sub", world.ca, crls=(world.ca.crl(), old.crl())), endorsers=(signer,)
    )


@refused("signer-expired", "T18", "T23")
def root_yesterday(world: World) -> Made:
    old = Authority.create("Old Root CA", not_before=world.now - 900 * DAY, not_after=world.now - DAY)
    signer = old.issue("Jane Doe")
    return by(world, signer, trust=world.trust("old-root", world.ca, old), endorsers=(signer,))


# Usage.


@refused("signer-usage", "T22", openssl=True, why=USAGE)
def key_encipherment_only(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", key_usage=("key_encipherment",)))


@refused("signer-usage", "T22", openssl=True, why=USAGE)
def servers_only(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", extended_key_usage=[ExtendedKeyUsageOID.SERVER_AUTH]))


@refused("signer-usage", "T22", openssl=True, why=USAGE)
def code_signing_only(world: World) -> Made:
    return by(world, world.ca.issue("Jane Doe", extended_key_usage=[ExtendedKeyUsageOID.CODE_SIGNING]))


@refused("signer-usage", "T22", openssl=True, why=USAGE)
def code_signing_even_where_hosts_are_accepted(world: World) -> Made:
    signer = world.ca.issue("Jane Doe", extended_key_usage=[ExtendedKeyUsageOID.CODE_SIGNING])
    return by(world, signer, options=("--accept-host-certificate",))


@refused("signer-usage", "T22", openssl=True, why=USAGE)
def an_authority_itself(world: World) -> Made:
    signer = world.sub.identity
    return by(
        world, signer, trust=world.trust("sub", world.ca, crls=(world.ca.crl(), world.sub.crl())), endorsers=(signer,)
    )


@refused("signer-usage", "T22")
def unknown_critical_extension(world: World) -> Made:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    return by(world, world.ca.issue("Jane Doe", extensions=[(unknown, True)]))


@refused("signer-usage", "T22")
def proxy_information(world: World) -> Made:
    """A proxy as RFC 3820 has it: made by an end entity, and saying so."""
    information = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"), bytes.fromhex("300c300a06082b06010505071501")
    )
    return by(world, world.ca.issue("Jane Doe", extensions=[(information, True)]))


# Strength of the path.


@refused(
    "list-signature-weak", "T11", openssl=True, why="OpenSSL accepts sha1 in certificates at its default security level"
)
def certificate_signed_with_sha1(world: World) -> Made:
    signer = world.rsa_ca.issue("Jane Doe")
    weak = replace(signer, certificate=altered(signer.certificate, world.rsa_ca.identity.key, Oddity(), digest="sha1"))
    return by(world, weak, trust=world.trust("rsa", world.rsa_ca), endorsers=(signer,))


@refused(
    "list-signature-weak", "T11", openssl=True, why="OpenSSL accepts RSA 1024 at its default security level for CMS"
)
def intermediate_of_1024_bits(world: World) -> Made:
    key = make_key(KeyType.RSA_1024)
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(**dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(world.ca.identity.key.public_key()), False),
    ]
    certificate = world.certify(world.ca, make_name("Weak CA"), key, extensions)
    weak = Authority(identity=Identity(certificate=certificate, key=key, chain=()))
    signer = replace(weak.issue("Jane Doe"), chain=(certificate,))
    return by(
        world, signer, trust=world.trust("weak", world.ca, crls=(world.ca.crl(), weak.crl())), endorsers=(signer,)
    )


# Revocation.


def revoked(world: World, trust: str, **settings: object) -> Made:
    """Return a list by a signer whom the CRL in that folder of trust anchors revokes."""
    authority = Authority(identity=world.ca.identity)
    signer = authority.issue("Jane Doe")
    authority.revoke(signer.certificate)
    return by(world, signer, trust=world.trust(trust, authority), **settings)


@refused("signer-revoked", "T19")
def by_the_current_crl(world: World) -> Made:
    return revoked(world, "revoked")


@refused("signer-revoked", "T19")
def even_where_crls_are_asked_if_present(world: World) -> Made:
    return revoked(world, "revoked-if-present", options=("--revocation", "if-present"))


@refused("signer-revoked", "T19")
def by_a_crl_that_has_expired(world: World) -> Made:
    authority = Authority(identity=world.ca.identity)
    signer = authority.issue("Jane Doe")
    authority.revoke(signer.certificate)
    old = authority.crl(last_update=world.now - 10 * DAY, next_update=world.now - DAY)
    return by(world, signer, trust=world.trust("revoked-long-ago", authority, crls=(old,)))


@refused("authority-revoked", "T20")
def intermediate(world: World) -> Made:
    root = Authority(identity=world.ca.identity)
    below = root.issue_authority("Revoked CA")
    root.revoke(below.identity.certificate)
    signer = below.issue("Jane Doe")
    return by(
        world, signer, trust=world.trust("revoked-sub", root, crls=(root.crl(), below.crl())), endorsers=(signer,)
    )


@refused("revocation-unknown", "T21")
def no_crl(world: World) -> Made:
    return by(world, world.jane, trust=world.trust("no-crl", world.ca, crls=()))


@refused("revocation-unknown", "T21")
def crl_of_another_authority_only(world: World) -> Made:
    return by(world, world.jane, trust=world.trust("other-crl", world.ca, crls=(world.other.crl(),)))


@refused("revocation-unknown", "T21")
def no_crl_of_the_intermediate(world: World) -> Made:
    signer = world.sub.issue("Jane Doe")
    return by(world, signer, trust=world.trust("no-sub-crl", world.ca), endorsers=(signer,))


@refused("revocation-expired", "T21")
def crl_of_last_week(world: World) -> Made:
    old = world.ca.crl(last_update=world.now - 10 * DAY, next_update=world.now - DAY)
    return by(world, world.jane, trust=world.trust("old-crl", world.ca, crls=(old,)))


@refused("revocation-expired", "T21")
def crl_of_tomorrow(world: World) -> Made:
    early = world.ca.crl(last_update=world.now + DAY, next_update=world.now + 2 * DAY)
    return by(world, world.jane, trust=world.trust("early-crl", world.ca, crls=(early,)))


@refused("revocation-expired", "T21")
def crl_of_last_week_where_crls_are_asked_if_present(world: World) -> Made:
    return replace(crl_of_last_week(world), options=("--revocation", "if-present"))


@refused("revocation-forged", "T21")
def crl_by_another_key(world: World) -> Made:
    forged = world.ca.crl(key=make_key())
    return by(world, world.jane, trust=world.trust("forged-crl", world.ca, crls=(forged,)))


# Names.


@refused("signer-namespace", "T15", openssl=True, why=NAMESPACES)
def same_name_by_another_trusted_authority(world: World) -> Made:
    signer = world.other.issue("Jane Doe")
    return by(world, signer, trust=igtf(world), endorsers=(signer,))


@refused("signer-namespace", "T15", openssl=True, why=NAMESPACES)
def outside_the_signing_policy(world: World) -> Made:
    policy = (
        b"access_id_CA X509 '/DC=org/DC=example/CN=Example CA'\n"
        b"pos_rights globus CA:sign\ncond_subjects globus '\"/DC=org/DC=elsewhere/*\"'\n"
    )
    trust = world.trust("signing-policy", world.ca, files={"ca0.signing_policy": policy})
    return by(world, world.jane, trust=trust)


@refused("signer-namespace-unknown", "T15", openssl=True, why=NAMESPACES)
def no_policy_of_the_authority(world: World) -> Made:
    trust = world.trust("half-igtf", world.ca, world.other, files={"ca1.namespaces": OTHER_NAMESPACES})
    return by(world, world.jane, trust=trust)


@refused("signer-namespace-unknown", openssl=True, why=NAMESPACES)
def no_policies_where_they_are_required(world: World) -> Made:
    return by(world, world.jane, options=("--namespaces", "require"))


@refused("signer-namespace-unknown", openssl=True, why=NAMESPACES)
def policy_that_cannot_be_understood(world: World) -> Made:
    broken = b'TO Issuer "/DC=org/DC=example/CN=Example CA" PERMITS Subject\n'
    trust = world.trust("broken-igtf", world.ca, files={"ca0.namespaces": broken})
    return by(world, world.jane, trust=trust)


# Whom the subscription names.


@refused("signer-not-pinned", "T13", openssl=True, why=NAMES)
def another_of_the_same_authority(world: World) -> Made:
    return by(world, world.mallory)


@refused("signer-not-pinned", "T13", openssl=True, why=NAMES)
def another_of_another_authority(world: World) -> Made:
    return by(world, world.other.issue("Mallory"))


@refused("signer-not-pinned", "T15", openssl=True, why=NAMES)
def same_name_where_no_namespaces_are_known(world: World) -> Made:
    return by(world, world.other.issue("Jane Doe"))


@refused("signer-not-pinned", "T16", openssl=True, why=NAMES)
def slash_in_a_name(world: World) -> Made:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org"),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example/CN=Jane Doe"),
        ]
    )
    signer = world.ca.issue("", subject=name)
    return Made(message=world.signed(world.payload(), signer))


@refused("signer-not-pinned", "T16", openssl=True, why=NAMES)
def two_attributes_in_one_relative_name(world: World) -> Made:
    first = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "org")])
    both = [
        x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Jane Doe"),
    ]
    signer = world.ca.issue("", subject=x509.Name([first, x509.RelativeDistinguishedName(both)]))
    return Made(message=world.signed(world.payload(), signer))


@refused("signer-not-pinned", "T16", openssl=True, why=NAMES)
def attributes_in_another_order(world: World) -> Made:
    name = x509.Name(list(world.jane.certificate.subject)[::-1])
    signer = world.ca.issue("", subject=name)
    return Made(message=world.signed(world.payload(), signer))


@refused("endorser-unknown", openssl=True, why=NAMES)
def nobody_is_named(world: World) -> Made:
    return by(world, world.jane, endorsers=())
