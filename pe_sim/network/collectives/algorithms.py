"""The registry of algorithms that do a part of a collective with one program, and reasons why one does not fit.

What a user asks for may take several of them after one another; those plans are in `plans`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np

from pe_sim.errors import InputError, did_you_mean
from pe_sim.network.collectives import bounds, direct, exchanges, relays
from pe_sim.network.collectives.direct import in_network
from pe_sim.network.collectives.programs import Algorithm, Pattern, isolated_cycles, program_of
from pe_sim.network.collectives.ring_orders import box_of
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.flows import CannotCombineError
from pe_sim.network.routing.hops import Program
from pe_sim.network.topology.topology import Topology
from pe_sim.registry import Registry
from pe_sim.units import IntArray

# ---- Why an algorithm cannot run on an interconnect, in words; empty if it can.


_E = TypeVar("_E")
_FEWEST_ARMS = 3  # fewest arms of a star; a line of three PEs is none


def cannot_combine(interconnect: Interconnect, pattern: Pattern) -> str:
    """Why values cannot be combined in the network on their way to the hubs; empty if they can."""
    if not interconnect.topology.in_network_reduction:
        return "its nodes do not combine (network.in_network_reduction is false)"
    try:
        program_of(interconnect, Algorithm("in_network", in_network), pattern)
    except CannotCombineError:
        return "values meet at a node that cannot combine them"
    return ""


def no_neighbours(interconnect: Interconnect, pattern: Pattern) -> str:
    """Why PEs cannot exchange messages all at once: a shared bus lies between them; empty if they can."""
    if not interconnect.topology.is_bus.any():
        return ""
    for scope in np.flatnonzero(pattern.sizes > 1).tolist():
        pes = pattern.pes(scope)
        if interconnect.flows.passes_bus(int(pes[0]), pes):
            return "its PEs reach each other over a shared bus, one message at a time"
    return ""


def no_ring(interconnect: Interconnect, pattern: Pattern) -> str:
    """Why the PEs cannot form a ring; empty if they can.

    A ring needs neighbours: in a star all messages pass the same node, so no two PEs are closer than others.
    """
    if not (pattern.sizes > 1).any():
        return ""
    middle = middle_of_star(interconnect)
    if middle is not None:
        return f"it is a star, in which all messages pass {middle}"
    return no_neighbours(interconnect, pattern)


def no_powers_of_two(_interconnect: Interconnect, pattern: Pattern) -> str:
    """Why the scopes cannot be halved again and again: one is no power of two; empty if they can."""
    sizes = pattern.sizes
    odd = sizes[(sizes & (sizes - 1)) != 0]
    return f"{odd[0]} PEs are no power of two" if len(odd) else ""


def no_halving(interconnect: Interconnect, pattern: Pattern) -> str:
    """Why PEs cannot exchange messages at distances 1, 2, 4, ...; empty if they can."""
    return no_powers_of_two(interconnect, pattern) or no_neighbours(interconnect, pattern)


def no_dimensions(interconnect: Interconnect, pattern: Pattern) -> str:
    """Why there can be no rings along each dimension: PEs fill no box of two or more dimensions; empty if there can."""
    coordinates = interconnect.flows.routes.coordinates
    if coordinates is None:
        return "its PEs have no coordinates"
    for scope in range(pattern.num_scopes):
        box = box_of(coordinates, pattern.pes(scope))
        if box is None:
            return f"PEs {pattern.first_pe[scope]} to {pattern.last_pe[scope] - 1} fill no box of its grid"
        if len(box) == 1:
            return "it has one dimension, for which there is ring"
    return ""


@lru_cache(maxsize=32)
def middle_of_star(interconnect: Interconnect) -> str | None:
    """The name of the node that all messages between other PEs pass, if at least three do (a bus too); None if none."""
    topology = interconnect.topology
    if topology.num_pes < _FEWEST_ARMS:
        return None
    for node in interconnect.flows.nodes_between(0, 1):
        if _is_middle(topology, node):
            return f"PE {node}" if node < topology.num_pes else f"node {topology.nodes[node]}"
    return None


def _is_middle(topology: Topology, node: int) -> bool:
    """Whether there are at least `_FEWEST_ARMS` other PEs, and no two of them reach each other without the node."""
    # Imported here because it takes a third of a second, which a run that never asks is spared.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    edges, num_nodes, num_pes = topology.edges, len(topology.nodes), topology.num_pes
    left = edges[(edges[:, 0] != node) & (edges[:, 1] != node)]
    graph = csr_array((np.ones(len(left)), (left[:, 0], left[:, 1])), shape=(num_nodes, num_nodes))
    _, part = connected_components(graph, directed=True, connection="strong")
    parts = np.delete(part[:num_pes], node) if node < num_pes else part[:num_pes]
    return len(parts) >= _FEWEST_ARMS and len(np.unique(parts)) == len(parts)


BEST: Final = "best"
_COMBINING, _FORWARDING = bounds.combining, bounds.forwarding

# The first of several that are done in the same cycle is the one that is chosen.
_BUILT_IN: Final[Mapping[str, tuple[Algorithm, ...]]] = {
    "broadcast": (
        Algorithm("multicast", direct.multicast),
        Algorithm("star", direct.star_broadcast, bound=bounds.star_out),
        Algorithm("chain", relays.chain_broadcast),
        Algorithm("tree", relays.tree_broadcast),
    ),
    "reduce": (
        Algorithm("in_network", direct.in_network, cannot_combine),
        Algorithm("star", direct.star_reduce, bound=bounds.star_in),
        Algorithm("chain", relays.chain_reduce),
        Algorithm("tree", relays.tree_reduce),
    ),
    "scatter": (Algorithm("serial", direct.serial_scatter),),
    "gather": (Algorithm("serial", direct.serial_gather),),
    "all_gather": (
        Algorithm("serial", direct.serial_all_gather, bound=bounds.serial),
        Algorithm("ring", exchanges.ring_all_gather, no_ring, bounds.ring(_FORWARDING)),
        Algorithm("recursive_doubling", exchanges.recursive_doubling, no_halving, bounds.blocks(_FORWARDING)),
        Algorithm("dimension_wise", exchanges.dimension_all_gather, no_dimensions, bounds.dimensions(_FORWARDING)),
    ),
    "reduce_scatter": (
        Algorithm("ring", exchanges.ring_reduce_scatter, no_ring, bounds.ring(_COMBINING)),
        Algorithm("recursive_halving", exchanges.recursive_halving, no_halving, bounds.blocks(_COMBINING)),
        Algorithm("dimension_wise", exchanges.dimension_reduce_scatter, no_dimensions, bounds.dimensions(_COMBINING)),
    ),
    "all_reduce": (Algorithm("recursive_doubling", exchanges.doubling_all_reduce, no_halving, bounds.doubling),),
    "all_to_all": (Algorithm("pairwise", direct.pairwise),),
}
# The best is chosen of the built-in ones alone: what a machine takes depends on no package that happens to be there.
ALGORITHMS: Final[Mapping[str, Registry[Algorithm]]] = {
    kind: Registry(
        "pe_sim.collectives",
        {each.name: each for each in algorithms},
        ("name", "build", "misfit", "bound"),
        prefix=f"{kind}.",
    )
    for kind, algorithms in _BUILT_IN.items()
}


def choose(
    kind: str, name: str, interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray
) -> tuple[Algorithm, Program]:
    """The algorithm called `name` with its program, or the best one: done first if nothing else runs.

    Raises:
        InputError: there is none of that name, or it does not fit the interconnect.
    """
    if name != BEST:
        algorithm = named(ALGORITHMS, kind, name)
        misfit = algorithm.misfit(interconnect, pattern)
        if misfit:
            raise refused(kind, name, misfit, interconnect, _fitting_names(kind, interconnect, pattern))
        return algorithm, program_of(interconnect, algorithm, pattern)
    chosen, _ = _fastest(kind, interconnect, pattern, payload_bytes)
    return chosen, program_of(interconnect, chosen, pattern)


def cycles_alone(kind: str, name: str, interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> int:
    """Completion cycle of the algorithm that `choose` gives, when everything is ready at 0 and nothing else runs.

    Raises:
        InputError: as `choose`.
    """
    if name == BEST:
        return _fastest(kind, interconnect, pattern, payload_bytes)[1]
    _, program = choose(kind, name, interconnect, pattern, payload_bytes)
    return isolated_cycles(interconnect, program, payload_bytes)


def _fastest(kind: str, interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> tuple[Algorithm, int]:
    """The built-in algorithm that is done first, and its completion cycle."""
    order, chosen, done_at = list(ALGORITHMS[kind].built_in.values()), None, -1
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
        place = order.index(algorithm)
        if chosen is None or (cycles, place) < (done_at, order.index(chosen)):
            chosen, done_at = algorithm, cycles
    assert chosen is not None, "the first algorithms of a kind fit everywhere"
    return chosen, done_at


def by_bound(
    kind: str, interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray
) -> list[tuple[int, Algorithm]]:
    """The built-in algorithms, each with a lower bound of its cycles, in order of the bounds."""
    built_in = ALGORITHMS[kind].built_in.values()
    bounded = [(each.bound(interconnect, pattern, payload_bytes), each) for each in built_in]
    least = [(max(bound.every_target, bound.last_target), each) for bound, each in bounded]
    return sorted(least, key=lambda pair: pair[0])


def named(registries: Mapping[str, Registry[_E]], kind: str, name: str) -> _E:
    """The entry of that name for a kind of collective: of `ALGORITHMS`, or of ways to put them together.

    Raises:
        InputError: there is none.
    """
    entry = registries[kind].get(name)
    if entry is None:
        names = [BEST, *registries[kind]]
        raise InputError(
            f"no such algorithm for {kind.replace('_', '-')}",
            path=f"network.collectives.{kind}",
            given=name,
            expected="one of " + ", ".join(names),
            hint=did_you_mean(name, names),
        )
    return entry


def refused(kind: str, name: str, misfit: str, interconnect: Interconnect, fitting: Iterable[str]) -> InputError:
    """The error that an algorithm does not fit the interconnect; it names those that do."""
    return InputError(
        f"{name} does not fit this {interconnect.topology.kind}: {misfit}",
        path=f"network.collectives.{kind}",
        given=name,
        expected="one of " + ", ".join([BEST, *fitting]),
    )


def _fitting_names(kind: str, interconnect: Interconnect, pattern: Pattern) -> list[str]:
    return [each.name for each in ALGORITHMS[kind].values() if not each.misfit(interconnect, pattern)]
