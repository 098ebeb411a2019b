"""Options that several commands share, written once: where the cluster is, how to print, what a duration is.

`@cluster_options()` gives a command a `cluster: Cluster`, `@output_option` an `output: Output`.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import yaml
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from tickwheel_operator.api.scalars import stays_text
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiUnanswered

__all__ = ["DURATION", "Cluster", "Output", "cluster_options", "output_option", "structured"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ANSWER_WITHIN_S = 30.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Output(enum.StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    """For people."""
    JSON = "json"
    YAML = "yaml"


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Which API server, and which namespace of it."""

    namespace: str | None = None
    """As given, or the command's default; None: that of the context."""
    context: str | None = None
    """Default: the kubeconfig's current one."""
    kubeconfig: str | None = None
    """Default: `KUBECONFIG`, then `~/.kube/config`; inside of a pod without either its service account."""

    def context_namespace(self) -> str:
        """That of the context, of the pod, or `default`, as kubectl has it. Call it where `client` has worked."""
        if self.kubeconfig is None and self.context is None and _in_pod():
            return (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        contexts, current = kubernetes_config.list_kube_config_contexts(config_file=self.kubeconfig)  # type: ignore[no-untyped-call]
        wanted = self.context or (current or {}).get("name")
        of_context: dict[str, Any] = next((entry["context"] for entry in contexts if entry["name"] == wanted), {})
        return str(of_context.get("namespace") or "default")

    def _missing_kubeconfig(self) -> str:
        """Where none was found; empty: there is one, or a service account stands for it."""
        if self.kubeconfig is None and self.context is None and _in_pod():
            return ""
        named = self.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        files = [file for file in named.split(os.pathsep) if file]
        if any(Path(file).expanduser().exists() for file in files):
            return ""
        return f"{' and '.join(files)} {'does' if len(files) == 1 else 'do'} not exist"

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[KubeClient]:
        """A client for the time of a command. Raises `click.ClickException` where there is no usable configuration."""
        configuration = kubernetes_client.Configuration()
        if missing := self._missing_kubeconfig():
            raise click.ClickException(f"there is no kubeconfig: {missing}; name one with --kubeconfig")
        try:
            if self.kubeconfig is None and self.context is None and _in_pod():
                kubernetes_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=self.kubeconfig, context=self.context, client_configuration=configuration
                )
        except (kubernetes_config.ConfigException, OSError, yaml.YAMLError) as error:
            where = self.kubeconfig or "the default kubeconfig"
            raise click.ClickException(
                f"{where} cannot be used: {error}; name another with --kubeconfig or --context"
            ) from error
        async with kubernetes_client.ApiClient(configuration) as client:
            try:
                yield KubeClient(client, timeout_s=_ANSWER_WITHIN_S)
            except ApiUnanswered as error:
                raise click.ClickException(f"{error}; try again") from error


def _in_pod() -> bool:
    """Whether the pod's own account is all there is."""
    own = os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser().exists()
    return not own and (_ACCOUNT / "token").exists()


class Duration(click.ParamType[float]):
    """A duration in seconds, written as `500ms`, `60s`, `5m` or `1h`."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number = value.rstrip("mhs")
        unit = value[len(number) :]
        if unit not in _UNITS or not number.isascii() or not number.replace(".", "", 1).isdigit():
            self.fail(f"{value!r} is no duration; write for example 500ms, 60s, 5m or 1h", param, ctx)
        return float(number) * _UNITS[unit]


DURATION = Duration()


def cluster_options(
    *, namespace: str | None = None, about: str = "The namespace.", shown: str = "the context's"
) -> Callable[[_Function], _Function]:
    """Add `-n`, `--context` and `--kubeconfig`, and give the command one `cluster`.

    `namespace` is the default where the command is about the operator's own; None leaves it to the command, and `shown`
    is what the help says of it.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def command(
            *args: Any, namespace: str | None, context: str | None, kubeconfig: str | None, **more: Any
        ) -> object:
            cluster = Cluster(namespace=namespace, context=context, kubeconfig=kubeconfig)
            return function(*args, cluster=cluster, **more)

        options = (
            click.option("-n", "--namespace", default=namespace, show_default=namespace or shown, help=about),
            click.option("--context", help="The kubeconfig's context.", show_default="the current one"),
            click.option(
                "--kubeconfig", type=click.Path(dir_okay=False), help="The kubeconfig.", show_default="as kubectl"
            ),
        )
        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(Output, case_sensitive=False),
    default=Output.TABLE,
    show_default="table",
    help="How to print.",
)


def structured(value: object, output: Output) -> str:
    """`value`, built of msgspec structs and plain values, as JSON or YAML."""
    plain = msgspec.to_builtins(value, str_keys=True)
    if output is Output.JSON:
        return json.dumps(plain, indent=2, ensure_ascii=False)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True).rstrip("\n")


class _Dumper(yaml.SafeDumper):
    """Quotes what Kubernetes would read as something other than text, such as a name `1e3`."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if stays_text(value) else "'")


_Dumper.add_representer(str, _text)
