"""What a search over plans chooses from, with bounds; and where nothing fits, the smallest changes that help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.graph.families import build_graph
from pe_sim.graph.operators import Linear
from pe_sim.graph.shares import OperatorShare, model_share
from pe_sim.systems.microbatches import parts_of
from pe_sim.units import ceil_div, format_bytes


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a search may choose; empty: anything.

    Args:
        dp, tp, pp, cp: degrees.
        arrays: how many arrays take part; the others are left alone.
        microbatches: parts in which a pipeline's share goes through its stages.
    """

    dp: tuple[int, ...] = ()
    tp: tuple[int, ...] = ()
    pp: tuple[int, ...] = ()
    cp: tuple[int, ...] = ()
    arrays: tuple[int, ...] = ()
    microbatches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError for what is not a whole number from 1 on."""
        for name in ("dp", "tp", "pp", "cp", "arrays", "microbatches"):
            for value in getattr(self, name):
                if type(value) is not int or value < 1:
                    raise InputError(
                        "not a number of shares",
                        path=f"allowed.{name}",
                        given=value,
                        expected="whole numbers from 1 on",
                    )

    def __str__(self) -> str:
        named = [(entry.name, getattr(self, entry.name)) for entry in fields(self)]
        return ", ".join(f"{name} {' or '.join(map(str, values))}" for name, values in named if values) or "anything"

    def permits(self, name: str, value: int) -> bool:
        """Whether a degree may have this value."""
        own = getattr(self, name)
        return not own or value in own


@dataclass(frozen=True, slots=True)
class Shape:
    """Degrees, and the parts in which a pipeline's share goes through its stages."""

    dp: int
    tp: int
    pp: int
    cp: int
    microbatches: int = 1

    @property
    def num_arrays(self) -> int:
        """Number of arrays that take part."""
        return self.dp * self.tp * self.pp * self.cp

    def plan(self, system: SystemConfig, **changes: Any) -> ParallelPlan:
        """The plan of these degrees; arrays behind those it needs take no part."""
        unused = system.alive[self.num_arrays :]
        return ParallelPlan(
            name="searched",
            dp=self.dp,
            tp=self.tp,
            pp=self.pp,
            cp=self.cp,
            microbatches=self.microbatches,
            unused=unused,
            **changes,
        )

    def __str__(self) -> str:
        return f"dp {self.dp} x tp {self.tp} x pp {self.pp} x cp {self.cp}"


@dataclass(frozen=True, slots=True)
class Refused:
    """What cannot be done.

    Args:
        shape: the degrees; `workflow`: inside the arrays, empty where it does not matter.
        reason: why.
        needed, available: bytes of a PE or a root, where memory is the reason.
    """

    shape: str
    workflow: str
    reason: str
    needed: int | None = None
    available: int | None = None


