"""How many ways to cut the hidden dim of an FFN over a grid of PEs: the published optimum on rings, and our engine's.

N PEs are X in a row by N / X rows (`pe_sim.mapping.groups`), E is the hidden size, F the FFN's. Before gate and up the
PEs of a column gather their slice of the hidden state, E / X elements, and behind down they reduce and scatter as many.
In between the PEs of a row reduce, scatter and gather their slice of gate and of up, F X / N elements each. A ring of p
PEs brings b bytes to (or sums them from) each of them in (p - 1) / p b / bandwidth, so the time is proportional to

    2 (E / X) (1 - X / N) + 4 (F X / N) (1 - 1 / X)  =  2 E / X + 4 F X / N - (2 E + 4 F) / N

The last term does not depend on X, and whether (p - 1) / p is counted makes no difference: the sum is least where its
derivative -2 E / X^2 + 4 F / N is 0, at X = sqrt(N E / (2 F)), which is sqrt(N / 8) for F = 4 E. A plain FFN has half
the transfers in the rows, and its best X is sqrt(N E / F). With X = 1 (1-D) the PEs transfer 2 E however many they are.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import sqrt

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.engine.engines import DEFAULT_ENGINE, engine_named
from pe_sim.schedule.collectives import collective_schedule, named_way

ALL_GATHER, REDUCE_SCATTER = "all-gather", "reduce-scatter"

# (kind, PEs that take part, elements of the tensor that each of them gets whole or has a term of) -> time
Collective = Callable[[str, int, Fraction], Fraction]


def ring(_kind: str, num_pes: int, elements: Fraction) -> Fraction:
    """Elements that pass each link of a ring."""
    return elements * (num_pes - 1) / num_pes


def published_ring(_kind: str, _num_pes: int, elements: Fraction) -> Fraction:
    """As published, where a PE's own share counts as well."""
    return elements


def measured_ring(array: ArrayConfig) -> Collective:
    """Cycles of the ring algorithms of our engine on rings with the links and dtypes of an array of kind `ring`."""

    @cache
    def cycles(kind: str, num_pes: int, elements: Fraction) -> Fraction:
        if num_pes == 1:
            return Fraction(0)
        num_bytes = -(-elements * array.dtypes.activation.bits // (8 * num_pes))
        of_row = load_array(array_to_dict(array), overrides={"num_pes": num_pes})
        schedule = collective_schedule(kind, named_way(kind, of_row, "ring"), int(num_bytes)).schedule
        return Fraction(engine_named(DEFAULT_ENGINE)(schedule).makespan_cycles)

    return cycles


def ffn_time(
    ways: int, num_pes: int, hidden: int, ffn: int, *, gated: bool = True, collective: Collective = ring
) -> Fraction:
    """Time of all transfers of an FFN whose hidden dim is cut `ways` ways.

    Args:
        ways: a divisor of `num_pes`.
        hidden, ffn: elements of all rows of the step.
        gated: whether there is a gate beside up.
        collective: what one transfer takes.
    """
    rows = num_pes // ways
    along, over = Fraction(ffn, rows), Fraction(hidden, ways)
    both = (ALL_GATHER, REDUCE_SCATTER)
    in_columns = sum((collective(kind, rows, over) for kind in both), Fraction(0))
    in_rows = sum((collective(kind, ways, along) for kind in both), Fraction(0))
    return in_columns + (2 if gated else 1) * in_rows


def best_grid(
    num_pes: int,
    hidden: int,
    ffn: int,
    *,
    gated: bool = True,
    collective: Collective = ring,
    ways: tuple[int, ...] = (),
) -> int:
    """The number of ways that takes least; of equals the smallest.

    Args:
        num_pes, hidden, ffn, gated, collective: as of `ffn_time`.
        ways: what to choose from; all divisors of `num_pes` if left out.
    """
    divisors = ways or tuple(count for count in range(1, num_pes + 1) if num_pes % count == 0)
    return min(
        divisors, key=lambda count: (ffn_time(count, num_pes, hidden, ffn, gated=gated, collective=collective), count)
    )


def closed_form(num_pes: int, hidden: int, ffn: int, *, gated: bool = True) -> float:
    """The published optimum: sqrt(N / 8) for a gated FFN of four times the hidden size."""
    return sqrt(num_pes * hidden / (ffn * (2 if gated else 1)))
