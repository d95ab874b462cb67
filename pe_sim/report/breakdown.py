"""Where the time goes: the critical path by group of operators and, for communication, by tag. The parts add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pe_sim.graph.operators import AttentionOperator, Elementwise, Linear, Norm, Operator
from pe_sim.report.analysis.critical_path import WAIT, counted
from pe_sim.report.analysis.metrics import LINK_KINDS
from pe_sim.report.report import Report
from pe_sim.schedule.stages import Tag

PROJECTIONS = "attention projections"
ATTENTION = "attention"
FFN = "FFN"
NORMS = "norms & adds"
LM_HEAD = "LM head"
ENDS = "embedding & argmax"
OTHER = "other"  # operators the graph does not have
GROUPS = (PROJECTIONS, ATTENTION, FFN, NORMS, LM_HEAD, ENDS, OTHER)


@dataclass(frozen=True, slots=True)
class Part:
    """Cycles of the critical path.

    Args:
        name: of a group of operators, or a tag.
        communication: whether it is a tag.
        cycles: in all.
        bound_by: the kind of resource most of them were limited by.
    """

    name: str
    communication: bool
    cycles: int
    bound_by: str


def group_of(operator: Operator) -> str:
    """The group a person would look for the operator in."""
    if isinstance(operator, Linear):
        if operator.out_dim == "vocab":
            return LM_HEAD
        return PROJECTIONS if {operator.in_dim, operator.out_dim} & {"query", "kv"} else FFN
    if isinstance(operator, AttentionOperator):
        return ATTENTION
    if isinstance(operator, Elementwise):
        return NORMS if operator.function == "add" else FFN
    return NORMS if isinstance(operator, Norm) else ENDS


def parts(report: Report) -> tuple[Part, ...]:
    """Every group, then every tag, that has a part in the critical path; their cycles add up to the latency."""
    groups = {operator.name: group_of(operator) for operator in report.graph.distinct}
    cycles: Counter[tuple[bool, str, str]] = Counter()
    for link, times in counted(report.critical_path()):
        name = link.tag or groups.get(link.operator, OTHER)
        cycles[bool(link.tag), name, LINK_KINDS[link.resource]] += times * link.cycles
    names = [(False, group) for group in GROUPS] + [(True, tag.value) for tag in Tag]
    found = []
    for communication, name in names:
        kinds = {kind: count for (is_tag, its, kind), count in cycles.items() if (is_tag, its) == (communication, name)}
        if kinds:
            longest = max(sorted(kinds), key=lambda kind: kinds[kind])
            found.append(Part(name, communication, sum(kinds.values()), longest))
    return tuple(found)


def cycles_by_kind(report: Report) -> dict[str, int]:
    """Cycles of the critical path by the kind of resource that limits them, the most first; unexplained waits last."""
    cycles: Counter[str] = Counter()
    for link, times in counted(report.critical_path()):
        cycles[LINK_KINDS[link.resource]] += times * link.cycles
    return dict(sorted(cycles.items(), key=lambda item: (item[0] == WAIT, -item[1], item[0])))
