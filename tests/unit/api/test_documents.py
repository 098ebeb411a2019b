"""Text becomes values as in Kubernetes, and whatever it is, the answer is values or one error with its place.

`yaml_scalars.json` has what a real API server makes of each scalar; `tests/integration/test_documents.py` asks one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tickwheel_operator.api import documents, objects
from tickwheel_operator.api.documents import MOST_FILE_BYTES
from tickwheel_operator.api.nesting import MOST_LEVELS
from tickwheel_operator.api.nodes import MOST_VALUES, Place, Unreadable
from tickwheel_operator.api.scalars import resolved, stays_text

SCALARS = json.loads((Path(__file__).parent / "yaml_scalars.json").read_text(encoding="utf-8"))


def bodies(text: str | bytes) -> list[dict[str, Any]]:
    return [document.body for document in documents(text)]


def problem(text: str | bytes) -> tuple[int, int, str]:
    """Line, column and words of the error."""
    with pytest.raises(Unreadable) as caught:
        bodies(text)
    return *caught.value.place, caught.value.problem


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text[:20] for text, _ in SCALARS])
def test_a_scalar_is_what_it_is_to_an_api_server(text: str, value: Any) -> None:
    document = f"a:\n  - {text}\n"
    if value == {"error": True}:
        problem(document)
    else:
        # As JSON, since 1 and 1.0 and True are equal in Python only.
        assert json.dumps(bodies(document)) == json.dumps([{"a": [value]}])


def test_documents_are_divided_as_kubectl_divides_them() -> None:
    text = "a: 2026-12-24T18:00:00Z\n---\n--- # a comment\nb: [1, on]\n"
    assert bodies(text) == [{"a": "2026-12-24T18:00:00Z"}, {"b": [1, True]}]
    assert problem("a: 1\n--- {b: 2}\n")[:2] == (2, 4)
    assert problem("a: 1\n...\nb: 2\n")[0] == 3, "kubectl drops it in silence"
    assert bodies("a: 1\n...\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_merges_and_keys_are_those_of_kubectl() -> None:
    assert bodies("a: &x {b: 1}\nc: {<<: *x, b: 2}\n") == [{"a": {"b": 1}, "c": {"b": 2}}]
    assert bodies("a: &x {b: 1}\nc: {b: 2, <<: *x}\n") == [{"a": {"b": 1}, "c": {"b": 1}}], "the later one wins"
    assert bodies("x: &x {b: 1}\ny: &y {b: 2}\nc: {<<: [*x, *y]}\n")[0]["c"] == {"b": 1}
    assert bodies("{1: a, yes: b, 0x10: c}") == [{"1": "a", "true": "b", "16": "c"}]
    assert problem("a: 1\n1.5: b")[:2] == (2, 1)
    assert problem("a: &x [1]\nc: {<<: *x}\n")[:2] == (2, 9)


def test_json_is_read_as_json() -> None:
    assert bodies('{"a": 1.0, "b": "\\ud83d\\ude00", "c": "\\ud800"}\n{"d": 1e3}\n') == [
        {"a": 1, "b": "\U0001f600", "c": "\ufffd"},
        {"d": 1000},
    ]
    assert problem('{"a": 1,\n "a": 2}')[:2] == (2, 2)
    assert json.dumps(bodies('{"a": 18446744073709551615}')) == '[{"a": 18446744073709552000}]'


def test_files_of_windows_are_read() -> None:
    assert bodies("a: é\r\nb: |\r\n  c\r\n".encode("utf-16")) == [{"a": "é", "b": "c\n"}]
    assert bodies(b"\xef\xbb\xbfa: 1\r\n---\r\nb: 2\r\n") == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: !!int abc", (1, 4), "'abc' cannot be read as !!int"),
        ("a: !!bool maybe", (1, 4), "'maybe' cannot be read as !!bool"),
        ('a: 1\nb: "\\UFFFFFFFF"', (2, 7), "invalid Unicode character"),
        ('a: "\\ud800"', (1, 7), "invalid Unicode character"),
        ("a: .inf", (1, 4), "JSON has no infinity"),
        ("a: 1\nb: &x [1, *x]", (2, 11), "contains itself"),
        ("a: *x", (1, 4), "there is no anchor &x"),
        ("a: \x01", (1, 4), "control characters are not allowed"),
        ("a: é\x07", (1, 5), "control characters are not allowed"),
        (b"a: 1\nb: \xff", (2, 4), "this is not UTF-8 (byte 0xff)"),
        ("a: \ud800", (1, 4), "this is not UTF-8"),
        ("a: [", (2, 1), "this is not YAML"),
        ("a: 1\nb: {c: 1, c: 2}", (2, 11), "the key 'c' is there twice"),
        ("a: {1: x, '1': y}", (1, 11), "the key '1' is there twice"),
        ("? [a]\n: b", (1, 3), "this key is a mapping or list"),
        ("~: b", (1, 1), "this key is null"),
        ("- 1", (1, 1), "document 1 is not an object"),
        ("a: 1\n---\njust text", (3, 1), "document 2 is not an object"),
        ("a: " + "[" * 3_000 + "]" * 3_000, (1, MOST_LEVELS + 3), "more than 100 levels deep"),
        ("a: " + "[" * 1_000_000, (1, MOST_LEVELS + 3), "more than 100 levels deep"),
        ('{"a": ' + "[" * 3_000 + "]" * 3_000 + "}", (1, MOST_LEVELS + 6), "more than 100 levels deep"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_its_place(text: str | bytes, place: tuple[int, int], words: str) -> None:
    line, column, said = problem(text)
    assert (line, column) == place
    assert words in said


def test_aliases_of_aliases_are_counted_before_they_are_walked() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    line, _, said = problem("\n".join(lines))
    assert line == 6, "where it becomes more than the bound"
    assert f"more than {MOST_VALUES} values" in said
    merged = "\n".join(["a: &a {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}", "b: {<<: *a, <<: *a}"])
    assert len(bodies(merged)[0]["b"]) == 1000
    assert (
        "values" in problem("x:\n- &a {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}\n" + "- {<<: *a}\n" * 500)[2]
    )


def test_a_file_that_is_too_large_is_not_read() -> None:
    assert "divide it" in problem(b"#" * (MOST_FILE_BYTES + 1))[2]


def test_a_line_is_known_also_in_lists_and_in_json() -> None:
    text = "---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: tickwheel.io/v1alpha1\n  kind: ScheduledTask\n"
    text += """  spec:\n    "a.b']": 1\n"""
    [listed] = objects(text.encode())
    assert (listed.line(), listed.line("spec"), listed.line("""spec["a.b']"]"""), listed.line("spec.x.y")) == (
        5,
        7,
        8,
        7,
    )
    assert listed.line("spec['\\q\\N{}']") == 7, "not how a path is spelled"
    [listed] = objects(b'{"apiVersion": "tickwheel.io/v1alpha1",\n "spec": {\n  "a": [1,\n 2]}}')
    assert listed.line("spec.a[1]") == 4
    long = b'{"apiVersion": "tickwheel.io/v1alpha1", "a\\/b": 1, "' + b"k" * 2000 + b'"\n: 1}'
    [listed] = objects(b"\n" + long)
    assert listed.line("spec") == 1, "JSON that is no YAML has its first line"


@given(st.text() | st.binary() | st.lists(st.sampled_from(
    ["a", ": ", "\n", "  ", "- ", "? ", "[", "]", "{", "}", ",", "&x ", "*x", "<<: ", "!!int ", "!", '"', "'", "\\u",
     "\\ud800", "|\n", "---", "\n---\n", "...", "%YAML", "1e999",
     "0x_", "\x85", "\u2028", "\ufeff", "\ud800", "\t", "#"]
)).map("".join))  # fmt: skip
@example(b"\xff\xfea")
@example('{"a":1}{')
@settings(max_examples=1500, deadline=None)
def test_nothing_but_the_one_error_is_ever_raised(text: str | bytes) -> None:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    for read in (documents, objects):
        try:
            for document in read(raw, among_others=True):
                json.dumps(document.body, allow_nan=False).encode()
                document.line("a[0].b")
        except Unreadable as error:
            place = error.place
        else:
            place = Place(1, 1)
        assert 1 <= place.line <= len(raw) + 1
        assert 1 <= place.column <= len(raw) + 1


@given(
    st.text(alphabet="0123456789eExXoObB_.+-:yYnNtTfF~", max_size=8).filter(
        lambda text: "." not in (text.strip("+-")[:1], "") or "n" not in text.lower()
    )
)
def test_what_stays_text_is_known_without_reading_it(text: str) -> None:
    assert stays_text(text) == (resolved(text, None, plain=True) == text)
