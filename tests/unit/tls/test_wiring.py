"""Which certificate the settings ask for, and the names that it is made for."""

from __future__ import annotations

import pytest

from tickwheel_operator.runtime.certificates import gateway_names, scheme, service_url
from tickwheel_operator.runtime.settings import Settings

HERE = ["localhost", "127.0.0.1"]


@pytest.fixture(autouse=True)
def outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.mark.parametrize(
    ("fields", "in_cluster", "expected"),
    [
        ({}, False, "http"),
        ({}, True, "https"),
        ({"token_file": "t"}, True, "http"),
        ({"tls_mode": "Own"}, False, "https"),
        ({"tls_mode": "Own", "token_file": "t"}, False, "https"),
        ({"tls_mode": "Off"}, True, "http"),
        ({"tls_mode": "Off", "tls_cert_file": "c", "tls_key_file": "k"}, True, "https"),
    ],
)
def test_in_a_cluster_the_gateway_has_a_certificate_unless_told_otherwise(monkeypatch, fields, in_cluster, expected):
    if in_cluster:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    settings = Settings(**fields)
    assert scheme(settings) == expected
    assert service_url(settings) == f"{expected}://tickwheel.tickwheel-system.svc:8443"


def test_the_certificate_is_for_the_service_in_all_its_forms_and_for_the_replica():
    names = gateway_names(Settings(advertise_url="https://10.1.2.3:8443", tls_names=("gate.example.com",)))
    service = "tickwheel.tickwheel-system.svc"
    assert names == [
        service, "tickwheel", "tickwheel.tickwheel-system", f"{service}.cluster.local", "10.1.2.3", "gate.example.com",
        *HERE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://gate.example.com:443", ["gate.example.com"]),
        ("https://t.ns.svc.cluster.local:1", ["t.ns.svc.cluster.local", "t", "t.ns", "t.ns.svc"]),
        ("https://[fd00::1]:8443", ["fd00::1"]),
    ],
)
def test_the_services_own_url_is_what_workers_verify(url, expected):
    assert gateway_names(Settings(gateway_service_url=url)) == [*expected, *HERE]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tls_mode": "own"}, "allowed are Auto, Own and Off"),
        ({"tls_cert_file": "a"}, "give both or none"),
        ({"tls_ca_file": "a"}, "give both or none"),
        ({"tls_publish_minutes": 0.0}, "tls_publish_minutes must be above 0"),
        ({"tls_leaf_days": 400.0}, "tls_leaf_days"),
    ],
)
def test_settings_that_cannot_be_are_told(fields, words):
    (fault,) = Settings(**fields).faults()
    assert words in fault


def test_the_default_settings_are_right():
    assert Settings().faults() == []
