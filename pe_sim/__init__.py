"""pe_sim: a cycle-approximate simulator of a broadcast/reduction PE array for large language models."""

from __future__ import annotations

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
    "best_switch",
    "collective",
    "execute",
    "gemm",
    "generate",
    "load_array",
    "load_model",
    "load_situation",
    "load_workflow",
    "search",
    "simulate",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Loads the pipeline at its first use, so that light commands start without it."""
    if name in __all__:
        from pe_sim import api

        return getattr(api, name)
    raise AttributeError(f"module 'pe_sim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
