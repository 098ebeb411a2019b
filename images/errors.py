"""The one error of this package: an image cannot be made. Its message says what to install, set or run."""

__all__ = ["ImageError"]


class ImageError(Exception):
    """An image cannot be made, and what would mend that."""
