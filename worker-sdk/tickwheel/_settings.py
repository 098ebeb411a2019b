"""The worker's settings: one frozen value, made from keyword arguments first, then the environment, then defaults.

`Worker` makes it once, at construction, so that every mistake is told before the first connection.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ._protocol import MAX_LABELS
from .errors import ConfigurationError

__all__ = ["Settings", "make_settings"]

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a worker needs to know. The environment variable of each field is named in its docstring."""

    endpoint: str
    """The operator's gateway, such as `https://tickwheel-gateway.tickwheel-system:8443`. `TICKWHEEL_ENDPOINT`; no
    default."""
    namespace: str = "default"
    """The pool's namespace. `TICKWHEEL_NAMESPACE`; default: the pod's own namespace, else `default`."""
    pool: str = "default"
    """The WorkerPool that this worker belongs to. `TICKWHEEL_POOL`; default `default`."""
    name: str = ""
    """The worker's name, unique in its pool. `TICKWHEEL_WORKER_NAME`; default: the host's name, which in a pod is the
    pod's name."""
    slots: int = 16
    """How many attempts run at once, 1 to 10,000. `TICKWHEEL_SLOTS`; default 16, as in a WorkerPool."""
    token: str = ""
    """A bearer token. `TICKWHEEL_TOKEN`; default none. `token_file` wins over it."""
    token_file: Path | None = None
    """A file with the bearer token, read again whenever it changes, as projected ServiceAccount tokens do.
    `TICKWHEEL_TOKEN_FILE`; default none."""
    ca_file: Path | None = None
    """A PEM file with the authority that signed the gateway's certificate, read again whenever it changes.
    `TICKWHEEL_CA_FILE`; default: the system's authorities."""
    drain_timeout: float = 60.0
    """Seconds that running handlers may take to finish after SIGTERM, 0 up. `TICKWHEEL_DRAIN_TIMEOUT`; default 60, as
    in a WorkerPool. Keep it below the pod's `terminationGracePeriodSeconds`."""
    pull_wait: float = 20.0
    """Seconds that a pull waits for work before it asks again, 0 to 30. `TICKWHEEL_PULL_WAIT`; default 20."""
    ready_port: int | None = None
    """A TCP port, 1 to 65535, that accepts connections once the gateway has accepted the worker, for a probe.
    `TICKWHEEL_READY_PORT`; default none. The operator sets it in worker pods."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Up to 64 labels for `requirements.selector` and `pinned.selector`. `TICKWHEEL_LABELS`, as `gpu=true,zone=a`;
    default none."""


def make_settings(given: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings from what was given (`None` means not given), then the environment, then the defaults.

    Raises `ConfigurationError` with the name of the argument and of the variable that would mend it.
    """
    env = os.environ if environment is None else environment
    chosen: dict[str, object] = {}
    for name in Settings.__dataclass_fields__:
        variable = "TICKWHEEL_WORKER_NAME" if name == "name" else f"TICKWHEEL_{name.upper()}"
        value = given.get(name)
        if value is None:
            text = env.get(variable, "").strip()
            value = text or None
        if value is None:
            continue
        chosen[name] = _convert(name, value, f"{name}= or {variable}")
    endpoint = str(chosen.get("endpoint", "")).rstrip("/")
    if not endpoint:
        raise ConfigurationError(
            "the worker does not know where the operator is: set TICKWHEEL_ENDPOINT or Worker(endpoint=...), "
            "for example TICKWHEEL_ENDPOINT=http://127.0.0.1:8080 for `tickwheel dev`"
        )
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"endpoint= or TICKWHEEL_ENDPOINT is {endpoint!r}: it must begin with http:// or https://, "
            "for example https://tickwheel-gateway.tickwheel-system:8443"
        )
    chosen["endpoint"] = endpoint
    chosen.setdefault("name", socket.gethostname())
    if "namespace" not in chosen and _NAMESPACE_FILE.is_file():
        chosen["namespace"] = _NAMESPACE_FILE.read_text().strip()
    return Settings(**chosen)  # type: ignore[arg-type]


def _convert(name: str, value: object, where: str) -> object:
    match name:
        case "slots":
            return int(_number(value, where, low=1, high=10_000, whole=True))
        case "ready_port":
            return int(_number(value, where, low=1, high=65_535, whole=True))
        case "drain_timeout":
            return _number(value, where, low=0, high=86_400)
        case "pull_wait":
            return _number(value, where, low=0, high=30)
        case "labels":
            labels = _labels(value, where)
            if len(labels) > MAX_LABELS:
                raise ConfigurationError(f"{where} has {len(labels)} labels: a worker may have {MAX_LABELS}")
            return labels
        case "token_file" | "ca_file":
            path = Path(str(value))
            if not path.is_file():
                raise ConfigurationError(f"{where}: there is no file {path}")
            return path
        case _:
            return str(value)


def _number(value: object, where: str, *, low: float, high: float, whole: bool = False) -> float:
    kind = "a whole number" if whole else "a number of seconds"
    try:
        number = float(str(value))
    except ValueError:
        number = float("nan")
    if not low <= number <= high or (whole and number != int(number)):
        raise ConfigurationError(f"{where} is {value!r}: it must be {kind} from {low:g} to {high:g}")
    return number


def _labels(value: object, where: str) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): str(label) for key, label in value.items()}
    labels = {}
    for part in str(value).split(","):
        key, equals, label = part.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"{where} is {value!r}: write key=value pairs, for example gpu=true,zone=a")
        labels[key.strip()] = label.strip()
    return labels
