"""One cluster with the product on it for all of these tests. The first one pays for it; it is removed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.product import Installation, installed_product

from tickwheel_cluster.local import ClusterImpossible


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    try:
        with installed_product(tmp_path_factory.mktemp("e2e")) as product:
            yield product
    except ClusterImpossible as error:
        pytest.skip(str(error))
