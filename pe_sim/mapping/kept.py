"""What is worked out for a placed graph and used again: takes a key and a function, gives what it made of an equal key.

A sweep asks the same of one placed graph again and again. What follows from the graph stays with the graph: nobody has
to throw it away, and it goes when the graph goes. How much stays is bounded by the size of the graph's arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST = 8  # results of one function: design points of a sweep take turns between fewer
_ENTRIES = 2**14  # PEs times blocks times results of one function: some 300 bytes of arrays each, 5 MB in all


class Memo:
    """The latest results of a few functions; keys are compared, not hashed, for arrays hold dicts."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: dict[Callable[..., Any], list[tuple[object, Any]]] = {}

    def recall(self, key: object, make: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What `make` gives for these arguments, or gave when the key was equal.

        Args:
            key: everything the result depends on beside what the memo belongs to.
            make: a function that lives as long as the program.
        """
        results = self._results.setdefault(make, [])
        for index, (known, result) in enumerate(results):
            if known == key:
                if index:
                    results.insert(0, results.pop(index))
                kept: _T = result
                return kept
        made = make(*args, **kwargs)
        results.insert(0, (key, made))
        del results[self._limit :]
        return made


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """What stays with a placed graph.

    Args:
        blocks: of the graph; a graph with other blocks starts anew.
        nodes: what follows from the nodes alone, shared by graphs with the same nodes in other layouts.
        layouts: what follows from nodes and layouts, shared by graphs that differ in their array only.
        heavy: as `layouts`, for what has more than a few entries a PE.
    """

    blocks: tuple[object, ...] = ()
    nodes: Memo = field(default_factory=lambda: Memo(1))
    layouts: Memo = field(default_factory=lambda: Memo(0))
    heavy: Memo = field(default_factory=lambda: Memo(0))

    @classmethod
    def of(cls, blocks: tuple[object, ...], num_pes: int, nodes: Memo | None = None) -> Kept:
        """Memos with room for the arrays of `blocks` over `num_pes` PEs."""
        limit = min(_MOST, _ENTRIES // (num_pes * len(blocks)))
        return cls(blocks, nodes or Memo(1), Memo(limit), Memo(min(limit, 1)))
