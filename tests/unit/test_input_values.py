from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.input_values import read_value
from ml_service.domain.inputs import JobInputs
from ml_service.domain.manifests import Input

INPUT: TypeAdapter[Any] = TypeAdapter(Input)


def read(declared: dict[str, Any], value: object) -> object:
    return read_value(INPUT.validate_python(declared), value, label="it")


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ({"type": "text", "default": "d"}, " \n ", "d"),
        ({"type": "text", "default": "d"}, None, "d"),
        ({"type": "text"}, "a\nb\t", "a\nb\t"),
        ({"type": "text", "join_lines": True}, "a\n\tb", "a b"),
        ({"type": "integer"}, -5, -5),
        ({"type": "integer", "default": 3}, None, 3),
        ({"type": "integer", "maximum": 3, "above": "clamp"}, 9, 3),
        ({"type": "integer", "minimum": 1, "below": "default", "default": 2}, -9, 2),
        ({"type": "number"}, 2, 2),
        ({"type": "number"}, 2.5, 2.5),
        ({"type": "number", "zero_means": 1.5}, 0, 1.5),
        ({"type": "number", "minimum": 0.5, "below": "clamp"}, 0, 0.5),
        ({"type": "boolean"}, True, True),
        ({"type": "boolean", "default": False}, None, False),
        ({"type": "enum", "values": ["a", "b"]}, "b", "b"),
        ({"type": "enum", "values": ["a", "b"], "default": "a", "unknown": "default"}, "z", "a"),
        ({"type": "list", "of": "text"}, ["a", "b"], ("a", "b")),
        ({"type": "list", "of": "number"}, [1, 2.5], (1, 2.5)),
        ({"type": "list", "of": "integer", "default": [1]}, None, (1,)),
        ({"type": "list", "of": "integer", "separator": "+"}, [1, 2], "1+2"),
    ],
)
def test_a_value_that_fits_is_taken(declared: dict[str, Any], value: object, expected: object):
    assert read(declared, value) == expected


@pytest.mark.parametrize(
    ("declared", "value", "sentence"),
    [
        ({"type": "text"}, None, "it must be a text that is not blank."),
        ({"type": "text"}, 3, "it must be a text."),
        ({"type": "text"}, "\ud800", "it must be a text."),
        ({"type": "text", "max_length": 2}, "abc", "it must have at most 2 characters."),
        ({"type": "integer"}, None, "it is missing."),
        ({"type": "integer"}, True, "it must be an integer."),
        ({"type": "integer"}, 1.0, "it must be an integer."),
        ({"type": "integer"}, 10**400, "it must be an integer."),
        ({"type": "integer", "minimum": 2}, 1, "it must be at least 2."),
        ({"type": "integer", "maximum": 2}, 3, "it must be at most 2."),
        ({"type": "integer", "refused": {2: "Not 2, please."}}, 2, "Not 2, please."),
        ({"type": "number", "minimum": 0}, -0.1, "it must not be negative."),
        ({"type": "number"}, float("nan"), "it must be a number."),
        ({"type": "number"}, float("inf"), "it must be a number."),
        ({"type": "number"}, 10**400, "it must be a number."),
        ({"type": "number"}, "1", "it must be a number."),
        ({"type": "boolean"}, 1, "it must be true or false."),
        ({"type": "enum", "values": ["a", "b"]}, "c", "it must be one of: a, b."),
        ({"type": "enum", "values": ["a"]}, 1, "it must be one of: a."),
        ({"type": "list", "of": "text"}, "a", "it must be a list."),
        (
            {"type": "list", "of": "text", "max_items": 1},
            ["a", "b"],
            "it must have 0 to 1 entries.",
        ),
        ({"type": "list", "of": "text"}, [1], "it must hold texts only."),
        ({"type": "list", "of": "integer"}, [True], "it must hold integers only."),
    ],
)
def test_a_value_that_does_not_fit_is_refused(
    declared: dict[str, Any], value: object, sentence: str
):
    with pytest.raises(RefusedMessageError) as caught:
        read(declared, value)
    assert caught.value.code is RefusalCode.INVALID_MESSAGE
    assert caught.value.sentence == sentence


def test_a_job_records_numbers_come_back_as_what_they_were():
    """DynamoDB gives every number as a Decimal; a prompt's integers must stay integers."""
    stored = {
        "output_prefix": "p",
        "media": [],
        "values": {
            "a": Decimal(28),
            "b": Decimal("2.5"),
            "c": [Decimal(2**64 - 1), "x"],
            "d": True,
        },
    }
    values = JobInputs.model_validate(stored).values
    assert values == {"a": 28, "b": 2.5, "c": (2**64 - 1, "x"), "d": True}
    assert [type(value) for value in values.values()] == [int, float, tuple, bool]
