"""Certificates of the operator's own making: an authority, and the leaves that it signs for replicas.

`rotation` decides when, `store` keeps the authority in a Secret, `own` serves the leaf. Everything is ECDSA P-256 with
SHA-256, which each TLS library knows. Invariants: a certificate is valid `BACKDATE` before it was made, so that a clock
that is minutes behind accepts it; a leaf never outlives its authority; a leaf's key never leaves the process.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["BACKDATE", "Authority", "BadCertificate", "Leaf", "certificates", "issue", "make_authority", "pem"]

BACKDATE = dt.timedelta(hours=1)
"""How far the clocks of workers may be behind the operator's."""


class BadCertificate(ValueError):
    """What was read is no certificate, no key, or they do not belong together. The message says which."""


class Authority(msgspec.Struct, frozen=True):
    """A certificate that signs leaves, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Authority:
        """Raises `BadCertificate`."""
        found = certificates(certificate)
        if len(found) != 1:
            raise BadCertificate(f"there are {len(found)} certificates; one is needed")
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise BadCertificate(f"the key is no unencrypted PEM key: {error}") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise BadCertificate("the key is not of an elliptic curve, as the operator makes them")
        if private.public_key() != found[0].public_key():
            raise BadCertificate("the key is not that of the certificate")
        return cls(found[0], private)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def made_ms(self) -> int:
        """When it was made, milliseconds since the epoch."""
        return _ms(self.certificate.not_valid_before_utc + BACKDATE)

    @property
    def expires_ms(self) -> int:
        return _ms(self.certificate.not_valid_after_utc)


class Leaf(msgspec.Struct, frozen=True):
    """A replica's certificate, its key, and the authority that signed it."""

    certificate_pem: bytes
    key_pem: bytes
    issuer: x509.Certificate
    made_ms: int
    expires_ms: int


def make_authority(now_ms: int, lifetime_ms: int) -> Authority:
    """A new authority, for `lifetime_ms` from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: who has two authorities in a bundle must not take one for the other.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tickwheel authority {serial:040x}"[:36])])
    certificate = (
        _builder(now_ms, now_ms + lifetime_ms, serial)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(authority: Authority, *, names: Sequence[str], now_ms: int, lifetime_ms: int) -> Leaf:
    """A leaf for a server that is called by these DNS names and IP addresses, with a new key."""
    if not names:
        raise ValueError("a leaf needs a name that the gateway is called by")
    key = ec.generate_private_key(ec.SECP256R1())
    until_ms = min(now_ms + lifetime_ms, authority.expires_ms)
    certificate = (
        _builder(now_ms, until_ms, x509.random_serial_number())
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tickwheel gateway")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Leaf(pem([certificate]), key_pem, authority.certificate, now_ms, _ms(certificate.not_valid_after_utc))


def certificates(text: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file; text around them is ignored. Raises `BadCertificate`."""
    if not text.strip():
        return []
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise BadCertificate(f"it holds no PEM certificate: {error}") from None


def pem(found: Iterable[x509.Certificate]) -> bytes:
    """One file of them."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in found)


def _builder(now_ms: int, until_ms: int, serial: int) -> x509.CertificateBuilder:
    now = dt.datetime.fromtimestamp(now_ms // 1000, dt.UTC)
    until = dt.datetime.fromtimestamp(until_ms // 1000, dt.UTC)
    return x509.CertificateBuilder().serial_number(serial).not_valid_before(now - BACKDATE).not_valid_after(until)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _ms(instant: dt.datetime) -> int:
    return int(instant.timestamp()) * 1000