@dataclass(frozen=True)
class Space:
    """Everything there is to choose from.

    Args:
        model, system, step: what is searched for.
        allowed: what may be chosen.
    """

    model: ModelConfig
    system: SystemConfig
    step: Step
    allowed: Allowed

    @cached_property
    def shapes(self) -> tuple[tuple[Shape, ...], tuple[Refused, ...]]:
        """The shapes that can be taken, by degrees, then parts; and the degrees that cannot.

        Raises:
            InputError: nothing that is allowed has as many arrays as there are.
        """
        shapes: list[Shape] = []
        refused: list[Refused] = []
        for count in self._counts():
            for degrees in self._degrees(count):
                reason = self._refusal(degrees)
                if reason:
                    refused.append(Refused(str(degrees), "", reason))
                else:
                    shapes += self._with_parts(degrees)
        if not shapes and not refused:
            raise InputError(
                "no degrees are allowed that make use of the arrays",
                path="allowed",
                given=str(self.allowed),
                expected=f"degrees whose product is one of {', '.join(map(str, self._counts()))}",
            )
        return tuple(shapes), tuple(refused)

    def _counts(self) -> tuple[int, ...]:
        """Numbers of arrays worth a look: all, divisors of that, and powers of two."""
        most = len(self.system.alive)
        if self.allowed.arrays:
            return tuple(sorted({min(count, most) for count in self.allowed.arrays}, reverse=True))
        divisors = {count for count in range(1, most + 1) if most % count == 0}
        return tuple(sorted(divisors | {1 << bit for bit in range(most.bit_length())}, reverse=True))

    def _degrees(self, count: int) -> Iterator[Shape]:
        for tp in _divisors(count):
            for pp in _divisors(count // tp):
                for cp in _divisors(count // tp // pp):
                    shape = Shape(count // tp // pp // cp, tp, pp, cp)
                    if all(self.allowed.permits(name, getattr(shape, name)) for name in ("dp", "tp", "pp", "cp")):
                        yield shape

    def _refusal(self, shape: Shape) -> str:
        """Why degrees cannot be, before anything is placed; empty: they can."""
        batch, layers = self.step.batch_size, self.model.num_layers
        if shape.dp > batch:
            return f"dp {shape.dp} for a batch of {batch}"
        if shape.pp > layers:
            return f"pp {shape.pp} for {layers} layers"
        longest = max(span.total_len for span in self.step.sequences)
        if shape.cp > longest:
            return f"cp {shape.cp} for {longest} tokens"
        try:
            model_share(self.model, OperatorShare(shape.tp - 1, shape.tp), layers)
        except InputError as error:
            return error.problem
        return ""

    def _with_parts(self, shape: Shape) -> Iterator[Shape]:
        """The shape in one part and, where there are stages, in 2, 4, ... parts, up to twice as many as stages."""
        most = len(parts_of(self.model, self.step, self.sequences(shape), 2 * shape.pp)) if shape.pp > 1 else 1
        wanted = {min(1 << bit, most) for bit in range((2 * shape.pp).bit_length())}
        wanted |= {min(shape.pp, most), most}
        if self.allowed.microbatches:
            wanted = {min(count, most) for count in self.allowed.microbatches}
        for parts in sorted(wanted):
            yield Shape(shape.dp, shape.tp, shape.pp, shape.cp, parts)

    def sequences(self, shape: Shape) -> range:
        """The sequences of the first pipeline, which has no fewer than the others."""
        return OperatorShare(0, shape.dp).part(self.step.batch_size)

    # ------------------------------------------------------------------------------------------------------- bounds
    def least_cycles(self, shape: Shape) -> int:
        """Lower bound on the cycles of any plan of the shape, where arrays keep their weights.

        Every part reads the matrices of all layers over the PEs' memory ports, one layer after the other, and a stage
        reads its own again for each part; and every row is multiplied by all of them.
        """
        passes = self.model.num_layers + (self._parts(shape) - 1) * self._stage_layers(shape)
        return max(self.busy_cycles(shape), self._reading(shape, passes))

    def least_period(self, shape: Shape) -> int:
        """Lower bound on `Tried.period_cycles`: a stage is busy, and a decoded part passes all of them."""
        passing = self._reading(shape, self.model.num_layers) if isinstance(self.step, Decode) else 0
        return max(self.busy_cycles(shape), passing)

    def busy_cycles(self, shape: Shape) -> int:
        """Least cycles for which the array with the most layers is busy, wherever its weights come from.

        It reads its matrices over the PEs' memory ports for each part, and multiplies all rows by them. That bounds
        latency and period, whatever is fetched ahead, and the LM head may be anywhere.
        """
        passes = self._parts(shape) * self._stage_layers(shape)
        return max(self._reading(shape, passes), self._multiplying(shape))

    @cached_property
    def bound_cycles(self) -> int:
        """Lower bound on the cycles of every plan, whether or not it was tried."""
        return min(map(self.busy_cycles, self.shapes[0]))

    def _parts(self, shape: Shape) -> int:
        """Parts for each of which every array is sure to work; with cp the rows of parts may be of different arrays."""
        return shape.microbatches if shape.cp == 1 else 1

    def _stage_layers(self, shape: Shape) -> int:
        """Layers of the stage that has the most, at least."""
        return ceil_div(self.model.num_layers, shape.pp)

    def _reading(self, shape: Shape, layers: int) -> int:
        """Cycles in which an array reads the matrices of so many layers."""
        pes, rate, _ = self._fastest
        return int(layers * self._layer_elements * self._weight_bits / (8 * shape.tp * pes * rate))

    def _multiplying(self, shape: Shape) -> int:
        """Cycles in which the arrays of the largest stage multiply all rows."""
        stage, (_, _, macs) = self._stage_layers(shape), self._fastest
        rows = sum(self.step.sequences[at].new_len for at in self.sequences(shape))
        return rows * stage * self._layer_elements // (shape.tp * shape.cp * macs)

    def least_bytes_per_pe(self, shape: Shape) -> int:
        """Lower bound on the bytes of layers' matrices and caches on a stage's fullest PE, where it keeps weights."""
        stage = self._stage_layers(shape)
        pes = max(array.num_pes for array in self.system.arrays)
        weights = self._layer_elements * self._weight_bits / (8 * shape.tp)
        tokens = sum(self.step.sequences[at].total_len for at in self.sequences(shape))
        bits = min(array.dtypes.kv_cache.bits for array in self.system.arrays)
        row = 2 * self.model.num_kv_heads * self.model.head_dim * bits / 8
        cache = tokens * row / (shape.tp * shape.cp) if self.model.has_kv_cache else 0.0
        return int(stage * (weights + cache) / pes)

    @property
    def capacity_bytes(self) -> int:
        """Bytes of the largest PE memory."""
        return max(array.pe.memory.capacity_bytes for array in self.system.arrays)

    @cached_property
    def _layer_elements(self) -> int:
        layer = build_graph(self.model, self.step).layer
        return sum(operator.in_size * operator.out_size for operator in layer if isinstance(operator, Linear))

    @cached_property
    def _weight_bits(self) -> int:
        return min(array.dtypes.weight.bits for array in self.system.arrays)

    @cached_property
    def _fastest(self) -> tuple[int, float, int]:
        """PEs, bytes a cycle of a PE's memory, and multiplications a cycle of an array; each the best there is."""
        arrays = self.system.arrays
        return (
            max(array.num_pes for array in arrays),
            max(float(array.pe.memory.bytes_per_cycle) for array in arrays),
            max(array.num_pes * array.pe.matrix.outputs * array.pe.matrix.depth for array in arrays),
        )


def _divisors(count: int) -> Sequence[int]:
    return [number for number in range(1, count + 1) if count % number == 0]


# ---- When no plan fits: what the least hungry one needs, and the smallest changes that would help.


_NARROWER = ((8, "int8"), (4, "int4"))
_SHOWN = 5  # refused candidates in the message


def nothing_fits(space: Space, refused: Sequence[Refused]) -> InputError:
    """The error that says why no plan can be taken, and what would help."""
    short = [one for one in refused if one.needed is not None and one.available is not None]
    if not short:
        listed = "\n".join(f"  {_told(one)}" for one in refused[:_SHOWN])
        return InputError(f"no plan can do this step on {space.system.name}\n{listed}")
    least = min(short, key=lambda one: (one.needed or 0) / max(one.available or 1, 1))
    needed, available = least.needed or 0, least.available or 0
    return InfeasibleError(
        f"no plan fits the memories of {space.system.name}; the least hungry is {_told(least)},"
        f" {format_bytes(needed)} of {format_bytes(available)}",
        demand=needed,
        bound=available,
        unit="bytes",
        levers=_levers(space, least, needed, available),
    )


def _told(one: Refused) -> str:
    under = f" under {one.workflow}" if one.workflow else ""
    return f"{one.shape}{under} ({one.reason})"


def _levers(space: Space, least: Refused, needed: int, available: int) -> list[str]:
    where = "root" if "root" in least.reason else "pe"
    factor = needed / available
    levers = [f"memories of at least x{factor:.2f} (--set array.{where}.memory.capacity_bytes={needed})"]
    if where == "root":
        return levers
    arrays = ceil_div(len(space.system.alive) * needed, available)
    levers.append(f"at least {arrays:,} arrays like these")
    bits = space.system.arrays[0].dtypes.weight.bits
    for narrow, name in _NARROWER:
        if narrow < bits and needed * narrow <= available * bits:
            levers.append(
                f"weights and cache of {name} (--set array.dtypes.weight={name} --set array.dtypes.kv_cache={name})"
            )
            break
    levers.append("a smaller batch or a shorter context")
    return levers
