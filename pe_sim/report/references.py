"""Known machines at their roofline: takes a machine, a model and a step, gives a bound on the time, not a measurement.

The devices together read the operators' weights and the cached keys and values once from their memory, at its peak
rate, and compute the matrices and attention at the dense peak of their matrix units; the longer of the two is the
bound. All else is free: communication between devices, activations, norms and softmax, kernels, latencies. As many
devices are taken as hold the parameters and the KV cache, and both rates are theirs together. So real machines are
slower, often by half and more. Not covered: caches on the chip that would keep some weights from one step to the next.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pe_sim.config.dtypes import Dtype, Dtypes, wider
from pe_sim.config.models.load import as_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.reference_machines import Machine, load_machine
from pe_sim.config.step import Decode, Step
from pe_sim.graph.families import build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Embedding, KvAppend, Linear, Scores, Values, kv_bytes
from pe_sim.notebook import card
from pe_sim.units import ceil_div, format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

HALF: Final = Dtypes(Dtype("bf16"), Dtype("bf16"), Dtype("bf16"), Dtype("fp32"))
TITLE: Final = "Known machines at their roofline: bounds, not measurements"


@dataclass(frozen=True, slots=True)
class Reference:
    """A bound on what devices of one machine could do.

    Args:
        machine, model, step: what the bound is of.
        devices: the least number that holds parameters and cache.
        held_bytes: bytes of the parameters and the cache.
        read_bytes: weights of the operators and cached keys and values, each once.
        flops: of the matrices and attention; a MAC counts 2.
        computed_as: the element type whose peak was taken.
        memory_seconds, compute_seconds: seconds to read and to compute on all devices together, at their peaks.
    """

    machine: Machine
    model: ModelConfig
    step: Step
    devices: int
    held_bytes: int
    read_bytes: int
    flops: int
    computed_as: str
    memory_seconds: float
    compute_seconds: float

    @property
    def latency_seconds(self) -> float:
        """Lower bound on the latency of the step in seconds."""
        return max(self.memory_seconds, self.compute_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Upper bound on tokens per second, which are counted as in a `Report`."""
        tokens = self.step.batch_size if isinstance(self.step, Decode) else self.step.num_rows
        return tokens / self.latency_seconds

    @property
    def bound_by(self) -> str:
        """What sets the bound: "memory" or "compute"."""
        return "memory" if self.memory_seconds >= self.compute_seconds else "compute"

    def to_dict(self) -> dict[str, Any]:
        """The bound as a JSON-ready dict."""
        machine = self.machine
        return {
            "machine": machine.name,
            "description": machine.description,
            "what": "a roofline bound, not a measurement",
            "devices": self.devices,
            "held_bytes": self.held_bytes,
            "read_bytes": self.read_bytes,
            "flops": self.flops,
            "computed_as": self.computed_as,
            "latency_seconds_at_least": self.latency_seconds,
            "tokens_per_second_at_most": self.tokens_per_second,
            "bound_by": self.bound_by,
            "of_one_device": {
                "memory_technology": machine.memory_technology,
                "memory_bytes": machine.memory_bytes,
                "memory_bytes_per_second": machine.memory_bytes_per_second,
                "peak_flops_per_second": machine.peak_flops_per_second[self.computed_as],
            },
            "source": machine.source,
            "confirmed": machine.confirmed,
        }

    def _repr_html_(self) -> str:
        """HTML of the bound for a notebook."""
        facts = [
            ("what", "a roofline bound, not a measurement"),
            ("latency", f"at least {format_seconds(self.latency_seconds)}, bound by {self.bound_by}"),
            ("throughput", f"at most {self.tokens_per_second:,.2f} tokens/s"),
            ("holds", f"{format_bytes(self.held_bytes)} of parameters and cache"),
            ("reads", format_bytes(self.read_bytes)),
            ("source", self.machine.source),
        ]
        title = f"{self.machine.description} x {self.devices}: {self.model.name}, {self.step.phase}"
        return card(title, facts)

    def __str__(self) -> str:
        """One line: the machine, its devices and the bound."""
        return (
            f"{self.machine.description} x {self.devices}: at least {format_seconds(self.latency_seconds)}, at most"
            f" {self.tokens_per_second:,.2f} tokens/s (roofline bound by {self.bound_by}, not a measurement)"
        )


