"""What a link has to report: outcomes gather here while a report is under way, and leave in batches of bounded size."""

from __future__ import annotations

from ._attempt import Attempt
from ._protocol import ErrorReport, ProgressReport, ReportRequest, ResultReport

__all__ = ["Outbox", "add_progress", "add_renewal", "divide", "is_empty"]

# A report stays below 1 MiB, the default limit of common HTTP servers, and below the 10,000 tokens of the protocol.
_BATCH_BYTES = 640 * 1024
_BATCH_OUTCOMES = 5_000
_BATCH_RENEWALS = 4_000
_BATCH_PROGRESS = 1_000


class Outbox:
    """Outcomes that no report holds yet, and how many the reports under way do."""

    __slots__ = ("_done_under_way", "failed", "results", "returned", "succeeded", "under_way")

    def __init__(self) -> None:
        self.succeeded: list[int] = []
        self.results: list[ResultReport] = []
        self.failed: list[ErrorReport] = []
        self.returned: list[int] = []
        self.under_way = 0
        """Outcomes in reports that were not answered yet."""
        self._done_under_way = 0
        """Of these, those that are no returned leases."""

    def __bool__(self) -> bool:
        return bool(self.succeeded or self.results or self.failed or self.returned)

    @property
    def waiting(self) -> int:
        """Outcomes that the operator has not answered for."""
        gathered = len(self.succeeded) + len(self.results) + len(self.failed) + len(self.returned)
        return gathered + self.under_way

    @property
    def outcomes(self) -> int:
        """Those that are about work that was done: nobody else knows how it ended."""
        gathered = len(self.succeeded) + len(self.results) + len(self.failed)
        return gathered + self._done_under_way

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
        tokens, size = _BATCH_OUTCOMES, _BATCH_BYTES
        request.succeeded, self.succeeded = self.succeeded[:tokens], self.succeeded[tokens:]
        tokens -= len(request.succeeded)
        request.returned, self.returned = self.returned[:tokens], self.returned[tokens:]
        tokens -= len(request.returned)
        count = 0
        for result in self.results[:tokens]:
            size -= len(result.value) + 40
            if size < 0 and count:
                break
            count += 1
        request.results, self.results = self.results[:count], self.results[count:]
        tokens -= count
        count = 0
        for error in self.failed[:tokens]:
            # Twice, since JSON escapes make text longer.
            size -= 2 * (len(error.message) + len(error.traceback)) + 80
            if size < 0 and (count or request.results):
                break
            count += 1
        request.failed, self.failed = self.failed[:count], self.failed[count:]
        self.under_way += _outcomes(request)
        self._done_under_way += _outcomes(request) - len(request.returned)

    def answered(self, request: ReportRequest) -> None:
        """A report under way was answered, with all parts of it."""
        self.under_way -= _outcomes(request)
        self._done_under_way -= _outcomes(request) - len(request.returned)


def add_renewal(request: ReportRequest, attempt: Attempt) -> bool:
    """Renew the attempt's lease with this report; false if it is full."""
    if len(request.renew) >= _BATCH_RENEWALS:
        return False
    request.renew.append(attempt.lease.token)
    return True


def add_progress(request: ReportRequest, attempt: Attempt) -> bool:
    """Tell the attempt's latest progress with this report; false if it is full. The handler's thread may set another
    meanwhile: that goes with the next."""
    if len(request.progress) >= _BATCH_PROGRESS:
        return False
    latest = attempt.progress
    attempt.progress_sent = latest
    if latest is not None:
        fraction, message = latest
        request.progress.append(ProgressReport(token=attempt.lease.token, fraction=fraction, message=message))
    return True


def is_empty(request: ReportRequest) -> bool:
    """Whether there is nothing to send."""
    return not (_outcomes(request) or request.renew or request.progress or request.leaving)


def divide(request: ReportRequest, refusal: str) -> list[ReportRequest]:
    """What to send instead of a report that was refused for good, so that one outcome that the operator cannot take
    does not cost the others: its halves; for a single result, a failure that says so; else nothing."""
    count = _outcomes(request)
    if count == 1 and request.results:
        token = request.results[0].token
        message = f"the operator refused the result: {refusal}"
        failed = ErrorReport(token=token, type="ResultError", message=message, permanent=True)
        return [
            ReportRequest(
                worker=request.worker, epoch=request.epoch, ledger=request.ledger, failed=[failed], renew=request.renew,
                progress=request.progress, leaving=request.leaving,
            )
        ]  # fmt: skip
    if count <= 1:
        return []
    # Renewals go along with the first part: what runs must not lose its lease for another attempt's result.
    first, second = (ReportRequest(worker=request.worker, epoch=request.epoch, ledger=request.ledger) for _ in range(2))
    first.renew, first.progress, second.leaving = request.renew, request.progress, request.leaving
    half = count // 2
    for name in ("succeeded", "results", "failed", "returned"):
        outcomes = getattr(request, name)
        setattr(first, name, outcomes[:half])
        setattr(second, name, outcomes[half:])
        half -= min(half, len(outcomes))
    return [first, second]


def _outcomes(request: ReportRequest) -> int:
    return len(request.succeeded) + len(request.results) + len(request.failed) + len(request.returned)
