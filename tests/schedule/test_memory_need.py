"""The memory a step takes is told before it starts, and what cannot fit is refused."""

import io
import tracemalloc

import pytest

from pe_sim.api import simulate
from pe_sim.config.arrays import load_array
from pe_sim.config.models import load_model
from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.report import table
from pe_sim.schedule import memory_need
from tests.report.samples import TINY

STEP = Decode(context_len=40)


@pytest.mark.parametrize(
    ("num_pes", "layers", "workflow"), [(8192, 2, "workflow-1"), (16384, 3, "all-row"), (64, 1000, "workflow-1")]
)
def test_no_step_takes_less_than_it_is_said_to_take_at_least_nor_many_times_as_much(
    num_pes: int, layers: int, workflow: str
) -> None:
    model = load_model({**TINY, "num_hidden_layers": layers})
    array = load_array("bus-tree-64", {"num_pes": num_pes})
    least = memory_need.least_bytes(place(model, array, STEP, WORKFLOWS[workflow]))
    assert table
    tracemalloc.start()
    try:
        simulate(model, array, STEP, workflow, allow_overflow=True).print(io.StringIO())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert least <= peak <= 3 * least + (16 << 20)


def test_what_cannot_fit_is_refused_and_what_may_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model, array = load_model(TINY), load_array("bus-tree-64", {"num_pes": 64})
    least = memory_need.least_bytes(place(model, array, STEP, WORKFLOWS["workflow-1"]))
    monkeypatch.setattr(memory_need, "_WORTH_A_LOOK", 0)
    for there in (least, None):
        monkeypatch.setattr(memory_need, "available_bytes", lambda there=there: there)
        assert simulate(model, array, STEP).latency_cycles > 0
    monkeypatch.setattr(memory_need, "available_bytes", lambda: least - 1)
    with pytest.raises(InputError, match=f"at least {least:,} bytes .* {least - 1:,} are left") as refused:
        simulate(model, array, STEP)
    assert "num_pes" in str(refused.value)


def test_the_smallest_of_what_the_machine_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"/proc/meminfo": "MemFree: 9 kB\nMemAvailable:    8 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}
    monkeypatch.setattr(memory_need, "_text", lambda path: said.get(path, ""))
    assert memory_need.available_bytes() == 8192
    said |= {"/sys/fs/cgroup/memory.max": "9000\n", "/sys/fs/cgroup/memory.current": "2000\n"}
    assert memory_need.available_bytes() == 7000
    said["/proc/self/limits"] = "Max address space         6000                 unlimited            bytes\n"
    assert memory_need.available_bytes() == 6000
    said.clear()
    assert memory_need.available_bytes() is None
