"""The HTTP side of the protocol: one connection pool, the token, and errors told apart by what to do about them.

`_link` and `worker` call it. It keeps no state about epochs or leases, and retries nothing: a call is
answered or raises.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ._protocol import Problem, PullAnswer, PullRequest, ReportAnswer, ReportRequest, Topology
from ._resolver import Resolver
from ._settings import Settings
from .errors import ConfigurationError, TickwheelError

__all__ = [
    "Backoff",
    "EpochPassedError",
    "LedgerReplacedError",
    "NotLeaderError",
    "OperatorClient",
    "RefusedError",
    "UnreachableError",
]

_log = logging.getLogger("tickwheel.worker")
_Answer = TypeVar("_Answer", PullAnswer, ReportAnswer, Topology)

_PROBLEM = "urn:tickwheel:problem:"
# The peer is gone if it does not acknowledge for so long, or is silent to keep-alive probes (Linux names).
_SILENCE_SECONDS = 10
_PROBE_IDLE_SECONDS = 5


class UnreachableError(TickwheelError):
    """No answer, or none that says anything: try again, after looking up the leader."""


class NotLeaderError(UnreachableError):
    """This replica does not lead, or leads an epoch that has passed."""


class EpochPassedError(NotLeaderError):
    """This replica leads an epoch below one that this worker has seen."""


class LedgerReplacedError(UnreachableError):
    """The operator has another ledger than the one that this worker's leases are of."""


class RefusedError(TickwheelError):
    """The operator understood the request and refuses it for good: sending it again would change nothing."""


class Backoff:
    """Exponential backoff with full jitter: a random time below 50 ms, 100 ms, 200 ms ... 5 s."""

    def __init__(self, *, first: float = 0.05, longest: float = 5.0) -> None:
        self._first, self._longest = first, longest
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        ceiling = min(self._longest, self._first * 2 ** min(self._failures, 30))
        self._failures += 1
        return random.uniform(0, ceiling)

    def reset(self) -> None:
        """The last try succeeded."""
        self._failures = 0


class _Token:
    """The bearer token, read again when its file changes."""

    def __init__(self, token: str, file: Path | None) -> None:
        self._header = {"Authorization": f"Bearer {token}"} if token else {}
        self._file = file
        self._version: tuple[int, int] | None = None

    def header(self) -> dict[str, str]:
        if self._file is not None:
            try:
                version = _version(self._file)
                if version != self._version:
                    self._header = {"Authorization": f"Bearer {self._file.read_text().strip()}"}
                    self._version = version
            except OSError as error:
                if not self._header:
                    raise UnreachableError(f"the token file {self._file} cannot be read: {error}") from error
        return self._header


