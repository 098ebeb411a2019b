"""The SDK has its own copy of the wire messages; here it is held to the operator's."""

from __future__ import annotations

import msgspec
import pytest

from tickwheel import _protocol as copy
from tickwheel_operator.gateway import schemas as original


@pytest.mark.parametrize("name", copy.__all__)
def test_a_message_of_the_copy_is_the_message_of_the_operator(name):
    ours, theirs = getattr(copy, name), getattr(original, name)
    fields = [_described(field) for field in msgspec.structs.fields(ours)]
    assert fields == [_described(field) for field in msgspec.structs.fields(theirs)]
    assert ours.__struct_config__.omit_defaults == theirs.__struct_config__.omit_defaults
    assert ours.__struct_config__.forbid_unknown_fields == theirs.__struct_config__.forbid_unknown_fields


def test_the_copy_has_every_message_that_a_worker_meets():
    of_users = {"RunRequest", "SubmitRequest", "RunAnswer", "SubmitAnswer"}
    missing = set(original.__all__) - set(copy.__all__) - of_users
    # A new message of the API's users belongs into the set above; one of the workers into the copy.
    assert not {name for name in missing if _reaches_workers(name)}


def _reaches_workers(name: str) -> bool:
    return any(
        name in str(field.type)
        for message in copy.__all__
        for field in msgspec.structs.fields(getattr(original, message))
    )


def _described(field: msgspec.structs.FieldInfo) -> tuple[object, ...]:
    kind = str(field.type).replace("tickwheel_operator.gateway.schemas.", "").replace("tickwheel._protocol.", "")
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if isinstance(default, msgspec.Raw):
        default = bytes(default)
    return field.name, field.encode_name, kind, repr(default)
