import time

import pytest

from tests.unit.comfyui_simulator.simulator_client import (
    Events,
    SimulatorClient,
    done_message,
    node,
    picture_graph,
)


def status(remaining: int) -> dict[str, object]:
    return {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": remaining}}}}


def test_the_greeting_names_the_client_and_the_queue(client: SimulatorClient) -> None:
    with client.events("me") as events:
        greeting = events.read()
    with client.events("") as events:
        anonymous = events.read()

    assert greeting["data"] == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"}
    assert len(anonymous["data"]["sid"]) == 32


def test_feature_flags_are_answered_as_a_first_message_only(client: SimulatorClient) -> None:
    question = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    with client.events("me") as events:
        events.read()
        events.send(question)
        answer = events.read()
        events.send(question)
        assert events.is_silent(0.2)

    assert answer["type"] == "feature_flags"
    assert answer["data"] == client.get("/features").json()


@pytest.mark.parametrize("message", ["{", "[]", '{"type": "feature_flags", "data": null}'])
def test_a_first_message_without_features_does_no_harm(
    client: SimulatorClient, message: str
) -> None:
    with client.events("me") as events:
        events.send_text(message)
        prompt_id = client.submit(picture_graph(), client_id="me")

        assert events.read_until_done(prompt_id)[-1] == done_message(prompt_id)


def test_history_is_complete_when_the_last_message_arrives(client: SimulatorClient) -> None:
    with client.events("me") as events:
        for color in range(10):
            prompt_id = client.submit(picture_graph(color), client_id="me")
            events.read_until_done(prompt_id)

            assert client.get(f"/history/{prompt_id}").json()[prompt_id]["outputs"] != {}


def test_success_is_told_before_the_history_is_written(client: SimulatorClient) -> None:
    empty_reads = 0
    with client.events("me") as events:
        for color in range(10):
            prompt_id = client.submit(picture_graph(color), client_id="me")
            while events.read()["type"] != "execution_success":
                pass
            empty_reads += client.get(f"/history/{prompt_id}").json() == {}
            events.read_until_done(prompt_id)

    assert empty_reads > 0


def test_another_client_sees_only_the_queue(client: SimulatorClient) -> None:
    with client.events("other") as other, client.events("me") as mine:
        other.read()
        mine.read()
        prompt_id = client.submit(picture_graph(), client_id="me")
        mine.read_until_done(prompt_id)

        assert [other.read() for _ in range(3)] == [status(1), status(1), status(0)]
        assert other.is_silent(0.1)


def test_a_client_id_that_is_no_text_is_nobodys(client: SimulatorClient) -> None:
    with client.events("7") as events:
        events.read()
        client.run(picture_graph(), client_id=7)

        assert read_kinds_until_idle(events) == {"status"}


def test_progress_of_a_job_without_client_goes_to_everybody(slow_client: SimulatorClient) -> None:
    with slow_client.events("other") as events:
        events.read()
        slow_client.submit(picture_graph(), client_id=None)

        assert read_kinds_until_idle(events) == {"status", "progress_state", "progress"}


def test_the_interruption_of_a_job_without_client_is_told_to_everybody(
    slow_client: SimulatorClient,
) -> None:
    with slow_client.events("other") as events:
        events.read()
        prompt_id = slow_client.submit(picture_graph(), client_id=None)
        slow_client.await_running(prompt_id)
        time.sleep(0.1)
        slow_client.post("/interrupt", {"prompt_id": prompt_id})

        assert "execution_interrupted" in read_kinds_until_idle(events)


def read_kinds_until_idle(events: Events) -> set[object]:
    received: list[dict[str, object]] = []
    while not received or received[-1] != status(0):
        received.append(events.read())
    return {message["type"] for message in received}


def test_progress_counts_up_in_every_node(slow_client: SimulatorClient) -> None:
    with slow_client.events("me") as events:
        prompt_id = slow_client.submit(picture_graph(), client_id="me")
        messages = events.read_until_done(prompt_id)

    for node_id in ("1", "2"):
        ticks = [
            message["data"]
            for message in messages
            if message["type"] == "progress" and message["data"]["node"] == node_id
        ]
        assert [tick["value"] for tick in ticks] == list(range(1, ticks[0]["max"] + 1))
        assert {tick["prompt_id"] for tick in ticks} == {prompt_id}


def test_a_client_that_comes_back_is_told_the_running_node(slow_client: SimulatorClient) -> None:
    prompt_id = slow_client.submit(picture_graph(), client_id="me")
    slow_client.await_running(prompt_id)
    time.sleep(0.1)
    with slow_client.events("me") as events:
        assert events.read()["data"]["sid"] == "me"
        assert events.read() == {"type": "executing", "data": {"node": "1"}}
        assert events.read_until_done(prompt_id)[-1] == done_message(prompt_id)


def test_a_second_socket_of_one_client_goes_silent_when_the_first_closes(
    client: SimulatorClient,
) -> None:
    with client.events("me") as first:
        first.read()
        with client.events("me") as second:
            second.read()
            client.run(picture_graph(1), client_id="me")
            assert second.read() == status(1)
            assert first.is_silent(0.1)
            while second.read()["data"].get("node", "") is not None:
                pass

            first.close()
            time.sleep(0.1)
            client.run(picture_graph(2), client_id="me")
            assert second.is_silent(0.2)


def test_an_interrupted_prompt_says_so_and_ends(slow_client: SimulatorClient) -> None:
    with slow_client.events("me") as events:
        prompt_id = slow_client.submit(picture_graph(), client_id="me")
        slow_client.await_running(prompt_id)
        time.sleep(0.1)
        slow_client.post("/interrupt", {})
        messages = events.read_until_done(prompt_id)

    types = [message["type"] for message in messages]
    assert types[-3:] == ["execution_interrupted", "status", "executing"]


def test_nodes_that_can_write_a_file_run_first(client: SimulatorClient) -> None:
    graph = picture_graph() | {
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["1", 0], filename_prefix="a"),
        "4": node("SaveImage", images=["2", 0], filename_prefix="b"),
    }
    with client.events("me") as events:
        messages = events.read_until_done(client.submit(graph, client_id="me"))

    order = [message["data"]["node"] for message in messages if message["type"] == "executing"]
    assert order == ["1", "3", "2", "4", None]
