"""pe_sim: a cycle-approximate simulator of a broadcast/reduction PE array for large language models."""

from __future__ import annotations

from importlib import import_module

from pe_sim._version import __version__

# As typing has it. Nothing else is imported here: while this runs the command line cannot yet answer to Ctrl-C.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pe_sim.api import (
        Decode,
        Generation,
        Prefill,
        Report,
        best_switch,
        collective,
        execute,
        gemm,
        generate,
        load_array,
        load_model,
        load_situation,
        load_workflow,
        search,
        simulate,
        verify,
    )
    from pe_sim.config.plans.hetu_generators import generate_llama_4d_config, generate_llama_hetero_4d_config
    from pe_sim.config.plans.load import load_plan
    from pe_sim.config.plans.plan import ParallelPlan
    from pe_sim.config.systems.load import list_systems, load_system
    from pe_sim.errors import DeadlockError, InfeasibleError, InputError, PeSimError
    from pe_sim.network.area import at_area
    from pe_sim.network.metrics import topology_metrics
    from pe_sim.report.plots.style import style, use_style
    from pe_sim.report.plots.topology import plot_topology
    from pe_sim.report.references import reference
    from pe_sim.report.system_report import SystemReport
    from pe_sim.studies.calibration import calibrate
    from pe_sim.studies.comparison import compare
    from pe_sim.studies.sensitivity import sensitivity
    from pe_sim.studies.sweep import sweep
    from pe_sim.systems.api import execute_system, simulate_system, verify_system
    from pe_sim.systems.search.search import search_system

__all__ = [
    "DeadlockError",
    "Decode",
    "Generation",
    "InfeasibleError",
    "InputError",
    "ParallelPlan",
    "PeSimError",
    "Prefill",
    "Report",
    "SystemReport",
    "__version__",
    "at_area",
    "best_switch",
    "calibrate",
    "collective",
    "compare",
    "execute",
    "execute_system",
    "gemm",
    "generate",
    "generate_llama_4d_config",
    "generate_llama_hetero_4d_config",
    "list_systems",
    "load_array",
    "load_model",
    "load_plan",
    "load_situation",
    "load_system",
    "load_workflow",
    "plot_topology",
    "reference",
    "search",
    "search_system",
    "sensitivity",
    "simulate",
    "simulate_system",
    "style",
    "sweep",
    "topology_metrics",
    "use_style",
    "verify",
    "verify_system",
]

# What does not come from `pe_sim.api`.
_MODULES = {
    "DeadlockError": "pe_sim.errors",
    "InfeasibleError": "pe_sim.errors",
    "InputError": "pe_sim.errors",
    "PeSimError": "pe_sim.errors",
    "SystemReport": "pe_sim.report.system_report",
    "at_area": "pe_sim.network.area",
    "calibrate": "pe_sim.studies.calibration",
    "compare": "pe_sim.studies.comparison",
    "execute_system": "pe_sim.systems.api",
    "generate_llama_4d_config": "pe_sim.config.plans.hetu_generators",
    "generate_llama_hetero_4d_config": "pe_sim.config.plans.hetu_generators",
    "load_plan": "pe_sim.config.plans.load",
    "ParallelPlan": "pe_sim.config.plans.plan",
    "list_systems": "pe_sim.config.systems.load",
    "load_system": "pe_sim.config.systems.load",
    "plot_topology": "pe_sim.report.plots.topology",
    "reference": "pe_sim.report.references",
    "search_system": "pe_sim.systems.search.search",
    "sensitivity": "pe_sim.studies.sensitivity",
    "simulate_system": "pe_sim.systems.api",
    "style": "pe_sim.report.plots.style",
    "sweep": "pe_sim.studies.sweep",
    "topology_metrics": "pe_sim.network.metrics",
    "use_style": "pe_sim.report.plots.style",
    "verify_system": "pe_sim.systems.api",
}


def __getattr__(name: str) -> Any:
    """Loads the pipeline at its first use, so that light commands start without it."""
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "pe_sim.api")), name)
    raise AttributeError(f"module 'pe_sim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
