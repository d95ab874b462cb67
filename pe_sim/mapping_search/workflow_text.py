"""A workflow as the text of a workflow file: takes resolved plans, gives YAML that reads back as the same."""

from __future__ import annotations

from collections.abc import Sequence

from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, Workflow

_BUNDLES = (("qkv", ("q", "k", "v")), ("gate_up", ("gate", "up")))


def workflow_text(workflow: Workflow, num_layers: int, comment: str) -> str:
    """The file; a base is named where only that can say it (pipelines, streamed weights)."""
    lines = [f"# {comment}", "schema_version: 1", f"name: {workflow.name}"]
    special = workflow.pipelined or workflow.stream_weights or workflow.local_ends
    if special:
        lines.append(f"base: {_base_of(workflow)}")
    if workflow.groups > 1:
        lines.append(f"groups: {workflow.groups}")
    lines.append(f"lm_head: {workflow.lm_head}")
    plans = [workflow.plan(layer) for layer in range(num_layers)]
    runs = runs_of(plans)
    if not special:
        lines.append("layers:")
        lines += [_entry(_range(first, last, len(plans)), plans[first]) for first, last in runs]
    return "\n".join(lines) + "\n"


def _base_of(workflow: Workflow) -> str:
    flags = (workflow.pipelined, workflow.stream_weights, workflow.local_ends)
    return next(
        name
        for name, base in WORKFLOWS.items()
        if (base.pipelined, base.stream_weights, base.local_ends) == flags and base.pattern == workflow.pattern
    )


def runs_of(plans: Sequence[LayerPlan]) -> list[tuple[int, int]]:
    """First and last layer of every run of equal plans."""
    starts = [layer for layer in range(len(plans)) if layer == 0 or plans[layer] != plans[layer - 1]]
    return [(first, after - 1) for first, after in zip(starts, [*starts[1:], len(plans)], strict=True)]


def _range(first: int, last: int, num_layers: int) -> str:
    if last - first == num_layers - 1:
        return "all"
    return f"{first}" if first == last else f"{first}-{last}"


def _entry(layers: str, plan: LayerPlan) -> str:
    given = plan.to_dict()
    fields: dict[str, str] = {}
    for name, value in given.items():
        bundle = next(((short, members) for short, members in _BUNDLES if name in members), None)
        if bundle is not None and len({given[member] for member in bundle[1]}) == 1:
            fields[bundle[0]] = value
        elif value != "follow" or name == "stream":
            fields[name] = value
    return "\n".join([f"  - layers: {layers}", *(f"    {name}: {value}" for name, value in fields.items())])
