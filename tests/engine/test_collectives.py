"""Every collective of section 3 against its closed form, and its traffic against section 9."""

import itertools

import pytest

from pe_sim.engine.event.run import run_event
from pe_sim.errors import InputError
from pe_sim.schedule.collectives import KINDS, collective_schedule
from tests.helpers import bus_uses, ceil, no_overlap, small_array, thinned, traffic_of

SIZES = (1, 31, 63, 64, 65, 4096, 8193)
COUNTS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 33, 64, 97, 256)
WAYS = ("serial", "by_reduction", "best")


class Expected:
    """The closed forms of section 3, written from its table."""

    def __init__(self, n, *, arity=2, w=64, tw=64, lam=4, omega=2, rho=0, hop=1, kappa=2):
        self.n, self.w, self.tw, self.lam, self.omega, self.rho = n, w, tw, lam, omega, rho
        levels = 0
        while arity**levels < n:
            levels += 1
        self.head = levels * (hop + kappa)

    def one(self, b):
        """What one message holds the bus for."""
        return self.omega + ceil(b, self.w)

    def broadcast(self, b):
        return self.one(b) + self.lam

    def from_pes(self, b, count=None):
        """Messages of the PEs: they all arrive at the arbiter ρ later."""
        return self.rho + (self.n if count is None else count) * self.one(b) + self.lam

    def reduce(self, b):
        return self.head + ceil(b, self.tw)

    def scatter(self, b, way):
        serial, at_once = self.n * self.one(b) + self.lam, self.broadcast(self.n * b)
        return {"serial": serial, "by_reduction": at_once, "best": min(serial, at_once)}[way]

    def gather(self, b, way):
        serial, tree = self.from_pes(b), self.reduce(self.n * b)
        return {"serial": serial, "by_reduction": tree, "best": min(serial, tree)}[way]

    def all_gather(self, b, way):
        if self.n == 1:
            return 0
        serial, tree = self.from_pes(b), self.reduce(self.n * b) + self.broadcast(self.n * b)
        return {"serial": serial, "by_reduction": tree, "best": min(serial, tree)}[way]

    def all_reduce(self, b):
        return 0 if self.n == 1 else self.reduce(b) + self.broadcast(ceil(b, 2))

    def reduce_scatter(self, b, way):
        return 0 if self.n == 1 else self.reduce(2 * self.n * b) + self.scatter(b, way)

    def all_to_all(self, b):
        pairs = self.n * (self.n - 1)
        return self.from_pes(b, pairs) if pairs else 0


def cycles(kind, array, num_bytes):
    return run_event(collective_schedule(kind, array, num_bytes).schedule).makespan_cycles


def measured(array, num_bytes):
    return {kind: cycles(kind, array, num_bytes) for kind in KINDS if kind != "all-to-all"}


