"""Takes settings by dotted path, gives model, array, steps and workflow; checks all of a sweep before it runs.

A sweep says the same things again and again, so each part is loaded once for each text that asks for it. What is kept
belongs to one `Resolver`, and a resolver to one run of a sweep: a file that changes between two runs is read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_paths, array_to_dict, load_array
from pe_sim.config.files.loading import PresetKind, is_preset
from pe_sim.config.files.overrides import nearest_path
from pe_sim.config.models.load import load_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.models.overrides import ModelOverrides, read_overrides
from pe_sim.config.situations import Situation, WeightedStep, load_situation
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.engine.engines import DEFAULT_ENGINE, engine_named
from pe_sim.errors import InputError, did_you_mean
from pe_sim.mapping.workflow import AUTO, WORKFLOWS, Workflow, load_workflow
from pe_sim.studies.grid import POINTS, Settings, Sweep, canonical, digest, workflow_text

MODEL_PREFIX: Final = "model."
OF_STEP: Final = ("phase", "batch", "context", "prompt", "logits", "causal")
IGNORE_KEYS: Final = "ignore_keys"
CHOICES: Final = ("model", IGNORE_KEYS, "array", "workflow", "situation", *OF_STEP, "engine", "allow_overflow")
_ONLY_PREFILL: Final = ("prompt", "logits", "causal")
_PHASES: Final = ("decode", "prefill")
_NETWORK_FILE: Final = "network.file"
_KEPT_ARRAYS: Final = 4096  # some KB each
_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Steps:
    """What a point simulates: one step, or the steps of a situation with their weights."""

    weighted: tuple[WeightedStep, ...]
    situation: Situation | None
    text: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configs of one point; the texts are canonical JSON, from which `key` is made."""

    model: ModelConfig
    array: ArrayConfig
    steps: Steps
    workflow: Workflow
    engine: str
    allow_overflow: bool
    model_text: str
    array_text: str
    key: str


class Resolver:
    """A loader of what settings name, which loads each part once."""

    def __init__(self, folder: Path | None) -> None:
        """Looks files up in `folder` first; None: where the user stands."""
        self._folder = folder
        self._model = lru_cache(_KEPT)(self._load_model)
        self._array = lru_cache(_KEPT_ARRAYS)(self._load_array)
        self._steps = lru_cache(_KEPT)(self._load_steps)
        self._workflow = lru_cache(_KEPT)(self._load_workflow)

    def resolve(self, settings: Settings) -> Resolved:
        """The configs of the point with these settings.

        Raises:
            InputError: something is missing, unknown or wrong.
        """
        chosen = {name: settings[name] for name in CHOICES if settings.get(name) is not None}
        changes = [item for item in settings.items() if item[0] not in CHOICES]
        model_changes = {path: value for path, value in changes if path.startswith(MODEL_PREFIX)}
        array_changes = {path: value for path, value in changes if path not in model_changes}
        model, model_text = self._model(_asked(chosen, "model", model_changes, chosen.get(IGNORE_KEYS)))
        array, array_text = self._array(_asked(chosen, "array", array_changes))
        steps = self._steps(json.dumps({name: chosen[name] for name in ("situation", *OF_STEP) if name in chosen}))
        workflow, told = self._workflow(_asked(chosen, "workflow", {}))
        engine = chosen.get("engine", DEFAULT_ENGINE)
        engine_named(engine)
        overflow = chosen.get("allow_overflow", False)
        if not isinstance(overflow, bool):
            raise InputError("not a boolean", path="allow_overflow", given=overflow, expected="true or false")
        key = digest(model_text, array_text, steps.text, told, engine, str(overflow))
        return Resolved(model, array, steps, workflow, engine, overflow, model_text, array_text, key)

    def load(self, name: str, given: Any, ignore_keys: Any = None) -> None:
        """Loads what one of `CHOICES` names, to check it; `ignore_keys` belong to a model's config.

        Raises:
            InputError: there is no such thing, or it has a fault.
        """
        loaders = {"model": self._model, "array": self._array, "workflow": self._workflow}
        if name in loaders:
            loaders[name](_asked({name: given}, name, {}, ignore_keys if name == "model" else None))
        elif name == "situation":
            self._steps(json.dumps({name: given}))
        elif name == "engine":
            engine_named(given)
        elif name == "phase":
            _check_phase(given)

    def place_of(self, kind: PresetKind, given: Any) -> Any:
        """A preset's name or an inline mapping unchanged; a file's path as seen from the working directory."""
        return given if not isinstance(given, str) or is_preset(kind, given) else self._file(given)

    def _file(self, given: str) -> str:
        """The path inside the sweep's folder if there is such a file, else the path as given."""
        beside = None if self._folder is None or not given else self._folder / given
        return str(beside) if beside is not None and os.path.isfile(beside) else given  # False also of impossible names

    def _load_model(self, asked: str) -> tuple[ModelConfig, str]:
        given, changes, ignore_keys = json.loads(asked)
        changes = {path.removeprefix(MODEL_PREFIX): value for path, value in changes.items()}
        if ignore_keys is not None and not isinstance(ignore_keys, list):
            raise InputError("not a list of keys", path=IGNORE_KEYS, given=ignore_keys)
        ignored = () if is_preset("models", str(given)) else ignore_keys or ()
        model = load_model(self.place_of("models", given), changes or None, ignore_keys=ignored)
        return model, canonical(model.to_dict())

    def _load_array(self, asked: str) -> tuple[ArrayConfig, str]:
        given, changes, _ = json.loads(asked)
        if isinstance(changes.get(_NETWORK_FILE), str):
            changes[_NETWORK_FILE] = self._file(changes[_NETWORK_FILE])
        array = load_array(self.place_of("arrays", given), changes or None)
        return array, canonical(array_to_dict(array))

    def _load_workflow(self, asked: str) -> tuple[Workflow, str]:
        given, *_ = json.loads(asked)
        if not isinstance(given, str):
            raise InputError(
                "not a workflow", path="workflow", given=given, expected="a name or a workflow file's path"
            )
        workflow = load_workflow(given if given in (*WORKFLOWS, AUTO.name) else self._file(given))
        return workflow, workflow_text(workflow)

    def _load_steps(self, asked: str) -> Steps:
        chosen = json.loads(asked)
        if "situation" not in chosen:
            step = build_step(chosen)
            return Steps(((step, 1.0),), None, canonical(step.to_dict()))
        others = [name for name in OF_STEP if name in chosen]
        if others:
            raise InputError(
                "a situation has its own steps",
                path=others[0],
                given=chosen[others[0]],
                hint="leave it out, or the situation",
            )
        situation = load_situation(self.place_of("situations", chosen["situation"]))
        return Steps(situation.steps, situation, canonical(situation.to_dict()))


