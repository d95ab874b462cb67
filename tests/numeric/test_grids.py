"""FFNs over grids of PEs compute their model, and what is moved is what was timed."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.groups import PeGroups, fitting_grids, grid_name
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.state_dict import random_weights
from tests.helpers import diagonal, given_in_both, small_array
from tests.network.networks import array_of
from tests.numeric.cases import FAMILIES, prove
from tests.numeric.test_random_programs import PLAN, WAY, models, steps


def with_grid(base, gate, up, down):
    workflow = WORKFLOWS[base]
    plans = tuple(replace(plan, gate=gate, up=up, down=down) for plan in workflow.pattern)
    return replace(workflow, name=f"{gate}+{up}+{down}", pattern=plans)


@pytest.mark.parametrize(
    ("names", "base", "family"),
    diagonal(
        [("grid-2",) * 3, ("grid-4",) * 3, ("grid-8", "grid-8", "grid-2")],
        ["megatron", "workflow-1", "workflow-2", "all-row"],
        list(FAMILIES),
    ),
)
def test_every_family(family, base, names):
    model = FAMILIES[family]()
    for step in (Prefill(2, prompt_len=3), *([Decode(3, context_len=4)] if model.has_kv_cache else [])):
        verdict = prove(model, small_array(16), step, with_grid(base, *names))
        assert verdict.holds, str(verdict)


@pytest.mark.parametrize("ways", [2, 3, 4, 6])
@pytest.mark.parametrize("kind", ["ring", "torus", "mesh", "crossbar"])
def test_other_interconnects_need_no_alignment(kind, ways):
    num_pes = 16 if ways in (2, 4) else 12
    array = array_of(kind, num_pes)
    verdict = prove(FAMILIES["llama"](), array, Decode(2, context_len=3), with_grid("megatron", *[f"grid-{ways}"] * 3))
    assert verdict.holds, str(verdict)


@pytest.mark.parametrize("base", ["block-pipeline", "batch-stream"])
def test_bases_that_do_more(base):
    step = Decode(5, context_len=3)
    verdict = prove(FAMILIES["llama"](), small_array(16), step, with_grid(base, *["grid-4"] * 3))
    assert verdict.holds, str(verdict)


@given_in_both(12, 100, st.data())
def test_any_mixture(data):
    """Grids beside every other distribution, in uneven sizes, with biases, in groups, under every other choice."""
    model, groups, arity = data.draw(models()), data.draw(st.integers(1, 3)), data.draw(st.integers(2, 4))
    step = data.draw(steps(model))
    num_pes = groups * data.draw(st.sampled_from([1, 2, 4, 6, 8, 9, 16]))
    knobs = {"gather": data.draw(WAY), "scatter": data.draw(WAY), "arity": arity}
    array = small_array(num_pes, **knobs, downlink=data.draw(st.booleans()))
    fitting = fitting_grids(array, PeGroups.of_array(num_pes, groups, arity, 1))
    names = st.sampled_from(["row", "col", "replicate", "batch", *map(grid_name, fitting), *map(grid_name, fitting)])
    drawn = {name: data.draw(names) for name in ("gate", "up", "down")}
    workflow = replace(WORKFLOWS["megatron"], name="drawn", pattern=(replace(data.draw(PLAN), **drawn),), groups=groups)
    weights = random_weights(model, data.draw(st.integers(0, 9)))
    verdict = prove(model, array, step, workflow, weights, dtype="float64")
    assert verdict.holds, str(verdict)
