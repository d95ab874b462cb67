"""The registry of programs: for each part of a collective the algorithms that do it with one program.

What a user asks for may take several of them after one another; those plans are in `plans`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pe_sim.errors import InputError, did_you_mean
from pe_sim.network import bounds, direct, exchanges, misfits, relays
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.programs import Algorithm, Pattern, Program, isolated_cycles, program_of
from pe_sim.units import IntArray

BEST: Final = "best"
_COMBINING, _FORWARDING = bounds.combining, bounds.forwarding

# The first of several that are done in the same cycle is the one that is chosen.
ALGORITHMS: Final[Mapping[str, tuple[Algorithm, ...]]] = {
    "broadcast": (
        Algorithm("multicast", direct.multicast),
        Algorithm("star", direct.star_broadcast, bound=bounds.star_out),
        Algorithm("chain", relays.chain_broadcast),
        Algorithm("tree", relays.tree_broadcast),
    ),
    "reduce": (
        Algorithm("in_network", direct.in_network, misfits.cannot_combine),
        Algorithm("star", direct.star_reduce, bound=bounds.star_in),
        Algorithm("chain", relays.chain_reduce),
        Algorithm("tree", relays.tree_reduce),
    ),
    "scatter": (Algorithm("serial", direct.serial_scatter),),
    "gather": (Algorithm("serial", direct.serial_gather),),
    "all_gather": (
        Algorithm("serial", direct.serial_all_gather, bound=bounds.serial),
        Algorithm("ring", exchanges.ring_all_gather, misfits.no_ring, bounds.ring(_FORWARDING)),
        Algorithm("recursive_doubling", exchanges.recursive_doubling, misfits.no_halving, bounds.blocks(_FORWARDING)),
        Algorithm(
            "dimension_wise", exchanges.dimension_all_gather, misfits.no_dimensions, bounds.dimensions(_FORWARDING)
        ),
    ),
    "reduce_scatter": (
        Algorithm("ring", exchanges.ring_reduce_scatter, misfits.no_ring, bounds.ring(_COMBINING)),
        Algorithm("recursive_halving", exchanges.recursive_halving, misfits.no_halving, bounds.blocks(_COMBINING)),
        Algorithm(
            "dimension_wise", exchanges.dimension_reduce_scatter, misfits.no_dimensions, bounds.dimensions(_COMBINING)
        ),
    ),
    "all_reduce": (
        Algorithm("recursive_doubling", exchanges.doubling_all_reduce, misfits.no_halving, bounds.doubling),
    ),
    "all_to_all": (Algorithm("pairwise", direct.pairwise),),
}


def choose(
    kind: str, name: str, interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray
) -> tuple[Algorithm, Program]:
    """The algorithm called `name` with its program, or the best one: done first if nothing else runs.

    Raises:
        InputError: there is none of that name, or it does not fit the interconnect.
    """
    if name != BEST:
        algorithm = named(kind, name)
        misfit = algorithm.misfit(interconnect, pattern)
        if misfit:
            raise refused(kind, name, misfit, interconnect, _fitting_names(kind, interconnect, pattern))
        return algorithm, program_of(interconnect, algorithm, pattern)
    chosen, done_at = None, -1
    for bound, algorithm in by_bound(kind, interconnect, pattern, payload_bytes):
        # Not equal: of several that are as good the first one of the registry is taken, whatever their bounds.
        if chosen is not None and bound > done_at:
            break
        if algorithm.misfit(interconnect, pattern):
            continue
        program = program_of(interconnect, algorithm, pattern)
        if chosen is not None and bounds.load(interconnect, program, payload_bytes) > done_at:
            continue
        cycles = isolated_cycles(interconnect, program, payload_bytes)
        place = ALGORITHMS[kind].index(algorithm)
        if chosen is None or (cycles, place) < (done_at, ALGORITHMS[kind].index(chosen)):
            chosen, done_at = algorithm, cycles
    assert chosen is not None, "the first algorithms of a kind fit everywhere"
    return chosen, program_of(interconnect, chosen, pattern)


def by_bound(
    kind: str, interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray
) -> list[tuple[int, Algorithm]]:
    """The algorithms with what they take at least, the least first."""
    bounded = [(each.bound(interconnect, pattern, payload_bytes), each) for each in ALGORITHMS[kind]]
    least = [(max(bound.every_target, bound.last_target), each) for bound, each in bounded]
    return sorted(least, key=lambda pair: pair[0])


def named(kind: str, name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        InputError: there is none.
    """
    for algorithm in ALGORITHMS[kind]:
        if algorithm.name == name:
            return algorithm
    raise unknown(kind, name, (algorithm.name for algorithm in ALGORITHMS[kind]))


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """There is no algorithm of that name."""
    names = [BEST, *known]
    return InputError(
        f"no such algorithm for {kind.replace('_', '-')}",
        path=f"network.collectives.{kind}",
        given=name,
        expected="one of " + ", ".join(names),
        hint=did_you_mean(name, names),
    )


def refused(kind: str, name: str, misfit: str, interconnect: Interconnect, fitting: Iterable[str]) -> InputError:
    """The algorithm does not fit; those that do are named."""
    return InputError(
        f"{name} does not fit this {interconnect.topology.kind}: {misfit}",
        path=f"network.collectives.{kind}",
        given=name,
        expected="one of " + ", ".join([BEST, *fitting]),
    )


def _fitting_names(kind: str, interconnect: Interconnect, pattern: Pattern) -> list[str]:
    return [each.name for each in ALGORITHMS[kind] if not each.misfit(interconnect, pattern)]
