"""What a link has to report: outcomes gather here while a report is under way, and leave in batches of bounded size."""

from __future__ import annotations

from ._attempt import Attempt
from ._protocol import ErrorReport, ProgressReport, ReportRequest, ResultReport

__all__ = ["Outbox"]

# A report stays below 1 MiB, the default limit of common HTTP servers.
_BATCH_BYTES = 640 * 1024
_BATCH_TOKENS = 20_000


class Outbox:
    """Outcomes that no report holds yet, and how many a report under way does."""

    __slots__ = ("_under_way", "failed", "results", "returned", "succeeded")

    def __init__(self) -> None:
        self.succeeded: list[int] = []
        self.results: list[ResultReport] = []
        self.failed: list[ErrorReport] = []
        self.returned: list[int] = []
        self._under_way = 0

    def __bool__(self) -> bool:
        return bool(self.succeeded or self.results or self.failed or self.returned)

    @property
    def waiting(self) -> int:
        """Outcomes that the operator has not answered for."""
        gathered = len(self.succeeded) + len(self.results) + len(self.failed) + len(self.returned)
        return gathered + self._under_way

    def add(self, report: ResultReport | ErrorReport | int) -> None:
        """One outcome; a bare token is a success without a result."""
        if isinstance(report, int):
            self.succeeded.append(report)
        elif isinstance(report, ResultReport):
            self.results.append(report)
        else:
            self.failed.append(report)

    def move_into(self, request: ReportRequest) -> None:
        """Fill the request with what fits, the oldest first; the rest stays for the next."""
        request.succeeded, self.succeeded = self.succeeded[:_BATCH_TOKENS], self.succeeded[_BATCH_TOKENS:]
        request.returned, self.returned = self.returned[:_BATCH_TOKENS], self.returned[_BATCH_TOKENS:]
        room = _BATCH_BYTES
        count = 0
        for result in self.results:
            room -= len(result.value) + 40
            if room < 0 and count:
                break
            count += 1
        request.results, self.results = self.results[:count], self.results[count:]
        count = 0
        for error in self.failed:
            # JSON escapes may lengthen text; a byte count of the worst case would make batches needlessly small.
            room -= 2 * (len(error.message) + len(error.traceback)) + 80
            if room < 0 and (count or request.results):
                break
            count += 1
        request.failed, self.failed = self.failed[:count], self.failed[count:]
        self._under_way = len(request.succeeded) + len(request.results) + len(request.failed) + len(request.returned)

    def answered(self) -> None:
        """The report under way was answered."""
        self._under_way = 0

    @staticmethod
    def add_progress(request: ReportRequest, attempt: Attempt) -> None:
        """The attempt's latest progress. The handler's thread may set another meanwhile: that goes with the next."""
        latest = attempt.progress
        attempt.progress_sent = latest
        if latest is not None:
            request.progress.append(
                ProgressReport(token=attempt.lease.token, fraction=latest[0], message=latest[1][:1000])
            )
