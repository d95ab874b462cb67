"""Our own plan files: what they mean, the way back, overrides, and every message."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.plans.schema import plan_to_dict
from pe_sim.errors import InputError


def message(plan, **arguments):
    with pytest.raises(InputError) as caught:
        load_plan(plan, **arguments)
    return str(caught.value)


def pipelines(*stages):
    return {"pipelines": [{"stages": list(stages)}]}


def test_degrees():
    plan = load_plan({"dp": 2, "tp": 4, "pp": 2, "cp": 2, "microbatches": 4, "overlap": 1, "matrices": {"o": "col"}})
    assert plan == ParallelPlan(
        source="plan", dp=2, tp=4, pp=2, cp=2, microbatches=4, overlap=1, matrices=(("o", "col"),)
    )


def test_bounds_and_pipelines_from_yaml(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("schema_version: 1\npp: 2\npartition: [0, 20, 32]\nnum_layers: 32\nunused_arrays: [5]\n")
    plan = load_plan(path)
    assert (plan.name, plan.source, plan.partition, plan.unused) == ("two", str(path), (0, 20, 32), (5,))
    path.write_text(
        "name: uneven\npipelines:\n- stages:\n  - {arrays: [0, 1], layers: 20}\n  - {arrays: [2], layers: [20, 32]}\n"
        "- stages: [{arrays: [3, 4], layers: 32, cp: 2}]\n"
    )
    plan = load_plan(str(path))
    assert plan.name == "uneven"
    first, second = plan.pipelines
    assert first.stages == (
        StagePlan((0, 1), 0, 20, (Degrees(tp=2),) * 20),
        StagePlan((2,), 20, 12, (Degrees(),) * 12),
    )
    assert second.stages[0].degrees[0] == Degrees(cp=2)


def test_degrees_of_each_layer():
    plan = load_plan({"layers": [{"tp": 2, "times": 3}, {"dp": 2}], "head": {"cp": 2}, "num_layers": 4})
    assert plan.layers == (Degrees(tp=2),) * 3 + (Degrees(dp=2),)
    assert plan.head == Degrees(cp=2)


@st.composite
def plans(draw):
    """Any plan in one of the three forms."""
    common = {
        "name": draw(st.sampled_from(["a", "plan b"])),
        "microbatches": draw(st.none() | st.integers(1, 9)),
        "overlap": draw(st.none() | st.integers(0, 3)),
        "split_vocabulary": draw(st.booleans()),
        "matrices": tuple(
            draw(st.dictionaries(st.sampled_from(["q", "o", "down"]), st.sampled_from(["row", "col"]))).items()
        ),
        "unused": tuple(draw(st.lists(st.integers(1000, 1009), unique=True))),
    }
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    bounds = tuple(sum(counts[:n]) for n in range(len(counts) + 1))
    form = draw(st.sampled_from(["degrees", "layers", "pipelines"]))
    if form == "degrees":
        small = st.integers(1, 4)
        degrees = {"dp": draw(small), "tp": draw(small), "cp": draw(small), "pp": len(counts)}
        return ParallelPlan(
            **common, **degrees, partition=bounds, num_layers=draw(st.sampled_from([None, sum(counts)]))
        )
    shapes = st.permutations([2, 3, 1]).map(lambda d: Degrees(*d)) | st.just(Degrees(tp=6, consecutive=False))
    layers = tuple(draw(shapes) for _ in range(sum(counts)))
    if form == "layers":
        return ParallelPlan(
            **common,
            pp=len(counts),
            partition=bounds,
            layers=layers,
            head=draw(st.none() | shapes),
            num_layers=len(layers),
        )
    pipes = tuple(
        PipelinePlan(
            tuple(
                StagePlan(
                    tuple(range(100 * p + 6 * s, 100 * p + 6 * s + 6)),
                    bounds[s],
                    count,
                    layers[bounds[s] : bounds[s + 1]],
                )
                for s, count in enumerate(counts)
            )
        )
        for p in range(draw(st.integers(1, 3)))
    )
    return ParallelPlan(**common, pipelines=pipes, num_layers=sum(counts))


@given(plans())
def test_the_way_there_and_back(plan):
    written = json.loads(json.dumps(plan_to_dict(plan)))
    assert replace(load_plan(written), source="") == plan
    assert load_plan(plan) is plan


def test_overrides_reach_every_form():
    changed = load_plan({"dp": 2, "tp": 2}, overrides={"tp": 4, "microbatches": 3})
    assert (changed.dp, changed.tp, changed.microbatches) == (2, 4, 3)
    merak = load_plan({"dp": 2, "train_schedule": "1f1b"}, overrides={"overlap": 2})
    assert (merak.dp, merak.overlap) == (2, 2)
    assert merak.ignored == ('train_schedule: "1f1b" (inference has forward passes alone)',)
    assert message({"dp": 2}, overrides={"num_layer": 2}) == (
        "--set num_layer: unknown path\n  hint:     did you mean 'num_layers'?"
    )


def test_a_list_is_of_one():
    assert load_plan([{"dp": 2}]).dp == 2
    assert message([{"dp": 2}, {"dp": 4}]) == (
        "plan: a list of 2 plans\n"
        "  given:    [{'dp': 2}, {'dp': 4}]\n"
        "  expected: one plan, or a list of one, as Hetu's generators give\n"
        "  hint:     simulate the plans of a list one by one"
    )


def test_no_dialect_and_no_file(tmp_path):
    assert message({"model_type": "llama"}) == (
        "plan: this is no plan of a known dialect\n"
        "  given:    ['model_type']\n"
        "  expected: Hetu ds_parallel_config (has a root llama or gpt); Hetu generator arguments (has num_gpus,"
        " cp_list or ds_parallel); Galvatron strategy (has pp_deg or tp_sizes_enc); MerakArguments (has train_schedule,"
        " partition_method and the like); pe-sim plan (has dp, tp, pp, cp or pipelines)"
    )
    missing = tmp_path / "none.yaml"
    assert message(missing) == f"{missing}: no such file\n  expected: a plan's file (YAML or JSON)"
    assert message(3) == "not a plan\n  given:    3\n  expected: a path, a plan's mapping, or a ParallelPlan"


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (
            {"dp": "2"},
            "plan: dp: not a whole number\n  given:    '2'\n  expected: a whole number from 1 to 1048576\n"
            "  hint:     this is text, not a number: write 2 without quotes",
        ),
        (
            {"tp": 2, "microbatch": 2},
            "plan: microbatch: unknown key\n  given:    2\n  hint:     did you mean 'microbatches'?",
        ),
        (
            {"pp": 2, "partition": "uniformly"},
            "plan: partition: not one of the known methods\n  given:    'uniformly'\n"
            "  expected: uniform, uniform_floor, uniform_ceil, parameters, balanced, or a list of bounds\n"
            "  hint:     did you mean 'uniform'?",
        ),
        (
            {"pp": 2, "partition": [0, 8, 16, 32]},
            "plan: partition: 4 bounds\n  given:    [0, 8, 16, 32]\n  expected: 3: one more than the 2 stages",
        ),
        (
            {"pp": 2, "partition": [1, 8, 16]},
            "plan: partition: the bounds begin with 1 and skip the layers before\n  given:    [1, 8, 16]\n"
            "  expected: 0 as the first",
        ),
        (
            {"pp": 2, "partition": [0, 8, 8]},
            "plan: partition: 8 after 8 leaves a stage without layers\n  given:    [0, 8, 8]\n"
            "  expected: bounds that rise",
        ),
        (
            {"pp": 2, "partition": [0, 8, 16], "num_layers": 32},
            "plan: partition: the bounds end with 16, and there are 32 layers\n  given:    [0, 8, 16]\n"
            "  expected: 32 as the last",
        ),
        (
            {"pp": 4, "num_layers": 3},
            "plan: pp: 3 layers do not fill 4 stages\n  given:    4\n  expected: at most 3",
        ),
        (
            {"unused_arrays": [1, 2, 1]},
            "plan: unused_arrays: rank 1 is named twice\n  given:    [1, 2, 1]\n  expected: each once",
        ),
        (
            {"matrices": {"query": "row"}},
            "plan: matrices.query: unknown operator\n  given:    'row'\n  hint:     known: down, gate, k, o, q, up, v",
        ),
        (
            {"matrices": {"q": "head"}},
            "plan: matrices.q: not one of the known values\n  given:    'head'\n  expected: row or col",
        ),
        (
            {"layers": [{"tp": 2}], "num_layers": 2},
            "plan: layers: degrees of 1 layers\n  given:    1\n  expected: 2, as num_layers says",
        ),
        (
            {"layers": [{"tp": 2}, {"tp": 4}]},
            "plan: layers.1: dp 1 x tp 4 x cp 1 is 4 arrays\n  given:    'dp 1 x tp 4 x cp 1'\n"
            "  expected: degrees that multiply to 2, as under layer 0",
        ),
        (
            {"dp": 2, "layers": [{"tp": 2}]},
            "plan: dp: dp beside degrees of each layer\n  given:    2\n  expected: 1, or no layers: dp is in them",
        ),
        (
            {"dp": 2, **pipelines({"arrays": [0], "layers": 4})},
            "plan: dp: dp beside pipelines, which name the arrays of every stage\n  given:    2\n"
            "  expected: 1, or no pipelines",
        ),
        (
            pipelines({"arrays": [0, 1, 2], "layers": 4, "tp": 2}),
            "plan: pipelines.0.stages.0: dp 1 x tp 2 x cp 1 is 2 arrays\n  given:    'dp 1 x tp 2 x cp 1'\n"
            "  expected: degrees that multiply to 3, the arrays of the stage",
        ),
        (
            pipelines({"arrays": [0], "layers": 4}, {"arrays": [1], "layers": [5, 8]}),
            "plan: pipelines.0.stages.1.layers: skips to layer 5\n  given:    [5, 8]\n"
            "  expected: at least one layer, from layer 4 on",
        ),
        (
            pipelines({"arrays": [0], "layers": 4}, {"arrays": [1], "layers": [3, 8]}),
            "plan: pipelines.0.stages.1.layers: repeats from layer 3\n  given:    [3, 8]\n"
            "  expected: at least one layer, from layer 4 on",
        ),
        (
            pipelines({"arrays": [0], "layers": "4"}),
            "plan: pipelines.0.stages.0.layers: not layers of a stage\n  given:    '4'\n"
            "  expected: a number of layers from 1, or [first, end): two bounds that rise",
        ),
        (
            pipelines({"arrays": [0, 1], "layers": 4}, {"arrays": [1, 2], "layers": 4}),
            "plan: pipelines.0.stages.1.arrays: rank 1 is named twice, first in pipelines.0.stages.0.arrays\n"
            "  given:    [1, 2]\n  expected: ranks that nothing else names",
        ),
        (
            {"unused_arrays": [1], **pipelines({"arrays": [1], "layers": 4})},
            "plan: pipelines.0.stages.0.arrays: rank 1 is named twice, first in unused_arrays\n"
            "  given:    [1]\n  expected: ranks that nothing else names",
        ),
        (
            {"num_layers": 32, **pipelines({"arrays": [1], "layers": 4})},
            "plan: pipelines.0: its stages have 4 layers\n  given:    [4]\n  expected: 32 in all, as num_layers says",
        ),
        (
            {"pipelines": [{"stages": [{"arrays": [n], "layers": n + 4}]} for n in range(2)]},
            "plan: pipelines.1: its stages have 5 layers\n  given:    [5]\n  expected: 4 in all, as pipelines.0 has",
        ),
    ],
)
def test_messages(plan, text):
    assert message(plan) == text


def test_plans_made_by_hand_are_checked():
    assert message(ParallelPlan(name="mine", tp=0)) == (
        "mine: tp: too small\n  given:    0\n  expected: a whole number from 1"
    )
    assert message(ParallelPlan(overlap=4)).startswith("plan: overlap: no such level\n  given:    4")
    assert message(ParallelPlan(pipelines=(PipelinePlan(()),))).startswith("plan: pipelines.0.stages: no stages")
