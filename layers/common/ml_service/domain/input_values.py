"""One value of a message, held against what its manifest declares."""

import re
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias, TypeGuard, TypeVar

from pydantic import BeforeValidator

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.manifests import (
    BooleanInput,
    EnumInput,
    IntegerInput,
    ListInput,
    NumberInput,
    TextInput,
)


def _restore_number(value: object) -> object:
    # A job record's numbers come back from DynamoDB as Decimal, which pydantic makes floats of.
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


Scalar: TypeAlias = Annotated[str | bool | int | float, BeforeValidator(_restore_number)]
Value: TypeAlias = Scalar | tuple[Scalar, ...]
"""What an input can be, once it is read."""
_T = TypeVar("_T")
ValueInput: TypeAlias = (
    TextInput | IntegerInput | NumberInput | BooleanInput | EnumInput | ListInput
)

_LINE_BREAKS = re.compile(r"[\t\r\n]+")
_LARGEST_EXACT_FLOAT = 2**53
_MAX_NUMBER = 1e38
"""A job record holds no number with more digits; no node takes one that is larger."""


def read_value(declared: ValueInput, value: object, *, label: str) -> Value:
    """The value that a graph gets, for one from a message; None means that there is none.

    ``label`` is how the sender knows the value. Raises RefusedMessageError.
    """
    match declared:
        case TextInput():
            return _read_text(declared, value, label)
        case IntegerInput():
            return _read_integer(declared, value, label)
        case NumberInput():
            return _read_number(declared, value, label)
        case BooleanInput():
            return _read_boolean(declared, value, label)
        case EnumInput():
            return _read_enum(declared, value, label)
        case ListInput():
            return _read_list(declared, value, label)


def is_encodable(text: str) -> bool:
    """Whether the text is free of lone surrogates, which no server could be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_value(label: str, what: str) -> RefusedMessageError:
    """The error of a member that is wrong; it never quotes the value."""
    return RefusedMessageError(RefusalCode.INVALID_MESSAGE, f"{label} {what}.")


def _read_text(declared: TextInput, value: object, label: str) -> str:
    if value is None:
        value = ""
    if not isinstance(value, str) or not is_encodable(value):
        raise refuse_value(label, "must be a text")
    if len(value) > declared.max_length:
        raise refuse_value(label, f"must have at most {declared.max_length} characters")
    text = _LINE_BREAKS.sub(" ", value) if declared.join_lines else value
    if text.strip():
        return text
    if declared.default is None:
        raise refuse_value(label, "must be a text that is not blank")
    return declared.default


def _read_integer(declared: IntegerInput, value: object, label: str) -> int:
    if value is None:
        value = _require_default(declared.default, label)
    if isinstance(value, bool) or not isinstance(value, int) or not _is_number(value):
        is_item = declared.index is not None
        raise refuse_value(label, "must hold integers" if is_item else "must be an integer")
    fitting = int(_fit(declared, value, label))
    if fitting in declared.refused:
        raise RefusedMessageError(RefusalCode.INVALID_MESSAGE, declared.refused[fitting])
    return fitting


def _read_number(declared: NumberInput, value: object, label: str) -> float:
    if value is None:
        value = _require_default(declared.default, label)
    if not _is_number(value):
        raise refuse_value(label, "must be a number")
    if value == 0 and declared.zero_means is not None:
        value = declared.zero_means
    fitting = float(_fit(declared, value, label))
    is_whole = fitting.is_integer() and abs(fitting) < _LARGEST_EXACT_FLOAT
    return int(fitting) if is_whole else fitting


def _read_boolean(declared: BooleanInput, value: object, label: str) -> bool:
    if value is None:
        value = _require_default(declared.default, label)
    if not isinstance(value, bool):
        raise refuse_value(label, "must be true or false")
    return value


def _read_enum(declared: EnumInput, value: object, label: str) -> str:
    if value is None:
        value = _require_default(declared.default, label)
    if isinstance(value, str) and value in declared.values:
        return value
    if isinstance(value, str) and declared.unknown == "default" and declared.default is not None:
        return declared.default
    raise refuse_value(label, f"must be one of: {', '.join(declared.values)}")


def _read_list(declared: ListInput, value: object, label: str) -> Value:
    if value is None:
        value = list(_require_default(declared.default, label))
    if not isinstance(value, list):
        raise refuse_value(label, "must be a list")
    if not declared.min_items <= len(value) <= declared.max_items:
        count = f"{declared.min_items} to {declared.max_items}"
        raise refuse_value(label, f"must have {count} entries")
    items = tuple(_read_item(declared.of, item, label) for item in value)
    return items if declared.separator is None else declared.separator.join(map(str, items))


def _read_item(kind: Literal["text", "integer", "number"], item: object, label: str) -> Scalar:
    if kind == "text" and isinstance(item, str) and is_encodable(item):
        return item
    if kind == "integer" and isinstance(item, int) and not isinstance(item, bool):
        return item
    if kind == "number" and _is_number(item):
        return item
    raise refuse_value(label, f"must hold {'texts' if kind == 'text' else f'{kind}s'} only")


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _MAX_NUMBER


def _require_default(default: _T | None, label: str) -> _T:
    if default is None:
        raise refuse_value(label, "is missing")
    return default


def _fit(declared: IntegerInput | NumberInput, value: float, label: str) -> float:
    """Apply what the manifest says of values out of range."""
    if declared.minimum is not None and value < declared.minimum:
        rule, limit = declared.below, declared.minimum
        what = f"must be at least {limit:g}" if limit else "must not be negative"
    elif declared.maximum is not None and value > declared.maximum:
        rule, limit = declared.above, declared.maximum
        what = f"must be at most {limit:g}"
    else:
        return value
    if rule == "refuse":
        raise refuse_value(label, what)
    return limit if rule == "clamp" else _require_default(declared.default, label)
