"""The schemas of interconnects other than bus_tree: one Section for each kind, chosen by `network.kind`."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, ValidatorFunctionWrapHandler, field_validator

from pe_sim.config.files.schema import (
    MAX_PES,
    MAX_RATE,
    BusLatency,
    Cycles,
    Rate,
    Section,
    check_latency,
    fault,
    number_advice,
    or_installed,
)
from pe_sim.config.networks.bus_tree_schema import Arbitration, CollectivesFile
from pe_sim.errors import did_you_mean
from pe_sim.registry import Registry

MAX_RADIX: Final = 1024
MAX_GROWTH: Final = 64

HopLatency = Annotated[int | Literal["auto"], BeforeValidator(partial(check_latency, minimum=1))]
Side = Annotated[int | None, Field(ge=1, le=MAX_PES)]


def _check_place(value: Any) -> Any:
    """The value, if it is a PE's number or `center`; else raises a fault."""
    if value == "center" and isinstance(value, str):
        return value
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        hint = number_advice(value, whole=True) or (did_you_mean(value, ["center"]) if isinstance(value, str) else "")
        raise fault("not a place for the root", "the number of a PE, or center", hint)
    return value


def _check_graph(value: Any) -> Any:
    """The value, if it is a mapping or None; else raises a fault. Its entries are checked where graphs are read."""
    if value is not None and not isinstance(value, dict):
        raise fault(
            "not a graph", "a mapping with nodes and edges: the node-link form", "or name a file: file: my.graphml"
        )
    return value


Place = Annotated[int | Literal["center"], BeforeValidator(_check_place)]
InlineGraph = Annotated[dict[str, Any] | None, BeforeValidator(_check_graph)]


class LinkFile(Section):
    """The schema of the parameters of every channel of one level."""

    bytes_per_cycle: Rate = Field(description="width of a channel")
    latency_cycles: BusLatency = Field(description="time of flight; auto: from the wire's length in the floorplan")
    overhead_cycles: Cycles = Field(default=0, description="arbitration and header of every message")
    request_cycles: BusLatency = Field(default=0, description="a PE's request to the arbiter; auto: as latency_cycles")
    ramp_cycles: Cycles = Field(default=0, description="from a PE to its router and back, paid at either end")


class EdgeDefaultsFile(Section):
    """The schema of the defaults for edges of the user's graph."""

    bytes_per_cycle: Annotated[int | None, Field(ge=1, le=MAX_RATE)] = Field(
        default=None, description="width of a channel; null: every edge has to say it"
    )
    latency_cycles: BusLatency = Field(default="auto", description="time of flight; auto: from the wire's length")
    overhead_cycles: Cycles = Field(default=0, description="arbitration and header of every message")
    request_cycles: BusLatency = Field(default=0, description="a PE's request to the arbiter; auto: as latency_cycles")
    ramp_cycles: Cycles = Field(default=0, description="from a PE to its router and back, paid at either end")


# The algorithms that `pe_sim.network.collectives.plans` has; a test keeps the two equal.
Broadcast = Literal["best", "multicast", "star", "chain", "tree"]
Reduce = Literal["best", "in_network", "star", "chain", "tree"]
AllReduce = Literal["best", "reduce_broadcast", "ring", "recursive_doubling", "halving_doubling", "dimension_wise"]
AllGather = Literal["best", "by_reduction", "serial", "ring", "recursive_doubling", "dimension_wise"]
ReduceScatter = Literal["best", "by_broadcast", "serial", "ring", "recursive_halving", "dimension_wise"]
AllToAll = Literal["best", "pairwise"]
Scatter = Literal["best", "serial", "by_broadcast", "by_reduction"]  # the last two mean the same


