"""Conformance: what every registered model family has to do, whichever it is."""

import math

import networkx
import pytest

from pe_sim.config.dtypes import Dtype, Dtypes
from pe_sim.config.models.hf import FAMILIES as CONFIG_READERS
from pe_sim.config.models.load import load_model
from pe_sim.config.models.model import COUNTERS
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.graph.families import FAMILIES, build_graph
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import AttentionOperator, Embedding, KvAppend, Linear, Norm
from pe_sim.numeric.families import READERS
from pe_sim.numeric.state_dict import state_dict_shapes

FP32 = Dtypes(Dtype("fp32"), Dtype("fp32"), Dtype("fp32"), Dtype("fp32"))

# Two small configs of each family, as its publisher would write them. A new family is tested once it is named here.
CONFIGS = {
    "llama": (
        {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": 50,
        },
        {
            "model_type": "llama",
            "hidden_size": 48,
            "intermediate_size": 40,
            "num_hidden_layers": 1,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": 33,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "gpt2": (
        {"model_type": "gpt2", "n_embd": 48, "n_head": 4, "n_layer": 3, "vocab_size": 51, "n_positions": 64},
        {
            "model_type": "gpt2",
            "n_embd": 30,
            "n_head": 2,
            "n_layer": 1,
            "vocab_size": 20,
            "n_positions": 40,
            "n_inner": 50,
            "tie_word_embeddings": False,
        },
    ),
    "bert": (
        {
            "model_type": "bert",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "vocab_size": 50,
            "max_position_embeddings": 64,
        },
        {
            "model_type": "bert",
            "hidden_size": 20,
            "intermediate_size": 30,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 21,
            "type_vocab_size": 3,
        },
    ),
}
STEPS = (
    Decode(1, 0),
    Decode(context_len=(3, 17)),
    Prefill(1, prompt_len=1),
    Prefill(prompt_len=(5, 9), logits="all"),
    Prefill(2, prompt_len=4, context_len=6),
    Prefill(1, prompt_len=8, causal="full"),
)


def models():
    return [load_model(config) for configs in CONFIGS.values() for config in configs]


def can_do(model, step):
    """An encoder has no cache: it neither decodes nor goes on from a context."""
    return model.has_kv_cache or (step.phase == "prefill" and not any(step.context_len))


def graphs():
    return [
        pytest.param(model, step, build_graph(model, step), id=f"{model.family}-{model.num_layers}-{number}")
        for model in models()
        for number, step in enumerate(STEPS)
        if can_do(model, step)
    ]


def test_every_registry_knows_the_same_families():
    for registry in (CONFIG_READERS, COUNTERS, READERS, CONFIGS):
        assert set(registry) == set(FAMILIES)


@pytest.mark.parametrize(("model", "step", "graph"), graphs())
def test_the_step_is_a_dag_in_program_order(model, step, graph):
    dag = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(dag)
    assert networkx.is_weakly_connected(dag)
    place = {node: number for number, node in enumerate(dag)}
    assert all(place[source] < place[target] for source, target in dag.edges)
    assert len(dag) == len(graph.prologue) + model.num_layers * len(graph.layer) + len(graph.epilogue)
    sources = [node for node in dag if not dag.in_degree(node)]
    assert [type(dag.nodes[node]["operator"]) for node in sources] == [Embedding]
    assert [node for node in dag if not dag.out_degree(node)] == [graph.epilogue[-1].name]


@pytest.mark.parametrize(("model", "step", "graph"), graphs())
def test_blocks_are_closed_but_for_the_stream(model, step, graph):
    for block, given in ((graph.prologue, set()), (graph.layer, {STREAM}), (graph.epilogue, {STREAM})):
        assert len({operator.name for operator in block}) == len(block)
        known = set(given)
        for operator in block:
            assert known.issuperset(operator.inputs), operator.name
            known |= {tensor.name for tensor in operator.outputs}
            assert operator.outputs
        if block is not graph.epilogue:
            assert [tensor.name for tensor in block[-1].outputs] == [STREAM]


@pytest.mark.parametrize(("model", "step", "graph"), graphs())
def test_layers_have_what_workflows_speak_of(model, step, graph):
    named = {operator.name: operator for operator in graph.layer}
    matrices = {name for name, operator in named.items() if isinstance(operator, Linear)}
    assert {"q", "k", "v", "o", "up", "down"} <= matrices <= {"q", "k", "v", "o", "gate", "up", "down"}
    assert {"attention_add", "ffn_add"} <= set(named)
    norms = {name for name, operator in named.items() if isinstance(operator, Norm)}
    assert norms <= {"attention_norm", "ffn_norm"}
    assert sum(isinstance(operator, KvAppend) for operator in graph.layer) == 1
    assert all(operator.shape is graph.shape for operator in graph.layer if isinstance(operator, AttentionOperator))


@pytest.mark.parametrize(("model", "step", "graph"), graphs())
def test_rows_flops_and_bytes(model, step, graph):
    for layer, operator in graph.instances():
        if layer is not None:
            assert operator.num_rows == step.num_rows
        assert operator.flops >= 0
        assert operator.num_bytes(FP32) >= operator.weight_bytes(FP32) >= 0
    # The epilogue's matrix works on the rows that are asked for; a pooler on the first of each sequence.
    (last,) = (operator for operator in graph.epilogue if isinstance(operator, Linear))
    assert last.num_rows == (step.logits_rows if model.has_kv_cache else step.batch_size)
    assert last.flops == (2 * last.in_size + last.bias) * last.out_size * last.num_rows


@pytest.mark.parametrize("model", models(), ids=lambda model: f"{model.family}-{model.num_layers}")
def test_parameters_are_those_of_the_graph_and_of_the_weights(model):
    graph = build_graph(model, Prefill(1, prompt_len=2))
    operators = [operator for _, operator in graph.instances()]
    elements = sum(operator.weight_bytes(FP32) for operator in operators) // 4
    elements += sum(operator.table_bytes(FP32) for operator in operators if isinstance(operator, Embedding)) // 4
    shared = model.vocab_size * model.hidden_size if model.tie_word_embeddings and model.has_kv_cache else 0
    assert elements - shared == model.num_parameters
    assert sum(math.prod(shape) for shape in state_dict_shapes(model).values()) == model.num_parameters


@pytest.mark.parametrize("config", [*CONFIGS["llama"], *CONFIGS["gpt2"]])
def test_without_an_lm_head_a_decoder_ends_with_its_final_norm(config):
    bare = load_model({**config, "architectures": ["LlamaModel" if config["model_type"] == "llama" else "GPT2Model"]})
    for step in (each for each in STEPS if each.phase == "prefill"):
        whole, graph = build_graph(load_model(config), step), build_graph(bare, step)
        assert (graph.prologue, graph.layer) == (whole.prologue, whole.layer)
        assert graph.epilogue == whole.epilogue[:2]
        assert isinstance(graph.epilogue[-1], Norm)
    elements = sum(operator.weight_bytes(FP32) for _, operator in graph.instances()) // 4
    elements += sum(operator.table_bytes(FP32) for operator in graph.prologue if isinstance(operator, Embedding)) // 4
    assert elements == bare.num_parameters
    assert sum(math.prod(shape) for shape in state_dict_shapes(bare).values()) == bare.num_parameters


@pytest.mark.parametrize("model", models(), ids=lambda model: f"{model.family}-{model.num_layers}")
def test_more_tokens_are_more_work(model):
    def flops(step):
        return sum(operator.flops for _, operator in build_graph(model, step).instances())

    assert flops(Prefill(1, prompt_len=5)) < flops(Prefill(1, prompt_len=6)) < flops(Prefill(2, prompt_len=6))
    if model.has_kv_cache:
        assert flops(Decode(1, 5)) < flops(Decode(1, 6))
        # One chunk after the other is the whole prompt, up to the logits of the first chunk's last row.
        first, second = Prefill(1, prompt_len=4, logits="all"), Prefill(1, prompt_len=3, context_len=4, logits="all")
        assert flops(first) + flops(second) == flops(Prefill(1, prompt_len=7, logits="all"))


@pytest.mark.parametrize("model", models(), ids=lambda model: f"{model.family}-{model.num_layers}")
def test_steps_a_family_cannot_do_are_refused(model):
    for step in STEPS:
        if not can_do(model, step):
            with pytest.raises(InputError, match="it has no KV cache"):
                build_graph(model, step)
    beyond = Prefill(1, prompt_len=model.max_position_embeddings + 1)
    with pytest.raises(InputError, match=f"has {model.max_position_embeddings:,} positions"):
        build_graph(model, beyond)


def test_a_family_without_a_builder(monkeypatch):
    monkeypatch.delitem(FAMILIES, "gpt2")
    with pytest.raises(InputError) as caught:
        build_graph(load_model(CONFIGS["gpt2"][0]), Decode(1, 3))
    assert str(caught.value) == (
        "model: models of family 'gpt2' load, but steps of them cannot be simulated\n"
        "  expected: a family with a graph builder: bert, llama\n"
        "  hint:     known: bert, llama"
    )


def test_every_family_can_be_proven():
    from pe_sim.numeric.families import READERS
    from pe_sim.numeric.reference import FORWARDS

    assert set(FAMILIES) == set(READERS) == set(FORWARDS)
