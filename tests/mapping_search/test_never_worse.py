"""The searched mapping beside every named workflow, in situations that come with pe-sim."""

import pytest

import pe_sim as ps
from pe_sim.config.files.loading import preset_names
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.workflow import WORKFLOWS
from tests.helpers import tiny_llama

MODEL = tiny_llama(num_hidden_layers=1, max_position_embeddings=4096)
FEW = 16  # PEs of a graph of channels, where every simulated message is routed hop by hop


def loaded(name):
    array = ps.load_array(name)
    return ps.load_array(name, {"num_pes": FEW}) if isinstance(array.network, GraphNetwork) else array


def cycles(array, situation, workflow):
    """Of all steps, each as often as it occurs; None where the workflow does not apply or fit."""
    try:
        return sum(
            weight * ps.simulate(MODEL, array, step, workflow).latency_cycles for step, weight in situation.steps
        )
    except InputError:
        return None


def cases():
    """Every array in a situation of one sequence; the experiment has them all with large models on bus trees."""
    situations = [name for name in preset_names("situations") if name.startswith("one-")]
    return [(array, situations[index % len(situations)]) for index, array in enumerate(preset_names("arrays"))]


@pytest.mark.slow
@pytest.mark.parametrize(("array", "situation"), cases())
def test_never_worse_than_a_named_workflow(array, situation):
    array, situation = loaded(array), ps.load_situation(situation)
    named = [cycles(array, situation, name) for name in WORKFLOWS]
    fitting = [value for value in named if value is not None]
    try:
        found = ps.search(MODEL, array, situation.steps, max_simulations=4)
    except InfeasibleError:
        assert not fitting
    else:
        assert found.best.cycles <= min(fitting)
