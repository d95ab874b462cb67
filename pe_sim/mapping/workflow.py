"""Workflows: a distribution for every operator of every layer, the table of named ones, and those of files."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path

from pe_sim.config.files.loading import load_mapping
from pe_sim.config.workflow_schema import LayersFile, WorkflowFile, check_workflow_file
from pe_sim.errors import InputError, did_you_mean, printable
from pe_sim.notebook import Table, card

ACTIVATIONS = ("silu_mul", "gelu", "gelu_tanh", "tanh")


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The distributions of one layer.

    Args:
        q, k, v, o, gate, up, down: distribution of each matrix.
        attention: head, token, batch or replicate, for RoPE to values.
        stream: what the stream becomes at the end of the layer: replicate, shard, batch, or follow (left as it is).
        attention_norm, attention_add, ffn_norm, ffn_add, activation: where a vector operator runs: replicate, shard,
            root, batch, or follow (where its inputs are).
    """

    q: str
    k: str
    v: str
    attention: str
    o: str
    gate: str
    up: str
    down: str
    stream: str = "follow"
    attention_norm: str = "follow"
    attention_add: str = "follow"
    ffn_norm: str = "follow"
    ffn_add: str = "follow"
    activation: str = "follow"

    def to_dict(self) -> dict[str, str]:
        """Operator to distribution, JSON-ready."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


@dataclass(frozen=True, slots=True)
class LayerRule:
    """Changes to the plans of layers first .. last (None: to the end), from `source`."""

    first: int
    last: int | None
    changes: tuple[tuple[str, str], ...]
    source: str


@dataclass(frozen=True, slots=True)
class Workflow:
    """A plan for every layer.

    Args:
        name, summary: for people.
        pattern: layer i starts from pattern[i mod len(pattern)]; empty where the rules say everything.
        groups: groups of PEs that split the batch.
        lm_head: distribution of the LM head (and of an encoder's pooler).
        stream_weights: every matrix comes from the root, once a step.
        local_ends: PEs hold the embedding table and keep the results of their own sequences.
        pipelined: each PE or group of PEs holds whole layers and the sequences move on.
        searched: what rules, groups and LM head leave open is still to be searched for a model, an array and a step.
        rules: changes by layer range, later ones win.
        source: what messages call it: the file it came from, or its name.
    """

    name: str
    summary: str
    pattern: tuple[LayerPlan, ...]
    groups: int = 1
    lm_head: str = "row"
    stream_weights: bool = False
    local_ends: bool = False
    pipelined: bool = False
    searched: bool = False
    rules: tuple[LayerRule, ...] = ()
    source: str = field(default="", compare=False)

    @property
    def num_layers(self) -> int | None:
        """Number of layers up to the last one that its rules name; None where they name none behind the first."""
        named = [rule.last if rule.last is not None else rule.first for rule in self.rules]
        highest = max(named, default=0)
        return highest + 1 if highest > 0 else None

    def plan(self, layer: int) -> LayerPlan:
        """The plan of one layer (0-based).

        Raises:
            InputError: nothing says how an operator of the layer is distributed.
        """
        if self.searched:
            raise InputError(
                "this workflow has to be searched before anything is placed",
                source=self.source or self.name,
                hint="take pe_sim.search(model, array, step).workflow",
            )
        if self.pattern and not self.rules:
            return self.pattern[layer % len(self.pattern)]
        chosen = self.pattern[layer % len(self.pattern)].to_dict() if self.pattern else {}
        for rule in self.rules:
            if rule.first <= layer and (rule.last is None or layer <= rule.last):
                chosen.update(rule.changes)
        missing = [entry.name for entry in fields(LayerPlan) if entry.default is MISSING and entry.name not in chosen]
        if missing:
            raise InputError(
                f"layer {layer} has no distribution for {', '.join(missing)}",
                source=self.source or self.name,
                path="layers",
                hint="give them for this layer, or name a `base` workflow that fills what is left out",
            )
        return LayerPlan(**chosen)

    def _repr_html_(self) -> str:
        """What a notebook shows: what it says of layers, in the order in which it is applied."""
        facts = [("summary", self.summary), ("LM head", self.lm_head), ("groups", str(self.groups))]
        extra = {
            "weights from the root": self.stream_weights,
            "ends local": self.local_ends,
            "pipelined": self.pipelined,
        }
        facts += [("also", ", ".join(name for name, holds in extra.items() if holds))] if any(extra.values()) else []
        plans = [(f"layers {_range(*run)}", self.pattern[run[0]].to_dict()) for run in self._runs()]
        if len(self.pattern) <= 2:  # the layers take turns
            ways = {1: ("every layer",), 2: ("layers 0, 2, ...", "layers 1, 3, ...")}.get(len(self.pattern), ())
            plans = [(way, plan.to_dict()) for way, plan in zip(ways, self.pattern, strict=True)]
        plans += [(f"layers {_range(rule.first, rule.last)}", dict(rule.changes)) for rule in self.rules]
        names = [name for name in LayerPlan.__slots__ if any(plan.get(name, "follow") != "follow" for _, plan in plans)]
        rows = [(name, *(plan.get(name, "") for _, plan in plans)) for name in names]
        heads = ("distribution of", *(where for where, _ in plans))
        return card(self.name, facts, [Table(heads, rows, text_columns=len(heads))] if rows else ())

    def _runs(self) -> list[tuple[int, int]]:
        """First and last index of every run of equal plans in the pattern."""
        starts = [at for at, plan in enumerate(self.pattern) if at == 0 or plan != self.pattern[at - 1]]
        return [(first, after - 1) for first, after in pairwise([*starts, len(self.pattern)])]

    def check(self, num_layers: int) -> None:
        """Raises InputError where a rule names layers the model does not have, or a pipeline has groups."""
        if self.pipelined and self.groups > 1:
            raise InputError(
                "a pipeline makes groups of its own, one a stage",
                source=self.source or self.name,
                path="groups",
                given=self.groups,
                expected="1",
                hint="leave `groups` out, or take another base",
            )
        for rule in self.rules:
            if max(rule.first, rule.last or 0) >= num_layers:
                raise InputError(
                    "the rule names layers that the model does not have",
                    source=rule.source,
                    given=f"{rule.first}-{rule.last}",
                    expected=f"layers 0 to {num_layers - 1}",
                )


def _range(first: int, last: int | None) -> str:
    return str(first) if first == last else f"{first}-{'' if last is None else last}"


def _plan(qkv: str, attention: str, o: str, gate_up: str, down: str, stream: str) -> LayerPlan:
    return LayerPlan(qkv, qkv, qkv, attention, o, gate_up, gate_up, down, stream)


# Machine model, section 7. A Shard stream is gathered before a norm whose matrices want it whole.
_WORKFLOW_1 = _plan("row", "head", "col", "col", "row", "follow")
_WORKFLOW_2 = _plan("col", "token", "col", "row", "col", "replicate")
_MEGATRON = _plan("row", "head", "col", "row", "col", "replicate")
_ALL_ROW = _plan("row", "head", "row", "row", "row", "follow")
_ALL_COL = _plan("col", "token", "col", "col", "col", "replicate")
_BATCH = _plan("batch", "batch", "batch", "batch", "batch", "batch")

WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (
        Workflow("workflow-1", "qkv by row, attention by head, o col, FFN col + row; stream sharded", (_WORKFLOW_1,)),
        Workflow("workflow-2", "qkv by col, attention by token, o col, FFN row + col; stream whole", (_WORKFLOW_2,)),
        Workflow("alternating", "layers 1, 3, ... workflow-1; layers 2, 4, ... workflow-2", (_WORKFLOW_1, _WORKFLOW_2)),
        Workflow("megatron", "qkv by row, attention by head, o col, FFN row + col; two all-reduces", (_MEGATRON,)),
        Workflow("all-row", "every matrix by row, attention by head; every input gathered", (_ALL_ROW,)),
        Workflow("all-col", "every matrix by col, attention by token; every output reduced", (_ALL_COL,)),
        Workflow(
            "batch-lockstep", "megatron with the rows of all sequences stacked; one copy of weights", (_MEGATRON,)
        ),
        Workflow(
            "batch-stream",
            "each PE its own sequences; every matrix broadcast once a step",
            (_BATCH,),
            lm_head="batch",
            stream_weights=True,
        ),
        Workflow(
            "batch-block",
            "each PE its own sequences and a whole copy of the weights; no communication",
            (_BATCH,),
            lm_head="batch",
            local_ends=True,
        ),
        Workflow(
            "block-pipeline",
            "each PE (or group of PEs) holds whole layers; sequences move on by unicasts",
            (_MEGATRON,),
            pipelined=True,
        ),
    )
}


AUTO = Workflow(
    "auto",
    "searched: the best distribution of every operator for the model, array and step",
    (),
    lm_head="",
    searched=True,
)


def named_workflow(name: str) -> Workflow:
    """The workflow called `name`; `auto` is the one that is still to be searched.

    Raises:
        InputError: there is none of that name.
    """
    if name == AUTO.name:
        return AUTO
    if name not in WORKFLOWS:
        raise InputError(
            f"no workflow is called {name!r}",
            source="workflow",
            given=name,
            expected="a name or the path of a workflow file",
            hint=did_you_mean(name, (*WORKFLOWS, AUTO.name)),
        )
    return WORKFLOWS[name]


# ---- Workflows by name or from a file.


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
    first, last = _layer_range(entry.layers, source)
    given = {name: value for name, value in entry.model_dump(exclude_none=True).items() if name != "layers"}
    changes: dict[str, str] = {}
    for shorthand, names in _SHORTHANDS.items():
        if shorthand in given:
            changes |= dict.fromkeys(names, given.pop(shorthand))
    changes |= given
    assert set(changes) <= {field.name for field in fields(LayerPlan)}
    return LayerRule(first, last, tuple(sorted(changes.items())), source)


def _layer_range(layers: str | int, source: str) -> tuple[int, int | None]:
    """First and last layer, inclusive; last None: to the end."""
    if layers == "all":
        return 0, None
    first, _, last = str(layers).partition("-")
    if first.isdecimal() and (last.isdecimal() or not _) and int(first) <= int(last or first):
        return int(first), int(last or first)
    raise InputError("this is no range of layers", source=source, given=layers, expected="'all', 7 or '0-15'")
