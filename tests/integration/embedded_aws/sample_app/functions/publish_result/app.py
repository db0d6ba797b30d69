"""Publishes what became of an order."""

import json
import os

import boto3

topic = boto3.client("sns")


def handler(event, context):
    topic.publish(TopicArn=os.environ["TOPIC_ARN"], Message=json.dumps(event))
    return {"published": True}
