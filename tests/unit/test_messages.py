import json

import pytest

from ml_service.domain.errors import RefusalCode, RefusedMessageError
from ml_service.domain.messages import find_partial_name, parse_message, read_job_id
from tests.makers import JOB_ID, PARTIAL_NAME, make_body, make_payload


def parse(body: str) -> str:
    return parse_message(body, sqs_message_id="sqs-1").job_id


def refusal(body: str) -> RefusalCode:
    with pytest.raises(RefusedMessageError) as caught:
        parse(body)
    return caught.value.code


def test_a_message_of_the_contract_is_read_whole():
    message = parse_message(make_body(), sqs_message_id="sqs-1")
    assert message.job_id == JOB_ID
    assert message.subject == "ComfyUiFluxPromptMessage"
    assert message.partial_name == PARTIAL_NAME
    assert message.payload == make_payload()


def test_the_sqs_message_id_stands_in_for_an_absent_message_id():
    assert parse(make_body(MessageId=None)) == "sqs-1"


def test_a_byte_order_mark_and_unknown_members_do_no_harm():
    assert parse("\ufeff" + make_body(Unknown={"x": 1})) == JOB_ID


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        make_body()[:-5],
        '{"Subject": "a", "Subject": "b"}',
        '{"Subject": NaN}',
        '{"Subject": 1e400}',
        '{"Subject": ' + "9" * 5000 + "}",
        "[" * 10_000,
    ],
    ids=["empty", "text", "cut", "twice", "nan", "infinite", "long", "deep"],
)
def test_what_is_no_json_is_refused_as_such(body: str):
    assert refusal(body) is RefusalCode.INVALID_JSON


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("[]", RefusalCode.INVALID_MESSAGE),
        ('"text"', RefusalCode.INVALID_MESSAGE),
        ("3", RefusalCode.INVALID_MESSAGE),
        (make_body(Subject=None), RefusalCode.UNKNOWN_SUBJECT),
        (make_body(Subject=""), RefusalCode.UNKNOWN_SUBJECT),
        (make_body(Payload=None), RefusalCode.INVALID_MESSAGE),
        (make_body(Payload=""), RefusalCode.INVALID_MESSAGE),
        (make_body(Payload=make_payload()), RefusalCode.INVALID_MESSAGE),
        (make_body(Payload="[]"), RefusalCode.INVALID_MESSAGE),
        (make_body(MessageId="../x"), RefusalCode.INVALID_MESSAGE),
        (make_body(payload=make_payload(PartialName=None)), RefusalCode.INVALID_MESSAGE),
        (make_body(payload=make_payload(PartialName="x/y")), RefusalCode.INVALID_MESSAGE),
        (make_body(Padding="x" * 300_000), RefusalCode.TOO_LARGE),
    ],
)
def test_a_wrong_message_is_refused_with_its_code(body: str, code: RefusalCode):
    assert refusal(body) is code


def test_a_refusal_never_quotes_the_message():
    with pytest.raises(RefusedMessageError) as caught:
        parse(make_body(Subject="SecretSubject", Payload="secret text"))
    assert "ecret" not in caught.value.sentence


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (make_body(), PARTIAL_NAME),
        (make_body(Subject=None), PARTIAL_NAME),
        (make_body(Payload=make_payload()), PARTIAL_NAME),
        (make_body(payload=make_payload(PartialName=None)), None),
        (make_body(payload=make_payload(PartialName=3)), None),
        ("[" * 10_000, None),
        ("x", None),
        ("[]", None),
    ],
)
def test_the_partial_name_is_found_wherever_it_can_be(body: str, expected: str | None):
    assert find_partial_name(body, sqs_message_id="sqs-1") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [(make_body(), JOB_ID), (make_body(MessageId=None), None), ("[]", None), ("x", None)],
)
def test_a_task_message_tells_its_job(body: str, expected: str | None):
    assert read_job_id(body) == expected


def test_an_error_names_the_place_in_the_json():
    with pytest.raises(RefusedMessageError, match="line 1 column 13"):
        parse('{"Subject": ,}')
    assert json.loads(make_body())
