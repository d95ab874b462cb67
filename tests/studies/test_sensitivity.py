"""What one per cent is worth: against closed forms, the sum rule, and simulations of the machines it says it took."""

import io
from functools import cache

import matplotlib.pyplot as plt
import pytest
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.arrays.array import DEFAULT_CYCLES_PER_ELEMENT
from pe_sim.errors import InputError
from pe_sim.studies.parameters import EVERY_LATENCY, PES, Kind
from pe_sim.studies.sensitivity import Sensitivity, sensitivity
from tests.helpers import given_in_both, tiny_llama

pytestmark = pytest.mark.usefixtures("no_window")

STEP = ps.Decode(context_len=64)
NO_LATENCIES = {
    "pe.memory.latency_cycles": 0,
    "pe.matrix.latency_cycles": 0,
    "pe.vector.latency_cycles": 0,
    "root.vector.latency_cycles": 0,
    "root.memory.latency_cycles": 0,
    "network.bus.latency_cycles": 0,
    "network.bus.request_cycles": 0,
    "network.bus.overhead_cycles": 0,
}
# All but the local memories as good as infinitely fast.
MEMORY_ALONE = NO_LATENCIES | {
    "num_pes": 1,
    "pe.matrix.outputs": 2**16,
    "pe.matrix.depth": 2**16,
    "pe.vector.lanes": 2**20,
    "root.vector.lanes": 2**20,
    "root.memory.bytes_per_cycle": 2**30,
    "network.bus.bytes_per_cycle": 2**30,
    "pe.memory.bytes_per_cycle": 8,
    "pe.memory.capacity_bytes": 2**36,
}


def measured(overrides=None, workflow="megatron", model=None, step=STEP, array="bus-tree-64", **more):
    return sensitivity(model or tiny_llama(), array, step, workflow, overrides=overrides, allow_overflow=True, **more)


@cache
def plain(workflow="megatron"):
    """The step on 64 PEs as they are, measured once."""
    return measured(workflow=workflow)


def test_a_step_of_memory_alone_has_the_elasticity_of_memory():
    model = tiny_llama(hidden_size=512, intermediate_size=1024, num_attention_heads=8, num_key_value_heads=8)
    found = measured(MEMORY_ALONE, model=model)
    assert found["PE memory bandwidth"].elasticity == pytest.approx(-1, abs=0.01)
    assert found["PE memory bandwidth"].more.per_cent == pytest.approx(-100 * (1 - 1 / 1.01), abs=0.01)
    assert found["PE memory bandwidth"].less.per_cent == pytest.approx(100 * (1 / 0.99 - 1), abs=0.01)
    others = [row for row in found.rows if row.parameter not in ("PE memory bandwidth", "clock", PES)]
    assert max(abs(row.elasticity) for row in others) < 0.01
    assert found.rows[0].parameter in ("clock", "PE memory bandwidth")


def test_the_clock_changes_no_cycle_and_all_of_the_time():
    row = plain()["clock"]
    assert row.more.cycles == row.less.cycles == plain().cycles
    assert row.elasticity == pytest.approx(-1, abs=1e-12)
    assert row.more.per_cent == pytest.approx(-100 * (1 - 1 / 1.01), abs=1e-12)


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
def test_every_move_is_the_simulation_of_the_machine_it_names(workflow):
    found = plain(workflow)
    model, cases = tiny_llama(), 0
    for row in found.rows:
        for move in (row.more, row.less):
            if move is None or len(row.paths) > 1 or row.parameter == "tree hop latency":
                continue
            value = float(move.value) if row.parameter in ("clock", "wire speed") else int(move.value.replace(",", ""))
            array = ps.load_array("bus-tree-64", {row.paths[0]: value})
            report = ps.simulate(model, array, STEP, workflow, allow_overflow=True)
            assert report.latency_cycles == move.cycles, row.parameter
            seconds = found.cycles / (found.array.clock_ghz * 1e9)
            assert move.change == pytest.approx(report.latency_seconds / seconds - 1, abs=1e-4)
            cases += 1
    assert cases > 30