def reference(
    machine: Machine | str | Path | Mapping[str, Any],
    model: ModelConfig | str | Path | Mapping[str, Any],
    step: Step,
    dtypes: Dtypes = HALF,
) -> Reference:
    """A roofline bound on the time that a known machine takes for a step; not a measurement.

    Args:
        machine: a preset (a100, h100, groq-lpu, a6000), a file or its mapping.
        model: as loaded, or what `load_model` takes.
        step: Decode(...) or Prefill(...).
        dtypes: of weights, activations and cache, an array's for instance; bf16 if left out.

    Raises:
        InputError: something given is wrong, or the machine has no peak for the dtypes.
    """
    machine = machine if isinstance(machine, Machine) else load_machine(machine)
    model = as_model(model)
    graph = build_graph(model, step)
    operators = [operator for _, operator in graph.instances()]
    weights = sum(operator.weight_bytes(dtypes) for operator in operators)
    tables = sum(each.table_bytes(dtypes) for each in operators if isinstance(each, Embedding))
    cached, held_cache = _cache_bytes(graph, dtypes)
    held = weights + tables - _counted_twice(model, graph, dtypes) + held_cache
    flops = sum(operator.flops for operator in operators if isinstance(operator, Linear | Scores | Values))
    devices = ceil_div(held, machine.memory_bytes)
    computed_as, peak = machine.peak_for(computed_dtype(dtypes))
    memory_seconds = (weights + cached) / (devices * machine.memory_bytes_per_second)
    compute_seconds = flops / (devices * peak)
    return Reference(
        machine, model, step, devices, held, weights + cached, flops, computed_as, memory_seconds, compute_seconds
    )


def computed_dtype(dtypes: Dtypes) -> str:
    """The dtype a machine multiplies in: the wider one of weights and activations."""
    return wider(dtypes.weight.name, dtypes.activation.name)


def _cache_bytes(graph: OperatorGraph, dtypes: Dtypes) -> tuple[int, int]:
    """Bytes of the keys and values of all layers that are read (in the cache before the step), and held after it."""
    if not graph.keeps_cache:
        return 0, 0
    shapes = [operator.shape for _, operator in graph.instances() if isinstance(operator, KvAppend)]
    before = sum(2 * kv_bytes(shape, dtypes, sum(shape.context_lens)) for shape in shapes)
    return before, sum(2 * kv_bytes(shape, dtypes, shape.total_tokens) for shape in shapes)


def _counted_twice(model: ModelConfig, graph: OperatorGraph, dtypes: Dtypes) -> int:
    """Bytes of the LM head if it is tied to the embedding table, hence counted with both; else 0."""
    heads = [each for each in graph.epilogue if isinstance(each, Linear) and each.out_size == model.vocab_size]
    return sum(
        int(dtypes.weight.matrix_bytes(each.out_size, each.in_size)) for each in heads if model.tie_word_embeddings
    )


def reference_rows(references: Sequence[Reference], best_seconds: float | None) -> list[tuple[str, ...]]:
    """A row of texts for each bound: devices, memory, rates, the bound itself, and its ratio to `best_seconds`."""
    rows: list[tuple[str, ...]] = []
    for each in references:
        machine, count = each.machine, each.devices
        rows.append(
            (
                machine.description,
                f"{count:,}",
                format_bytes(machine.memory_bytes),
                f"{count * machine.memory_bytes_per_second / 1e12:,.2f}",
                f"{count * machine.peak_flops_per_second[each.computed_as] / 1e12:,.0f}",
                format_seconds(each.latency_seconds),
                f"{each.tokens_per_second:,.2f}",
                "-" if best_seconds is None else f"{each.latency_seconds / best_seconds:.3f}",
                each.bound_by,
            )
        )
    return rows


def reference_parts(references: Sequence[Reference], best_seconds: float | None) -> list[RenderableType]:
    """The table of the bounds and a paragraph on what they rest on; empty if there are none."""
    if not references:
        return []
    from pe_sim.report.table import WIDTH, make_table

    head = ("machine", "devices", "memory each", "TB/s", "Tflop/s", "latency >=", "tokens/s <=", "x best", "bound by")
    first = references[0]
    about = (
        f"As many devices as hold {format_bytes(first.held_bytes)} of parameters and cache. They read"
        f" {format_bytes(first.read_bytes)} once and compute {format_count(first.flops)}flop at the vendors' peaks;"
        " communication between them and all else is free, so real machines are slower, many devices by far."
    )
    return [make_table(TITLE, *head, rows=reference_rows(references, best_seconds)), textwrap.fill(about, WIDTH)]
