"""Signatures of requests to functions' URLs, made by botocore as any client makes them."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from multidict import CIMultiDict

from local.aws.signatures import refuse_signature

URL = "http://127.0.0.1:4566/_url/jobs-api/jobs?fleet=pulid&status=FAILED"
CALLERS = {"caller": "of the caller"}


def sign(url: str = URL, body: bytes = b"", token: str | None = None) -> dict[str, str]:
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json"})
    credentials = Credentials("caller", "of the caller", token)
    SigV4Auth(credentials, "lambda", "us-east-1").add_auth(request)
    return {**dict(request.headers), "Host": "127.0.0.1:4566"}


def judge(headers: dict[str, str], *, url: str = URL, body: bytes = b"", hours: int = 0) -> str:
    now = datetime.now(UTC) + timedelta(hours=hours)
    given = CIMultiDict(headers)
    return refuse_signature("POST", url, given, body, callers=CALLERS, now=now) or "accepted"


@pytest.mark.parametrize("body", [b"", b'{"workflow": "text-to-image"}'])
@pytest.mark.parametrize("token", [None, "of a session"])
def test_a_callers_request_is_accepted(body: bytes, token: str | None):
    assert judge(sign(body=body, token=token), body=body) == "accepted"


def test_what_was_signed_may_not_change():
    headers = sign(body=b"{}")
    assert "does not match" in judge(headers, body=b"[]")
    assert "does not match" in judge(headers, url=URL.replace("FAILED", "QUEUED"), body=b"{}")
    assert "does not match" in judge({**headers, "Content-Type": "text/plain"}, body=b"{}")


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_signature_of_another_time_has_expired(hours: int):
    assert "Signature expired" in judge(sign(), hours=hours)


def test_a_request_needs_a_signature_with_a_date():
    headers = sign()
    assert judge({}) == "Missing Authentication Token"
    assert judge({"Authorization": "Bearer x"}) == "Missing Authentication Token"
    assert "Date must be" in judge({**headers, "X-Amz-Date": "today"})
