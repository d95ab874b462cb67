"""What a collective needs of the simulation it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from simpy import Environment

from pe_sim.engine.pipeline import TreePipeline
from pe_sim.engine.recorder import Recorder
from pe_sim.engine.server import Server
from pe_sim.schedule.stages import Resource


class Machine(Protocol):
    """The resources that contend, and what is kept of a run."""

    env: Environment
    bus: Server
    tree: TreePipeline
    downlink: TreePipeline
    root: dict[Resource, Server]
    recorder: Recorder

    def channel(self, index: int) -> Server:
        """The channel of an interconnect that is a graph."""
        ...

    def expect(self, count: int = 1) -> Callable[[], None]:
        """Announces things that have to finish; the returned call says that one of them did."""
        ...
