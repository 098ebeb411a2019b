"""What may come of a request to the API server, other than what was asked for.

One question decides what a caller may do next: was it carried out?

    ApiUnavailable   certainly not: the same request may be sent again
    ApiUncertain     maybe, and it may still arrive: find out, or send what does no harm twice
    ApiRefused       no, and not without a change: of the request, of the object, or of the operator's rights

A reader need not tell the first two apart: they are both `ApiUnanswered`.
"""

from __future__ import annotations

__all__ = ["ApiError", "ApiRefused", "ApiUnanswered", "ApiUnavailable", "ApiUncertain"]


class ApiError(Exception):
    """The base of what `kube.client` raises. The message says what was being done and what is wrong."""


class ApiUnanswered(ApiError):
    """The server said neither yes nor no. Try again."""


class ApiUnavailable(ApiUnanswered):
    """It was certainly not carried out: no connection, no credentials, too many requests, shutting down."""


class ApiUncertain(ApiUnanswered):
    """It may have been carried out, and may yet be: the connection broke, a time-out, an error of the server."""


class ApiRefused(ApiError):
    """The server understood and said no."""

    def __init__(self, text: str, *, status: int, reason: str, message: str) -> None:
        super().__init__(text)
        self.status = status
        """HTTP: 400 to 499, but for those that ask to try again."""
        self.reason = reason
        """The API's word, such as `Invalid` or `Forbidden`; may be empty."""
        self.kind = f"{status} {reason}"
        """What a work queue tells refusals apart by."""
        self.message = message
        """The server's own words. They may quote the request."""

    @property
    def for_good(self) -> bool:
        """The content itself is refused: nobody but who changes it need try again."""
        return self.status in (400, 405, 413, 415, 422)
