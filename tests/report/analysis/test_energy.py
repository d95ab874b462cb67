"""First-order energy: by hand for small steps and single collectives, and what it must follow."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import strategies as st

from pe_sim.api import search, simulate
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import load_array
from pe_sim.config.arrays.schema import EnergyFile
from pe_sim.config.dtypes import BITS
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.graph.operators import Linear, Scores, Values
from pe_sim.mapping.workflow import WORKFLOWS as REGISTERED
from pe_sim.mapping.workflow import LayerPlan, Workflow
from pe_sim.network.area import switch_sizes
from pe_sim.network.topology.kinds import build_topology
from pe_sim.report.analysis.channels import distinct_stages
from pe_sim.report.analysis.energy import (
    COMPONENTS,
    DYNAMIC,
    UNITS_PER_PJ,
    energy_units,
    prices_of,
    schedule_units,
)
from pe_sim.report.report import Report
from pe_sim.schedule.collectives import collective_schedule
from pe_sim.units import exact_sum
from tests.helpers import given_in_both
from tests.report.samples import GRAPHS, TINY, WORKFLOWS, array_of, simulate_on, simulate_tiny, tiny, tiny_on

KV_WRITTEN = 2 * 2 * 2 * 16 * 2  # K and V, two layers, two kv heads of 16, bf16
PITCH = 2.4  # mm, of bus-tree-64
WEIGHTS = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 160) + 64 * 128
PRICED = {  # round numbers, different ones for everything
    "energy__mac_pj__bf16": 2.0,
    "energy__vector_pj": 3.0,
    "energy__local_read_pj_per_bit": 0.5,
    "energy__local_write_pj_per_bit": 0.25,
    "energy__root_read_pj_per_bit": 4.0,
    "energy__buffer_read_pj_per_bit": 0.125,
    "energy__buffer_write_pj_per_bit": 0.0625,
    "energy__wire_pj_per_bit_mm": 0.1,
    "energy__joint_add_pj": 0.9,
    "energy__joint_softmax_pj": 7.0,
}


def picojoules(report: Report) -> dict[str, float]:
    return {name: joules * 1e12 for name, joules in report.energy["by_component"].items()}


def mac_bound(report: Report) -> float:
    """Joules of every multiply-accumulate of the model done once."""
    matrices = [op for _, op in report.graph.instances() if isinstance(op, Linear | Scores | Values)]
    return sum(op.flops for op in matrices) / 2 * report.array.energy.mac_pj["bf16"] * 1e-12


def test_a_step_on_one_pe_by_hand() -> None:
    found = picojoules(simulate_tiny("megatron", 1, **PRICED))
    macs = WEIGHTS + 2 * 2 * 4 * 16 * 41  # and, per layer, scores and values of 4 heads of 16 over 41 tokens
    assert found["pe_matrix"] == pytest.approx(2.0 * macs)
    read = 2 * WEIGHTS + 2 * 41 * KV_WRITTEN // 2
    assert found["pe_memory"] == pytest.approx(8 * (0.5 * read + 0.25 * KV_WRITTEN))
    assert found["root_memory"] == pytest.approx(8 * 4.0 * 2 * 64)
    # Norms 4 a value, rope 2, softmax 6 a score, adds 1, silu 6; the last norm, and the argmax.
    operations = 2 * (2 * 64 * 4 + 96 * 2 + 4 * 41 * 6 + 2 * 64 + 160 * 6) + 64 * 4 + 128
    assert found["pe_vector"] == pytest.approx(3.0 * operations)
    # The embedded row over the bus, whose wire is a pitch across and one down; a tree over one leaf has no link.
    assert found["bus"] == pytest.approx(8 * 128 * 0.1 * 2 * PITCH)
    assert found["tree"] == found["joints"] == found["links"] == found["static"] == 0


def test_the_buffer_of_one_pe_by_hand() -> None:
    """The matrix unit takes inputs once for each 32 outputs, in bf16, and gives sums in fp32."""
    blocks = [(64, 2), (64, 1), (64, 1), (64, 2), (64, 5), (64, 5), (160, 2)]  # q k v o gate up down: inputs, blocks
    scores_and_values = 4 * (16 * 2 + 41)  # 41 tokens are two blocks of scores
    taken = 2 * (sum(inputs * count for inputs, count in blocks) + scores_and_values) + 64 * 4
    sums = 2 * (64 + 32 + 32 + 64 + 160 + 160 + 64 + 4 * (41 + 16)) + 128
    # Vector units: norms and softmax, the last norm; of rope (queries and keys), adds and silu two operands.
    single, double = 2 * (2 * 64 + 4 * 41) + 64, 2 * (96 + 2 * 64 + 160)
    argmax, its_pair, embedded_row = 128, 8, 2 * 64
    read = 2 * (taken + single + 2 * double + argmax) + its_pair
    written = 4 * sums + 2 * (single + double) + embedded_row
    found = picojoules(simulate_tiny("megatron", 1, **PRICED))
    assert found["pe_buffer"] == pytest.approx(8 * (0.125 * read + 0.0625 * written))


def collective_units(kind: str, array: ArrayConfig, num_bytes: int) -> dict[str, float]:
    """pJ by component of a collective alone."""
    schedule = collective_schedule(kind, array, num_bytes).schedule
    found = energy_units(distinct_stages(schedule), prices_of(array))
    return {component: units / UNITS_PER_PJ for component, units in found.items()}


def test_a_broadcast_drives_all_wire_of_the_bus_and_everybody_writes_it() -> None:
    found = collective_units("broadcast", array_of(8, **PRICED), 1000)
    # Three rows of at most three PEs: wire along each PE of every row, and down the side.
    assert found["bus"] == pytest.approx(8000 * 0.1 * (8 + 3) * PITCH)
    assert found["pe_buffer"] == pytest.approx(8000 * 8 * 0.0625)
    assert found["tree"] == found["joints"] == 0


@pytest.mark.parametrize(
    ("num_pes", "arity", "pitches"),
    # Links by level times their length of 2^floor(level log2(k) / 2) pitches.
    [(8, 2, 8 * 1 + 4 * 1 + 2 * 2), (16, 4, 16 * 1 + 4 * 2), (6, 2, 6 * 1 + 3 * 1 + 2 * 2), (9, 3, 9 * 1 + 3 * 1)],
)
def test_a_reduction_climbs_every_link_once(num_pes: int, arity: int, pitches: int) -> None:
    array = array_of(num_pes, network__tree__arity=arity, **PRICED)
    found = collective_units("reduce", array, 4000)
    assert found["tree"] == pytest.approx(8 * 4000 * 0.1 * pitches * PITCH)
    assert found["joints"] == pytest.approx((num_pes - 1) * 1000 * 0.9)  # fp32: 1000 elements, all terms but one
    assert found["pe_buffer"] == pytest.approx(num_pes * 8 * 4000 * 0.125)
    assert found["bus"] == 0


def test_a_gather_is_many_messages_on_the_bus() -> None:
    array = array_of(8, network__collectives__gather="serial", **PRICED)
    found = collective_units("gather", array, 100)
    assert found["bus"] == pytest.approx(8 * 8 * 100 * 0.1 * (8 + 3) * PITCH)
    assert found["pe_buffer"] == pytest.approx(8 * 8 * 100 * 0.125)  # the root writes them, and its buffer is left out


def test_softmax_partials_are_merged_and_not_added() -> None:
    dear = {**PRICED, "energy__joint_add_pj": 0.0}
    merged = picojoules(simulate_tiny("workflow-2", 8, **dear))["joints"]  # attention by token
    assert merged > 0
    assert picojoules(simulate_tiny("workflow-2", 8, **{**dear, "energy__joint_softmax_pj": 14.0}))[
        "joints"
    ] == pytest.approx(2 * merged)
    assert picojoules(simulate_tiny("megatron", 4, **dear))["joints"] == 0


def test_results_that_go_down_the_tree_leave_the_bus_alone() -> None:
    """Heads shared by PEs: partial scores are reduced in each group and go back to it."""
    on_bus = picojoules(simulate_tiny("megatron", 16, **PRICED))
    down = picojoules(simulate_tiny("megatron", 16, network__tree__downlink=True, **PRICED))
    multicast = tiny("megatron", 16).traffic["multicast"].bytes
    assert multicast > 0
    assert on_bus["bus"] - down["bus"] == pytest.approx(8 * multicast * 0.1 * (16 + 4) * PITCH)
    # A group of four: four links of a pitch below, two of a pitch above.
    assert down["tree"] - on_bus["tree"] == pytest.approx(8 * multicast * 0.1 * 6 * PITCH)


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2"])
def test_twice_the_pitch_is_twice_the_wire(workflow: str) -> None:
    before = picojoules(simulate_tiny(workflow, 16, **PRICED))
    after = picojoules(simulate_tiny(workflow, 16, floorplan__pe_pitch_mm=2 * PITCH, **PRICED))
    for component in COMPONENTS:
        factor = 2 if component in ("bus", "tree") else 1
        assert after[component] == pytest.approx(factor * before[component]), component
    assert before["bus"] > 0
    assert before["tree"] > 0


def test_a_bit_that_crosses_a_switch_drives_a_row_and_a_column() -> None:
    array = load_array("crossbar-256")
    sizes = switch_sizes(build_topology(array), array.area.switch_pitch_um)
    levels = np.array(build_topology(array).channels.level)
    from_switch = sizes.crossing_mm > 0
    assert from_switch.sum() == 257  # the ways out to PEs and root; ends of wires switch nothing
    assert sizes.crossing_mm[from_switch] == pytest.approx(2 * 257 * 512 * 0.08e-3)  # 21 mm
    assert len(levels) == 2 * 257


@pytest.mark.parametrize("kind", GRAPHS)
def test_on_a_graph_every_channel_pays_for_its_length(kind: str) -> None:
    report = tiny_on(kind)
    table = report.channels
    assert table.length_mm is not None
    carried = table.bytes.sum(axis=1)
    per_bit_mm = report.array.energy.wire_pj_per_bit_mm
    found = picojoules(report)
    crossing_mm = switch_sizes(build_topology(report.array), report.array.area.switch_pitch_um).crossing_mm
    driven = float((8 * carried * (table.length_mm + crossing_mm)).sum())
    assert found["links"] == pytest.approx(driven * per_bit_mm, rel=1e-4)
    assert found["bus"] == found["tree"] == 0
    assert found["joints"] > 0


@pytest.mark.parametrize("kind", GRAPHS)
def test_what_is_added_does_not_depend_on_the_interconnect(kind: str) -> None:
    """As many terms become as many sums; what joins and who computes is the mapping's business."""
    on_bus = picojoules(simulate_tiny("megatron", 4, process="45nm"))
    on_graph = picojoules(simulate_on(kind, 4, "megatron", process="45nm"))
    for component in ("pe_matrix", "pe_vector", "pe_memory", "joints"):
        assert on_graph[component] == pytest.approx(on_bus[component]), component


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("step", [Decode(4, 40), Prefill(2, prompt_len=6)])
def test_both_engines_give_the_same_energy(workflow: str, step: Decode | Prefill) -> None:
    fast, event = (simulate_tiny(workflow, 4, step, engine, energy__static_watts=3.0) for engine in ("fast", "event"))
    assert fast.energy_units == event.energy_units
    assert fast.energy == event.energy


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("num_pes", [1, 4, 16])
def test_energy_is_no_less_than_every_multiplication_once(workflow: str, num_pes: int) -> None:
    report = tiny(workflow, num_pes)
    assert report.energy["by_component"]["pe_matrix"] >= mac_bound(report) * (1 - 1e-9)
    assert report.energy["total_joules"] >= mac_bound(report)


