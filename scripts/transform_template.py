"""Turns template.yaml into plain CloudFormation, as AWS does on deployment, but offline."""

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from samtranslator.translator.transform import transform

from local.aws.read_template import read_template

# The transform wants S3 addresses where a template before `sam package` has folders.
_PACKAGED = "s3://bucket/key"
_CODE_PROPERTIES = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
}


class _NoManagedPolicies:
    """Stands for the list of AWS managed policies, which SAM would fetch; roles here name none."""

    def load(self) -> dict[str, str]:
        return {}


def transform_template(path: Path, *, region: str = "us-east-1") -> dict[str, Any]:
    """Plain CloudFormation out of a SAM template, its state machines inlined.

    Raises samtranslator's InvalidDocumentException where AWS would refuse the template.
    """
    template = read_template(path)
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if code_property := _CODE_PROPERTIES.get(resource["Type"]):
            properties[code_property] = _PACKAGED
        if resource["Type"] == "AWS::Serverless::StateMachine":
            definition_path = path.parent / properties.pop("DefinitionUri")
            properties["Definition"] = json.loads(definition_path.read_text())
    # SAM asks boto3 for the Region, to know the partition; this saves the user from setting one.
    with patch.dict(os.environ, AWS_DEFAULT_REGION=region):
        transformed: dict[str, Any] = transform(template, {}, _NoManagedPolicies())
    return transformed
