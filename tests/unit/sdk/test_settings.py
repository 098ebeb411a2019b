"""Settings: arguments before environment before defaults, and mistakes named with their mend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tickwheel import ConfigurationError, HandlerError, Worker
from tickwheel._settings import make_settings

URL = "http://127.0.0.1:1"


def test_arguments_win_over_the_environment_and_that_over_defaults():
    settings = make_settings(
        {"slots": 4, "endpoint": None},
        {
            "TICKWHEEL_ENDPOINT": URL + "/",
            "TICKWHEEL_SLOTS": "9",
            "TICKWHEEL_POOL": "shops",
            "TICKWHEEL_WORKER_NAME": "w1",
        },
    )
    assert (settings.endpoint, settings.slots, settings.pool, settings.name) == (URL, 4, "shops", "w1")
    assert settings.drain_timeout == 60


def test_labels_can_be_written_in_the_environment():
    settings = make_settings({}, {"TICKWHEEL_ENDPOINT": URL, "TICKWHEEL_LABELS": "gpu=true, zone=a"})
    assert settings.labels == {"gpu": "true", "zone": "a"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TICKWHEEL_ENDPOINT": ""}, "set TICKWHEEL_ENDPOINT"),
        ({"TICKWHEEL_ENDPOINT": "operator:80"}, "must begin with http"),
        ({"TICKWHEEL_SLOTS": "0"}, r"slots= or TICKWHEEL_SLOTS is '0': it must be a whole number from 1 to 10000"),
        ({"TICKWHEEL_SLOTS": "many"}, "TICKWHEEL_SLOTS"),
        ({"TICKWHEEL_SLOTS": "1.5"}, "TICKWHEEL_SLOTS"),
        ({"TICKWHEEL_DRAIN_TIMEOUT": "-1"}, "TICKWHEEL_DRAIN_TIMEOUT"),
        ({"TICKWHEEL_PULL_WAIT": "31"}, "from 0 to 30"),
        ({"TICKWHEEL_TOKEN_FILE": "/no/such"}, "TICKWHEEL_TOKEN_FILE: there is no file /no/such"),
        ({"TICKWHEEL_LABELS": "gpu"}, "key=value"),
        (
            {"TICKWHEEL_LABELS": ",".join(f"l{number}=x" for number in range(65))},
            "labels= or TICKWHEEL_LABELS has 65 labels: a worker may have 64",
        ),
    ],
)
def test_a_mistake_is_named_with_its_variable(environment, message):
    with pytest.raises(ConfigurationError, match=message):
        make_settings({}, {"TICKWHEEL_ENDPOINT": URL, **environment})


def test_a_worker_without_endpoint_says_what_to_set(monkeypatch):
    monkeypatch.delenv("TICKWHEEL_ENDPOINT", raising=False)
    with pytest.raises(ConfigurationError, match="set TICKWHEEL_ENDPOINT or Worker"):
        Worker()


async def test_more_handlers_than_the_operator_takes_are_an_error_at_the_start():
    worker = Worker(endpoint=URL, handlers={f"h{number}": lambda ctx: 1 for number in range(257)})
    with pytest.raises(HandlerError, match="257 handlers are registered, and a worker may have 256"):
        async with asyncio.timeout(5):
            await worker.serve()


async def test_a_file_that_is_no_certificate_is_named(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    worker = Worker(endpoint="https://127.0.0.1:1", ca_file=Path(file), handlers={"h": lambda ctx: 1})
    with pytest.raises(ConfigurationError, match="holds no PEM certificate"):
        await worker.serve()