def test_a_replicated_matrix_is_multiplied_on_every_pe() -> None:
    fields = ("q", "k", "v", "attention", "o", "gate", "up", "down")
    plan = LayerPlan(**dict.fromkeys(fields, "replicate"))
    whole = Workflow("replicated", "", (plan,), lm_head="replicate")
    one, four = simulate_tiny(whole, 1, **PRICED), simulate_tiny(whole, 4, **PRICED)
    assert picojoules(four)["pe_matrix"] == pytest.approx(4 * picojoules(one)["pe_matrix"])
    assert picojoules(four)["pe_memory"] == pytest.approx(4 * picojoules(one)["pe_memory"])


@given_in_both(
    8,
    30,
    workflow=st.sampled_from(["workflow-1", "workflow-2", "megatron", "all-row", "all-col", "batch-block"]),
    num_pes=st.sampled_from([1, 2, 4, 8]),
    context=st.integers(0, 90),
    batch=st.integers(1, 3),
)
def test_layers_alike_add_the_same_energy_to_the_unit(workflow: str, num_pes: int, context: int, batch: int) -> None:
    units = []
    for layers in (2, 3, 4):
        model = load_model({**TINY, "num_hidden_layers": layers})
        report = simulate(model, array_of(num_pes), Decode(batch, context), workflow, allow_overflow=True)
        units.append(report.energy_units)
    assert units[2] - units[1] == units[1] - units[0] > 0


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_the_whole_is_the_sum_of_its_parts(workflow: str) -> None:
    report = simulate_tiny(workflow, 4, Decode(4, 40))
    energy = report.energy
    assert list(energy["by_component"]) == list(COMPONENTS)
    assert energy["total_joules"] == pytest.approx(sum(energy["by_component"].values()))
    assert energy["total_joules"] == pytest.approx(report.energy_units / UNITS_PER_PJ * 1e-12)
    assert schedule_units(report.schedule) == report.energy_units
    assert energy["per_token_joules"] == pytest.approx(energy["total_joules"] / 4)
    assert energy["average_watts"] == pytest.approx(energy["total_joules"] / report.latency_seconds)


