"""Reductions of all kinds, one after the other and side by side, as programs of the RTL."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pe_sim.config.arrays.array import ArrayConfig
from tests.rtl.commands import Combine
from tests.rtl.programs.lowering import Case
from tests.rtl.programs.scripts import Script

LONGEST_WAIT = 40


def extremes(array: ArrayConfig, seed: int = 0) -> Case:
    """A maximum and an argmax, with ties, of what is ready at different times."""
    script = Script(array, seed)
    for combine in (Combine.MAX32, Combine.ARGMAX64, Combine.SUM16):
        waited = script.wait(_staggered(script))
        script.reduce(script.whole, 40, (waited,), combine, at_root=True)
    return script.finish()


def groups(array: ArrayConfig, seed: int = 0) -> Case:
    """Subtrees of every size at once, each followed by a multicast a group; then all PEs to the root."""
    script = Script(array, seed)
    inputs: tuple[int, ...] = ()
    for size in _group_sizes(array):
        waited = script.wait(_staggered(script))
        reduced = script.reduce(script.groups(size), 24, (waited,))
        inputs = (script.multicast(reduced, script.groups(size)),)
    script.reduce(script.whole, 56, inputs, at_root=True)
    return script.finish()


def back_to_back(array: ArrayConfig, seed: int = 0) -> Case:
    """Reductions whose successors are ready before them, at once with them, and after them."""
    script = Script(array, seed)
    early, late = script.wait([1] * array.num_pes), script.wait(_staggered(script))
    last = script.wait(_staggered(script))
    for inputs in ((late,), (early,), (late,), (last,), ()):
        script.reduce(script.whole, int(script.rng.integers(1, 12)) * 4, inputs, at_root=True)
    return script.finish()


def merge_then_plain(array: ArrayConfig, seed: int = 0) -> Case:
    """A softmax merge with plain reductions right before and behind it, all ready at once."""
    script = Script(array, seed)
    waited = script.wait(_staggered(script))
    for softmax in (False, True, False, True, True, False):
        script.reduce(script.whole, int(script.rng.integers(1, 12)) * 4, (waited,), at_root=True, softmax=softmax)
    return script.finish()


def mixed(array: ArrayConfig, seed: int = 0) -> Case:
    """Reductions of random sizes, ways, levels, contributors and readiness."""
    script = Script(array, seed)
    waits = [script.wait(_staggered(script)) for _ in range(3)]
    sizes = _group_sizes(array)
    for _ in range(8):
        at_root = not sizes or bool(script.rng.integers(2))
        scopes = script.whole if at_root else script.groups(int(script.rng.choice(sizes)))
        active = script.rng.integers(0, 4, array.num_pes) > 0
        active[scopes.first_pe + script.rng.integers(0, scopes.size, len(scopes.first_pe))] = True
        script.reduce(
            scopes,
            int(script.rng.integers(1, 12)) * 8,
            (waits[int(script.rng.integers(len(waits)))],),
            Combine(int(script.rng.integers(4))),
            at_root=at_root,
            softmax=bool(script.rng.integers(2)),
            active=active,
        )
    return script.finish()


TREE_PROGRAMS: Mapping[str, Callable[[ArrayConfig, int], Case]] = {
    "extremes": extremes,
    "groups": groups,
    "back to back": back_to_back,
    "merge then plain": merge_then_plain,
    "mixed": mixed,
}


def _staggered(script: Script) -> list[int]:
    return [int(steps) for steps in script.rng.integers(1, LONGEST_WAIT, script.array.num_pes)]


def _group_sizes(array: ArrayConfig) -> list[int]:
    """Sizes of subtrees that divide the array."""
    arity, sizes = array.bus_tree.tree.arity, []
    size = arity
    while size < array.num_pes and array.num_pes % size == 0:
        sizes.append(size)
        size *= arity
    return sizes
