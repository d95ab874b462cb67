"""The switch between two mappings: its cycles by hand, its room, `generate` with two workflows, and the best pair."""

import json
from dataclasses import replace

import pytest

import pe_sim as ps
from pe_sim.engine.engines import decode_in_order
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.mapping_search.switch.pairs import Phases, Side, Ways, switch_between
from pe_sim.mapping_search.switch.price import BOTH, KEPT, RESHARD, price_switch
from tests.helpers import ceil, small_array, tiny_llama
from tests.network.networks import array_of

BUS, OVERHEAD, FLIGHT, FIRST_ACCESS = 64, 2, 4, 20  # of `small_array`: bytes a cycle and cycles


def priced(model, array, names, *, prompt=8, output=3, batch=1, **options):
    phases = Phases.of(model, prompt, output, batch)
    return switch_between(model, array, phases, *(WORKFLOWS[name] for name in names), Ways(**options))


def on_bus(sizes, *, request=0, first=FIRST_ACCESS):
    """Messages that are all there at the start, one after the other."""
    return first + request + sum(OVERHEAD + ceil(size, BUS) for size in sizes) + FLIGHT


class TestByHand:
    """One layer of hidden 64, 4 heads of 16, ffn 96, on 4 PEs; from all-row to megatron o and down go row -> col."""

    def messages(self, pes=4):
        o, down = 64 * 64, 64 * 96
        return [sum(2 * (size // pes - size // pes**2) for size in (o, down))] * pes

    def test_resharded_by_the_pes(self):
        array = small_array(4, {"root.memory.capacity_bytes": 10_000})  # room for the table, not for the weights
        model = tiny_llama(num_hidden_layers=1)
        done = priced(model, array, ("all-row", "megatron"), weights=RESHARD)
        assert (done.weights, done.kv_cache, done.sender) == (RESHARD, KEPT, "PEs")
        assert done.weight_bytes == sum(self.messages()) == 2 * (64 * 64 + 64 * 96) * 3 // 4
        assert done.cycles == on_bus(self.messages())
        assert done.traffic["multicast"].messages == 4
        assert done.back_cycles == done.cycles

    def test_requests_travel(self):
        array = small_array(4, {"root.memory.capacity_bytes": 10_000}, request=7)
        done = priced(tiny_llama(num_hidden_layers=1), array, ("all-row", "megatron"), weights=RESHARD)
        assert done.cycles == on_bus(self.messages(), request=7)

    def test_the_roots_copy_is_one_message_a_layer(self):
        done = priced(tiny_llama(), small_array(4), ("all-row", "megatron"), weights=RESHARD)
        assert done.sender == "root"
        assert done.cycles == on_bus([sum(self.messages())] * 2, first=0)
        assert done.traffic["weight-stream"].messages == 2

    @pytest.mark.parametrize("burst", [None, 10**9, 1000])
    def test_a_slow_port_holds_the_bus(self, burst):
        changes = {"root.memory.capacity_bytes": 10_000, "pe.memory.bytes_per_cycle": 16}
        array, names = small_array(4, changes, burst=burst), ("all-row", "megatron")
        done = priced(tiny_llama(num_hidden_layers=1), array, names, weights=RESHARD)
        cut = [min(burst or size, size - at) for size in self.messages() for at in range(0, size, burst or size)]
        assert done.cycles == FIRST_ACCESS + sum(OVERHEAD + ceil(size, 16) for size in cut) + FLIGHT

    def test_without_overlap_read_send_write(self):
        array = small_array(4, {"root.memory.capacity_bytes": 10_000}, overlap=0)
        done = priced(tiny_llama(), array, ("all-row", "megatron"), weights=RESHARD)
        (size,) = set(self.messages())
        read, write = FIRST_ACCESS + ceil(size, 64), ceil(size, 64)  # a PE lacks as much as it sends
        assert done.cycles == 2 * (read + on_bus(self.messages(), first=0) + write)

    def test_the_cache_from_heads_to_tokens(self):
        """Of 8 tokens each PE keeps 2 of its own head, and sends 6; of K and V of one layer in one message."""
        done = priced(tiny_llama(), small_array(4), ("megatron", "workflow-2"), weights=BOTH)
        assert (done.weights, done.kv_cache, done.sender, done.weight_bytes) == (BOTH, "relaid", "", 0)
        assert done.kv_bytes == 2 * 4 * (2 * 6 * 16 * 2)
        assert done.cycles == on_bus([2 * 6 * 16 * 2] * 8)

    def test_batches_and_ragged_prompts_are_counted(self):
        model, array = tiny_llama(), small_array(4)
        three = priced(model, array, ("megatron", "workflow-2"), weights=BOTH, batch=3)
        assert three.kv_bytes == 3 * priced(model, array, ("megatron", "workflow-2"), weights=BOTH).kv_bytes
        steps, names = (ps.Prefill(2, prompt_len=[8, 3]), ps.Decode(2, [8, 3])), ("megatron", "workflow-2")
        placed = [place(model, array, step, WORKFLOWS[name]) for step, name in zip(steps, names, strict=True)]
        ragged = price_switch(Side("a", placed[0], placed[0]), Side("b", placed[1], placed[1]), weights=BOTH)
        kept = 4 * 2 * 16 + 3 * 1 * 16  # of its head each PE keeps 2 of 8 tokens; 1 of 3, but for PE 3
        assert ragged.kv_bytes == 2 * 2 * 2 * ((8 + 3) * 64 - kept)  # K and V, layers, bytes

    @pytest.mark.parametrize("names", [("megatron", "batch-lockstep"), ("batch-block", "megatron")])
    def test_nothing_moves_where_nobody_lacks_anything(self, names):
        done = priced(tiny_llama(), small_array(4), names, weights=RESHARD)
        assert done.weights == KEPT
        assert done.weight_bytes == 0
        assert done.cycles == 0 or done.kv_cache == "relaid"

    @pytest.mark.parametrize("overlap", [0, 1, 3])
    @pytest.mark.parametrize(
        "names", [("workflow-1", "workflow-2"), ("workflow-2", "all-row"), ("alternating", "all-col")]
    )
    def test_the_engines_agree(self, names, overlap):
        array = small_array(6, {"root.memory.capacity_bytes": 10_000}, overlap=overlap, request=3)
        both = [priced(tiny_llama(), array, names, weights=RESHARD, engine=engine) for engine in ("fast", "event")]
        assert both[0] == both[1]
        assert both[0].cycles > 0

    def test_bus_busy_is_what_the_messages_take(self):
        done = priced(tiny_llama(), small_array(8), ("workflow-1", "workflow-2"), weights=RESHARD)
        assert sum(use.bytes for use in done.traffic.values()) == done.weight_bytes + done.kv_bytes
        assert sum(use.busy_cycles for use in done.traffic.values()) < done.cycles


class TestRoom:
    def array_of(self, capacity):
        return small_array(4, {"pe.memory.capacity_bytes": capacity})

    def test_both_layouts_where_they_fit(self):
        model, names = tiny_llama(), ("all-row", "megatron")
        wide = priced(model, small_array(4), names)
        assert (wide.weights, wide.cycles, wide.weight_bytes) == (BOTH, 0, 0)
        assert wide.held_twice_bytes == priced(model, small_array(4), names, weights=RESHARD).weight_bytes
        assert priced(model, self.array_of(wide.peak_bytes_per_pe), names).weights == BOTH
        tight = self.array_of(wide.peak_bytes_per_pe - 1)
        assert priced(model, tight, names).weights == RESHARD
        with pytest.raises(InfeasibleError, match=r"too small for the switch from all-row to megatron") as caught:
            priced(model, tight, names, weights=BOTH)
        assert caught.value.demand == wide.peak_bytes_per_pe
        assert "weights='reshard'" in str(caught.value)
        assert priced(model, tight, names, weights=BOTH, allow_overflow=True).weights == BOTH

    def test_resharding_holds_two_layouts_of_one_layer_at_most(self):
        model, array, names = tiny_llama(num_hidden_layers=4), small_array(4), ("all-row", "megatron")
        done = priced(model, array, names, weights=RESHARD, prompt=8, output=2)
        before = ps.simulate(model, array, ps.Prefill(1, prompt_len=8), "all-row").memory["peak_bytes_per_pe"]
        assert done.peak_bytes_per_pe == before + 2 * (64 * 64 + 64 * 96) * 3 // 16
        with pytest.raises(InfeasibleError):
            priced(model, self.array_of(done.peak_bytes_per_pe - 1), names, weights=RESHARD)

    def test_what_a_phase_needs_is_asked_first(self):
        with pytest.raises(InfeasibleError, match=r"for weights \("):
            priced(tiny_llama(), self.array_of(10_000), ("all-row", "megatron"))


class TestGenerate:
    def test_the_switch_is_counted(self):
        model, array = tiny_llama(), small_array(4)
        done = ps.generate(
            model, array, 8, 5, workflow="megatron", decode_workflow="workflow-2", switch_weights=RESHARD
        )
        first = ps.generate(model, array, 8, 5, workflow="megatron")
        second = ps.generate(model, array, 8, 5, workflow="workflow-2")
        switch = priced(model, array, ("megatron", "workflow-2"), weights=RESHARD, output=5)
        assert done.switch == switch
        assert done.switch_cycles == switch.cycles > 0
        assert done.ttft_cycles == first.ttft_cycles  # the first token is there before the switch begins
        assert done.decode_cycles == second.decode_cycles
        assert done.total_cycles == first.ttft_cycles + switch.cycles + sum(second.decode_cycles)
        assert done.total_cycles == pytest.approx(done.ttft_cycles + 4 * done.tpot_cycles)
        for tag, use in switch.traffic.items():
            decoded = second.traffic[tag].bytes - second.prefill.traffic[tag].bytes
            assert done.traffic[tag].bytes == done.prefill.traffic[tag].bytes + use.bytes + decoded

    def test_it_says_so(self):
        done = ps.generate(tiny_llama(), small_array(4), 8, 3, workflow="megatron", decode_workflow="workflow-2")
        plain = json.loads(json.dumps(done.to_dict(), allow_nan=False))
        assert (plain["workflow"], plain["decode_workflow"]) == ("megatron", "workflow-2")
        assert plain["switch"]["cycles"] == done.switch_cycles
        assert plain["switch"]["counted_in"] == ["tpot", "total"]
        assert plain["total"]["cycles"] == plain["ttft"]["cycles"] + plain["switch"]["cycles"] + sum(
            plain["decode_cycles"]
        )
        assert "megatron then workflow-2" in str(done)
        assert "(in TPOT and total; weights both, KV cache relaid)" in str(done)
        assert "a switch of mappings (compared: none)" in done.envelope.reasons

    def test_one_workflow_is_as_before(self):
        model, array = tiny_llama(), small_array(4)
        named = ps.generate(model, array, 8, 3, workflow="megatron", decode_workflow="megatron")
        assert named.to_dict() == ps.generate(model, array, 8, 3, workflow="megatron").to_dict()
        assert "switch" not in named.to_dict()

    def test_one_token_needs_no_switch(self):
        done = ps.generate(tiny_llama(), small_array(4), 8, 1, workflow="megatron", decode_workflow="workflow-2")
        assert done.switch is None
        assert done.total_cycles == done.ttft_cycles

    def test_bad_input(self):
        with pytest.raises(InputError, match="switch_weights: this is no way") as caught:
            ps.generate("gpt2", "bus-tree-64", 4, 3, decode_workflow="megatron", switch_weights="reshrad")
        assert "did you mean 'reshard'?" in str(caught.value)
        with pytest.raises(InputError, match="priced on one bus and one tree"):
            ps.generate(tiny_llama(), array_of("mesh", 8), 4, 3, workflow="megatron", decode_workflow="workflow-2")


class TestBestPair:
    NAMES = ("workflow-1", "workflow-2", "megatron", "all-row")

    @pytest.fixture(scope="class")
    @staticmethod
    def found():
        candidates = [WORKFLOWS[name] for name in TestBestPair.NAMES]
        return ps.best_switch(tiny_llama(), small_array(8), 24, 6, 1, candidates, switch_weights=RESHARD)

    def test_each_pair_is_what_generate_says(self, found):
        assert len(found.table) == 16
        for pair in found.table:
            done = ps.generate(
                tiny_llama(),
                small_array(8),
                24,
                6,
                workflow=pair.prefill,
                decode_workflow=pair.decode,
                switch_weights=RESHARD,
            )
            parts = (pair.prefill_cycles, pair.switch_cycles, pair.decode_cycles, pair.total_cycles)
            assert parts == (done.ttft_cycles, done.switch_cycles, sum(done.decode_cycles), done.total_cycles)
            assert pair.switch == done.switch

    def test_the_best_is_the_least(self, found):
        totals = [pair.total_cycles for pair in found.table]
        assert totals == sorted(totals)
        assert found.best.total_cycles == totals[0]
        alone = [pair.total_cycles for pair in found.table if pair.prefill == pair.decode]
        assert found.best_without.total_cycles == min(alone)
        assert found.gained_cycles == min(alone) - totals[0] >= 0

    def test_it_is_readable(self, found):
        text = str(found)
        assert text.splitlines()[0].startswith("prefill         decode")
        assert text.splitlines()[-1] == found.verdict
        plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert len(plain["pairs"]) == 16
        assert plain["best"]["total_cycles"] == found.best.total_cycles

    def test_verdicts(self, found):
        slow = replace(found.best_without, prefill_cycles=10**6)
        switched = next(pair for pair in found.table if pair.moves)
        pays = replace(found, table=(replace(switched, prefill_cycles=1), slow))
        assert pays.gained_cycles > 0
        assert "less than" in pays.verdict
        does_not = replace(found, table=(found.best_without, switched))
        assert does_not.verdict.startswith("A switch does not pay: ")
        assert "there is no other to switch to" in replace(found, table=(found.best_without,)).verdict
        too_large = replace(found.best, problem="too large")
        alone = replace(found, table=(found.best_without, replace(too_large, decode=WORKFLOWS["all-row"])))
        assert "no other pair fits" in alone.verdict
        assert "no workflow fits both" in replace(found, table=(switched,)).verdict

    def test_what_does_not_fit_is_left_out_and_said(self):
        model = tiny_llama()
        peak = ps.simulate(model, small_array(4), ps.Decode(1, 40), "megatron").memory["peak_bytes_per_pe"]
        tight = small_array(4, {"pe.memory.capacity_bytes": peak})
        found = ps.best_switch(model, tight, 8, 3, 1, [WORKFLOWS["batch-block"], WORKFLOWS["megatron"]])
        assert [(pair.prefill.name, pair.decode.name) for pair in found.table if not pair.problem] == [
            ("megatron",) * 2
        ]
        assert "left out, 2 pairs: prefill under batch-block: the memory of PE 0 is too small" in str(found)
        with pytest.raises(InfeasibleError):
            ps.best_switch(model, tight, 8, 3, 1, [WORKFLOWS["batch-block"]])

    def test_one_output_token_needs_no_decode(self):
        found = ps.best_switch(tiny_llama(), small_array(4), 8, 1, 1, [WORKFLOWS["megatron"], WORKFLOWS["workflow-2"]])
        assert found.best.decode_cycles == 0
        assert not any(pair.switch for pair in found.table)

    @pytest.mark.slow
    def test_a_search_gives_a_workflow_for_each_phase(self):
        found = ps.best_switch(tiny_llama(), small_array(8), 24, 6, 1, ["auto", "megatron"], switch_weights=RESHARD)
        assert {pair.prefill.name for pair in found.table} == {"auto (prefill)", "auto (decode)", "megatron"}
        assert found.best.total_cycles <= found.best_without.total_cycles

    def test_no_candidates(self):
        with pytest.raises(InputError, match="candidates: there is nothing to choose from"):
            ps.best_switch(tiny_llama(), small_array(4), 8, 3, 1, [])


class TestFigures:
    """What experiments/README.md says of llama-2-7b on bus-tree-256 after a prompt of 2048 tokens."""

    @pytest.fixture(scope="class")
    @staticmethod
    def machine():
        return ps.load_model("llama-2-7b"), ps.load_array("bus-tree-256")

    def test_what_it_costs(self, machine):
        names, sizes = ("workflow-1", "workflow-2"), {"prompt": 2048, "output": 256}
        held, moved = (priced(*machine, names, **sizes, weights=choice) for choice in (BOTH, RESHARD))
        assert (held.cycles, moved.cycles - held.cycles) == (16_728_092, 199_557_160)
        assert (held.kv_bytes, moved.weight_bytes) == (1_069_547_520, 12_771_655_680)
        assert held.peak_bytes_per_pe == 107_281_408
        assert priced(*machine, names, **sizes) == held  # both fit

    def test_what_it_gains(self, machine):
        gained, pays_at = 0, None
        steps = Phases.of(machine[0], 2048, 400, 1).decodes
        phases = [decode_in_order(*machine, steps, WORKFLOWS[name], "fast") for name in ("workflow-1", "workflow-2")]
        slow, quick = ([each for cycles, _ in phase for each in cycles] for phase in phases)
        assert slow[0] - quick[0] == 40_096
        for tokens, gain in enumerate((before - after for before, after in zip(slow, quick, strict=True)), start=2):
            gained += gain
            pays_at = pays_at or (tokens if gained > 16_728_092 else None)
        assert pays_at == 339

    @pytest.mark.parametrize(("choice", "percent"), [(BOTH, 0.9), (RESHARD, -8.1)])
    def test_the_best_pair(self, machine, choice, percent):
        found = ps.best_switch(*machine, 2048, 256, 1, ["all-row", "megatron", "workflow-2"], switch_weights=choice)
        assert found.best_without.prefill.name == "all-row"
        switched = next(pair for pair in found.table if pair.moves)
        assert (switched.prefill.name, switched.decode.name) == ("all-row", "megatron")
        gain = 1 - switched.total_cycles / found.best_without.total_cycles
        assert round(100 * gain, 1) == percent
