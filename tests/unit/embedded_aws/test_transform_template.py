"""A template becomes what moto can create, and what it cannot is noted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from local.aws.errors import TemplateError
from local.aws.transform_template import (
    STATE_MACHINE,
    WARM_POOL,
    StackPlan,
    fill_definition,
    plan_stack,
    resolve_held,
)

KNOWN = {
    "AWS::DynamoDB::Table",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::SQS::Queue",
    "AWS::StepFunctions::StateMachine",
}
FUNCTION = {
    "Type": "AWS::Serverless::Function",
    "Properties": {
        "CodeUri": "functions/work",
        "Handler": "app.handler",
        "Runtime": "python3.13",
        "Role": "arn:aws:iam::123456789012:role/work",
    },
}
QUEUE = {"Type": "AWS::SQS::Queue"}


def plan(folder: Path, resources: dict[str, Any], **more: Any) -> StackPlan:
    template = {"Transform": "AWS::Serverless-2016-10-31", "Resources": resources, **more}
    path = folder / "template.yaml"
    path.write_text(yaml.safe_dump(template))
    return plan_stack(path, {}, "us-east-1", KNOWN)


def test_a_functions_code_and_layers_are_found_again_as_folders(tmp_path: Path) -> None:
    layer = {"Type": "AWS::Serverless::LayerVersion", "Properties": {"ContentUri": "layers/common"}}
    function = {**FUNCTION, "Properties": FUNCTION["Properties"] | {"Layers": [{"Ref": "Common"}]}}  # type: ignore[operator]
    folders = plan(tmp_path, {"Work": function, "Common": layer}).functions["Work"]
    assert folders.code == tmp_path / "functions" / "work"
    assert folders.layers == (tmp_path / "layers" / "common",)


def test_a_layer_of_somebody_else_is_refused(tmp_path: Path) -> None:
    arn = "arn:aws:lambda:us-east-1:1:layer:x:1"
    function = {**FUNCTION, "Properties": FUNCTION["Properties"] | {"Layers": [arn]}}  # type: ignore[operator]
    with pytest.raises(TemplateError, match="not in this template"):
        plan(tmp_path, {"Work": function})


def test_an_event_source_mapping_never_reaches_moto(tmp_path: Path) -> None:
    events = {"Jobs": {"Type": "SQS", "Properties": {"Queue": {"Fn::GetAtt": ["Jobs", "Arn"]}}}}
    function = {**FUNCTION, "Properties": FUNCTION["Properties"] | {"Events": events}}  # type: ignore[operator]
    planned = plan(tmp_path, {"Work": function, "Jobs": QUEUE})
    types = {resource["Type"] for resource in planned.template["Resources"].values()}
    assert "AWS::Lambda::EventSourceMapping" not in types
    (mapping,) = planned.held
    values = {key: f"value of {key}" for key in planned.outputs}
    resolved = resolve_held(mapping.properties, values)
    (key,) = [
        key
        for key, output in planned.outputs.items()
        if output["Value"] == {"Fn::GetAtt": ["Jobs", "Arn"]}
    ]
    assert resolved["EventSourceArn"] == f"value of {key}"


def test_what_moto_does_not_know_is_dropped_with_all_that_points_to_it(tmp_path: Path) -> None:
    alarm = {"Type": "AWS::CloudWatch::Alarm", "Properties": {}}
    queue = {
        "Type": "AWS::SQS::Queue",
        "DependsOn": ["Alarm", "Other"],
        "Properties": {
            "Tags": [
                {"Key": "a", "Value": {"Ref": "Alarm"}},
                {"Key": "b", "Value": {"Fn::GetAtt": ["Alarm", "Arn"]}},
                {"Key": "c", "Value": {"Fn::Sub": "${Alarm.Arn} ${Other}"}},
            ]
        },
    }
    planned = plan(tmp_path, {"Alarm": alarm, "Queue": queue, "Other": QUEUE})
    resources = planned.template["Resources"]
    assert resources.keys() == {"Queue", "Other"}
    assert resources["Queue"]["DependsOn"] == ["Other"]
    values = [tag["Value"] for tag in resources["Queue"]["Properties"]["Tags"]]
    assert values == ["Alarm", "Alarm.Arn", {"Fn::Sub": "Alarm.Arn ${Other}"}]


def test_a_conditional_resource_is_held_with_its_condition(tmp_path: Path) -> None:
    pool = {
        "Type": WARM_POOL,
        "Condition": "IsProd",
        "Properties": {"AutoScalingGroupName": "group"},
    }
    conditions = {"IsProd": {"Fn::Equals": ["a", "b"]}}
    planned = plan(tmp_path, {"Pool": pool, "Queue": QUEUE}, Conditions=conditions)
    (held,) = planned.held
    assert held.condition_key is not None
    assert planned.outputs[held.condition_key]["Condition"] == "IsProd"


def test_a_state_machine_keeps_its_name_and_loses_its_definition(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"Resource": "${WorkArn}"}')
    machine = {
        "Type": "AWS::Serverless::StateMachine",
        "Properties": {
            "Name": "run",
            "DefinitionUri": "run.json",
            "Role": "arn:aws:iam::123456789012:role/run",
            "DefinitionSubstitutions": {"WorkArn": {"Fn::GetAtt": ["Work", "Arn"]}},
        },
    }
    planned = plan(tmp_path, {"Run": machine, "Work": FUNCTION})
    properties = planned.template["Resources"]["Run"]["Properties"]
    assert properties["StateMachineName"] == "run"
    assert properties["DefinitionString"] == "{}"
    assert planned.definitions["Run"] == '{"Resource": "${WorkArn}"}'
    (held,) = [resource for resource in planned.held if resource.type == STATE_MACHINE]
    values = dict.fromkeys(planned.outputs, "arn:of:work")
    assert resolve_held(held.properties, values)["Substitutions"] == {"WorkArn": "arn:of:work"}


def test_a_templates_own_outputs_are_told_from_the_added_ones(tmp_path: Path) -> None:
    planned = plan(tmp_path, {"Queue": QUEUE}, Outputs={"Url": {"Value": {"Ref": "Queue"}}})
    assert planned.own_outputs == {"Url"}
    assert planned.outputs["PhysicalIdQueue"] == {"Value": {"Ref": "Queue"}}


def test_a_template_that_sam_refuses_says_why(tmp_path: Path) -> None:
    broken = {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "x"}}
    with pytest.raises(TemplateError, match="Broken"):
        plan(tmp_path, {"Broken": broken})


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"no-such\.yaml"):
        plan_stack(tmp_path / "no-such.yaml", {}, "us-east-1", KNOWN)


def test_a_template_that_is_not_yaml_is_named_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text("Resources: {")
    with pytest.raises(TemplateError, match=r"not valid YAML: .*template\.yaml\", line \d"):
        plan_stack(path, {}, "us-east-1", KNOWN)


def test_a_definition_is_filled_completely_or_not_at_all() -> None:
    assert fill_definition('"${A}-${B}"', {"A": "1", "B": "2"}) == '"1-2"'
    with pytest.raises(TemplateError, match=r"\$\{B\}"):
        fill_definition('"${A}-${B}"', {"A": "1"})


def test_a_value_without_an_output_leaves_its_member_out(tmp_path: Path) -> None:
    pool = {
        "Type": WARM_POOL,
        "Properties": {"AutoScalingGroupName": "group", "MinSize": {"Ref": "AWS::NoValue"}},
    }
    (held,) = plan(tmp_path, {"Pool": pool, "Queue": QUEUE}).held
    assert resolve_held(held.properties, {}) == {"AutoScalingGroupName": "group"}