def _asked(chosen: Mapping[str, Any], name: str, changes: Mapping[str, Any], ignore_keys: Any = None) -> str:
    """What is to be loaded as a text, which is the key of the cache."""
    if name not in chosen:
        raise InputError("missing", path=name, hint=f"give it in `base`, or sweep it: grid: {{{name}: [...]}}")
    return json.dumps([chosen[name], changes, ignore_keys])


def build_step(chosen: Mapping[str, Any]) -> Step:
    """The step that settings named in `OF_STEP` describe.

    Raises:
        InputError: a setting of the other phase, a missing length, or lengths a step cannot have.
    """
    phase = chosen.get("phase", "decode")
    _check_phase(phase)
    if phase == "decode":
        for name in _ONLY_PREFILL:
            if name in chosen:
                raise InputError(
                    "only prefill has this, and the phase is decode",
                    path=name,
                    given=chosen[name],
                    hint="set phase: prefill, or leave it out",
                )
        return Decode(chosen.get("batch"), _needed(chosen, "context", "the tokens already in the KV cache"))
    return Prefill(
        chosen.get("batch"),
        prompt_len=_needed(chosen, "prompt", "the number of new tokens"),
        context_len=chosen.get("context", 0),
        logits=chosen.get("logits", "last"),
        causal=chosen.get("causal", "skip"),
    )