def test_static_power_lasts_as_long_as_the_step() -> None:
    report = simulate_tiny("megatron", 4, energy__static_watts=2.5)
    found = report.energy["by_component"]
    assert found["static"] == pytest.approx(2.5 * report.latency_seconds)
    dynamic = sum(found[name] for name in DYNAMIC)
    assert dynamic == pytest.approx(tiny("megatron", 4).energy["total_joules"])
    assert report.energy["average_watts"] == pytest.approx(2.5 + dynamic / report.latency_seconds)


@pytest.mark.parametrize(
    ("overrides", "component", "factor"),
    [
        # Products in the wider dtype, sums of floats in fp32 and of integers in int32.
        ({"dtypes__activation": "fp32", "dtypes__weight": "fp32"}, "pe_matrix", (3.7 + 0.9) / (1.1 + 0.9)),
        ({"dtypes__weight": "int4"}, "pe_matrix", 1.0),
        ({"pe__memory__device": "sram"}, "pe_memory", (100 / 64) / 0.55),
        ({"pe__memory__device": "hbm"}, "pe_memory", 3.6 / 0.55),
        ({"root__memory__device": "ddr"}, "root_memory", 20.3 / 4.0),
        ({"dtypes__weight": "fp32"}, "root_memory", 2.0),
        ({"dtypes__partial": "bf16"}, "pe_matrix", (1.1 + 0.4) / (1.1 + 0.9)),
    ],
)
def test_energy_follows_dtype_and_device(overrides: dict[str, object], component: str, factor: float) -> None:
    before = picojoules(simulate_tiny("megatron", 4, process="45nm"))[component]
    after = picojoules(simulate_tiny("megatron", 4, process="45nm", **overrides))[component]
    assert after == pytest.approx(factor * before)