def expected(forms, num_bytes, way):
    return {
        "broadcast": forms.broadcast(num_bytes),
        "scatter": forms.scatter(num_bytes, way),
        "gather": forms.gather(num_bytes, way),
        "reduce": forms.reduce(num_bytes),
        "all-reduce": forms.all_reduce(num_bytes),
        "all-gather": forms.all_gather(num_bytes, way),
        "reduce-scatter": forms.reduce_scatter(num_bytes, way),
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_pes", COUNTS)
def test_every_size_on_every_array(num_pes, way):
    array = small_array(num_pes, gather=way, scatter=way)
    forms = Expected(num_pes)
    for num_bytes in SIZES:
        assert measured(array, num_bytes) == expected(forms, num_bytes, way), num_bytes


@pytest.mark.parametrize(
    ("rho", "arity", "widths"), thinned([0, 1, 9], [2, 3, 4, 8], [(64, 64), (1, 7), (128, 32), (48, 1000)])
)
def test_arities_widths_and_request_cycles(rho, arity, widths):
    w, tw = widths
    for num_pes, way in zip((1, 2, 3, 5, 8, 9, 13, 16, 33), itertools.cycle(WAYS)):
        knobs = {"arity": arity, "hop": 3, "latency": 7, "overhead": 5, "request": rho, "combine": 4}
        array = small_array(num_pes, width=w, tree_width=tw, gather=way, scatter=way, **knobs)
        forms = Expected(num_pes, arity=arity, w=w, tw=tw, lam=7, omega=5, rho=rho, hop=3, kappa=4)
        for num_bytes in (1, 31, 65):
            assert measured(array, num_bytes) == expected(forms, num_bytes, way), (num_pes, num_bytes, way)


@pytest.mark.parametrize("num_pes", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("rho", [0, 3])
def test_all_to_all(num_pes, rho):
    array = small_array(num_pes, request=rho)
    for num_bytes in (1, 64, 65):
        assert cycles("all-to-all", array, num_bytes) == Expected(num_pes, rho=rho).all_to_all(num_bytes)


def test_hops_that_differ_by_level_add_up():
    array = small_array(13, {"network.tree.latency_cycles": [1, 1, 2, 5]})
    assert cycles("reduce", array, 640) == (1 + 1 + 2 + 5) + 4 * 2 + 10
    array = small_array(13, {"network.tree.latency_cycles": [9] * 4}, gather="by_reduction")
    assert cycles("all-gather", array, 64) == 4 * (9 + 2) + 13 + 2 + 4 + 13


def test_no_overhead_and_no_latency():
    array = small_array(4, overhead=0, latency=0, hop=1, combine=0, gather="serial")
    assert cycles("broadcast", array, 65) == 2
    assert cycles("gather", array, 64) == 4
    assert cycles("reduce", array, 65) == 2 * 1 + 2


class TestWorkedExamples:
    """Section 10."""

    def test_broadcast(self):
        assert cycles("broadcast", small_array(256), 8192) == 134

    def test_scatter(self):
        assert cycles("scatter", small_array(256, scatter="serial"), 32) == 772

    def test_reduce(self):
        assert cycles("reduce", small_array(256), 16384) == 280

    def test_all_reduce(self):
        assert cycles("all-reduce", small_array(256), 16384) == 414


class TestOnePe:
    """With N = 1 Partial, Shard and Replicate are the same thing; Root -> Replicate is still a broadcast."""

    @pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter", "all-to-all"])
    @pytest.mark.parametrize("way", WAYS)
    def test_nothing_moves(self, kind, way):
        trace = run_event(collective_schedule(kind, small_array(1, gather=way, scatter=way), 4096).schedule)
        assert (trace.makespan_cycles, traffic_of(trace)) == (0, {})

    def test_broadcast_stays(self):
        trace = run_event(collective_schedule("broadcast", small_array(1), 4096).schedule)
        assert trace.makespan_cycles == 2 + 4 + 64
        assert traffic_of(trace) == {"broadcast": (1, 4096, 66)}


class TestBest:
    """The smaller closed form; ties go to by_reduction."""

    def algorithm(self, kind, num_bytes, num_pes=4, **knobs):
        return collective_schedule(kind, small_array(num_pes, **knobs), num_bytes).algorithm

    def test_gather_tie(self):
        # serial: 4·(2 + 1) + 4 = 16; by reduction: 2·(1 + κ) + 4 beats = 16 with κ = 5
        assert Expected(4, kappa=5).gather(64, "serial") == Expected(4, kappa=5).gather(64, "by_reduction") == 16
        assert "reduc" in self.algorithm("gather", 64, combine=5)
        assert self.algorithm("gather", 64, combine=6) == "serial"

    def test_a_request_that_travels_tips_the_gather(self):
        assert self.algorithm("gather", 64, combine=6, request=2) != "serial"
        assert cycles("gather", small_array(4, combine=6, request=2), 64) == 2 * 7 + 4

    def test_scatter_tie(self):
        # ω = 0 and whole beats: N·beats(b) = beats(N·b)
        assert self.algorithm("scatter", 64, overhead=0) != "serial"
        trace = run_event(collective_schedule("scatter", small_array(4, overhead=0), 64).schedule)
        assert traffic_of(trace) == {"broadcast": (1, 256, 4)}

    def test_long_all_gather_goes_serially(self):
        # the tree carries the whole twice, the bus once
        assert self.algorithm("all-gather", 65536) == "serial"
        assert self.algorithm("all-gather", 1, num_pes=64) != "serial"


class TestTraffic:
    """Messages, bytes and busy cycles per tag."""

    def traffic(self, kind, array, num_bytes):
        return traffic_of(run_event(collective_schedule(kind, array, num_bytes).schedule))

    @pytest.mark.parametrize("n", [2, 3, 8, 33])
    @pytest.mark.parametrize("b", [1, 64, 65, 4096])
    def test_counts(self, n, b):
        one = 2 + ceil(b, 64)
        serial, tree = small_array(n, gather="serial", scatter="serial"), small_array(n, gather="by_reduction")
        once = small_array(n, scatter="by_reduction")
        whole = (1, n * b, 2 + ceil(n * b, 64))
        up = (1, n * b, ceil(n * b, 64))
        assert self.traffic("broadcast", serial, b) == {"broadcast": (1, b, one)}
        assert self.traffic("scatter", serial, b) == {"scatter": (n, n * b, n * one)}
        assert self.traffic("scatter", once, b) == {"broadcast": whole}
        assert self.traffic("gather", serial, b) == {"gather": (n, n * b, n * one)}
        assert self.traffic("gather", tree, b) == {"reduce": up}
        assert self.traffic("all-gather", serial, b) == {"all-gather": (n, n * b, n * one)}
        assert self.traffic("all-gather", tree, b) == {"reduce": up, "broadcast": whole}
        assert self.traffic("reduce", tree, b) == {"reduce": (1, b, ceil(b, 64))}
        assert self.traffic("all-to-all", tree, b) == {"all-to-all": (n * (n - 1), n * (n - 1) * b, n * (n - 1) * one)}
        partial = (1, 2 * n * b, ceil(2 * n * b, 64))
        assert self.traffic("reduce-scatter", serial, b) == {"reduce": partial, "scatter": (n, n * b, n * one)}
        assert self.traffic("reduce-scatter", once, b) == {"reduce": partial, "broadcast": whole}

    def test_an_all_reduce_comes_back_in_the_activation_dtype(self):
        assert self.traffic("all-reduce", small_array(256), 16384) == {
            "reduce": (1, 16384, 256),
            "broadcast": (1, 8192, 130),
        }

    def test_partial_and_activation_of_one_width(self):
        array = small_array(4, {"dtypes.activation": "fp32"})
        assert self.traffic("all-reduce", array, 256) == {"reduce": (1, 256, 4), "broadcast": (1, 256, 6)}


class TestBursts:
    """Each burst is arbitrated alone and pays ω; the message counts once."""

    def bursts(self, b, burst):
        return [burst] * (b // burst) + ([b % burst] if b % burst else [])

    @pytest.mark.parametrize("burst", [1, 32, 64, 100, 4096])
    @pytest.mark.parametrize("b", [1, 64, 100, 101, 1000])
    @pytest.mark.parametrize("n", [1, 3, 8])
    def test_every_burst_pays_the_overhead(self, n, b, burst):
        array = small_array(n, burst=burst, gather="serial", scatter="serial")
        busy = sum(2 + ceil(part, 64) for part in self.bursts(b, burst))
        assert cycles("broadcast", array, b) == busy + 4
        assert cycles("scatter", array, b) == n * busy + 4
        trace = run_event(collective_schedule("gather", array, b).schedule)
        assert trace.makespan_cycles == n * busy + 4
        assert traffic_of(trace) == {"gather": (n, n * b, n * busy)}
        assert [use[3] for use in bus_uses(trace)].count(burst) == n * (b // burst)
        assert sum(use[3] for use in bus_uses(trace)) == n * b

    def test_bursts_of_senders_take_turns(self):
        trace = run_event(collective_schedule("gather", small_array(3, burst=64, gather="serial"), 128).schedule)
        uses = bus_uses(trace)
        assert [(start, end) for start, end, _, _ in uses] == [(3 * i, 3 * i + 3) for i in range(6)]
        assert trace.makespan_cycles == 6 * 3 + 4

    def test_best_knows_about_bursts(self):
        # by reduction: 3·3 + 8 beats = 17; serial with bursts of 8 bytes: 8·8·(2 + 1) + 4 = 196
        assert cycles("gather", small_array(8, burst=8), 64) == 17


@pytest.mark.parametrize("kind", KINDS)
def test_the_bus_is_held_by_one_at_a_time(kind):
    for way, burst in itertools.product(("serial", "by_reduction"), (None, 50)):
        array = small_array(13, gather=way, scatter=way, request=3, burst=burst)
        trace = run_event(collective_schedule(kind, array, 130).schedule)
        uses = bus_uses(trace)
        assert no_overlap((start, end) for start, end, _, _ in uses)
        assert all(end - start == 2 + ceil(b, 64) for start, end, _, b in uses)
        bus_tags = [use for tag, use in trace.traffic.items() if tag != "reduce"]
        assert sum(end - start for start, end, _, _ in uses) == sum(use.busy_cycles for use in bus_tags)


@pytest.mark.parametrize(("kind", "num_bytes"), [("brodcast", 8), ("reduce", 0), ("reduce", -5)])
def test_nonsense_is_refused(kind, num_bytes):
    with pytest.raises(InputError) as caught:
        collective_schedule(kind, small_array(4), num_bytes)
    assert ("broadcast" if num_bytes > 0 else "one byte") in str(caught.value)