@given_in_both(
    4,
    15,
    workflow=st.sampled_from(["workflow-1", "workflow-2", "megatron", "all-row", "all-col"]),
    num_pes=st.sampled_from([1, 2, 4]),
    lanes=st.integers(1, 7),
    latency=st.integers(1, 9),
    overhead=st.integers(0, 5),
    factor=st.sampled_from([2, 4]),
    engine=st.sampled_from(["fast", "event"]),
)
def test_the_sum_rule_is_exact_where_sizes_divide(workflow, num_pes, lanes, latency, overhead, factor, engine):
    """Every rate a half and every latency twice as long: twice the cycles, to the cycle.

    At overlap 0, for the fill of overlap 1 has rows in it, which are no rate; with rates that divide all sizes, and a
    vector unit that takes twice as long for an element.
    """

    def cycles(slowness):
        each = {name: cost * slowness for name, cost in DEFAULT_CYCLES_PER_ELEMENT.items()}
        array = ps.load_array(
            "bus-tree-64",
            {
                "num_pes": num_pes,
                "overlap": 0,
                "pe.memory.bytes_per_cycle": 4 // slowness,
                "pe.memory.latency_cycles": latency * slowness,
                "pe.matrix.outputs": factor // slowness,
                "pe.matrix.latency_cycles": latency * slowness,
                "pe.vector.lanes": lanes,
                "pe.vector.latency_cycles": overhead * slowness,
                "pe.vector.cycles_per_element": each,
                "root.vector.lanes": lanes,
                "root.vector.latency_cycles": overhead * slowness,
                "root.vector.cycles_per_element": each,
                "root.memory.bytes_per_cycle": 4 // slowness,
                "root.memory.latency_cycles": latency * slowness,
                "network.bus.bytes_per_cycle": 4 // slowness,
                "network.bus.latency_cycles": latency * slowness,
                "network.bus.request_cycles": overhead * slowness,
                "network.bus.overhead_cycles": overhead * slowness,
                "network.tree.bytes_per_cycle": 4 // slowness,
                "network.tree.latency_cycles": latency * slowness,
                "network.tree.combine_cycles": overhead * slowness,
                "network.tree.softmax_combine_cycles": latency * slowness,
            },
        )
        model = tiny_llama(intermediate_size=128, vocab_size=64)
        step = ps.Decode(context_len=63)
        return ps.simulate(model, array, step, workflow, engine, allow_overflow=True).latency_cycles

    assert cycles(2) == 2 * cycles(1)


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
def test_elasticities_of_a_large_step_come_to_one(workflow):
    found = sensitivity("llama-2-7b", "bus-tree-256", ps.Decode(context_len=2048), workflow)
    assert found.sum_of_elasticities == pytest.approx(1, abs=0.01)


def test_latencies_act_in_whole_cycles_on_both_sides():
    row, now = plain("workflow-2")["bus overhead"], plain("workflow-2").cycles  # where no PEs share heads
    assert row.more.cycles - now == now - row.less.cycles > 0
    assert row.elasticity == pytest.approx((row.more.cycles - now) / now * 2)  # 2 cycles now, one more is 50 per cent


def test_what_does_not_fit_is_told_with_its_reason():
    found = sensitivity("llama-2-7b", "bus-tree-256", STEP, "megatron", parameters=[PES], overrides={"num_pes": 128})
    row = found[PES]
    assert row.more.cycles is not None
    assert row.less is not None
    assert row.less.cycles is None
    assert "bytes" in row.less.reason
    assert row.elasticity == pytest.approx((row.more.change) / (1 - 0.5), rel=1e-9)
    assert "cannot be simulated" in text_of(found)
    assert found.sum_of_elasticities is None


def test_only_what_was_asked_for():
    found = measured(parameters=["bus-width", "Clock"])
    assert {row.parameter for row in found.rows} == {"bus width", "clock"}
    assert not found.complete
    assert not found.left_out


def test_progress_is_told():
    told = []
    measured(parameters=["clock", "bus width"], progress=lambda *news: told.append(news))
    assert told == [("clock", 0, 2), ("bus width", 1, 2), ("", 2, 2)]  # in the order they were asked for


def test_a_larger_change_is_taken():
    row = measured(change=1.0, parameters=["bus width"])["bus width"]
    assert (row.more.value, row.less.value) == ("128", "32")
    assert (row.more.scale, row.less.scale) == (2.0, 0.5)


