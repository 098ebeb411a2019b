"""Topology, health, the served document, TLS."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess

import pytest
from tests.unit.gateway.scripted import PULL, TOKEN, ScriptedBackend, serving

from tickwheel_operator.gateway import openapi


async def test_the_topology_names_the_replicas():
    async with serving(ScriptedBackend()) as (caller, _):
        status, text, _ = await caller.get("/v1/topology", token=TOKEN)
        stranger, _, _ = await caller.get("/v1/topology")
    assert (status, stranger) == (200, 401)
    assert json.loads(text) == {
        "partitions": 1,
        "replicas": [{"url": "http://self:8080", "partitions": [0], "epoch": 7}],
    }


async def test_health_needs_no_token_and_readiness_gives_its_reason():
    reason = [None]
    async with serving(ScriptedBackend(), ready=lambda: reason[0]) as (caller, _):
        assert (await caller.get("/healthz"))[0] == 200
        assert (await caller.get("/readyz"))[0] == 200
        reason[0] = "the catalog is not synced"
        status, text, headers = await caller.get("/readyz")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert json.loads(text)["detail"] == "the catalog is not synced"


async def test_the_gateway_serves_its_own_description():
    async with serving(ScriptedBackend()) as (caller, _):
        status, text, _ = await caller.get("/openapi.json")
    assert (status, text.encode()) == (200, openapi.document_json())


def make_certificate(folder, name):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-days", "1", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


def served_certificate(port):
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make a certificate")
async def test_tls_serves_a_renewed_certificate_without_a_restart(tmp_path):
    make_certificate(tmp_path, "first")
    first = (tmp_path / "tls.crt").read_text()
    files = {"cert_file": tmp_path / "tls.crt", "key_file": tmp_path / "tls.key", "cert_reload_s": 0.05}
    backend = ScriptedBackend()
    async with serving(backend, **files) as (caller, gateway):
        caller.base = caller.base.replace("http:", "https:")
        context = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
        status, _, _ = await caller.post("/v1/pull", PULL, ssl=context)
        assert status == 200
        assert (await asyncio.to_thread(served_certificate, gateway.port)) == first
        # A broken file is not taken, and does not end the old one.
        (tmp_path / "tls.crt").write_text("half-writ")
        await asyncio.sleep(0.2)
        assert (await asyncio.to_thread(served_certificate, gateway.port)) == first
        # Nor is a certificate whose key has not arrived yet.
        (tmp_path / "other").mkdir()
        make_certificate(tmp_path / "other", "other")
        shutil.copy(tmp_path / "other" / "tls.crt", tmp_path / "tls.crt")
        await asyncio.sleep(0.2)
        assert (await asyncio.to_thread(served_certificate, gateway.port)) == first
        make_certificate(tmp_path, "second")
        os.utime(tmp_path / "tls.crt", (1, 1))
        second = (tmp_path / "tls.crt").read_text()
        async with asyncio.timeout(10):
            while (await asyncio.to_thread(served_certificate, gateway.port)) != second:
                await asyncio.sleep(0.05)


async def test_a_certificate_that_is_none_is_refused_at_the_start(tmp_path):
    (tmp_path / "tls.crt").write_text("nothing")
    with pytest.raises(ValueError, match="must be PEM files"):
        async with serving(ScriptedBackend(), cert_file=tmp_path / "tls.crt", key_file=tmp_path / "tls.crt"):
            pass
    with pytest.raises(ValueError, match="both cert_file and key_file"):
        async with serving(ScriptedBackend(), cert_file=tmp_path / "tls.crt"):
            pass
