"""run_job.asl.json agrees with the template, the handlers and the errors."""

from collections.abc import Mapping
from typing import Any

from ml_service.domain import errors
from ml_service.domain.errors import JOB_ERRORS
from scripts.check_state_machine import (
    find_definition_faults,
    find_substitutions,
    list_error_names,
)

# Names that AWS gives; all others are classes of ours.
_AWS_PREFIXES = ("States.", "Lambda.")


def test_definition_has_no_faults(
    resources: Mapping[str, Any], definition_text: str, definition: Mapping[str, Any]
) -> None:
    """Targets exist and are reached, tasks are bounded and caught, substitutions are supplied."""
    supplied = resources["RunJobStateMachine"]["Properties"]["DefinitionSubstitutions"].keys()

    assert find_definition_faults(definition_text, definition, supplied=supplied) == []


def test_substitutions_are_the_functions_of_their_names(resources: Mapping[str, Any]) -> None:
    """`ChooseInstanceFunctionArn` is the ARN of ChooseInstanceFunction, and of no other."""
    supplied = resources["RunJobStateMachine"]["Properties"]["DefinitionSubstitutions"]

    assert supplied == {
        name: {"Fn::GetAtt": [name.removesuffix("Arn"), "Arn"]} for name in supplied
    }
    assert all(name.removesuffix("Arn") in resources for name in supplied)


def test_each_task_is_called_like_its_function(definition: Mapping[str, Any]) -> None:
    """State `Choose Instance` runs choose_instance: one word for one thing."""
    for name, state in definition["States"].items():
        if state["Type"] == "Task":
            assert find_substitutions(str(state)) == {f"{name.replace(' ', '')}FunctionArn"}


def test_a_task_waits_longer_than_its_function_may_last(
    template: Mapping[str, Any], functions: Mapping[str, Any], definition: Mapping[str, Any]
) -> None:
    """Otherwise the retry would start while the first call still works on the same prompt."""
    usual = template["Globals"]["Function"]["Timeout"]
    for name, state in definition["States"].items():
        if state["Type"] == "Task":
            function = functions[name.lower().replace(" ", "_")]
            assert state["TimeoutSeconds"] > function.get("Timeout", usual), name


def test_error_names_exist(definition: Mapping[str, Any]) -> None:
    """A misspelt name is never raised, so its rule would never apply."""
    ours = {n for n in list_error_names(definition) if not n.startswith(_AWS_PREFIXES)}
    known = {name for name, value in vars(errors).items() if isinstance(value, type)}

    assert ours - known == set()


def test_every_permanent_error_is_refused_a_retry_somewhere(
    definition: Mapping[str, Any],
) -> None:
    """A job error that no state names would be tried again for minutes, for nothing."""
    refused = {
        name
        for state in definition["States"].values()
        for rule in state.get("Retry", ())
        if rule["MaxAttempts"] == 0
        for name in rule["ErrorEquals"]
    }

    assert JOB_ERRORS.keys() - refused == set()


def test_every_fault_of_an_instance_sends_the_job_elsewhere(
    definition: Mapping[str, Any],
) -> None:
    """Step Functions matches names, not classes: a subclass that is not named would not match."""
    faults = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, errors.InstanceError)
        and value is not errors.InstanceError
    }
    caught = [
        set(rule["ErrorEquals"])
        for state in definition["States"].values()
        for rule in state.get("Catch", ())
        if rule["Next"] == "Choose Instance"
    ]

    assert caught == [faults] * 3


def test_only_a_job_id_and_run_number_enter_an_execution(definition: Mapping[str, Any]) -> None:
    """The history is kept for 90 days: results of steps stay below their own two members."""
    paths = {
        state["ResultPath"] for state in definition["States"].values() if "ResultPath" in state
    }

    assert paths <= {"$.step", "$.error"}
