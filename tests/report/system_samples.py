"""Small steps on several small arrays that tests share; each is simulated once a process."""

from functools import cache

from pe_sim.config.models.load import load_model
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.config.systems.load import load_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.report.system_report import SystemReport
from pe_sim.systems.api import simulate_system
from tests.report.samples import TINY

MODEL = load_model({**TINY, "num_hidden_layers": 5})
DECODE = Decode(4, 40)
PREFILL = Prefill(2, prompt_len=12)


@cache
def system_of(count: int, kind: str = "ring", num_pes: int = 6) -> SystemConfig:
    """So many arrays of so many PEs in a ring or around a switch."""
    preset = {"ring": "ring-of-4-bus-tree-1024", "switch": "switch-of-64-bus-tree-1024"}[kind]
    return load_system(preset, {"arrays.0.count": count, "array.num_pes": num_pes})


@cache
def simulated(
    plan: ParallelPlan, kind: str = "ring", step: Step = DECODE, workflow: str = "megatron", engine: str = "fast"
) -> SystemReport:
    """A step of the small model under degrees."""
    count = plan.dp * plan.tp * plan.pp * plan.cp
    return simulate_system(MODEL, system_of(count, kind), step, plan, workflow, engine)


PLANS = (
    ParallelPlan(tp=2, pp=2),
    ParallelPlan(dp=2, pp=2, microbatches=1),
    ParallelPlan(cp=2, tp=2),
    ParallelPlan(pp=3, microbatches=4),
    ParallelPlan(dp=2),
)
