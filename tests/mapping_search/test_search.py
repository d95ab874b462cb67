"""The search as users call it: named workflows, objectives, several steps, files, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

import pe_sim as ps
from pe_sim import api
from pe_sim.engine.engines import engine_named
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import AUTO, WORKFLOWS, Workflow
from pe_sim.mapping_search.budget import Budget, OutOfTimeError
from pe_sim.mapping_search.search import search_for
from pe_sim.numeric.state_dict import random_weights
from pe_sim.schedule.lowering import lower
from tests.helpers import small_array, tiny_llama


def named_cycles(model, array, step):
    cycles = {}
    for name in WORKFLOWS:
        try:
            cycles[name] = ps.simulate(model, array, step, name).latency_cycles
        except InputError:
            continue
    return cycles


@pytest.mark.parametrize(
    ("model", "array", "step"),
    [
        ("llama-3.2-1b", "bus-tree-256", ps.Decode(1, 1024)),
        pytest.param("llama-3.2-1b", "bus-tree-64", ps.Prefill(1, prompt_len=64), marks=pytest.mark.slow),
        pytest.param("llama-2-7b", "bus-tree-1024", ps.Decode(1, 2048), marks=pytest.mark.slow),
        pytest.param("gpt2", "bus-tree-64", ps.Decode(1, 200), marks=pytest.mark.slow),
        pytest.param("bert-base-uncased", "bus-tree-64", ps.Prefill(1, prompt_len=40), marks=pytest.mark.slow),
    ],
    ids=["1b-decode", "1b-prefill", "7b-decode", "gpt2", "bert"],
)
def test_never_worse_than_a_named_workflow(model, array, step):
    found = ps.search(model, array, step)
    named = named_cycles(ps.load_model(model), ps.load_array(array), step)
    assert found.best.cycles <= min(named.values())
    tried = {one.name: one.cycles for one in found.candidates if one.is_named}
    assert tried.items() <= named.items()
    skipped = {one.name for one in found.excluded if "takes at least" in one.reason}
    assert set(named) - set(tried) == skipped
    assert all(named[name] >= found.best.cycles for name in skipped)
    assert found.bound_cycles <= found.best.cycles
    assert (found.proof == "exact") == (found.gap == 0.0)


@pytest.mark.slow
def test_named_mappings_are_tried_in_groups_first():
    model, array, step = tiny_llama(), small_array(8), ps.Decode(4, 20)
    found = ps.search(model, array, step, max_simulations=1)
    grouped = [one for one in found.candidates if one.name.split(",")[0] in WORKFLOWS and one.workflow.groups > 1]
    assert {one.workflow.groups for one in grouped} == {2, 4}
    for one in grouped:
        assert one.name == f"{one.name.split(',')[0]}, {one.workflow.groups} groups"
        named = replace(WORKFLOWS[one.name.split(",")[0]], groups=one.workflow.groups)
        assert one.cycles == ps.simulate(model, array, step, named).latency_cycles
        assert found.best.cycles <= one.cycles
    assert len({(one.workflow.pattern, one.workflow.groups, one.workflow.lm_head) for one in grouped}) == len(grouped)


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_at_every_overlap_level(overlap):
    model, array, step = tiny_llama(), small_array(8, overlap=overlap), ps.Decode(1, 20)
    found = ps.search(model, array, step, max_simulations=20)
    assert found.best.cycles <= min(named_cycles(model, array, step).values())
    assert ps.simulate(model, array, step, found.workflow).latency_cycles == found.best.cycles


@pytest.mark.slow
def test_with_a_ragged_batch():
    model, array, step = tiny_llama(), small_array(8), ps.Decode(3, [20, 5, 40])
    found = ps.search(model, array, step, max_simulations=20)
    assert found.best.cycles <= min(named_cycles(model, array, step).values())
    assert ps.simulate(model, array, step, found.workflow).latency_cycles == found.best.cycles


@pytest.mark.parametrize("num_pes", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_over_a_graph_of_channels(num_pes):
    array = ps.load_array("mesh-256", overrides={"num_pes": num_pes})
    found = ps.search(tiny_llama(), array, ps.Decode(1, 20), max_simulations=10)
    assert found.best.cycles <= min(named_cycles(tiny_llama(), array, ps.Decode(1, 20)).values())
    assert found.proof.startswith("best of")
    assert found.bound_cycles is None


@pytest.mark.parametrize("groups", ["one", pytest.param("several", marks=pytest.mark.slow)])
def test_the_saved_workflow_reads_back(tmp_path, groups):
    model, step = tiny_llama(num_hidden_layers=3), ps.Decode(1 if groups == "one" else 2, 20)
    array = small_array(4)
    found = ps.search(model, array, step, max_simulations=20)
    path = tmp_path / "best.yaml"
    found.save(path)
    again = ps.load_workflow(path)
    assert ps.simulate(model, array, step, again).latency_cycles == found.best.cycles
    assert [again.plan(layer) for layer in range(3)] == [found.workflow.plan(layer) for layer in range(3)]


@pytest.mark.parametrize("name", ["batch-stream", "batch-block", "block-pipeline"])
def test_a_base_stays_where_only_it_says_how_weights_are_kept(tmp_path, name):
    from pe_sim.mapping_search.result import workflow_text

    model, array, step = tiny_llama(), small_array(4), ps.Decode(4, 20)
    path = tmp_path / "named.yaml"
    path.write_text(workflow_text(WORKFLOWS[name], 2, "a comment"), encoding="utf-8")
    assert ps.simulate(model, array, step, path).latency_cycles == ps.simulate(model, array, step, name).latency_cycles


def test_energy_comes_before_cycles():
    model, array, step = tiny_llama(), small_array(4), ps.Decode(1, 200)
    lean, fast = ps.search(model, array, step, "energy"), ps.search(model, array, step)
    assert lean.best.joules <= fast.best.joules
    assert fast.best.cycles <= lean.best.cycles
    assert lean.best.joules <= min(one.joules for one in (*fast.candidates, *lean.candidates))


def test_throughput_is_the_same_mapping():
    model, array, step = tiny_llama(num_hidden_layers=1), small_array(4), ps.Decode(1, 50)
    assert ps.search(model, array, step, "throughput").best.cycles == ps.search(model, array, step).best.cycles


def test_pareto_holds_what_none_beats():
    found = ps.search(tiny_llama(), small_array(4), ps.Decode(1, 50))
    figures = [(one.cycles, one.joules, one.peak_bytes_per_pe) for one in found.pareto]
    assert figures[0][0] == found.best.cycles
    everyone = [(one.cycles, one.joules, one.peak_bytes_per_pe) for one in found.candidates]
    for mine in figures:
        assert not any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in everyone)


@pytest.mark.slow
def test_it_is_explained_by_what_it_beats():
    model, array = tiny_llama(), small_array(8)
    found = ps.search(model, array, [(ps.Decode(1, 20), 2), ps.Decode(1, 40)], max_simulations=4)
    for other in ("megatron", WORKFLOWS["megatron"]):
        told = found.explain(other)
        assert told.names == ("auto", "megatron")
        expected = ps.simulate(model, array, ps.Decode(1, 20), "megatron").latency_cycles
        assert told.latencies == (found.report.latency_cycles, expected)
    mine = next(one for one in found.candidates if not one.is_named)
    assert found.explain(mine.name).latencies[1] == mine.reports[0].latency_cycles
    with pytest.raises(InputError, match="has to be searched itself"):
        found.explain("auto")


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "num_pes"), [(1, 2), (2, 8)])
def test_one_mapping_for_several_steps(layers, num_pes):
    model, array = tiny_llama(num_hidden_layers=layers), small_array(num_pes)
    steps = [(ps.Prefill(1, prompt_len=16), 1), (ps.Decode(1, 20), 7)]
    found = ps.search(model, array, steps)
    cycles = [ps.simulate(model, array, step, found.workflow).latency_cycles for step, _ in steps]
    assert [report.latency_cycles for report in found.reports] == cycles
    assert found.best.cycles == cycles[0] + 7 * cycles[1]
    for name in WORKFLOWS:
        try:
            total = sum(weight * ps.simulate(model, array, step, name).latency_cycles for step, weight in steps)
        except InputError:
            continue
        assert found.best.cycles <= total
    alone = sum(weight * ps.search(model, array, step).bound_cycles for step, weight in steps)
    assert found.best.cycles >= alone


@pytest.mark.slow
def test_never_worse_than_the_best_of_a_phase_alone():
    model, array = tiny_llama(), small_array(4)
    steps = [(ps.Prefill(2, prompt_len=16), 1), (ps.Decode(2, 20), 3), (ps.Decode(2, 24), 4)]
    found = ps.search(model, array, steps, max_simulations=1)
    tried = {one.name: one for one in found.candidates}
    for name, heaviest in (("best for prefill alone", steps[0][0]), ("best for decode alone", steps[2][0])):
        alone = ps.search(model, array, heaviest, max_simulations=1).workflow
        assert tried[name].workflow.pattern == alone.pattern
        cycles = sum(weight * ps.simulate(model, array, step, alone).latency_cycles for step, weight in steps)
        assert tried[name].cycles == cycles
        assert found.best.cycles <= cycles
    assert not any("alone" in one.name for one in ps.search(model, array, steps[0][0]).candidates)


def test_the_table_and_the_json():
    found = ps.search(tiny_llama(), small_array(4), ps.Decode(1, 20))
    table = found.table
    assert table["cycles"].is_monotonic_increasing
    assert table["cycles"].iloc[0] == found.best.cycles == found.report.latency_cycles
    assert set(WORKFLOWS) - set(table["name"]) == {one.name for one in found.excluded if one.name in WORKFLOWS}
    made = found.to_dict(top=3)
    assert (made["schema"], made["proof"], len(made["candidates"])) == ("pe-sim.search/1", found.proof, 3)
    assert made["reports"][0]["workflow"]["name"] == "auto"
    assert repr(found).startswith("<SearchResult")


GPT2 = {"model_type": "gpt2", "n_embd": 48, "n_head": 4, "n_layer": 2, "vocab_size": 51, "n_positions": 64}
BERT = {
    "model_type": "bert",
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 51,
    "intermediate_size": 100,
    "max_position_embeddings": 64,
}
LEAN = {
    "one kv head": (tiny_llama(num_key_value_heads=1), 6, ps.Decode(1, 30)),
    "streamed": (tiny_llama(), 2, ps.Decode(1, 30)),
    "biases": (ps.load_model(GPT2), 7, ps.Decode(1, 20)),
    "encoder": (ps.load_model(BERT), 3, ps.Prefill(1, prompt_len=20)),
    "prefill": (tiny_llama(), 7, ps.Prefill(1, prompt_len=9)),
    "several steps": (tiny_llama(), 4, [ps.Prefill(1, prompt_len=9), ps.Decode(1, 40)]),
}
QUICK = ("streamed", "encoder")


def tight(**changes):
    """64 PEs whose memories are too small for llama-2-7b."""
    return ps.load_array("bus-tree-64", overrides={"pe.memory.capacity_bytes": 2**26, **changes})


class TestMemory:
    def test_what_does_not_fit_is_left_out(self):
        """By head a kv head lies on every PE that has one of its query heads; by token it lies there once."""
        model = tiny_llama(num_key_value_heads=1)
        step = ps.Decode(1, 3000)
        free = ps.search(model, small_array(4), step)
        peaks = sorted({one.peak_bytes_per_pe for one in free.candidates})
        tight = small_array(4, {"pe.memory.capacity_bytes": peaks[0]})
        found = ps.search(model, tight, step)
        assert found.best.peak_bytes_per_pe <= peaks[0]
        assert found.best.cycles >= free.best.cycles

    def test_it_says_what_would_help(self):
        with pytest.raises(InfeasibleError) as caught:
            ps.search("llama-2-7b", tight(), ps.Decode(1, 2048))
        message = str(caught.value)
        assert "no mapping fits the PEs' memories" in message
        assert "excluded: megatron: the memory of PE" in message
        error = caught.value
        assert error.bound == tight().pe.memory.capacity_bytes < error.demand
        assert any(lever.startswith("capacity x") for lever in error.levers)
        assert any("PEs (--set num_pes=" in lever for lever in error.levers)

    @pytest.mark.slow
    def test_every_lever_helps(self):
        model, step = ps.load_model("llama-2-7b"), ps.Decode(1, 2048)
        with pytest.raises(InfeasibleError) as caught:
            ps.search(model, tight(), step)
        settings = [
            dict(part.split("=") for part in lever.partition("(")[2].rstrip(")").replace("--set ", "").split())
            for lever in caught.value.levers
            if "--set" in lever
        ]
        assert len(settings) == 3
        assert settings[0] == {"pe.memory.capacity_bytes": str(caught.value.demand)}
        for changes in settings:
            values = {path: int(value) if value.isdecimal() else value for path, value in changes.items()}
            found = ps.search(model, tight(**values), step, max_simulations=1)
            assert found.best.peak_bytes_per_pe <= found.report.array.pe.memory.capacity_bytes

    @pytest.mark.parametrize(
        "case", [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow], id=case) for case in LEAN]
    )
    def test_the_smallest_capacity_is_exact(self, case):
        """With the bytes that are named something fits, and it takes all of them; with one less nothing does."""
        model, num_pes, step = LEAN[case]

        def found(capacity):
            array = small_array(num_pes, {"pe.memory.capacity_bytes": capacity})
            return ps.search(model, array, step, max_simulations=1)

        with pytest.raises(InfeasibleError) as caught:
            found(64)
        need = caught.value.demand
        assert found(need).best.peak_bytes_per_pe == need
        with pytest.raises(InfeasibleError) as caught:
            found(need - 1)
        assert caught.value.demand == need

    def test_one_pe_fewer_does_not_help(self):
        with pytest.raises(InfeasibleError) as caught:
            ps.search("llama-2-7b", tight(), ps.Decode(1, 2048))
        lever = next(lever for lever in caught.value.levers if "num_pes" in lever)
        fewest = int(lever.partition("num_pes=")[2].rstrip(")"))
        with pytest.raises(InfeasibleError):
            ps.search("llama-2-7b", tight(num_pes=fewest - 1), ps.Decode(1, 2048))


class TestAuto:
    def test_simulate_takes_it(self):
        model, array, step = tiny_llama(), small_array(4), ps.Decode(1, 20)
        report = ps.simulate(model, array, step, "auto")
        assert report.latency_cycles == ps.search(model, array, step).best.cycles
        shown = report.to_dict()["workflow"]
        assert shown["name"] == "auto"
        assert shown["layers"][0]["attention"] in ("head", "token", "replicate")

    def test_execute_computes_the_reference(self):
        model, array, step = tiny_llama(), small_array(4), ps.Decode(1, 5)
        weights, tokens = random_weights(model, seed=1), [[3, 1, 4, 1, 5, 9]]
        done = ps.execute(model, array, step, "auto", weights=weights, tokens=tokens, dtype="float64")
        whole = ps.execute(model, small_array(1), step, weights=weights, tokens=tokens, dtype="float64")
        np.testing.assert_allclose(done.logits, whole.logits, rtol=1e-9)

    @pytest.mark.slow
    def test_verify_proves_it(self):
        assert api.verify("llama-3.2-1b", small_array(4), "auto").holds

    @pytest.mark.slow
    def test_generate_takes_one_for_all_steps(self):
        run = ps.generate(tiny_llama(), small_array(4), prompt_len=8, output_len=4, workflow="auto")
        assert run.prefill.workflow.name == "auto"

    def test_a_file_gives_some_and_leaves_the_rest(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("base: auto\nname: mine\nlayers:\n  - {layers: 0, attention: token}\n  - {layers: 1, o: row}\n")
        model, array, step = tiny_llama(), small_array(4), ps.Decode(1, 20)
        report = ps.simulate(model, array, step, path)
        assert report.workflow.name == "mine"
        assert report.workflow.plan(0).attention == "token"
        assert report.workflow.plan(1).o == "row"
        assert report.latency_cycles >= ps.search(model, array, step).bound_cycles

    def test_it_is_not_placed_unsearched(self):
        with pytest.raises(InputError, match="has to be searched before"):
            AUTO.plan(0)


class Clock:
    """A clock that moves on by a second whenever it is read: what depends on it depends on counts alone."""

    def __init__(self):
        self.seconds = 0

    def __call__(self):
        self.seconds += 1
        return self.seconds


class TestBudget:
    ARGS = tiny_llama(num_hidden_layers=1), small_array(2), ps.Decode(2, [20, 5])

    def found(self, budget, progress=None, **given):
        model, array, step = self.ARGS
        return search_for(model, array, step, "latency", AUTO, max_simulations=4, budget=budget, progress=progress)

    @pytest.mark.slow
    def test_the_bound_holds_whenever_it_is_stopped(self):
        whole = self.found(Budget(math.inf, Clock()))
        assert whole.stopped is None
        stopped = []
        for seconds in (1, 250, 400, 700, 10**6):
            found = self.found(Budget(seconds, Clock()))
            assert found.best.cycles >= whole.best.cycles
            if found.stopped is None:
                assert (found.best.cycles, found.proof) == (whole.best.cycles, whole.proof)
                assert found.bound_cycles == whole.bound_cycles
                continue
            stopped.append(found)
            assert found.stopped == "time"
            assert found.gap is None or found.bound_cycles <= whole.best.cycles
            assert f"stopped after {seconds} s" in found.headline()
            assert f"stopped after {seconds} s" in found.workflow.summary
            told = found.to_dict()
            assert (told["stopped"], told["budget_seconds"]) == ("time", seconds)
            assert told["used_seconds"] >= seconds
        assert len({found.num_simulated for found in stopped}) > 1  # it was stopped at several places
        assert any(found.gap is not None for found in stopped)

    @pytest.mark.slow
    def test_without_an_end_no_clock_matters(self):
        one, other = self.found(Budget(math.inf, Clock())), self.found(Budget())
        assert [mine.cycles for mine in one.candidates] == [its.cycles for its in other.candidates]
        assert one.to_dict()["budget_seconds"] is None

    def test_ctrl_c_gives_the_best_so_far(self):
        def press(what, done, of):
            if "group" in what:
                raise KeyboardInterrupt

        found = self.found(Budget(), press)
        assert found.stopped == "interrupted"
        assert found.bound_cycles is not None
        assert found.best.cycles == min(named_cycles(*self.ARGS).values())
        with pytest.raises(KeyboardInterrupt):
            found.uninterrupted  # noqa: B018

    def test_ctrl_c_before_there_is_anything(self):
        def press(what, done, of):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.found(Budget(), press)

    def test_it_tells_gap_best_and_time_left(self):
        news = []
        self.found(Budget(5000, Clock()), lambda what, done, of: news.append(what))
        assert any("best 1," in what and "gap at most" in what and "s left" in what for what in news)
        left = [int(what.split(" s left")[0].split()[-1]) for what in news]
        assert left == sorted(left, reverse=True)

    def test_nothing_fits_in_no_time(self):
        given = Workflow("mine", "", (), searched=True, lm_head="row")
        model, array, step = self.ARGS
        with pytest.raises(InputError, match="no mapping was found in time"):
            search_for(model, array, step, "latency", given, max_simulations=4, budget=Budget(1, Clock()))


@pytest.mark.parametrize("engine", ["event", "fast"])
def test_engines_can_be_ended(engine):
    schedule = lower(place(tiny_llama(), small_array(4), ps.Decode(2, [20, 5]), WORKFLOWS["megatron"]))
    calls = []

    def check():
        calls.append(1)
        if len(calls) > 20:
            raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        engine_named(engine)(schedule, check)
    assert 21 <= len(calls) <= 21 + 4  # the other PEs that begin at the same cycle


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "speed"}, "unknown objective"),
        ({"max_simulations": 0}, "at least one mapping"),
        ({"seconds": 0}, "no time for a search"),
        ({"seconds": -1.0}, "no time for a search"),
        ({"seconds": float("nan")}, "no time for a search"),
        ({"seconds": "abc"}, "no time for a search"),
        ({"seconds": True}, "no time for a search"),
        ({"workflow": "megatron"}, "leaves nothing to search"),
        ({"workflow": Workflow("w", "", ())}, "leaves nothing to search"),
        ({"step": "decode"}, "this is no step"),
        ({"step": []}, "this is no step"),
        ({"step": [(ps.Decode(1, 1), 0)]}, "a weight is a positive number"),
        ({"step": [(ps.Decode(1, 1), True)]}, "a weight is a positive number"),
        ({"step": [ps.Decode(1, 1), "x"]}, r"step\[1\]"),
        ({"step": ps.Decode(1, 10**6)}, "positions"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input(change, message):
    given = {"step": ps.Decode(1, 1)} | change
    with pytest.raises(InputError, match=message):
        ps.search(tiny_llama(), small_array(4), given.pop("step"), **given)
