"""Turns a SAM template into what moto's CloudFormation can create, and notes what it cannot.

What moto lacks is *held back*: taken out of the template, with each intrinsic function in it turned
into an Output of the stack. CloudFormation itself so resolves what later is done by API calls, and
there is no second resolver here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from local.aws.errors import TemplateError

# Code and layers stay in their folders. Their place in the transformed template is this bucket,
# with the logical id of the SAM resource as the key, so that they are found again.
_CODE_BUCKET: Final = "local-code"

EVENT_SOURCE_MAPPING: Final = "AWS::Lambda::EventSourceMapping"
EVENT_INVOKE_CONFIG: Final = "AWS::Lambda::EventInvokeConfig"
STATE_MACHINE: Final = "AWS::StepFunctions::StateMachine"
FUNCTION_URL: Final = "AWS::Lambda::Url"
FUNCTION: Final = "AWS::Lambda::Function"
WARM_POOL: Final = "AWS::AutoScaling::WarmPool"
LIFECYCLE_HOOK: Final = "AWS::AutoScaling::LifecycleHook"
SUBSCRIPTION: Final = "AWS::SNS::Subscription"
ALARM: Final = "AWS::CloudWatch::Alarm"
_LAYER: Final = "AWS::Lambda::LayerVersion"
_SAM_FUNCTION: Final = "AWS::Serverless::Function"
_SAM_LAYER: Final = "AWS::Serverless::LayerVersion"
_SAM_STATE_MACHINE: Final = "AWS::Serverless::StateMachine"

# Dropped from the template although moto knows some of them: an event source mapping inside moto
# swallows every message that is sent to its queue.
_HELD_TYPES: Final = frozenset(
    {
        ALARM,
        EVENT_SOURCE_MAPPING,
        EVENT_INVOKE_CONFIG,
        FUNCTION_URL,
        LIFECYCLE_HOOK,
        SUBSCRIPTION,
        WARM_POOL,
    }
)
_SUBSTITUTION: Final = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class FunctionFolders:
    """Where a function's code and layers lie."""

    code: Path
    layers: tuple[Path, ...]


@dataclass(frozen=True)
class _OutputValue:
    """Stands in held-back properties for an intrinsic that the stack's Output ``key`` resolves."""

    key: str


@dataclass(frozen=True)
class HeldResource:
    """A resource that an API call creates after the stack."""

    logical_id: str
    type: str
    properties: dict[str, Any]
    condition_key: str | None = None


