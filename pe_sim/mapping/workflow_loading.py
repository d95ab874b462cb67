"""Workflows by name or from a file."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from pe_sim.config.loading import load_mapping
from pe_sim.config.workflow_file import LayersFile, WorkflowFile, check_workflow_file
from pe_sim.errors import InputError, printable
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, LayerRule, Workflow, named_workflow

_SHORTHANDS = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
_FILE_SUFFIXES = (".yaml", ".yml", ".json")


def load_workflow(name_or_path: str | Path) -> Workflow:
    """A named workflow, or the one a YAML or JSON file describes.

    Raises:
        InputError: there is no such name or file, or the file is wrong.
    """
    text = str(name_or_path)
    if text in WORKFLOWS or not (text.endswith(_FILE_SUFFIXES) or "/" in text):
        return named_workflow(text)
    path = Path(text)
    if not path.is_file():
        raise InputError("no such file", source="workflow", given=text, expected="a name or a workflow file's path")
    return _from_file(check_workflow_file(load_mapping(path), text), path)


def as_workflow(workflow: Workflow | str | Path) -> Workflow:
    """The workflow itself, or what `load_workflow` makes of it."""
    return workflow if isinstance(workflow, Workflow) else load_workflow(workflow)


def _from_file(file: WorkflowFile, path: Path) -> Workflow:
    base = named_workflow(file.base) if file.base else Workflow("", "", ())
    rules = tuple(_rule(entry, f"{path}: layers.{index}.layers") for index, entry in enumerate(file.layers))
    if not file.base and not rules:
        raise InputError("the workflow gives no layer anything", source=str(path), path="layers", hint="name a `base`")
    return replace(
        base,
        name=file.name or printable(path.stem),
        summary=file.summary,
        groups=file.groups,
        lm_head=file.lm_head or base.lm_head,
        rules=rules,
        source=str(path),
    )


def _rule(entry: LayersFile, source: str) -> LayerRule:
    first, last = _range(entry.layers, source)
    given = {name: value for name, value in entry.model_dump(exclude_none=True).items() if name != "layers"}
    changes: dict[str, str] = {}
    for shorthand, names in _SHORTHANDS.items():
        if shorthand in given:
            changes |= dict.fromkeys(names, given.pop(shorthand))
    changes |= given
    assert set(changes) <= {field.name for field in fields(LayerPlan)}
    return LayerRule(first, last, tuple(sorted(changes.items())), source)


def _range(layers: str | int, source: str) -> tuple[int, int | None]:
    """First and last layer, inclusive; last None: to the end."""
    if layers == "all":
        return 0, None
    first, _, last = str(layers).partition("-")
    if first.isdecimal() and (last.isdecimal() or not _) and int(first) <= int(last or first):
        return int(first), int(last or first)
    raise InputError("this is no range of layers", source=source, given=layers, expected="'all', 7 or '0-15'")