@pytest.mark.parametrize("text", ["SRAM", "HBM3 beside the PE", "DDR5, as LPDDR"])
def test_free_text_picks_no_energy(text: str) -> None:
    told = simulate_tiny("megatron", 4, pe__memory__technology=text, root__memory__technology=text)
    assert told.energy == tiny("megatron", 4).energy
    assert told.area == tiny("megatron", 4).area


def test_integers_are_multiplied_as_integers_where_both_operands_are() -> None:
    """Weights and activations in int8, the cache in bf16: attention stays a product of bf16."""
    cheap = {**PRICED, "energy__mac_pj__bf16": 0.0, "energy__mac_pj__int8": 1.0}
    found = picojoules(simulate_tiny("megatron", 2, dtypes__weight="int8", dtypes__activation="int8", **cheap))
    assert found["pe_matrix"] == pytest.approx(WEIGHTS)


def test_streamed_weights_are_read_at_the_root_and_written_on_every_pe() -> None:
    step = Decode(batch_size=4, context_len=40)
    report = simulate_tiny("batch-stream", 4, step, **PRICED)
    streamed = report.traffic["weight-stream"].bytes
    assert streamed > 0
    found, held = picojoules(report), picojoules(simulate_tiny("batch-block", 4, step, **PRICED))
    assert found["root_memory"] == pytest.approx(8 * 4.0 * (4 * 2 * 64 + streamed))
    embedded = 4 * 2 * 64  # bytes, which batch-block reads from each PE's own table
    assert found["pe_memory"] - held["pe_memory"] == pytest.approx(8 * (0.25 * 4 * streamed - 0.5 * embedded))
    on_bus = sum(use.bytes for tag, use in report.traffic.items() if tag != "reduce")
    assert found["bus"] == pytest.approx(8 * on_bus * 0.1 * (4 + 2) * PITCH)


