"""template.yaml with every option switched on, as a stack of the embedded AWS."""

from collections import Counter

import pytest

from local.aws import transform_template as plans
from local.aws.embedded_aws import EmbeddedAws, running_embedded_aws
from local.aws.stack import DeployedStack, StackSpec
from scripts.transform_template import transform_template
from tests.makers import PROJECT

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

TEMPLATE = PROJECT / "template.yaml"
OPTIONS = {
    "Stage": "prod",
    "SenderAccountIds": "111111111111",
    "SubscriberAccountIds": "222222222222",
    "InputBuckets": "some-inputs",
    "MediaConvertBuckets": "some-videos",
    "MediaConvertQueueArns": "arn:aws:sqs:us-east-1:111111111111:convert",
    "AlarmEmail": "someone@example.org",
    "LambdaUrlAuthType": "NONE",
    "ResultApiCidr": "10.0.0.0/16",
    "ResultBucketName": "some-results",
}
# Nobody's rights are judged here, and there is no Logs Insights: tests/static looks at these.
NOT_MADE = {
    "AWS::Logs::QueryDefinition",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}
MADE_BY_API = {
    plans.ALARM,
    plans.EVENT_INVOKE_CONFIG,
    plans.EVENT_SOURCE_MAPPING,
    plans.FUNCTION_URL,
    plans.SUBSCRIPTION,
}
# A layer's id ends with a hash of its place, which is another one here.
RENAMED = {"AWS::Lambda::LayerVersion"}


def test_the_whole_template_deploys() -> None:
    async def deploy(aws: EmbeddedAws) -> DeployedStack:
        network = await aws.create_network()
        own = {"VpcId": network.vpc_id, "PrivateSubnetIds": network.subnet_id}
        return await aws.deploy(StackSpec("prod", TEMPLATE, OPTIONS | own))

    resources = transform_template(TEMPLATE)["Resources"]
    types = Counter(resource["Type"] for resource in resources.values())
    with running_embedded_aws(deploy) as aws:
        stack = aws.deployed
        left = {r["Type"] for name, r in resources.items() if name not in stack.physical_ids}
        assert left == NOT_MADE | MADE_BY_API | RENAMED
        alarms = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
        assert len(alarms) == types[plans.ALARM]
        mappings = aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        assert [m["State"] for m in mappings] == ["Enabled"] * types[plans.EVENT_SOURCE_MAPPING]
        subscriptions = aws.client("sns").list_subscriptions()["Subscriptions"]
        assert [s["Endpoint"] for s in subscriptions] == [OPTIONS["AlarmEmail"]]
        (balancer,) = aws.client("elbv2").describe_load_balancers()["LoadBalancers"]
        assert balancer["DNSName"] == stack.outputs["ResultApiHost"]
        assert {f.name for f in stack.functions if f.url_auth} == {"prod-ml-service-jobs-api"}
