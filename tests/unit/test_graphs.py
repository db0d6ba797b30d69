import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_service.domain.errors import WorkflowError
from ml_service.domain.graphs import BareWord, read_graph

NODE = '{"class_type": "KSampler", "inputs": {"seed": %s}}'


def refusal(text: str) -> str:
    with pytest.raises(WorkflowError) as caught:
        read_graph(text)
    return str(caught.value)


def read_seed(literal: str) -> object:
    return read_graph('{"3": ' + NODE % literal + "}")["3"]["inputs"]["seed"]


def test_a_bare_placeholder_is_kept_apart_from_a_text_that_says_the_same():
    assert read_seed("___seed___") == BareWord("___seed___", 1, 53)
    assert read_seed('"___seed___"') == "___seed___"
    assert read_seed('"a \\"___seed___\\" b"') == 'a "___seed___" b'


@pytest.mark.parametrize(
    ("literal", "value"),
    [("true", True), ("null", None), ("-1.5e+3", -1500.0), ("12", 12), ('"NaN"', "NaN")],
)
def test_json_stays_json(literal: str, value: object):
    assert read_seed(literal) == value


def test_a_placeholder_knows_its_line_and_column_also_behind_wide_characters():
    text = '{"3": {"class_type": "K",\n "inputs": {"x": "🎥", "seed": ___seed___, "b": TOKEN}}}'
    inputs = read_graph(text)["3"]["inputs"]
    assert inputs["seed"] == BareWord("___seed___", 2, 31)
    assert inputs["b"] == BareWord("TOKEN", 2, 48)


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_whatever_json_says_is_read_as_json_reads_it(value: object):
    graph = {"1": {"class_type": "Any", "inputs": {"value": value}}}
    for ascii_only in (True, False):
        assert read_graph(json.dumps(graph, ensure_ascii=ascii_only)) == graph


def test_brackets_in_texts_are_not_nesting():
    assert read_seed(json.dumps("[{" * 500 + '\\"[')) == "[{" * 500 + '\\"['


def test_a_byte_order_mark_does_no_harm():
    assert read_graph("\ufeff{" + '"3": ' + NODE % 1 + "}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the file is empty"),
        ('{"3": ' + NODE % "___seed___,", "line 1 column 6"),
        ('{"3": ' + NODE % "1 ___seed___" + "}", "line 1 column 55: not valid JSON"),
        ('{"3": ' + NODE % "'a'" + "}", "line 1 column 53: not valid JSON"),
        ("{\n___seed___: 1}", "line 2 column 1: not valid JSON"),
        ('{"3": ' + NODE % "NaN" + "}", "line 1 column 53: NaN is no JSON number"),
        ('{"3": ' + NODE % "-Infinity" + "}", "line 1 column 53: -Infinity is no JSON"),
        ('{"3": ' + NODE % 1 + ', "3": ' + NODE % 2 + "}", "the name 3 is there twice"),
        ('{"3": ' + NODE % ("9" * 5000) + "}", "not valid JSON: "),
        ("[" * 100_000, "nested too deeply"),
        ('{"3": ' + NODE % ("[" * 500 + "]" * 500) + "}", "nested too deeply"),
        ("[]", "not a graph but a JSON list"),
        ("___seed___", "not a graph but a JSON BareWord"),
        ("{}", "the graph has no nodes"),
        ('{"3": {"inputs": {}}}', "3 is no node with a class_type"),
        ('{"version": 0.4}', "version is no node with a class_type"),
        ('{"3": {"class_type": "KSampler"}}', "node 3 (KSampler) has no inputs"),
        ('{"prompt": {"3": ' + NODE % 1 + "}}", 'keep only what stands under "prompt"'),
    ],
)
def test_what_is_no_graph_is_refused_with_the_place(text: str, sentence: str):
    assert sentence in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes": [], "links": []}',
        '{"last_node_id": 9, "last_link_id": 9, "nodes": [{"id": 3, "type": "KSampler"}], '
        '"links": [[1, 3, 0, 4, 0, "LATENT"]], "groups": [], "config": {}, "version": 0.4}',
        '{"id": "x", "revision": 0, "nodes": [{"id": 3}], "definitions": {"subgraphs": []}}',
        '{"workflow": {"nodes": [{"id": 3}], "links": []}}',
        '{"nodes": [{"id": 3, "widgets_values": [___seed___]}], "links": []}',
    ],
    ids=["empty", "classic", "subgraphs", "wrapped", "with placeholder"],
)
def test_the_ui_format_is_named_as_such_with_the_remedy(text: str):
    sentence = refusal(text)
    assert "UI format" in sentence
    assert "Export (API)" in sentence
    assert "Save (API Format)" in sentence


def test_a_node_may_be_called_nodes():
    assert list(read_graph('{"nodes": ' + NODE % 1 + "}")) == ["nodes"]
