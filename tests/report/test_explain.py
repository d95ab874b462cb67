"""Why one mapping is faster than another: the differences add up, and name what differs."""

import json

import pytest

import pe_sim as ps
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.report.explain import WORK, explain
from tests.helpers import small_array, tiny_llama
from tests.report.samples import tiny, tiny_on


@pytest.mark.parametrize("first", ["workflow-1", "megatron"])
@pytest.mark.parametrize("other", sorted(set(WORKFLOWS) - {"batch-stream", "batch-block", "block-pipeline"}))
def test_differences_add_up_to_that_of_the_latencies(first: str, other: str) -> None:
    reports = tiny(first), tiny(other)
    found = explain(*reports)
    assert sum(one.saved_cycles for one in found.differences) == found.saved_cycles
    assert found.saved_cycles == reports[1].latency_cycles - reports[0].latency_cycles
    sizes = [abs(one.saved_cycles) for one in found.differences]
    assert sizes == sorted(sizes, reverse=True)


def test_the_bytes_are_those_of_the_traffic() -> None:
    first, other = tiny("workflow-1"), tiny("all-col")
    found = explain(first, other)
    for tag in ("broadcast", "reduce", "all-gather"):
        differing = [one for one in found.differences if one.part == tag]
        told = sum(one.num_bytes[1] - one.num_bytes[0] for one in differing)
        assert told == other.traffic[tag].bytes - first.traffic[tag].bytes


def test_a_mapping_explains_nothing_of_itself() -> None:
    found = explain(tiny("megatron"), tiny("batch-lockstep"))
    assert found.differences == ()
    assert "megatron and batch-lockstep take as long" in found.render()


def test_what_differs_is_named_with_both_distributions() -> None:
    found = explain(tiny("workflow-1"), tiny("workflow-2"))
    by_key = {(one.operator, one.part): one for one in found.differences}
    assert by_key["k", WORK].distributions == ("row", "col")
    frame = found.to_frame()
    assert list(frame["saved_cycles"]) == [one.saved_cycles for one in found.differences]
    assert len(json.loads(json.dumps(found.to_dict()))["differences"]) == len(frame)
    text = found.render(most=3)
    assert f"{len(found.differences) - 3} more" in text
    assert found.headline() in text
    assert found.headline() in found._repr_html_()


def test_other_interconnects_are_explained_too() -> None:
    first, other = tiny_on("mesh", "workflow-1"), tiny_on("mesh", "megatron")
    found = explain(first, other)
    assert sum(one.saved_cycles for one in found.differences) == other.latency_cycles - first.latency_cycles


def test_another_step_is_refused() -> None:
    model = tiny_llama()
    first = ps.simulate(model, small_array(4), ps.Decode(1, 7), "megatron")
    other = ps.simulate(model, small_array(4), ps.Decode(1, 8), "megatron")
    with pytest.raises(ps.InputError, match="only mappings of the same step"):
        explain(first, other)