def _needed(chosen: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in chosen:
        raise InputError("missing", path=name, expected=what, hint=f"for instance {name}: 2048 in `base`")
    return chosen[name]


def _check_phase(given: object) -> None:
    if given not in _PHASES:
        expected, hint = " or ".join(_PHASES), did_you_mean(str(given), _PHASES)
        raise InputError("unknown phase", path="phase", given=given, expected=expected, hint=hint)


# ---- Checks a sweep before anything runs: the configs must know every path, and every name must exist.


_NAMED: Final = ("model", "array", "workflow", "situation", "phase", "engine")
_NEEDED: Final = ("model", "array", "workflow")
_LENGTHS: Final = ("context", "prompt", "situation")
_CHANGE_THE_SCHEMA: Final = ("network", "network.kind", "pe", "pe.memory", "pe.memory.kind")


def check_sweep(sweep: Sweep, resolver: Resolver) -> None:
    """Checks every path of a sweep against the configs' schemas, and loads everything it names, once.

    A path that only some of the sweep's arrays have is accepted: the points of the others become rows with an error.

    Raises:
        InputError: an unknown path or name, with the nearest known one, or a model, array, workflow or length is
            nowhere given.
    """
    for name in _NEEDED:
        if name not in sweep.paths:
            raise InputError(
                f"nothing says which {name} to take",
                source=sweep.source,
                path=name,
                hint=_meant(sweep, (name,)) or f"give it in `base`, or sweep it: grid: {{{name}: [...]}}",
            )
    if not any(name in sweep.paths for name in _LENGTHS):
        raise InputError(
            "nothing says how long the sequences are",
            source=sweep.source,
            path="context",
            hint=_meant(sweep, _LENGTHS)
            or "give `context` (decode), `prompt` (prefill) or `situation`, in `base` or in the grid",
        )
    for name in _NAMED:
        for given in _distinct(sweep.values(name)):
            _blamed(sweep, name, given, resolver)
    _check_paths(sweep, resolver)


def _meant(sweep: Sweep, names: Sequence[str]) -> str | None:
    """A hint at a path of the sweep that looks like one of these missing names; None if no path does."""
    others = [path for path in sweep.paths if path not in CHOICES and "." not in path]
    for name in names:
        near = get_close_matches(name, others, n=1)
        if near:
            return f"is {where_of(sweep, near[0])} meant to be {name!r}?"
    return None


def _blamed(sweep: Sweep, name: str, given: Any, resolver: Resolver) -> None:
    """Loads what is named; the error names the file for a fault in a file, else the place in the sweep."""
    try:
        resolver.load(name, given, sweep.base.get(IGNORE_KEYS))
    except InputError as error:
        if error.path is None or error.source is None:
            raise InputError(
                error.problem,
                source=sweep.source,
                path=where_of(sweep, name),
                given=given,
                expected=error.expected,
                hint=error.hint,
            ) from None
        raise


def where_of(sweep: Sweep, path: str) -> str:
    """The place in the sweep's file that sets a path."""
    for axis in sweep.axes:
        if path in axis.paths:
            return f"{POINTS}: {path}" if axis.name == POINTS else f"grid.{path}"
    return f"base.{path}"


def _check_paths(sweep: Sweep, resolver: Resolver) -> None:
    of_arrays = {path for path in sweep.paths if path not in CHOICES and not path.startswith(MODEL_PREFIX)}
    known = _known_to_arrays(sweep, resolver) if of_arrays else frozenset()
    for path in sweep.paths:
        if path.startswith(MODEL_PREFIX):
            _check_model_path(sweep, path)
        elif path in of_arrays and path not in known:
            raise _unknown(
                sweep, path, {*known, *CHOICES, *(MODEL_PREFIX + name for name in ModelOverrides.model_fields)}
            )


def _check_model_path(sweep: Sweep, path: str) -> None:
    name = path.removeprefix(MODEL_PREFIX)
    if name not in ModelOverrides.model_fields:
        try:
            read_overrides({name: sweep.values(path)[0]})  # knows fields that cannot be set, and says why
        except InputError as error:
            where = where_of(sweep, path)
            raise InputError(error.problem, source=sweep.source, path=where, hint=error.hint) from None


def _known_to_arrays(sweep: Sweep, resolver: Resolver) -> frozenset[str]:
    """All paths that at least one array of the sweep has."""
    known: set[str] = set()
    refused: list[InputError] = []
    for given, changes in product(_distinct(sweep.values("array")), _changed_schemas(sweep)):
        try:
            known |= array_paths(resolver.place_of("arrays", given), changes)
        except InputError as error:
            refused.append(error)
    if refused and not known:
        raise refused[0]
    return frozenset(known)


def _changed_schemas(sweep: Sweep) -> Iterator[Settings]:
    """Yields every combination of the sweep's values that decide which paths an array has."""
    paths = [path for path in _CHANGE_THE_SCHEMA if path in sweep.paths]
    for values in product(*(_distinct(sweep.values(path)) for path in paths)):
        yield {path: value for path, value in zip(paths, values, strict=True) if value is not None}


def _unknown(sweep: Sweep, path: str, known: set[str]) -> InputError:
    bare = path.removeprefix("array.")
    hint = f"a path of the array stands without `array.`: {bare}" if bare != path and bare in known else None
    where = where_of(sweep, path)
    return InputError("unknown path", source=sweep.source, path=where, hint=hint or nearest_path(path, known))


def _distinct(values: list[Any]) -> list[Any]:
    """The distinct values, without None, which stands for left out."""
    return list({canonical(value): value for value in values if value is not None}.values())
