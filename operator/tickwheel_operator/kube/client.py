"""Requests to the Kubernetes API whose failures say whether they were carried out.

For everything that the operator asks, but for kopf's watches. It goes through the REST layer of `kubernetes.aio` (its
connections, TLS, proxy and token refresh) but past the generated models: those turn a body into objects and back,
which costs more than the request itself, and drop fields that their version does not know. Nothing is retried here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTResponse

from tickwheel_operator.api.nesting import cut
from tickwheel_operator.kube.errors import ApiRefused, ApiUnavailable, ApiUncertain

__all__ = ["APPLY", "JSON_PATCH", "MERGE_PATCH", "Answer", "KubeClient"]

APPLY = "application/apply-patch+yaml"
"""Content types of a PATCH. This one is server-side apply."""
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
_CONNECT_S = 5.0
_Read = TypeVar("_Read")


class _Status(msgspec.Struct):
    """The API server's `Status` object."""

    reason: str = ""
    message: str = ""


_status_decoder = msgspec.json.Decoder(_Status)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class Answer(msgspec.Struct, frozen=True):
    """What the server said."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """The API's word for the failure (`AlreadyExists`, `Conflict`), or empty."""
        return self._failure().reason

    @property
    def message(self) -> str:
        """What the server says about the failure, for people."""
        failure = self._failure()
        named = f"{self.status} {failure.reason}".rstrip()
        return f"{named}: {failure.message}" if failure.message else f"HTTP {self.status}"

    def _failure(self) -> _Status:
        try:
            return _status_decoder.decode(self.body)
        except msgspec.MsgspecError:
            return _Status(message=self.body[:200].decode(errors="replace").strip())

    def read(self, decoder: msgspec.json.Decoder[_Read], what: str) -> _Read:
        """The parts of the body that are wanted. Raises `ApiUncertain` where it is something else."""
        try:
            return decoder.decode(self.body)
        except msgspec.MsgspecError as error:
            raise ApiUncertain(f"{what}: the API server's answer cannot be read: {error}") from error

    def object(self, what: str) -> dict[str, Any]:
        """The body; what is nested too deeply to be decoded is cut. Raises `ApiUncertain` unless it is an object."""
        try:
            return self.read(_object_decoder, what)
        except RecursionError:
            return Answer(self.status, cut(self.body)).read(_object_decoder, what)

    def check(self, what: str, *, hint: str = "") -> None:
        """Raise what the answer means, unless it is a yes. `hint` says what to do about missing rights."""
        self.raise_unanswered(what)
        if not self.ok:
            raise self.refusal(what, hint=hint)

    def raise_unanswered(self, what: str) -> None:
        """Raise for the answers that say neither yes nor no: try again, or find out.

        401 is among them, since a rotated token heals it; 5xx come from servers that lost sight of etcd, which may have
        done it.
        """
        if self.status in (401, 429, 503):
            raise ApiUnavailable(f"{what}: the API server answers {self.message}")
        if self.status == 408 or self.status >= 500:
            raise ApiUncertain(f"{what}: the API server answers {self.message}")

    def refusal(self, what: str, *, hint: str = "") -> ApiRefused:
        """The error for a no."""
        failure = self._failure()
        # "User ... cannot ..." is about rights; other 403s are of quotas and policies.
        about_rights = self.status == 403 and " cannot " in failure.message
        text = f"{what}: the API server answers {self.message}{hint if about_rights else ''}"
        return ApiRefused(text, status=self.status, reason=failure.reason, message=failure.message)


class KubeClient:
    """One API server. The client is the caller's: it is not closed here."""

    def __init__(self, client: ApiClient, *, timeout_s: float = 10.0) -> None:
        """`timeout_s` bounds each request from its start to the last byte of its answer."""
        self._client = client
        self._host = client.configuration.host.rstrip("/")
        self._timeout_s = timeout_s

    @property
    def configuration(self) -> Configuration:
        """Where the server is, and as whom it is asked: for kopf, which connects by itself."""
        found: Configuration = self._client.configuration
        return found

    async def request(
        self,
        method: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> Answer:
        """Send one request and read its answer, whatever it is.

        `what` says in an error what was being done. Raises `ApiUnavailable` where the request certainly did not
        reach the server and `ApiUncertain` where it may have.
        """
        total_s = timeout_s or self._timeout_s
        timeout = aiohttp.ClientTimeout(total=total_s, connect=min(_CONNECT_S, total_s))
        headers = await self._headers(accept, content_type, what)
        try:
            response = await self._send(method, self._url(path, query), headers, body, timeout)
            return Answer(response.status, await response.response.read(), response.response.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ApiUnavailable(f"{what}: {self._host} cannot be reached: {error}") from error
        except TimeoutError as error:
            raise ApiUncertain(f"{what}: {self._host} did not answer within {total_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiUncertain(f"{what}: the connection to {self._host} failed: {error!r}") from error

    async def call(self, method: str, path: str, *, what: str, hint: str = "", **options: Any) -> dict[str, Any]:
        """What the server made of a request that it carried out: as `request`, and raises `ApiRefused` for a no.

        `hint` says what to do about missing rights.
        """
        answer = await self.request(method, path, what=what, **options)
        answer.check(what, hint=hint)
        return answer.object(what)

    async def lines(
        self, path: str, *, what: str, query: Mapping[str, str | int], timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a watch, as they come. Ends with the watch. Raises `ApiError`, for a no as well."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=_CONNECT_S)
        headers = await self._headers("application/json", "application/json", what)
        try:
            response = await self._send("GET", self._url(path, query), headers, None, timeout)
            try:
                if response.status != 200:
                    Answer(response.status, await response.response.read()).check(what)
                async for line in response.response.content:
                    yield line
            finally:
                response.response.close()
        except (aiohttp.ClientError, OSError) as error:
            raise ApiUnavailable(f"{what}: the watch at {self._host} broke off: {error!r}") from error

    async def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: Mapping[str, Any] | Sequence[Any] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> RESTResponse:
        # The REST layer has no annotations.
        return await self._client.rest_client.request(  # type: ignore[no-any-return, no-untyped-call]
            method, url, headers=headers, body=body, _request_timeout=timeout
        )

    def _url(self, path: str, query: Mapping[str, str | int] | None) -> str:
        return f"{self._host}{path}?{urlencode(query)}" if query else f"{self._host}{path}"

    async def _headers(self, accept: str, content_type: str, what: str) -> dict[str, str]:
        headers = {**self._client.default_headers, "Accept": accept, "Content-Type": content_type}
        try:
            # Asks the configuration's hook each time, which refreshes a projected or short-lived token.
            bearer = (await self._client.configuration.auth_settings()).get("BearerToken")
        except Exception as error:
            # The hook reads files and may run programs: whatever it raises, nothing was sent, and it may work again.
            raise ApiUnavailable(f"{what}: the operator's own credentials cannot be read: {error!r}") from error
        if bearer:
            headers["Authorization"] = bearer["value"]
        return headers
