"""The part of CloudWatch's metric math that templates here use: numbers, comparisons, AND, OR."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Final

_OPERATORS: Final[Mapping[type, Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class MetricMathError(Exception):
    """When an expression uses what is not known here."""


def evaluate_expression(expression: str, values: Mapping[str, float | None]) -> float | None:
    """Give an expression's value, 1 or 0 for a comparison; None if a value that it needs is none.

    So it is when something is divided by 0. Raises MetricMathError.
    """
    text = re.sub(r"\b(AND|OR)\b", lambda match: match[0].lower(), expression)
    try:
        return _evaluate(ast.parse(text, mode="eval").body, values)
    except ZeroDivisionError:
        return None
    except (KeyError, SyntaxError) as error:
        raise MetricMathError(f"{expression!r}: {error}") from error


def _evaluate(node: ast.expr, values: Mapping[str, float | None]) -> float | None:
    match node:
        case ast.Constant(value=float() | int() as number):
            return float(number)
        case ast.Name(id=name):
            return values[name]
        case ast.BinOp(left=left, op=sign, right=right):
            return _apply(_OPERATORS[type(sign)], left, right, values)
        case ast.Compare(left=left, ops=[sign], comparators=[right]):
            return _apply(_OPERATORS[type(sign)], left, right, values)
        case ast.BoolOp(op=sign, values=parts):
            found = [_evaluate(part, values) for part in parts]
            if None in found:
                return None
            return float(all(found) if isinstance(sign, ast.And) else any(found))
    raise MetricMathError(f"{ast.unparse(node)!r} is not known")


def _apply(
    compute: Callable[[float, float], float],
    left: ast.expr,
    right: ast.expr,
    values: Mapping[str, float | None],
) -> float | None:
    first, second = _evaluate(left, values), _evaluate(right, values)
    return None if first is None or second is None else float(compute(first, second))