class _Trust:
    """Whom to believe to be the operator: a CA file, read again when it changes, as a mounted ConfigMap does."""

    def __init__(self, file: Path | None) -> None:
        """Raises `ConfigurationError`."""
        self._file = file
        self._version: tuple[int, int] | None = None
        self._context: ssl.SSLContext | bool = True
        self._problem = ""
        if file is None:
            return
        try:
            self._version = _version(file)
            self._context = ssl.create_default_context(cafile=str(file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"ca_file= or TICKWHEEL_CA_FILE: {file} holds no PEM certificate: {error}"
            ) from error

    def context(self) -> ssl.SSLContext | bool:
        """For new connections; those that are open stay."""
        if self._file is not None:
            try:
                version = _version(self._file)
                if version != self._version:
                    self._context = ssl.create_default_context(cafile=str(self._file))
                    self._version, self._problem = version, ""  # a file that could not be read is read again
                    _log.info("trusting the authorities that %s holds now", self._file)
            except (OSError, ssl.SSLError) as error:
                if str(error) != self._problem:
                    _log.warning("the authorities of before are trusted on, %s is of no use: %s", self._file, error)
                self._problem = str(error)
        return self._context

    def explain(self, error: Exception) -> str:
        """What to mend when the operator's certificate does not verify."""
        if self._file is None:
            return f"{error}; set TICKWHEEL_CA_FILE to the authority that signed it, if no system knows that one"
        return f"{error}; TICKWHEEL_CA_FILE is {self._file}: it must hold the authority that signed it"


def _version(file: Path) -> tuple[int, int]:
    """Something else for each content that a file had."""
    status = file.stat()
    return status.st_mtime_ns, status.st_ino


class OperatorClient:
    """Calls the operator's replicas. Use it as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = settings.endpoint
        self._token = _Token(settings.token, settings.token_file)
        secure = settings.endpoint.startswith("https://")
        self._trust = _Trust(settings.ca_file if secure else None)
        # Replicas are called at their pods' addresses, but the certificate is for the endpoint's name.
        self._tls_name = urlsplit(settings.endpoint).hostname if secure else None
        self._session: aiohttp.ClientSession | None = None
        self._answers: dict[type, msgspec.json.Decoder[object]] = {}
        self._problems = msgspec.json.Decoder(Problem)
        self._encoder = msgspec.json.Encoder()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=75, socket_factory=_socket_that_notices_silence, resolver=Resolver()
        )
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None  # noqa: S101 - narrows the type
        await self._session.close()

    async def topology(self) -> Topology:
        """Which replica leads which partition; asked at the endpoint."""
        return await self._call("GET", f"{self._endpoint}/v1/topology", None, Topology, timeout=5)

    async def pull(self, url: str, request: PullRequest, *, timeout: float) -> PullAnswer:
        """`POST /v1/pull`. The timeout (seconds) must be longer than the request's own wait."""
        return await self._call("POST", f"{url}/v1/pull", self._encoder.encode(request), PullAnswer, timeout=timeout)

    async def report(self, url: str, request: bytes, *, timeout: float) -> ReportAnswer:
        """`POST /v1/report`, with a request that was encoded once, since it must be sent again unchanged."""
        return await self._call("POST", f"{url}/v1/report", request, ReportAnswer, timeout=timeout)

    def encode(self, request: ReportRequest) -> bytes:
        """The request as it goes over the wire."""
        return self._encoder.encode(request)

    async def _call(self, method: str, url: str, body: bytes | None, kind: type[_Answer], *, timeout: float) -> _Answer:
        assert self._session is not None  # noqa: S101 - narrows the type
        headers = {"Content-Type": "application/json", **self._token.header()}
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                ssl=self._trust.context(),
                server_hostname=self._tls_name,
                allow_redirects=False,
            ) as response:
                content = await response.read()
                status = response.status
        except TimeoutError as error:
            raise UnreachableError(f"{url} did not answer within {timeout:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            cause = self._trust.explain(error.certificate_error)
            raise UnreachableError(f"{url} shows a certificate that does not verify: {cause}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"{url} cannot be reached: {error or type(error).__name__}") from error
        if status != 200:
            raise self._problem(url, status, content)
        decoder = self._answers.get(kind)
        if decoder is None:
            decoder = self._answers[kind] = msgspec.json.Decoder(kind)
        try:
            answer = decoder.decode(content)
        except msgspec.MsgspecError as error:
            raise UnreachableError(f"{url} answered what is no {kind.__name__}: {error}") from error
        assert isinstance(answer, kind)  # noqa: S101 - narrows the type
        return answer

    def _problem(self, url: str, status: int, content: bytes) -> TickwheelError:
        try:
            problem = self._problems.decode(content)
        except msgspec.MsgspecError:
            problem = Problem(title=content[:200].decode(errors="replace"), status=status)
        message = f"{url} answered {status}: {problem.title}"
        if problem.detail:
            message += f": {problem.detail}"
        kind = problem.type.removeprefix(_PROBLEM)
        if kind == "ledger-replaced":
            return LedgerReplacedError(message)
        if kind == "epoch-passed":
            return EpochPassedError(message)
        if problem.leader or status == 421 or kind == "not-leader":
            return NotLeaderError(f"{message} (the leader is {problem.leader or 'not known'})")
        if status == 401:
            message += "; the token comes from TICKWHEEL_TOKEN_FILE or TICKWHEEL_TOKEN"
        # 401 and 403 mend themselves when the token is renewed or access is granted; 404 when the endpoint is.
        if status in (400, 405, 413, 415, 422):
            return RefusedError(message)
        return UnreachableError(message)


def _socket_that_notices_silence(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that fails within seconds when the other machine is gone without a word, also in a long poll."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_IDLE_SECONDS),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", _SILENCE_SECONDS * 1000),
    ):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
