"""Breakages that nobody chose: drawn by chance over all code of engine, ledger, election and runtime.

`python -m tests.simulation.mutate --draw 60 --seed 7` tries 60 of them. The share that is found is the honest estimate
of what the tests find, since nobody thought of these places. A person looks at those that nobody finds: a test is
missing, the code is needless, or nothing can find it.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tests.simulation.mutants import Mutant

__all__ = ["draw", "drawn"]

_PACKAGE = Path(__file__).parents[2] / "operator" / "tickwheel_operator"
_MODULES = (
    "engine/**/*.py", "ledger/*.py", "election/*.py", "runtime/partition.py", "runtime/leadership.py",
    "runtime/checkpoints.py", "runtime/pace.py", "runtime/unheard.py",
)  # fmt: skip
_OTHER: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


def draw(number: int, seed: int) -> list[Mutant]:
    """So many of them, the same ones for the same seed and code."""
    candidates = [
        (module, edit)
        for pattern in _MODULES
        for file in sorted(_PACKAGE.glob(pattern))
        for module in [".".join(file.relative_to(_PACKAGE).with_suffix("").parts)]
        for edit in _edits(file.read_text())
    ]
    random.Random(seed).shuffle(candidates)
    chosen = islice(((module, edit) for module, edit in candidates if _compiles(module, *edit)), number)
    return [
        Mutant(f"drawn-{number}-{seed}-{place}", module.removesuffix(".__init__"), *edit)
        for place, (module, edit) in enumerate(chosen)
    ]


def _compiles(module: str, before: str, after: str) -> bool:
    """An expression in brackets may have been cut."""
    source = _PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()
    try:
        ast.parse(source.replace(before, after))
    except SyntaxError:
        return False
    return True


def drawn(name: str) -> Mutant:
    """The one of this name."""
    _, number, seed, place = name.split("-")
    return draw(int(number), int(seed))[int(place)]


def _edits(source: str) -> Iterator[tuple[str, str]]:
    """A text that is there once, and what stands in its place."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    for begin, end, after in _places(ast.parse(source), offset):
        low, high = begin, end
        while source.count(source[low:high]) > 1:  # with what stands around it, it is there once
            low, high = max(0, low - 20), min(len(source), high + 20)
        yield source[low:high], source[low:begin] + after + source[end:high]


def _places(tree: ast.AST, at: Callable[[int, int], int]) -> Iterator[tuple[int, int, str]]:
    """Where to break it: from one offset to another, and what stands there then. `at` gives the offset of a place."""

    def span(node: ast.expr | ast.stmt) -> tuple[int, int]:
        return at(node.lineno, node.col_offset), at(node.end_lineno or 0, node.end_col_offset or 0)

    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name == "__repr__":
            continue
        for statement in function.body:
            for node in ast.walk(statement):
                match node:
                    case ast.Compare(left=left, ops=[op], comparators=[right]):
                        yield span(left)[1], span(right)[0], f" {_OTHER[type(op)]} "
                    case ast.BoolOp(op=op, values=[first, second, *_]):
                        yield span(first)[1], span(second)[0], " or " if isinstance(op, ast.And) else " and "
                    case ast.UnaryOp(op=ast.Not(), operand=operand):
                        yield span(node)[0], span(operand)[0], ""
                    case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                        yield span(left)[1], span(right)[0], " - " if isinstance(op, ast.Add) else " + "
                    case ast.Call(func=ast.Name(id=name) as called) if name in _SWAPPED:
                        yield *span(called), _SWAPPED[name]
                    case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break():
                        yield *span(node), "pass"
                    case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                        yield *span(node), "pass"
                    case ast.If(test=test):
                        yield *span(test), "True"
                        yield *span(test), "False"
                    case _:
                        pass
