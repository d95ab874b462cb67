"""pe_sim: a cycle-approximate simulator of a broadcast/reduction PE array for large language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pe_sim._version import __version__
from pe_sim.errors import DeadlockError, InfeasibleError, InputError, PeSimError

if TYPE_CHECKING:
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
    from pe_sim.network.area import at_area
    from pe_sim.network.metrics import topology_metrics
    from pe_sim.report.references import reference
    from pe_sim.report.style import style, use_style
    from pe_sim.report.topology_plot import plot_topology
    from pe_sim.studies.calibration import calibrate
    from pe_sim.studies.comparison import compare
    from pe_sim.studies.sensitivity import sensitivity
    from pe_sim.studies.sweep import sweep

__all__ = [
    "DeadlockError",
    "Decode",
    "Generation",
    "InfeasibleError",
    "InputError",
    "PeSimError",
    "Prefill",
    "Report",
    "__version__",
    "at_area",
    "best_switch",
    "calibrate",
    "collective",
    "compare",
    "execute",
    "gemm",
    "generate",
    "load_array",
    "load_model",
    "load_situation",
    "load_workflow",
    "plot_topology",
    "reference",
    "search",
    "sensitivity",
    "simulate",
    "style",
    "sweep",
    "topology_metrics",
    "use_style",
    "verify",
]

# What does not come from `pe_sim.api`.
_MODULES = {
    "at_area": "pe_sim.network.area",
    "calibrate": "pe_sim.studies.calibration",
    "compare": "pe_sim.studies.comparison",
    "plot_topology": "pe_sim.report.topology_plot",
    "reference": "pe_sim.report.references",
    "sensitivity": "pe_sim.studies.sensitivity",
    "style": "pe_sim.report.style",
    "sweep": "pe_sim.studies.sweep",
    "topology_metrics": "pe_sim.network.metrics",
    "use_style": "pe_sim.report.style",
}


def __getattr__(name: str) -> Any:
    """Loads the pipeline at its first use, so that light commands start without it."""
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "pe_sim.api")), name)
    raise AttributeError(f"module 'pe_sim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
