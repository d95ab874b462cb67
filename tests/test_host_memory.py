"""The memory that is needed is told before it is taken, and what cannot fit is refused by every way in."""

import io
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from pe_sim import api, host_memory
from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode
from pe_sim.config.systems.load import load_system
from pe_sim.engine.event import run
from pe_sim.engine.fast.trace import USE_BYTES
from pe_sim.errors import OutOfMemoryError
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.mapping_search.candidates import Wanted, in_groups
from pe_sim.network.interconnect import interconnect_for
from pe_sim.report import table
from pe_sim.schedule.lowering import least_bytes, lower
from pe_sim.systems.search.search import search_system
from tests.report.samples import TINY

STEP = Decode(context_len=40)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], None]]:
    """Sets how much memory there is; nothing is too little to ask for, and no collective is known already."""
    interconnect_for.cache_clear()
    monkeypatch.setattr(host_memory, "_WORTH_A_LOOK", 0)
    yield lambda there: monkeypatch.setattr(host_memory, "available_bytes", lambda: there)
    interconnect_for.cache_clear()


def _peak(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("num_pes", "layers", "workflow"), [(8192, 2, "workflow-1"), (16384, 3, "all-row"), (64, 400, "workflow-1")]
)
def test_no_step_takes_less_than_it_is_said_to_take_at_least_nor_many_times_as_much(
    num_pes: int, layers: int, workflow: str
) -> None:
    model = load_model({**TINY, "num_hidden_layers": layers})
    array = load_array("bus-tree-64", {"num_pes": num_pes})
    least = least_bytes(place(model, array, STEP, WORKFLOWS[workflow]))
    assert table
    peak = _peak(lambda: api.simulate(model, array, STEP, workflow, allow_overflow=True).print(io.StringIO()))
    assert least <= peak <= 2.5 * least + (16 << 20)


@pytest.mark.parametrize(("array", "num_pes", "layers"), [("bus-tree-64", 1024, 4), ("mesh-256", 64, 2)])
def test_an_event_by_event_simulation_takes_about_what_it_is_said_to_take(
    array: str, num_pes: int, layers: int
) -> None:
    model = load_model({**TINY, "num_hidden_layers": layers})
    schedule = lower(place(model, load_array(array, {"num_pes": num_pes}), STEP, WORKFLOWS["workflow-1"]))
    least = run.least_bytes(schedule)
    assert least <= _peak(lambda: run.run_event(schedule)) <= 2.5 * least + (8 << 20)


@pytest.mark.parametrize(
    ("algorithm", "hops"),
    [("ring", 64 * 63), ("serial", 64 * 63), ("recursive_doubling", 64 * (1 + 2 + 4 + 8 + 16 + 32))],
)
def test_the_hops_of_a_collective_are_counted_before_they_are_made(
    algorithm: str, hops: int, told: Callable[[int | None], None]
) -> None:
    array = load_array("ring-256", {"num_pes": 64, "network.collectives.all_gather": algorithm})
    told(150 * hops)
    assert api.collective("all-gather", array, 64).cycles > 0
    interconnect_for.cache_clear()
    told(150 * hops - 1)
    with pytest.raises(OutOfMemoryError, match=rf"a collective of {hops:,} hops takes at least {150 * hops:,} bytes"):
        api.collective("all-gather", array, 64)


def test_hops_nobody_announced_are_refused_before_they_are_twice_as_many_as_fit(
    told: Callable[[int | None], None],
) -> None:
    array = load_array("ring-256", {"num_pes": 256})
    told(100_000)
    with pytest.raises(OutOfMemoryError, match="hops"):
        api.collective("gather", array, 64)


def test_what_cannot_fit_is_refused_and_what_may_is_not(told: Callable[[int | None], None]) -> None:
    model, array = load_model(TINY), load_array("bus-tree-64", {"num_pes": 64})
    least = least_bytes(place(model, array, STEP, WORKFLOWS["workflow-1"]))
    for there in (least, None):
        told(there)
        assert api.simulate(model, array, STEP).latency_cycles > 0
    told(least - 1)
    with pytest.raises(OutOfMemoryError, match=f"at least {least:,} bytes .* {least - 1:,} are left") as refused:
        api.simulate(model, array, STEP)
    assert "num_pes" in str(refused.value)


def test_the_event_engine_asks_for_what_it_does_not_repeat(told: Callable[[int | None], None]) -> None:
    model, array = load_model({**TINY, "num_hidden_layers": 40}), load_array("bus-tree-64", {"num_pes": 256})
    told(2_000_000)
    assert api.simulate(model, array, STEP, allow_overflow=True).latency_cycles > 0
    with pytest.raises(OutOfMemoryError, match=r"event by event.*\n.*--engine fast"):
        api.simulate(model, array, STEP, engine="event", allow_overflow=True)


def test_a_report_asks_for_the_table_of_its_channels(told: Callable[[int | None], None]) -> None:
    report = api.simulate(load_model(TINY), load_array("ring-256", {"num_pes": 64}), STEP, allow_overflow=True)
    told(0)
    assert report.latency_cycles > 0
    with pytest.raises(OutOfMemoryError, match="uses of channels"):
        report.critical_path()
    told(None)
    num_bytes = USE_BYTES * len(report.trace.channel_use.start)
    told(num_bytes)
    again = api.simulate(load_model(TINY), load_array("ring-256", {"num_pes": 64}), STEP, allow_overflow=True)
    assert again.trace.channel_use


MODEL, ARRAY = load_model(TINY), load_array("bus-tree-64", {"num_pes": 16})
SYSTEM = load_system("ring-of-4-bus-tree-1024", {"array.num_pes": 16})
WANTED = Wanted(MODEL, ARRAY, (Decode(2, 40),), (1.0,), "latency")
WAYS: dict[str, Callable[[], object]] = {
    "search": lambda: api.search(MODEL, ARRAY, STEP),
    "generate": lambda: api.generate(MODEL, ARRAY, 8, 4),
    "groups": lambda: in_groups(WORKFLOWS["workflow-1"], 2, WANTED),
    "systems": lambda: search_system(MODEL, SYSTEM, STEP),
}


@pytest.mark.parametrize("there", [1000, 12_000])  # too little for a part of a layer, or for a step
@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_is_refused_and_no_search_takes_it_for_a_mapping_that_does_not_fit(
    way: str, there: int, told: Callable[[int | None], None]
) -> None:
    told(there)
    with pytest.raises(OutOfMemoryError, match="this machine's memory"):
        WAYS[way]()


@pytest.mark.parametrize("place", ["search.workflows._best_mapping", "search.order.Estimator._measured"])
def test_a_search_over_plans_does_not_leave_out_what_was_refused_for_memory(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutOfMemoryError("too large")

    monkeypatch.setattr(f"pe_sim.systems.{place}", refuse)
    with pytest.raises(OutOfMemoryError, match="too large"):
        search_system(MODEL, SYSTEM, Decode(context_len=41))


def test_the_smallest_of_what_the_machine_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"/proc/meminfo": "MemFree: 9 kB\nMemAvailable:    8 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}
    monkeypatch.setattr(host_memory, "_text", lambda path: said.get(path, ""))
    assert host_memory.available_bytes() == 8192
    said |= {"/sys/fs/cgroup/memory.max": "9000\n", "/sys/fs/cgroup/memory.current": "2000\n"}
    assert host_memory.available_bytes() == 7000
    said["/proc/self/limits"] = "Max address space         6000                 unlimited            bytes\n"
    assert host_memory.available_bytes() == 6000
    said.clear()
    assert host_memory.available_bytes() is None
