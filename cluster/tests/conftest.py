"""The local cluster's tests go first: a machine has room for one, and the e2e tests keep theirs until the end."""

from __future__ import annotations

import pytest

_FIRST = "test_local_cluster.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != _FIRST)
