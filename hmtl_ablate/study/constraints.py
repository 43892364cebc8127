"""Constraints between options: comparisons of sums and products of them, read by Python's parser and never executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_COMPARE: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_COMBINE: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LENGTH = 500
"""Characters that a constraint may have."""


@dataclass(frozen=True)
class Constraint:
    """A comparison such as `training.warmup_epochs < 0.5 * training.epochs`; chains such as `a < b < c` are allowed."""

    text: str

    @property
    def names(self) -> tuple[str, ...]:
        """The options that it names, by their dotted keys."""
        found = {_key(node) for node in ast.walk(_parsed(self.text)) if isinstance(node, ast.Attribute | ast.Name)}
        whole = sorted(found - {key.rpartition(".")[0] for key in found} if len(found) > 1 else found)
        return tuple(whole)

    def holds(self, options: Mapping[str, Any]) -> bool:
        """Whether it holds for a config's data (nested). True where an option that it names does not exist; False for a
        division by 0."""
        compare = _parsed(self.text)
        try:
            values = [_value(node, options) for node in (compare.left, *compare.comparators)]
        except KeyError:
            return True
        except (ZeroDivisionError, OverflowError):
            return False
        return all(_COMPARE[type(op)](*pair) for op, pair in zip(compare.ops, pairwise(values), strict=True))


def parse_constraint(text: str) -> Constraint:
    """Raises ValueError, with what is wrong, for what is no comparison of options and numbers."""
    _check(_parsed(text))
    return Constraint(text)


def _parsed(text: str) -> ast.Compare:
    if len(text) > LENGTH:
        raise ValueError(f"has more than {LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("is no comparison") from None
    if not isinstance(tree, ast.Compare):
        raise ValueError("is no comparison")
    return tree


def _check(node: ast.AST) -> None:
    """Refuse everything but options, numbers, + - * / and comparisons."""
    if isinstance(node, ast.Compare):
        if not all(type(op) in _COMPARE for op in node.ops):
            raise ValueError("compares with another sign than <, <=, > and >=")
        parts: list[ast.expr] = [node.left, *node.comparators]
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMBINE:
        parts = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        parts = [node.operand]
    elif isinstance(node, ast.Attribute | ast.Name):
        _key(node)
        parts = []
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        parts = []
    else:
        raise ValueError("has something else than options, numbers, + - * / and comparisons")
    for part in parts:
        if isinstance(part, ast.Compare):
            raise ValueError("compares a comparison")
        _check(part)


def _key(node: ast.expr) -> str:
    """The dotted key that a chain of names spells."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_key(node.value)}.{node.attr}"
    raise ValueError("has something else than options, numbers, + - * / and comparisons")


def _value(node: ast.expr, options: Mapping[str, Any]) -> float:
    """The value of a checked expression. Raises KeyError for an option that does not exist or is no number."""
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]  # checked: a number
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, options)
    if isinstance(node, ast.BinOp):
        return _COMBINE[type(node.op)](_value(node.left, options), _value(node.right, options))
    found: Any = options
    for part in _key(node).split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise KeyError(part)
        found = found[part]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise KeyError(_key(node))
    return float(found)
