"""New handshakes get the new certificate, connections that exist stay, and nothing half-written is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

import pytest
from tests.unit.gateway.scripted import PULL, ScriptedBackend, serving
from tests.unit.tls.conftest import HOUR_MS
from tests.unit.tls.memory_secret import MemorySecret
from tests.unit.tls.test_rotation import DAY, ManualClock

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.tls.authority import certificates, pem
from tickwheel_operator.tls.files import CertificateFiles
from tickwheel_operator.tls.own import OwnCertificates
from tickwheel_operator.tls.rotation import Terms
from tickwheel_operator.tls.store import BadSecret


def served(port: int) -> bytes:
    text = ssl.get_server_certificate(("127.0.0.1", port), timeout=30).encode()
    return pem(certificates(text))


def make_files(folder, clock, **settings) -> CertificateFiles:
    return CertificateFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt", clock, **settings)


@contextlib.asynccontextmanager
async def running(source):
    task = asyncio.create_task(source.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def eventually(condition) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def test_files_that_change_are_served_without_a_restart(tmp_path, write_pair):
    authority = write_pair()
    first = (tmp_path / "tls.crt").read_bytes()
    files = make_files(tmp_path, SystemClock(), check_s=0.02)
    context = await files.start()
    async with running(files), serving(ScriptedBackend(), tls=context) as (caller, gateway):
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200
        assert await asyncio.to_thread(served, gateway.port) == first
        # A broken file is not taken, and does not end the old one.
        (tmp_path / "tls.crt").write_text("half-writ")
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(served, gateway.port) == first
        # Nor is a certificate whose key has not arrived yet.
        old_key = (tmp_path / "tls.key").read_bytes()
        write_pair(authority)
        second, new_key = (tmp_path / "tls.crt").read_bytes(), (tmp_path / "tls.key").read_bytes()
        (tmp_path / "tls.key").write_bytes(old_key)
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(served, gateway.port) == first
        (tmp_path / "tls.key").write_bytes(new_key)
        await eventually(lambda: served(gateway.port) == second)
        # The connection of the first call lives on.
        assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200


async def test_another_authority_in_the_files_is_trusted_before_its_certificate_is_shown(tmp_path, write_pair):
    clock = ManualClock(SystemClock().now_ms())
    write_pair()
    old_leaf, old = (tmp_path / "tls.crt").read_bytes(), (tmp_path / "ca.crt").read_text()
    files = make_files(tmp_path, clock, publish_ms=600_000)
    context = await files.start()
    assert (files.ca_bundle(), set(files.expiries())) == (old, {"ca", "leaf"})
    told = []
    files.on_change.append(lambda: told.append(files.ca_bundle()))
    write_pair()
    new_leaf, new = (tmp_path / "tls.crt").read_bytes(), (tmp_path / "ca.crt").read_text()
    async with serving(ScriptedBackend(), tls=context) as (_, gateway):
        for pause_ms, leaf in [(0, old_leaf), (599_999, old_leaf), (1, new_leaf)]:
            clock.ms += pause_ms
            files.reload()
            assert await asyncio.to_thread(served, gateway.port) == leaf
    assert told == [new + old], "once, with both"
    clock.ms += 25 * HOUR_MS
    files.reload()
    assert files.ca_bundle() == new, "what has expired is let go of, unless the file has it"


async def test_a_certificate_that_is_about_to_end_does_not_wait_for_the_new_authority_to_be_known(tmp_path, write_pair):
    clock = ManualClock(SystemClock().now_ms())
    write_pair()
    files = make_files(tmp_path, clock, publish_ms=600_000)
    context = await files.start()
    write_pair()
    clock.ms += HOUR_MS - 500_000
    files.reload()
    async with serving(ScriptedBackend(), tls=context) as (_, gateway):
        assert await asyncio.to_thread(served, gateway.port) == (tmp_path / "tls.crt").read_bytes()


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key", "ca.crt"])
async def test_files_that_are_no_certificate_are_refused_at_the_start(tmp_path, write_pair, broken):
    write_pair()
    (tmp_path / broken).write_text("nothing")
    files = make_files(tmp_path, SystemClock())
    with pytest.raises(ValueError, match="must be PEM files"):
        await files.start()


async def test_replicas_that_start_together_share_one_authority_and_workers_verify_both(tmp_path):
    secret = MemorySecret()
    replicas = [OwnCertificates(secret, SystemClock(), names=["127.0.0.1"]) for _ in range(3)]
    contexts = await asyncio.gather(*(replica.start() for replica in replicas))
    assert len({replica.ca_bundle() for replica in replicas}) == 1
    assert secret.writes == 1
    (tmp_path / "ca.crt").write_text(replicas[0].ca_bundle())
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    for context in contexts:
        async with serving(ScriptedBackend(), tls=context) as (caller, _):
            assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200


async def test_an_old_connection_stays_while_the_authority_changes(tmp_path):
    secret, clock = MemorySecret(), SystemClock()
    own = OwnCertificates(secret, clock, names=["127.0.0.1"])
    context = await own.start()
    (tmp_path / "ca.crt").write_text(own.ca_bundle())
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    async with serving(ScriptedBackend(), tls=context) as (caller, gateway):
        assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200
        before = await asyncio.to_thread(served, gateway.port)
        secret.stored = None  # as by `kubectl delete secret`
        await own.renew()
        assert await asyncio.to_thread(served, gateway.port) != before
        # Kept alive: the second call goes over the first connection, and its certificate is not looked at again.
        assert (await caller.post("/v1/pull", PULL, ssl=trusting))[0] == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", gateway.port, ssl=trusting)


async def test_without_the_api_server_the_leaf_is_renewed_and_the_authority_waits(caplog):
    secret, clock = MemorySecret(), ManualClock()
    own = OwnCertificates(
        secret, clock, names=["a.test"], terms=Terms(authority_ms=90 * DAY, leaf_ms=3 * DAY), check_s=0.01
    )
    await own.start()
    first = own.expiries()["leaf"]
    secret.down = True
    clock.ms += 80 * DAY
    with caplog.at_level(logging.WARNING):
        async with running(own):
            await eventually(lambda: own.expiries()["leaf"] > first)
            await asyncio.sleep(0.1)  # some more looks
    assert len(certificates(own.ca_bundle().encode())) == 1
    complaints = [record for record in caplog.records if "goes on with the certificates" in record.message]
    assert len(complaints) == 1, "one line for one outage"
    secret.down = False
    await own.renew()
    assert len(certificates(own.ca_bundle().encode())) == 2


async def test_a_secret_that_is_none_of_ours_ends_the_start_with_what_to_do():
    class Broken(MemorySecret):
        async def read(self):
            raise BadSecret("Secret a/tickwheel-ca is not what the operator wrote: ... Delete it")

    with pytest.raises(ValueError, match="Delete it"):
        await OwnCertificates(Broken(), SystemClock(), names=["a.test"]).start()


async def test_the_key_of_a_leaf_is_never_a_file_on_disk(tmp_path, monkeypatch):
    """The root file system of the operator's container is read-only, and a key there could be copied."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "there-is-no-such-folder"))
    await OwnCertificates(MemorySecret(), SystemClock(), names=["a.test"]).start()
