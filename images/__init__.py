"""The container images of the operator and the worker.

`operator/Dockerfile` and `worker/Dockerfile` are what is published. Where there is no Docker (CI, the local cluster),
`build` packs the same contents as OCI archives, which containerd imports: a base layer of Debian's Python, one of
dependencies, one of our code, each cached under what makes it, so that a changed line costs the last one only.
"""

from images.build import BuiltImage, build
from images.errors import ImageError

__all__ = ["BuiltImage", "ImageError", "build"]
