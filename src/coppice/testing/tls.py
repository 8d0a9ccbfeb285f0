# SPDX-License-Identifier: Apache-2.0
"""TLS for servers on loopback: self-signed, or below a throw-away authority, with or without clients' certificates."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from coppice.testing.authority import Authority


def server_tls(
    directory: Path,
    authority: Authority,
    *names: str,
    clients: Authority | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> ssl.SSLContext:
    """Return the context of a server on loopback whose certificate ``authority`` issued.

    Args:
        directory: Where certificate and key are written.
        authority: It issues the certificate.
        names: What the certificate is for; none: loopback.
        clients: Clients must show a certificate of this authority.
        not_before: Of the certificate.
        not_after: Of the certificate.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    if not names:
        alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    identity = authority.issue(
        names[0] if names else "localhost",
        not_before=not_before,
        not_after=not_after,
        extended_key_usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
        extensions=((x509.SubjectAlternativeName(alternatives), False),),
    )
    certificate, key = identity.write_to(directory, f"server-{identity.certificate.serial_number:x}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients is not None:
        from cryptography.hazmat.primitives.serialization import Encoding

        context.load_verify_locations(cadata=clients.identity.certificate.public_bytes(Encoding.DER))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def throw_away_tls(directory: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """Make a self-signed certificate for loopback and ``names``; return the server's context and the file to trust."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away")])
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in ("localhost", *names)]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    trusted, private = directory / "server.pem", directory / "server.key"
    trusted.write_bytes(certificate.public_bytes(pem))
    private.touch(mode=0o600)
    private.write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted
