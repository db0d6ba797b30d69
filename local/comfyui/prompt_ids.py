"""Reads the id that a client chose for its prompt."""

import uuid
from collections.abc import Mapping
from typing import Any


class InvalidPromptIdError(Exception):
    """When the version that is played does not take a prompt id."""


def read_any_prompt_id(body: Mapping[str, Any]) -> str:
    """Return any value as text, as ComfyUI did at first; a new id where none is given."""
    return str(body.get("prompt_id", uuid.uuid4()))


def read_canonical_prompt_id(body: Mapping[str, Any]) -> str:
    """Return a UUID in lower case with hyphens, a new one for null.

    Raises InvalidPromptIdError.
    """
    value = body.get("prompt_id")
    if value is None:
        return str(uuid.uuid4())
    if not is_canonical_id(value):
        raise InvalidPromptIdError
    return str(value)


def is_canonical_id(value: object) -> bool:
    """Tell whether a value is a UUID in its one canonical spelling."""
    if not isinstance(value, str):
        return False
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False
