"""What is kept of the schemas that workers register."""

from __future__ import annotations

import pytest

from tickwheel_operator.handlers import known
from tickwheel_operator.handlers.known import MOST_SETS, HandlerSchema, KnownSchemas

OLD, NEW = HandlerSchema(b'{"old":1}', b"{}"), HandlerSchema(b'{"new":1}', b"{}")


class Pools(dict):
    """The hashes of live workers, by pool."""

    def live(self, namespace, pool):
        return self.get((namespace, pool), ())


@pytest.fixture
def pools():
    return Pools()


@pytest.fixture
def schemas(pools):
    return KnownSchemas(pools.live)


def test_schemas_are_wanted_until_they_came(schemas):
    changed = []
    schemas.on_change = lambda namespace, pool: changed.append(pool)
    assert schemas.wants("ns", "shops", "h1")
    schemas.take("ns", "shops", "h1", {"sync": OLD})
    schemas.take("ns", "shops", "h1", {"sync": NEW})
    assert not schemas.wants("ns", "shops", "h1")
    assert schemas.wants("ns", "other", "h1"), "another pool's word is not taken"
    assert changed == ["shops"]


def test_the_schemas_of_live_workers_are_told_those_that_came_last_first(schemas, pools):
    for name, schema in (("h1", OLD), ("h2", NEW), ("h3", OLD)):
        schemas.take("ns", "shops", name, {"sync": schema})
    assert schemas.of_pool("ns", "shops") == {}
    pools["ns", "shops"] = ["h1", "h2"]
    assert schemas.of_pool("ns", "shops") == {"sync": [NEW, OLD]}
    pools["ns", "shops"] = ["h1", "h3"]
    assert schemas.of_pool("ns", "shops") == {"sync": [OLD]}


def test_a_live_worker_whose_schemas_are_not_known_may_take_anything(schemas, pools):
    schemas.take("ns", "shops", "h1", {"sync": OLD})
    pools["ns", "shops"] = ["h1", ""]
    assert schemas.of_pool("ns", "shops") == {"sync": [OLD, HandlerSchema(b"{}", b"{}")]}
    assert schemas.sources("ns", "shops", "sync") == []


def test_a_pool_with_too_many_sets_forgets_those_that_no_live_worker_has(schemas, pools):
    for number in range(MOST_SETS):
        schemas.take("ns", "shops", f"h{number}", {"sync": OLD})
    pools["ns", "shops"] = [f"h{number}" for number in range(1, MOST_SETS)]
    assert schemas.wants("ns", "shops", "new")
    schemas.take("ns", "shops", "new", {"sync": NEW})
    pools["ns", "shops"].append("new")
    assert not schemas.wants("ns", "shops", "one too many"), "or it would be asked for with every pull"
    assert schemas.of_pool("ns", "shops")["sync"] == [NEW, OLD]


def test_the_memory_of_all_pools_is_bounded(schemas, pools, monkeypatch):
    monkeypatch.setattr(known, "MOST_BYTES", 3 * len(OLD.parameters + OLD.result))
    for number in range(3):
        pools["ns", f"pool-{number}"] = ["h"]
        schemas.take("ns", f"pool-{number}", "h", {"sync": OLD})
    assert not schemas.wants("ns", "more", "h")
    del pools["ns", "pool-1"]
    assert schemas.wants("ns", "more", "h")
    assert schemas.of_pool("ns", "pool-1") == {}
