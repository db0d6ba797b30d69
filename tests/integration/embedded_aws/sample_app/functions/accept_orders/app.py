"""Starts an execution for each order; reports what it could not start."""

import json
import os

import boto3
from sample_shared import LAYER_NAME

states = boto3.client("stepfunctions")


def handler(event, context):
    failures = []
    for record in event["Records"]:
        order = json.loads(record["body"])
        if order["name"].startswith("poison"):
            failures.append({"itemIdentifier": record["messageId"]})
            continue
        states.start_execution(
            stateMachineArn=os.environ["STATE_MACHINE_ARN"],
            name=order["name"],
            input=json.dumps(order | {"layer": LAYER_NAME}),
        )
    return {"batchItemFailures": failures}
