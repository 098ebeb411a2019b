"""The contract of `tls.store.AuthorityStore` and of what stands in for it: what is written replaces what was read."""

from __future__ import annotations

import time

from tickwheel_operator.tls.authority import make_authority
from tickwheel_operator.tls.rotation import Authorities, bundle
from tickwheel_operator.tls.store import AuthorityStore

__all__ = ["writes_replace_what_was_read"]


async def writes_replace_what_was_read(store: AuthorityStore) -> None:
    """Hold an empty store to it."""
    assert await store.read() is None
    now_ms = time.time_ns() // 1_000_000
    made, other = (Authorities(make_authority(now_ms, 86_400_000)) for _ in range(2))
    first = await store.write(made, None)
    assert first is not None and bundle(first.authorities) == bundle(made)
    assert await store.write(other, None) is None, "there is one"
    following = Authorities(made.current, make_authority(now_ms, 86_400_000), (other.current.certificate,))
    second = await store.write(following, first)
    assert second is not None and bundle(second.authorities) == bundle(following)
    assert await store.write(other, first) is None, "it was changed since it was read"
    read = await store.read()
    assert read is not None and read.authorities.next is not None
    assert (read.version, bundle(read.authorities)) == (second.version, bundle(following))
