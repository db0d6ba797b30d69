"""What ResultStore promises, in memory and in S3."""

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto import mock_aws

from ml_service.adapters.aws_clients import AwsClients
from ml_service.adapters.s3 import S3ResultStore
from ml_service.domain.errors import OutputMissingError
from ml_service.ports import ResultStore
from tests.fakes import NOON, InMemoryResultStore

KEYS = ("comfyui-results/kite_2.png", "comfyui-results/kite_1.png", "comfyui-results/other.png")
"""In the order in which they were stored."""


@pytest.fixture(params=["memory", "s3"])
def results(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ResultStore]:
    if request.param == "memory":
        yield InMemoryResultStore({key: key.encode() for key in KEYS})
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="results")
        for second, key in enumerate(KEYS):
            # S3 tells the time of a file in whole seconds.
            stored_at = NOON.replace(tzinfo=None) + timedelta(seconds=second)
            monkeypatch.setattr("moto.s3.models.utcnow", lambda at=stored_at: at)
            boto3.client("s3").put_object(Bucket="results", Key=key, Body=key.encode())
        yield S3ResultStore(AwsClients().s3, "results")


def test_keys_are_listed_by_prefix_the_newest_first(results: ResultStore):
    assert results.list_keys("comfyui-results/kite") == [KEYS[1], KEYS[0]]
    assert results.list_keys("comfyui-results/nobody") == []


def test_a_result_is_streamed(results: ResultStore):
    with results.open_result(KEYS[0]) as stream:
        assert stream.size == len(KEYS[0])
        assert stream.content.read() == KEYS[0].encode()


def test_a_result_that_is_gone_is_missing(results: ResultStore):
    with pytest.raises(OutputMissingError), results.open_result("comfyui-results/gone.png"):
        pass


@pytest.mark.parametrize("results", ["s3"], indirect=True)
def test_a_signed_url_names_its_end_and_the_kind_of_signature_that_every_region_takes(
    results: ResultStore,
):
    query = parse_qs(urlsplit(results.sign(KEYS[0], lifetime=timedelta(minutes=15))).query)
    assert query["X-Amz-Expires"] == ["900"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
