from __future__ import annotations

from typing import cast

from tests.contract.authority_store import writes_replace_what_was_read
from tests.unit.tls.memory_secret import MemorySecret

from tickwheel_operator.tls.store import AuthorityStore


async def test_the_secret_in_memory_is_replaced_as_the_real_one() -> None:
    await writes_replace_what_was_read(cast("AuthorityStore", MemorySecret()))