def test_numbers_beyond_64_bits_stay_exact() -> None:
    """A prefill of a large batch: products of counts and prices pass 2^63, and nothing wraps."""
    dear = {"energy__mac_pj__bf16": 1e9, "energy__wire_pj_per_bit_mm": 1e9}
    step = Prefill(8, prompt_len=500)
    report = simulate_tiny("megatron", 2, step, **dear)
    mesh = simulate_on("mesh", 2, "megatron", step, **dear, area__switch_pitch_um=0)
    for each in (report, mesh):
        assert each.energy_units > 2**63
        assert each.energy["by_component"]["pe_matrix"] == pytest.approx(mac_bound(each))
    carried = mesh.channels.bytes.sum(axis=1)
    assert mesh.channels.length_mm is not None
    wire = float((8 * carried.astype(np.float64) * mesh.channels.length_mm).sum())
    assert mesh.energy["by_component"]["links"] == pytest.approx(wire * 1e9 * 1e-12)


def numbers_in(told: object) -> Iterator[float]:
    if isinstance(told, dict):
        for each in told.values():
            yield from numbers_in(each)
    elif isinstance(told, list | tuple):
        for each in told:
            yield from numbers_in(each)
    elif isinstance(told, int | float):
        yield told


LENGTHS = st.floats(0, 30.9).map(lambda power: int(2**power))


@given_in_both(
    12,
    60,
    hidden=st.integers(6, 18).map(lambda power: 2**power),
    vocabulary=st.integers(2, 2**20),
    step=st.builds(lambda batch, length: Prefill(batch, prompt_len=length), st.integers(1, 20), LENGTHS)
    | st.builds(Decode, st.integers(1, 20), LENGTHS),
    preset=st.sampled_from(["bus-tree-64", "mesh-256", "aim-gddr6-16"]),
    overlap=st.integers(0, 3),
    workflow=st.sampled_from(["megatron", "workflow-1", "all-col"]),
)
def test_a_step_of_any_size_is_counted_exactly_or_refused(
    hidden: int, vocabulary: int, step: Decode | Prefill, preset: str, overlap: int, workflow: str
) -> None:
    """Against Python's integers, which do not wrap: on one PE every product is done once."""
    model = load_model({**TINY, "hidden_size": hidden, "vocab_size": vocabulary, "max_position_embeddings": 2**31})
    costs = dict.fromkeys(EnergyFile.model_fields, 0.0) | {"mac_pj": dict.fromkeys(BITS, 1.0)}
    array = load_array(preset, {"num_pes": 1, "overlap": overlap, "energy": costs})
    refusal = ""
    try:
        report = simulate(model, array, step, workflow, allow_overflow=True)
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert "too large to be counted exactly" in refusal
        return
    products = (each for _, each in report.graph.instances() if isinstance(each, Linear | Scores | Values))
    assert report.energy_units == UNITS_PER_PJ * sum(each.flops // 2 for each in products)
    assert min(numbers_in(report.to_dict())) >= 0
    assert 0 < report.latency_cycles < 2**63
    least = max(each.weight_bytes(array.dtypes) for _, each in report.graph.instances() if isinstance(each, Linear))
    assert report.trace.read_bytes >= least


@pytest.mark.parametrize("batch", [25_000, 50_000])
def test_what_would_pass_64_bits_is_refused(batch: int) -> None:
    long = load_model({**TINY, "max_position_embeddings": 10**6, "num_hidden_layers": 12})
    with pytest.raises(InputError, match=r"this step is too large to be counted exactly: it may take \d\.\d\de\+\d\d"):
        simulate(long, array_of(64), Prefill(batch, prompt_len=10**6), "megatron", allow_overflow=True)
    with pytest.raises(InputError, match="too large to be counted exactly"):
        search(long, array_of(64), Prefill(batch, prompt_len=10**6))


def test_what_several_pes_do_alike_is_summed_exactly() -> None:
    assert exact_sum(np.full(8, 2**62, dtype=np.int64)) == 2**65
    assert exact_sum(np.array([], dtype=np.int64)) == 0
    assert exact_sum(np.arange(5)) == 10


def test_the_dearest_wire_that_a_file_can_name() -> None:
    report = simulate_on(
        "mesh",
        4,
        energy__wire_pj_per_bit_mm=1e9,
        floorplan__pe_pitch_mm=1e6,
        floorplan__mm_per_cycle=1e6,
        area__switch_pitch_um=0,
    )
    assert report.channels.length_mm is not None
    bit_mm = float((8.0 * report.channels.bytes.sum(axis=1) * report.channels.length_mm).sum())
    assert report.energy["by_component"]["links"] == pytest.approx(bit_mm * 1e9 * 1e-12)


def test_every_named_workflow_is_covered() -> None:
    assert set(WORKFLOWS) == set(REGISTERED)
