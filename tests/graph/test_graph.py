"""The operator graph as a DAG: nodes, order, edges and the tensors on them."""

import networkx
import pytest

from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from tests.helpers import tiny_llama

LAYER = [
    *("attention_norm", "q", "k", "v", "rope", "kv_append", "scores", "softmax", "values", "o", "attention_add"),
    *("ffn_norm", "gate", "up", "silu_mul", "down", "ffn_add"),
]
STEPS = [Decode(1, 5), Decode(3, [1, 2, 3]), Prefill(2, prompt_len=7), Prefill(prompt_len=3, logits="all")]


def test_a_layer_of_llama():
    graph = build_graph(tiny_llama(), Decode())
    assert [operator.name for operator in graph.prologue] == ["embedding"]
    assert [operator.name for operator in graph.layer] == LAYER
    assert [operator.name for operator in graph.epilogue] == ["select", "final_norm", "lm_head", "argmax"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_dag(step, layers):
    graph = build_graph(tiny_llama(num_hidden_layers=layers), step)
    dag = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(dag)
    assert dag.number_of_nodes() == len(graph.prologue) + layers * len(graph.layer) + len(graph.epilogue)
    assert [node for node, degree in dag.in_degree() if degree == 0] == ["embedding"]
    assert [node for node, degree in dag.out_degree() if degree == 0] == ["argmax"]
    assert networkx.is_weakly_connected(dag)
    position = {node: place for place, node in enumerate(dag.nodes)}
    assert all(position[source] < position[target] for source, target in dag.edges)


def test_nodes_are_in_program_order():
    graph = build_graph(tiny_llama(), Decode())
    names = [name if layer is None else f"layers.{layer}.{name}" for layer, name in named(graph)]
    assert list(graph.to_networkx().nodes) == names
    assert [layer for _, layer in graph.to_networkx().nodes(data="layer")] == [layer for layer, _ in named(graph)]


def named(graph):
    return [(layer, operator.name) for layer, operator in graph.instances()]


@pytest.mark.parametrize("step", STEPS)
def test_every_input_is_an_edge_from_who_makes_it(step):
    dag = build_graph(tiny_llama(), step).to_networkx()
    for node, operator in dag.nodes(data="operator"):
        incoming = {edge["tensor"]: source for source, _, edge in dag.in_edges(node, data=True)}
        assert sorted(incoming) == sorted(set(operator.inputs))
        for tensor, source in incoming.items():
            assert tensor in {output.name for output in dag.nodes[source]["operator"].outputs}


def test_residuals_and_layers_are_chained():
    dag = build_graph(tiny_llama(num_hidden_layers=3), Decode()).to_networkx()
    assert dag.edges["embedding", "layers.0.attention_add"]["tensor"] == "stream"
    assert dag.edges["layers.0.ffn_add", "layers.1.attention_norm"]["tensor"] == "stream"
    assert dag.edges["layers.1.attention_add", "layers.1.ffn_add"]["tensor"] == "middle"
    assert dag.edges["layers.2.ffn_add", "select"]["tensor"] == "stream"
    longest = networkx.dag_longest_path(dag)
    assert longest[0] == "embedding"
    assert longest[-1] == "argmax"


def test_rows():
    graph = build_graph(tiny_llama(), Prefill(prompt_len=[4, 6]))
    assert {operator.num_rows for operator in graph.layer} == {10}
    assert {operator.num_rows for operator in graph.epilogue} == {2}
    assert {operator.num_rows for operator in build_graph(tiny_llama(), Decode(3, 1)).epilogue} == {3}


def test_a_step_past_the_models_positions():
    with pytest.raises(InputError, match="positions"):
        build_graph(load_model("llama-2-7b"), Decode(1, 4096))
