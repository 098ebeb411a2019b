from __future__ import annotations

import pytest

from tickwheel_operator.api import KINDS
from tickwheel_operator.kube.resources import DEPLOYMENTS, OURS, PODS, ApiResource


@pytest.mark.parametrize(
    ("resource", "place", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("shops",), "/api/v1/namespaces/shops/pods"),
        (PODS, ("shops", "a b/../c"), "/api/v1/namespaces/shops/pods/a%20b%2F..%2Fc"),
        (DEPLOYMENTS, ("shops", "w"), "/apis/apps/v1/namespaces/shops/deployments/w"),
        (OURS["TaskRun"], ("shops", "r", "status"), "/apis/tickwheel.io/v1alpha1/namespaces/shops/taskruns/r/status"),
    ],
)
def test_a_resource_knows_its_paths(resource: ApiResource, place: tuple[str, ...], path: str) -> None:
    assert resource.path(*place) == path


def test_all_kinds_of_ours_are_resources() -> None:
    assert {resource.plural for resource in OURS.values()} == {kind.presentation.plural for kind in KINDS}
