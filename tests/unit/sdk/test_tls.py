"""TLS: replicas are called at their own addresses, with the certificate of the endpoint's name."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from tests.unit.sdk.fake_operator import FakeOperator

from tickwheel._client import OperatorClient, UnreachableError
from tickwheel._settings import make_settings

x509 = pytest.importorskip("cryptography.x509")


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that is its own authority, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # One of its own: of two authorities with one name, OpenSSL tries only the first.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} of {folder.name}")])
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
    fake.tls = context
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


async def test_the_message_names_the_reason_and_the_file_that_would_mend_it(tls, tmp_path):
    _, endpoint, certificate = tls
    (tmp_path / "other").mkdir()
    other, _ = make_certificate(tmp_path / "other", "localhost")
    wrong = [
        ({}, "set TICKWHEEL_CA_FILE to the authority"),
        ({"ca_file": other}, f"TICKWHEEL_CA_FILE is {other}: it must hold the authority"),
        ({"ca_file": certificate, "endpoint": endpoint.replace("localhost", "127.0.0.1")}, "is not valid for"),
    ]
    for settings, words in wrong:
        async with OperatorClient(make_settings({"endpoint": endpoint, **settings}, {})) as client:
            with pytest.raises(UnreachableError, match="certificate that does not verify") as caught:
                await client.topology()
        assert words in str(caught.value)


async def test_a_bundle_that_was_rotated_is_trusted_without_a_restart(tls, tmp_path, caplog):
    """As kubelet does when the ConfigMap changes: first the new authority is added, then the server's leaf changes."""
    fake, endpoint, certificate = tls
    (tmp_path / "new").mkdir()
    new, new_key = make_certificate(tmp_path / "new", "localhost")
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(certificate.read_bytes())
    async with OperatorClient(make_settings({"endpoint": endpoint, "ca_file": bundle}, {})) as client:
        await client.topology()
        fake.tls.load_cert_chain(new, new_key)
        await client.topology()  # over the connection that is open
        # Half-written: what was trusted stays.
        bundle.write_text("-----BEGIN CERT")
        await client.topology()
        assert "is of no use" in caplog.text
        replacement = tmp_path / "replacement.crt"
        replacement.write_bytes(certificate.read_bytes() + new.read_bytes())
        replacement.rename(bundle)
        await client.topology()  # over a new connection, to the new leaf
        fake.tls.load_cert_chain(certificate, tmp_path / "tls.key")
        await client.topology()
    async with OperatorClient(make_settings({"endpoint": endpoint, "ca_file": new}, {})) as client:
        with pytest.raises(UnreachableError):
            await client.topology()
