"""The reader of manifests beside a real API server: the same text, the same values.

The server reads `application/yaml` with the library that kubectl has, so it says what kubectl would send.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client as k8s
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config

from tickwheel_operator.api import documents
from tickwheel_operator.api.nodes import Unreadable

SCALARS = json.loads((Path(__file__).parents[1] / "unit" / "api" / "yaml_scalars.json").read_text(encoding="utf-8"))
HEAD = """apiVersion: tickwheel.io/v1alpha1
kind: ScheduledTask
metadata: {name: scalars}
spec:
  pool: p
  handler: h
  parameters:
"""
ALPHABET = "01234567890123456789eExXoObB_.+-:yYnNoOTtfF~"


class Server:
    """Tells what it has read, and stores nothing."""

    def __init__(self, api: k8s.ApiClient) -> None:
        self._api = api

    def parameters(self, text: str) -> Any:
        """Those of the object, as JSON text. Raises ApiException."""
        host = self._api.configuration.host
        url = f"{host}/apis/tickwheel.io/v1alpha1/namespaces/default/scheduledtasks?dryRun=All&fieldValidation=Ignore"
        pool: urllib3.PoolManager = self._api.rest_client.pool_manager
        headers = {"Content-Type": "application/yaml", "Accept": "application/json"}
        answer = pool.request("POST", url, body=text.encode(), headers=headers)
        if answer.status >= 300:
            raise ApiException(http_resp=answer)  # type: ignore[no-untyped-call]
        return json.loads(answer.data)["spec"]["parameters"]


@pytest.fixture(scope="module")
def server(cluster: Any) -> Iterator[Server]:
    with new_client_from_config(config_file=str(cluster.admin_kubeconfig)) as api:
        yield Server(api)


def listed(scalars: list[str]) -> str:
    return HEAD + "    list:\n" + "".join(f"    - {scalar}\n" for scalar in scalars)


def ours(text: str) -> Any:
    return next(documents(text)).body["spec"]["parameters"]


def test_the_table_of_scalars_is_what_the_api_server_reads(server: Server) -> None:
    good = [(text, value) for text, value in SCALARS if value != {"error": True}]
    read = server.parameters(listed([text for text, _ in good]))["list"]
    told = {text: (json.dumps(found), json.dumps(value)) for (text, value), found in zip(good, read, strict=True)}
    assert {text: pair for text, pair in told.items() if pair[0] != pair[1]} == {}
    for text in [text for text, value in SCALARS if value == {"error": True}]:
        with pytest.raises(ApiException):
            server.parameters(listed([text]))


@pytest.mark.parametrize("seed", range(5))
def test_scalars_by_chance_are_what_the_api_server_reads(seed: int, server: Server) -> None:
    source = random.Random(seed)
    scalars: list[str] = []
    while len(scalars) < 2_000:
        scalar = "".join(source.choice(ALPHABET) for _ in range(source.randint(1, 8)))
        try:
            ours(listed([scalar]))
        except Unreadable:
            continue
        if not scalar.endswith(":") and scalar != "-":
            scalars.append(scalar)
    text = listed(scalars)
    assert json.dumps(ours(text)) == json.dumps(server.parameters(text))


@pytest.mark.parametrize(
    "parameters",
    [
        "    x: &x {a: 1, b: 2}\n    y: {b: 3, <<: *x}\n    z: {<<: *x, b: 3}\n",
        "    x: &x {a: 1}\n    y: &y {a: 2}\n    z: {<<: [*x, *y]}\n",
        "    1: a\n    0x10: b\n    yes: c\n    ~x: d\n",
        "    t: |\n      a\n       b\n    u: >-\n      c\n      d\n    v: 'it''s'\n    w: \"\\x41\\u263a\"\n",
        "    [a, b: c, {d: 12:30}]\n".replace("[", "l: [", 1),
    ],
)
def test_structures_are_what_the_api_server_reads(parameters: str, server: Server) -> None:
    assert json.dumps(ours(HEAD + parameters), sort_keys=True) == json.dumps(
        server.parameters(HEAD + parameters), sort_keys=True
    )


@pytest.mark.parametrize("name", ["1e3", "y", "0o17", "007"])
def test_a_name_that_looks_like_a_number_is_printed_so_that_it_stays_text(name: str, server: Server) -> None:
    from tickwheel_operator.cli.options import Output, structured

    printed = structured({"name": name}, Output.YAML)
    assert server.parameters(HEAD + f"    {printed}\n") == {"name": name}
