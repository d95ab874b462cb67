"""The reference engine: every PE, the root, the bus and the tree are SimPy processes or resources that contend."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from simpy import Environment, Event

from pe_sim.config.networks.network import Network
from pe_sim.engine.event.collectives import Collective, RootRun, TreeRun
from pe_sim.engine.event.machine import Server, TreePipeline
from pe_sim.engine.event.messages import MessageRun
from pe_sim.engine.event.pe import Delivery, HubSource, PeProgram, PeState, PeTask
from pe_sim.engine.event.recorder import Recorder
from pe_sim.errors import DeadlockError
from pe_sim.host_memory import require_memory
from pe_sim.schedule.matrix import MatrixTiming
from pe_sim.schedule.stages import (
    MessageStage,
    PeStage,
    Resource,
    RootStage,
    RoutedStage,
    Schedule,
    Stage,
    TreeStage,
    channel_names,
)
from pe_sim.trace import Trace

# Measured on 256 to 4,096 PEs: 76 to 121 bytes for each PE of a stage on PEs, 800 for a message's hop over a channel.
_PE_BYTES, _HOP_BYTES = 70, 500
_LEVERS = "the fast engine needs far less (--engine fast), and fewer PEs (num_pes) or layers (model.num_layers) do too"

Source = Delivery | HubSource | PeProgram  # the producer of a slot


def run_event(schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
    """The trace of a schedule, simulated event by event; `check` is called before every task of a PE.

    Raises:
        DeadlockError: no event is left before the last stage is done.
        OutOfMemoryError: the simulation takes more than this machine's memory.
    """
    require_memory(least_bytes(schedule), "this step, event by event,", _LEVERS)
    return _EventRun(schedule, check).run()


def least_bytes(schedule: Schedule) -> int:
    """Lower bound of the bytes that simulating a schedule event by event takes; layers that repeat share nothing."""
    sizes = [
        sum(_PE_BYTES * schedule.array.num_pes for stage in block.stages if isinstance(stage, PeStage))
        + sum(_HOP_BYTES * len(stage.hops) for stage in block.stages if isinstance(stage, RoutedStage))
        for block in schedule.blocks
    ]
    return sum(sizes[run.block] for run in schedule.sequence)


class _EventRun:
    """One simulation of one schedule."""

    def __init__(self, schedule: Schedule, check: Callable[[], None] | None = None) -> None:
        self._schedule, self._check = schedule, check
        self._array = schedule.array
        self.env = Environment()
        self.bus = self._server()
        self.root = {Resource.ROOT_VECTOR: Server(self.env), Resource.ROOT_MEMORY: Server(self.env)}
        network = self._array.network
        levels = network.tree.num_levels if isinstance(network, Network) else 0
        self.tree = TreePipeline(self._array.num_pes, levels)
        self.downlink = TreePipeline(self._array.num_pes)
        self._channels: dict[int, Server] = {}
        self.recorder = Recorder(channel_names(schedule))
        self._timing = MatrixTiming(self._array)
        self._program: list[PeProgram] = []
        self._networks: list[Collective | RootRun] = []
        self._tasks: dict[int, PeTask] = {}
        self._unfinished = 0
        self._done = self.env.event()
        self._states: list[PeState] = []

    def run(self) -> Trace:
        """The trace: builds all runs in program order, starts every PE, and runs on to the step's last event."""
        self._unroll()
        self._states = [PeState() for _ in range(self._array.num_pes)]
        self._unfinished += self._array.num_pes
        for pe, state in enumerate(self._states):
            self.env.process(self._execute(pe, state))
        for network in self._networks:
            network.open()
        try:
            self.env.run(until=self._done)
        except RuntimeError as fault:
            if self._done.triggered:
                raise
            raise DeadlockError(self._waiting()) from fault
        return self.recorder.trace("event", int(self.env.now), self._schedule, self._states)

    def channel(self, index: int) -> Server:
        """The server of a channel of an interconnect that is a graph."""
        if index not in self._channels:
            self._channels[index] = self._server()
        return self._channels[index]

    def _server(self) -> Server:
        return Server(self.env, self._array.network.arbitration)

    def expect(self, count: int = 1) -> Callable[[], None]:
        """Announces `count` things that have to finish; returns the function to call when one of them does."""
        self._unfinished += count
        return self._finish_one

    def _finish_one(self) -> None:
        self._unfinished -= 1
        if self._unfinished == 0:
            self._done.succeed()

    def _unroll(self) -> None:
        carried: dict[int, list[Source]] = {}
        for run in self._schedule.sequence:
            block = self._schedule.blocks[run.block]
            slots = dict(zip(block.entries, carried.get(run.lane, []), strict=True)) if block.entries else {}
            for stage in block.stages:
                slots[stage.output] = self._build(stage, run.layer, [slots[slot] for slot in stage.inputs])
            carried[run.lane] = [slots[slot] for slot in block.exits]

    def _build(self, stage: Stage, layer: int | None, inputs: list[Source]) -> Source:
        order = self.recorder.announce(stage, layer, tuple(source.order for source in inputs))
        match stage:
            case PeStage():
                return self._build_pe_program(stage, order, inputs)
            case RootStage():
                root_run = RootRun(self, stage, order, [source for source in inputs if isinstance(source, HubSource)])
                self._networks.append(root_run)
                return root_run.hubs
            case TreeStage():
                tree_run = TreeRun(self, stage, order, self._array)
                self._connect(tree_run, inputs)
                return tree_run.hubs
            case RoutedStage():
                from pe_sim.engine.event.hops import RoutedRun  # loads networkx

                routed_run = RoutedRun(self, stage, order, self._array)
                self._connect(routed_run, inputs)
                return routed_run.result
            case MessageStage():
                message_run = MessageRun(self, stage, order, self._array)
                self._connect(message_run, inputs)
                return message_run.result
        raise TypeError(f"the event engine has no resource for a {type(stage).__name__}")

    def _build_pe_program(self, stage: PeStage, order: int, inputs: list[Source]) -> PeProgram:
        task = self._tasks.get(id(stage))
        if task is None:
            task = self._tasks[id(stage)] = PeTask.of(stage)
        program = PeProgram(order, task, [source for source in inputs if isinstance(source, Delivery)])
        self._program.append(program)
        self.recorder.keep(program)
        return program

    def _connect(self, run: Collective, inputs: list[Source]) -> None:
        self._networks.append(run)
        for source in inputs:
            if isinstance(source, PeProgram):
                source.consumers.append(run)
                run.expect_from(source.task.active)
            elif isinstance(source, Delivery):
                run.expect_from([True] * self._array.num_pes)
                run.deliveries.append(source)
            else:
                run.hub_inputs.append(source)

    def _execute(self, pe: int, state: PeState) -> Generator[Event, Any, None]:
        """The process of a PE: it executes one operator at a time, in program order."""
        env, timing = self.env, self._timing
        for program in self._program:
            task = program.task
            if not task.active[pe]:
                continue
            if self._check is not None:
                self._check()
            for delivery in program.deliveries:
                event = delivery.head_of(pe) if task.tails is not None else delivery.event_of(pe)
                if event.callbacks is not None:
                    state.waiting_for = (program.order, delivery.order)
                    yield event
            start = int(env.now)
            cycles = state.begin(task, pe, start, timing)
            if cycles:
                yield env.timeout(cycles)
            if task.tails is not None:
                for delivery in program.deliveries:
                    yield from delivery.wait_for_tail(env, pe, task.tails[pe])
            if cycles:  # a PE without work only passes its term of a sum on
                program.starts[pe], program.ends[pe] = start, int(env.now)
            for consumer in program.consumers:
                consumer.arrive(pe)
        state.waiting_for = None
        self._finish_one()

    def _waiting(self) -> list[str]:
        """Lines for an error message: one for each PE and collective that waits, with what it waits for."""
        name = self.recorder.name_of
        lines = [
            f"PE {pe} waits in {name(state.waiting_for[0])} for {name(state.waiting_for[1])}"
            for pe, state in enumerate(self._states)
            if state.waiting_for is not None
        ]
        for network in self._networks:
            missing = network.missing()
            if missing:
                lines.append(f"{name(network.order)} waits for {missing}")
        return lines
