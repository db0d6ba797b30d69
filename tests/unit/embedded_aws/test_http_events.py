"""Requests as Lambda's events, answers as responses, and URLs whose time is over."""

import base64
import json
from datetime import UTC, datetime

import pytest

from local.aws.gateway import is_expired
from local.aws.http_events import (
    AnswerError,
    make_balancer_event,
    make_response,
    make_url_event,
)

REQUEST = {
    "method": "POST",
    "path": "/a%20b",
    "query": "x=1&x=2&y=a%20b&z",
    "headers": {"Content-Type": "text/plain"},
}


def test_a_function_url_joins_values_and_decodes_them():
    event = make_url_event(**REQUEST, body=b"text", request_id="r")
    assert event["version"] == "2.0"
    assert event["queryStringParameters"] == {"x": "1,2", "y": "a b", "z": ""}
    assert event["headers"] == {"content-type": "text/plain"}
    assert (event["body"], event["isBase64Encoded"]) == ("text", False)
    assert event["requestContext"]["http"]["method"] == "POST"


def test_a_load_balancer_leaves_the_query_as_it_came():
    event = make_balancer_event(**REQUEST, body=b"")
    assert event["queryStringParameters"] == {"x": "2", "y": "a%20b", "z": ""}
    assert (event["httpMethod"], event["path"]) == ("POST", "/a%20b")


def test_a_body_that_is_no_text_travels_in_base64():
    event = make_url_event(**REQUEST, body=b"\xff", request_id="r")
    assert base64.b64decode(event["body"]) == b"\xff"
    assert event["isBase64Encoded"]


def test_an_answer_in_base64_becomes_bytes():
    body = base64.b64encode(b"\x89PNG").decode()
    answer = {"statusCode": 201, "headers": {"X": "y"}, "body": body, "isBase64Encoded": True}
    response = make_response(json.dumps(answer).encode())
    assert (response.status, response.body, response.headers["X"]) == (201, b"\x89PNG", "y")


@pytest.mark.parametrize("payload", [b"null", b"[]", b'{"body": "x"}', b'"text"', b"{"])
def test_what_is_no_response_is_told(payload: bytes):
    with pytest.raises(AnswerError):
        make_response(payload)


@pytest.mark.parametrize(
    ("query", "expired"),
    [
        ({}, False),
        ({"X-Amz-Date": "20261121T120000Z", "X-Amz-Expires": "900"}, False),
        ({"X-Amz-Date": "20261121T120000Z", "X-Amz-Expires": "60"}, True),
        ({"X-Amz-Date": "yesterday", "X-Amz-Expires": "60"}, False),
    ],
)
def test_a_presigned_url_lives_as_long_as_it_says(query: dict[str, str], expired: bool):
    assert is_expired(query, datetime(2026, 11, 21, 12, 10, tzinfo=UTC)) is expired
