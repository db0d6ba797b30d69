"""The check of `make build` finds the faults that it is there for."""

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from scripts.check_state_machine import find_definition_faults, find_substitutions

States = dict[str, Any]


def _mislead(states: States) -> None:
    states["Submit Prompt"]["Next"] = "Await Prompts"


def _forget_default(states: States) -> None:
    states["Instance Chosen"]["Default"] = "Nowhere"


def _abandon(states: States) -> None:
    states["Left Over"] = {"Type": "Succeed"}


def _unbound(states: States) -> None:
    del states["Await Prompt"]["TimeoutSeconds"]


def _give_up(states: States) -> None:
    del states["Await Prompt"]["Retry"]


def _uncaught(states: States) -> None:
    del states["Choose Instance"]["Catch"]


def _shadow(states: States) -> None:
    states["Submit Prompt"]["Catch"].reverse()


def _misspell(states: States) -> None:
    states["Finish Job"]["Resource"] = "${FinishJobArn}"


def _break_grammar(states: States) -> None:
    states["Wait For Slot"]["SecondPath"] = states["Wait For Slot"].pop("SecondsPath")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_mislead, "Submit Prompt leads to Await Prompts, which does not exist."),
        (_forget_default, "Instance Chosen leads to Nowhere, which does not exist."),
        (_abandon, "No path leads to Left Over."),
        (_unbound, "Await Prompt has no TimeoutSeconds"),
        (_give_up, "Await Prompt has no Retry."),
        (_uncaught, "Choose Instance has no Catch."),
        (_shadow, "Submit Prompt has States.ALL in its Catch neither alone nor last."),
        (_misspell, "The template does not supply the substitution FinishJobArn."),
        (_misspell, "The definition does not use the substitution FinishJobFunctionArn."),
        (_break_grammar, "The definition is not Amazon States Language"),
    ],
)
def test_a_damaged_definition_is_refused(
    damage: Callable[[States], None],
    fault: str,
    definition: Mapping[str, Any],
    definition_text: str,
) -> None:
    damaged = copy.deepcopy(dict(definition))
    damage(damaged["States"])

    faults = find_definition_faults(
        json.dumps(damaged), damaged, supplied=find_substitutions(definition_text)
    )

    assert [found for found in faults if found.startswith(fault)] != []
