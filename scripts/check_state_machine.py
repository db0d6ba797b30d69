"""Checks a state machine's definition: no tool that lints templates looks into it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from moto.stepfunctions.parser.asl.parse.asl_parser import (
    AmazonStateLanguageParser,
    ASLParserException,
)

_SUBSTITUTION = re.compile(r"\$\{(\w+)\}")
_ANY_ARN = "arn:aws:lambda:us-east-1:123456789012:function:any"


def find_definition_faults(
    text: str, definition: Mapping[str, Any], *, supplied: AbstractSet[str]
) -> Sequence[str]:
    """Faults of a definition, one sentence each; ``supplied`` are the template's substitutions."""
    return [
        *_compare_substitutions(text, supplied),
        *_check_targets(definition),
        *_check_tasks(definition),
        *_check_grammar(text),
    ]


def find_substitutions(text: str) -> AbstractSet[str]:
    """Names that a definition wants filled in."""
    return set(_SUBSTITUTION.findall(text))


def list_error_names(definition: Mapping[str, Any]) -> AbstractSet[str]:
    """Error names that a definition retries, refuses to retry, or catches."""
    return {
        name
        for state in definition["States"].values()
        for rule in (*state.get("Retry", ()), *state.get("Catch", ()))
        for name in rule["ErrorEquals"]
    }


def _compare_substitutions(text: str, supplied: AbstractSet[str]) -> Iterator[str]:
    used = find_substitutions(text)
    for name in sorted(used - supplied):
        yield f"The template does not supply the substitution {name}."
    for name in sorted(supplied - used):
        yield f"The definition does not use the substitution {name}."


def _check_targets(definition: Mapping[str, Any]) -> Iterator[str]:
    states = definition["States"]
    reached: set[str] = set()
    open_targets = [("the start", definition["StartAt"])]
    while open_targets:
        source, target = open_targets.pop()
        if target not in states:
            yield f"{source} leads to {target}, which does not exist."
        elif target not in reached:
            reached.add(target)
            open_targets += [(target, name) for name in _list_targets(states[target])]
    for name in sorted(states.keys() - reached):
        yield f"No path leads to {name}."


def _list_targets(state: Mapping[str, Any]) -> Iterator[str]:
    for way in (state, *state.get("Catch", ()), *state.get("Choices", ())):
        if "Next" in way:
            yield way["Next"]
    if "Default" in state:
        yield state["Default"]


def _check_tasks(definition: Mapping[str, Any]) -> Iterator[str]:
    for name, state in definition["States"].items():
        if state["Type"] != "Task":
            continue
        if "TimeoutSeconds" not in state:
            yield f"{name} has no TimeoutSeconds: a call that never returns would hold the job."
        if not state.get("Retry"):
            yield f"{name} has no Retry."
        # The last state has nowhere to go: if it fails, the execution does, and a rule tells.
        if not state.get("Catch") and not state.get("End"):
            yield f"{name} has no Catch."
        for field in ("Retry", "Catch"):
            for position, rule in enumerate(state.get(field, ()), start=1):
                names = rule["ErrorEquals"]
                if "States.ALL" in names and (
                    names != ["States.ALL"] or position < len(state[field])
                ):
                    yield f"{name} has States.ALL in its {field} neither alone nor last."


def _check_grammar(text: str) -> Iterator[str]:
    try:
        AmazonStateLanguageParser.parse(_SUBSTITUTION.sub(_ANY_ARN, text))
    except ASLParserException as error:
        yield f"The definition is not Amazon States Language: {error}"