class GraphCollectivesFile(CollectivesFile):
    """The schema of the algorithm of each collective."""

    scatter: Scatter = Field(default="best", description="scatter")  # type: ignore[assignment]  # one more word for it
    broadcast: Broadcast = Field(default="best", description="algorithm of broadcasts")
    reduce: Reduce = Field(default="best", description="algorithm of reductions")
    all_reduce: AllReduce = Field(default="best", description="algorithm of all-reduces")
    all_gather: AllGather = Field(default="best", description="algorithm of all-gathers")
    reduce_scatter: ReduceScatter = Field(default="best", description="algorithm of reduce-scatters")
    all_to_all: AllToAll = Field(default="best", description="algorithm of all-to-alls")

    @field_validator("*", mode="wrap")
    @classmethod
    def _known(cls, given: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        field = str(info.field_name)
        return or_installed(cls.model_fields[field].annotation, "pe_sim.collectives", f"{field}.")(given, handler)


class GraphNetworkFile(Section):
    """The schema of what all graphs of channels have in common."""

    kind: str
    combine_cycles: Cycles = Field(default=2, description="a router's or a switch's time to combine")
    softmax_combine_cycles: Cycles = Field(default=12, description="its time to merge two softmax partials")
    forward_cycles: Cycles = Field(default=0, description="what starting a multicast or passing a value on adds")
    in_network_reduction: bool = Field(default=True, description="whether routers and switches combine")
    arity: int = Field(default=2, ge=2, le=MAX_PES, description="sizes of PE groups are powers of it")
    arbitration: Arbitration = Field(default="fifo", description="who gets a channel that several ask for")
    collectives: GraphCollectivesFile = Field(
        default_factory=GraphCollectivesFile, description="algorithms of the collectives"
    )


class LineFile(GraphNetworkFile):
    """A line of PEs."""

    kind: Literal["line"] = Field(description="line: PE i beside i - 1 and i + 1")
    link: LinkFile = Field(description="every link, one channel each way")
    root_at: Place = Field(default=0, description="the PE that the root is attached to; center: the middle one")


class RingFile(GraphNetworkFile):
    """A ring of PEs."""

    kind: Literal["ring"] = Field(description="ring: a line whose ends meet")
    link: LinkFile = Field(description="every link, one channel each way")
    root_at: Place = Field(default=0, description="the PE that the root is attached to; center: PE N / 2")


class GridFile(GraphNetworkFile):
    """The schema of what a mesh and a torus have in common."""

    rows: Side = Field(default=None, description="rows; default: the most square rows x cols = N")
    cols: Side = Field(default=None, description="columns; default: the most square rows x cols = N")
    link: LinkFile = Field(description="every link, one channel each way")
    root_at: Place = Field(default=0, description="the PE that the root is attached to; center: the middle one")


class MeshFile(GridFile):
    """A 2-D mesh."""

    kind: Literal["mesh"] = Field(description="mesh: rows x cols PEs with links between neighbours")


class TorusFile(GridFile):
    """A 2-D torus."""

    kind: Literal["torus"] = Field(description="torus: a mesh whose rows and columns are rings")


class HypercubeFile(GraphNetworkFile):
    """A hypercube."""

    kind: Literal["hypercube"] = Field(description="hypercube: links between PEs whose numbers differ in one bit")
    link: LinkFile = Field(description="every link, one channel each way")
    root_at: Annotated[int, Field(ge=0, le=MAX_PES)] = Field(
        default=0, description="the PE that the root is attached to"
    )


class ButterflyFile(GraphNetworkFile):
    """A butterfly."""

    kind: Literal["butterfly"] = Field(description="butterfly: log_radix N stages of switches")
    radix: int = Field(default=2, ge=2, le=MAX_RADIX, description="inputs and outputs of a switch")
    link: LinkFile = Field(description="every link, one way: PE, stages, PE")


class CrossbarFile(GraphNetworkFile):
    """A crossbar."""

    kind: Literal["crossbar"] = Field(description="crossbar: one switch with two ports for every PE")
    link: LinkFile = Field(description="every port, one channel in and one out")


class HTreeFile(GraphNetworkFile):
    """An H-tree."""

    kind: Literal["h_tree"] = Field(description="h_tree: a tree of switches in the shape of an H")
    arity: int = Field(default=2, ge=2, le=MAX_PES, description="children of a switch; PE groups are powers of it")
    link: LinkFile = Field(description="every link, one channel each way")


class FatTreeFile(GraphNetworkFile):
    """A fat tree."""

    kind: Literal["fat_tree"] = Field(description="fat_tree: a tree of switches that widens towards the top")
    arity: int = Field(default=2, ge=2, le=MAX_PES, description="children of a switch; PE groups are powers of it")
    growth: float = Field(ge=1, le=MAX_GROWTH, description="a level's width over the one below; arity: full bisection")
    link: LinkFile = Field(description="the links of the PEs, one channel each way")


class ClusterTreeFile(Section):
    """The schema of the reduction tree of one level of the hierarchy."""

    arity: int = Field(default=2, ge=2, le=MAX_PES, description="children of a joint")
    bytes_per_cycle: Rate = Field(description="width of every edge")
    latency_cycles: HopLatency = Field(description="of a hop; auto: from the floorplan")
    downlink: bool = Field(default=False, description="whether results can go down the tree")


class ClusterBusFile(Section):
    """The schema of the shared bus of one level of the hierarchy."""

    bytes_per_cycle: Rate = Field(description="width")
    latency_cycles: BusLatency = Field(description="time of flight; auto: from the floorplan")
    overhead_cycles: Cycles = Field(description="arbitration and header of every message")
    request_cycles: BusLatency = Field(default=0, description="a request to the arbiter; auto: as latency_cycles")


class BusLevelFile(Section):
    """The schema of one level of the hierarchy."""

    bus: ClusterBusFile = Field(description="the bus of this level")
    tree: ClusterTreeFile = Field(description="the reduction tree of this level")


class HierarchicalBusFile(GraphNetworkFile):
    """The schema of a hierarchical bus: buses and trees on two levels."""

    kind: Literal["hierarchical_bus"] = Field(description="hierarchical_bus: clusters with a bus and a tree each")
    cluster_pes: int = Field(ge=2, le=MAX_PES, description="PEs of a cluster; the last one has what remains")
    cluster: BusLevelFile = Field(description="inside a cluster")
    top: BusLevelFile = Field(description="between the clusters and the root")


class GraphFile(GraphNetworkFile):
    """The schema of the user's own graph."""

    kind: Literal["graph"] = Field(description="graph: your own, from a file or written here")
    file: Annotated[str | None, Field(min_length=1)] = Field(
        default=None, description="GraphML or node-link JSON, relative to the array's file"
    )
    graph: InlineGraph = Field(default=None, description="the same in place: a mapping with nodes and edges")
    link: EdgeDefaultsFile = Field(
        default_factory=EdgeDefaultsFile, description="parameters of the edges that give none themselves"
    )


SECTIONS: Registry[type[GraphNetworkFile]] = Registry(
    "pe_sim.topologies",
    {
        "hierarchical_bus": HierarchicalBusFile,
        "h_tree": HTreeFile,
        "fat_tree": FatTreeFile,
        "line": LineFile,
        "ring": RingFile,
        "mesh": MeshFile,
        "torus": TorusFile,
        "hypercube": HypercubeFile,
        "butterfly": ButterflyFile,
        "crossbar": CrossbarFile,
        "graph": GraphFile,
    },
    ("model_fields",),
    attrgetter("section"),
)