@dataclass
class StackPlan:
    """A template for moto, and what is to be done besides."""

    template: dict[str, Any]
    outputs: dict[str, Any]
    own_outputs: frozenset[str]
    functions: dict[str, FunctionFolders] = field(default_factory=dict)
    held: list[HeldResource] = field(default_factory=list)
    definitions: dict[str, str] = field(default_factory=dict)

    def hold(self, value: Any) -> Any:
        """Replace each intrinsic in a value by a reference to an Output made for it."""
        if isinstance(value, dict):
            if len(value) == 1 and (name := next(iter(value))) and _is_intrinsic(name):
                key = f"Held{len(self.outputs)}"
                self.outputs[key] = {"Value": value}
                return _OutputValue(key)
            return {key: self.hold(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hold(item) for item in value]
        return value


def physical_id_key(logical_id: str) -> str:
    """Name the Output that gives a resource's physical id."""
    return f"PhysicalId{logical_id}"


def resolve_held(value: Any, outputs: Mapping[str, str]) -> Any:
    """Fill a held-back value with the stack's Outputs; a member without a value is left out."""
    if isinstance(value, _OutputValue):
        return outputs.get(value.key)
    if isinstance(value, dict):
        filled = {key: resolve_held(item, outputs) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not None}
    if isinstance(value, list):
        return [resolve_held(item, outputs) for item in value]
    return value


def plan_stack(
    template_path: Path, parameters: Mapping[str, str], region: str, known_types: Iterable[str]
) -> StackPlan:
    """Read and transform a template; ``known_types`` are the resource types moto can create.

    Raises TemplateError.
    """
    from yaml import YAMLError

    from local.aws.read_template import read_template

    try:
        source = read_template(template_path)
    except OSError as error:
        raise TemplateError(f"cannot read {template_path}: {error.strerror}") from error
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise TemplateError(f"not valid YAML: {reason}") from error
    folder = template_path.parent
    folders, machines = _take_local_files(source, folder)
    template = _transform(source, parameters, region)
    outputs = template.setdefault("Outputs", {})
    plan = StackPlan(template, outputs, own_outputs=frozenset(outputs))
    resources: dict[str, Any] = template["Resources"]
    for logical_id, resource in resources.items():
        if resource["Type"] == FUNCTION:
            plan.functions[logical_id] = _find_folders(resource, resources, folders)
        elif resource["Type"] == STATE_MACHINE:
            _hold_state_machine(plan, logical_id, resource, machines.get(logical_id))
    _hold_back(plan, frozenset(known_types))
    _publish_ids(plan)
    return plan


def fill_definition(definition: str, substitutions: Mapping[str, str]) -> str:
    """Put the substitutions into a state machine definition; raises TemplateError if one lacks."""

    def substitute(match: re.Match[str]) -> str:
        try:
            return str(substitutions[match[1]])
        except KeyError:
            raise TemplateError(f"nothing substitutes ${{{match[1]}}} in a definition") from None

    return _SUBSTITUTION.sub(substitute, definition)


def _take_local_files(
    source: dict[str, Any], folder: Path
) -> tuple[dict[str, Path], dict[str, tuple[str, Any]]]:
    """Replace local paths in a SAM template; give the folders and the definitions they named."""
    folders: dict[str, Path] = {}
    machines: dict[str, tuple[str, Any]] = {}
    for logical_id, resource in source["Resources"].items():
        properties = resource.setdefault("Properties", {})
        kind = resource["Type"]
        if kind in (_SAM_FUNCTION, _SAM_LAYER):
            place = "CodeUri" if kind == _SAM_FUNCTION else "ContentUri"
            folders[logical_id] = (folder / properties[place]).resolve()
            properties[place] = f"s3://{_CODE_BUCKET}/{logical_id}"
        elif kind == _SAM_STATE_MACHINE:
            path = folder / properties.pop("DefinitionUri")
            machines[logical_id] = (
                path.read_text(encoding="utf-8"),
                properties.pop("DefinitionSubstitutions", {}),
            )
            properties["Definition"] = {"StartAt": ""}  # A placeholder.
    return folders, machines


def _transform(
    source: dict[str, Any], parameters: Mapping[str, str], region: str
) -> dict[str, Any]:
    # Imported late: it takes a second, in which the moto process can start.
    from boto3.session import Session
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator
    from samtranslator.utils.py27hash_fix import (
        to_py27_compatible_template,
        undo_mark_unicode_str_in_template,
    )

    # With a session of its own, and no names of managed policies to look up, it asks nobody.
    translator = Translator({}, Parser(), boto_session=Session(region_name=region))
    try:
        to_py27_compatible_template(source, dict(parameters))
        transformed = translator.translate(source, parameter_values=dict(parameters))
    except InvalidDocumentException as error:
        causes = "; ".join(cause.message for cause in error.causes)
        raise TemplateError(f"the template cannot be transformed: {causes}") from error
    translator.metrics.publish()  # To nobody; it warns when this is left out.
    template: dict[str, Any] = undo_mark_unicode_str_in_template(transformed)
    return template


def _find_folders(
    function: dict[str, Any], resources: Mapping[str, Any], folders: Mapping[str, Path]
) -> FunctionFolders:
    properties = function["Properties"]
    layers = []
    for layer in properties.get("Layers", []):
        resource = resources.get(layer.get("Ref", "")) if isinstance(layer, dict) else None
        if resource is None or resource["Type"] != _LAYER:
            raise TemplateError(f"layer {layer} is not in this template")
        layers.append(folders[resource["Properties"]["Content"]["S3Key"]])
    return FunctionFolders(folders[properties["Code"]["S3Key"]], tuple(layers))


def _hold_state_machine(
    plan: StackPlan,
    logical_id: str,
    resource: dict[str, Any],
    definition: tuple[str, Any] | None,
) -> None:
    """Leave the state machine's name and ARN to the stack, and hold back what it does."""
    if definition is None:
        raise TemplateError(f"{logical_id}: only AWS::Serverless::StateMachine runs here")
    properties = resource["Properties"]
    text, substitutions = definition
    plan.definitions[logical_id] = text
    plan.held.append(
        HeldResource(
            logical_id,
            STATE_MACHINE,
            plan.hold(
                {
                    "RoleArn": properties["RoleArn"],
                    "Type": properties.get("StateMachineType", "STANDARD"),
                    "Substitutions": substitutions,
                }
            ),
        )
    )
    kept = {"StateMachineName", "RoleArn"} & properties.keys()
    resource["Properties"] = {
        **{name: properties[name] for name in kept},
        "DefinitionString": "{}",
    }


def _hold_back(plan: StackPlan, known_types: frozenset[str]) -> None:
    resources = plan.template["Resources"]
    gone = {
        logical_id
        for logical_id, resource in resources.items()
        if resource["Type"] in _HELD_TYPES or resource["Type"] not in known_types
    }
    for logical_id in sorted(gone):
        resource = resources.pop(logical_id)
        if resource["Type"] not in _HELD_TYPES:
            continue
        condition_key = None
        if "Condition" in resource:
            condition_key = f"Condition{logical_id}"
            plan.outputs[condition_key] = {"Value": "true", "Condition": resource["Condition"]}
        properties = plan.hold(resource.get("Properties", {}))
        plan.held.append(HeldResource(logical_id, resource["Type"], properties, condition_key))
    for resource in resources.values():
        depends_on = resource.pop("DependsOn", [])
        left = [depends_on] if isinstance(depends_on, str) else depends_on
        if left := [logical_id for logical_id in left if logical_id not in gone]:
            resource["DependsOn"] = left
    # A dashboard may name what is gone: any text will do there.
    plan.template["Resources"] = _without_references(resources, gone)
    plan.outputs.update(_without_references(plan.outputs, gone))


def _without_references(value: Any, gone: set[str]) -> Any:
    if isinstance(value, dict):
        if value.get("Ref") in gone and len(value) == 1:
            return value["Ref"]
        attribute = value.get("Fn::GetAtt")
        if isinstance(attribute, list) and attribute[0] in gone:
            return ".".join(attribute)
        return {key: _without_references(item, gone) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_references(item, gone) for item in value]
    if isinstance(value, str) and "${" in value:
        for logical_id in gone:
            value = re.sub(rf"\${{({logical_id}(\.\w+)?)}}", r"\1", value)
    return value


def _publish_ids(plan: StackPlan) -> None:
    """Add an Output with each resource's physical id."""
    for logical_id, resource in plan.template["Resources"].items():
        condition = {"Condition": resource["Condition"]} if "Condition" in resource else {}
        plan.outputs[physical_id_key(logical_id)] = {"Value": {"Ref": logical_id}, **condition}


def _is_intrinsic(name: str) -> bool:
    return name == "Ref" or name.startswith("Fn::")