def test_several_steps_count_with_their_weights():
    steps = [(ps.Decode(context_len=64), 3.0), (ps.Prefill(prompt_len=16), 1.0)]
    found = measured(step=steps, parameters=["PE memory bandwidth"])
    alone = [measured(step=step, parameters=["PE memory bandwidth"]) for step, _ in steps]
    assert found.cycles == 3 * alone[0].cycles + alone[1].cycles
    moves = [each.rows[0].more.cycles for each in alone]
    assert found.rows[0].more.cycles == 3 * moves[0] + moves[1]


@pytest.mark.parametrize(("kind", "workflow"), [("mesh", "megatron"), ("hier-bus", "workflow-1"), ("line", "megatron")])
def test_on_other_interconnects(kind, workflow):
    found = measured(array=f"{kind}-256", overrides={"num_pes": 32 if kind == "hier-bus" else 4}, workflow=workflow)
    names = {row.parameter for row in found.rows}
    assert names & {"link width", "cluster bus width", "bus width"}
    assert "clock" in names
    assert EVERY_LATENCY in names


def test_both_engines_agree():
    some = ("bus width", "PE memory bandwidth", EVERY_LATENCY)
    fast, event = (measured(engine=engine, workflow="workflow-1", parameters=some) for engine in ("fast", "event"))
    assert fast.rows == event.rows


def test_rows_for_tables_and_json():
    found = plain()
    frame = found.to_frame()
    assert list(frame["parameter"]) == [row.parameter for row in found.rows]
    assert {"more_value", "less_cycles", "elasticity"} <= set(frame.columns)
    told = found.to_dict()
    assert told["schema"] == "pe-sim.sensitivity/1"
    assert told["steps"][0]["phase"] == "decode"
    weights = [row.weight for row in found.rows]
    assert weights == sorted(weights, reverse=True)
    kinds = {row.parameter: row.kind for row in found.rows}
    assert kinds["bus width"] is Kind.RATE
    assert found._repr_html_().count("<tr>") == len(found.rows) + 1


def text_of(found: Sensitivity) -> str:
    text = io.StringIO()
    found.print(text)
    return text.getvalue()


def test_the_table_says_what_was_simulated():
    text = text_of(plain("workflow-1"))
    row = next(line for line in text.splitlines() if line.startswith("bus width"))
    assert row.split()[2:7] == ["64", "B/cycle", "63,", "65", row.split()[6]]
    assert "Sum of the elasticities" in text


def test_the_figure_shows_the_widest_on_top_and_draws_where_it_is_told():
    found = plain("workflow-1")
    _, axes = plt.subplots(1, 2)
    assert found.plot(axes[1]) is axes[1]
    assert not axes[0].has_data()
    labels = [label.get_text().split("\n")[0] for label in axes[1].get_yticklabels()]
    assert labels == [row.parameter for row in found.rows][: len(labels)]
    bottom, top = axes[1].get_ylim()
    assert bottom > top  # the first row is the topmost
    thin = axes[1].get_xlabel().partition("below")[2]
    hidden = [row.parameter for row in found.rows][len(labels) :]
    assert all(name in " ".join(thin.split()) for name in hidden)
    widths = {patch.get_width() for patch in axes[1].patches}
    assert found.rows[0].more.per_cent in widths


@pytest.mark.parametrize("change", [0, -0.01, True, "1%", float("nan"), 1e9])
def test_changes_that_are_none(change):
    with pytest.raises(InputError, match="not a relative change"):
        measured(change=change)


def test_bad_input():
    with pytest.raises(InputError, match="did you mean 'bus width'"):
        measured(parameters=["bus widht"])
    with pytest.raises(InputError, match="cannot be moved: 0 now"):
        measured(NO_LATENCIES, parameters=["PE memory latency"])
    with pytest.raises(InputError, match="this is no step"):
        measured(step="decode")
    with pytest.raises(InputError, match="did you mean"):
        measured(parameters=["clock"])["clokc"]
    with pytest.raises(InputError, match="unknown path"):
        measured({"network.bus.width": 3})
