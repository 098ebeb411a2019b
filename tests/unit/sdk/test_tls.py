"""TLS: replicas are called at their own addresses, with the certificate of the endpoint's name."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from tests.unit.sdk.fake_operator import FakeOperator

x509 = pytest.importorskip("cryptography.x509")


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that is its own authority, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "tls.crt", folder / "tls.key"


@pytest.fixture
async def tls(tmp_path):
    """An operator whose endpoint is https://localhost, and whose replica calls itself https://127.0.0.1."""
    certificate, key = make_certificate(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    fake = FakeOperator()
    server = TestServer(fake.app(0), scheme="https", host="127.0.0.1")
    await server.start_server(ssl=context)
    fake.servers.append(server)
    yield fake, f"https://localhost:{server.port}", certificate
    await fake.stop()


async def test_a_replica_at_an_address_proves_itself_by_the_endpoints_name(tls, start):
    fake, endpoint, certificate = tls
    worker = await start({"h": lambda ctx: 1}, endpoint=endpoint, ca_file=certificate)
    token = fake.lease("h")
    await fake.until(lambda: fake.succeeded[token])
    assert fake.url.startswith("https://127.0.0.1:")
    worker.drain()
    await fake.left.wait()


async def test_an_operator_with_an_unknown_authority_gets_nothing(tls, start, caplog):
    fake, endpoint, _ = tls
    await start({"h": lambda ctx: 1}, endpoint=endpoint)
    await fake.until(lambda: "certificate verify failed" in caplog.text)
    assert not fake.pulls
