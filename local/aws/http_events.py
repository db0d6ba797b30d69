"""Requests as the events that Lambda makes of them, and a function's answers as responses."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

_ACCOUNT: Final = "123456789012"


class AnswerError(Exception):
    """When a function answers what cannot be made a response."""


def make_url_event(
    *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, request_id: str
) -> dict[str, Any]:
    """The event of a function URL: payload format 2.0, with a name's several values joined."""
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "accountId": _ACCOUNT,
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": int(time.time() * 1000),
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": headers.get("User-Agent", ""),
            },
        },
        **_encode_body(body),
    }
    if parameters:
        event["queryStringParameters"] = parameters
    return event


def make_balancer_event(
    *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    """The event of a load balancer whose target is a function; names and values as they came."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {
        "requestContext": {"elb": {"targetGroupArn": "local"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {name: value for name, _, value in pairs},
        "headers": {name.lower(): value for name, value in headers.items()},
        **_encode_body(body),
    }


def make_response(payload: bytes) -> web.Response:
    """What a client gets for a function's answer; raises AnswerError."""
    try:
        answer = json.loads(payload)
        status, body = int(answer["statusCode"]), answer.get("body") or ""
        content = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
        headers: dict[str, str] = answer.get("headers") or {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AnswerError("the function's answer is no HTTP response") from error
    return web.Response(status=status, body=content, headers=headers)


def _encode_body(body: bytes) -> dict[str, Any]:
    try:
        return {"body": body.decode(), "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
