"""What can be wrong with a schedule as its user wrote it.

Both errors are `ValueError`s, so that a decoder which builds a trigger reports them as a fault of the
document. The message alone must be enough to mend the text: what is wrong, where, what is allowed, an
example.
"""


class CronError(ValueError):
    """The cron expression cannot be read, or can never fire.

    Parameters
    ----------
    message
        The whole message for the person who wrote the expression.
    field
        The field at fault (`"minute"`, `"day of week"`, ...), or `None` where the whole text is.
    position
        Where in the expression the bad text begins: characters, the first is 0.
    """

    def __init__(self, message: str, *, field: str | None = None, position: int = 0) -> None:
        super().__init__(message)
        self.field = field
        self.position = position


class UnknownZoneError(ValueError):
    """The zone data has no time zone of this name."""
