"""Loads plans: takes a plan, a path or a mapping of any known dialect, gives a checked plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pe_sim.config.files.foreign import Dialect, check_keys, detect
from pe_sim.config.files.loading import load_value
from pe_sim.config.files.overrides import apply_overrides
from pe_sim.config.files.schema import known_paths
from pe_sim.config.plans.checks import check_plan
from pe_sim.config.plans.galvatron import is_galvatron_plan, read_galvatron_plan
from pe_sim.config.plans.hetu import is_hetu_plan, read_hetu_plan
from pe_sim.config.plans.hetu_generators import is_hetu_arguments, read_hetu_arguments
from pe_sim.config.plans.merak import is_merak_plan, read_merak_plan
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.plans.schema import PlanFile, is_plan_file, plan_to_dict, read_plan_file
from pe_sim.errors import InputError, printable, told_of
from pe_sim.registry import Registry

# Takes the mapping, the name of the plan, and the number of arrays or None; errors do not name the file.
PlanReader = Callable[[Mapping[str, object], str, int | None], ParallelPlan]


def _read_own(raw: Mapping[str, object], name: str, num_arrays: int | None) -> ParallelPlan:
    return read_plan_file(raw, name)


# The first dialect that recognises the keys reads them, so those with the most specific keys come first.
_BUILT_IN: Final[tuple[Dialect[PlanReader], ...]] = (
    Dialect("Hetu ds_parallel_config", "a root llama or gpt", is_hetu_plan, read_hetu_plan),
    Dialect("Hetu generator arguments", "num_gpus, cp_list or ds_parallel", is_hetu_arguments, read_hetu_arguments),
    Dialect("Galvatron strategy", "pp_deg or tp_sizes_enc", is_galvatron_plan, read_galvatron_plan),
    Dialect("MerakArguments", "train_schedule, partition_method and the like", is_merak_plan, read_merak_plan),
    Dialect("pe-sim plan", "dp, tp, pp, cp or pipelines", is_plan_file, _read_own),
)
PLAN_DIALECTS: Registry[Dialect[PlanReader]] = Registry(
    "pe_sim.plan_dialects", {each.name: each for each in _BUILT_IN}, ("marks", "recognises", "read")
)


def load_plan(
    source: ParallelPlan | str | Path | Mapping[str, object] | list[Mapping[str, object]],
    overrides: Mapping[str, object] | None = None,
    num_arrays: int | None = None,
) -> ParallelPlan:
    """A plan from a file (JSON or YAML) or a mapping of any known dialect.

    Args:
        source: a path, a file's mapping, the one-entry list of Hetu's generators, or a plan, which is checked.
        overrides: new values by the keys of pe-sim's own form, for instance {"microbatches": 4}.
        num_arrays: number of arrays that take part, for files that leave it open (Galvatron's).

    Raises:
        InputError: no such file, an unknown dialect, a bad entry, or parts that do not agree.
    """
    plan = source if isinstance(source, ParallelPlan) else _read(source, num_arrays)
    label = plan.source or plan.name
    with told_of(label):
        check_plan(plan)
    if not overrides:
        return plan
    raw = apply_overrides(plan_to_dict(plan), overrides, known_paths(PlanFile))
    with told_of(label):
        changed = check_plan(read_plan_file(raw, plan.name))
    return replace(changed, source=plan.source, ignored=plan.ignored)


def _read(given: object, num_arrays: int | None) -> ParallelPlan:
    if isinstance(given, str | Path):
        path = _existing(given)
        return _read_mapping(_only(load_value(path), str(given)), str(given), printable(path.stem), num_arrays)
    if not isinstance(given, Mapping | list | tuple):
        raise InputError("not a plan", given=given, expected="a path, a plan's mapping, or a ParallelPlan")
    return _read_mapping(_only(given, "plan"), "plan", "plan", num_arrays)


def _existing(given: str | Path) -> Path:
    """The path of a file that exists.

    Raises:
        InputError: nothing is there.
    """
    path = Path(given)
    if str(given) and path.exists():
        return path
    raise InputError("no such file", source=str(given), expected="a plan's file (YAML or JSON)")


def _only(value: object, source: str) -> Mapping[str, object]:
    """The mapping itself, or the only one in a list."""
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise InputError(
                f"a list of {len(value)} plans",
                source=source,
                given=value,
                expected="one plan, or a list of one, as Hetu's generators give",
                hint="simulate the plans of a list one by one",
            )
        value = value[0]
    if not isinstance(value, Mapping):
        raise InputError("not a mapping", source=source, given=value, expected="a mapping of names to values")
    return value


def _read_mapping(raw: Mapping[str, object], source: str, name: str, num_arrays: int | None) -> ParallelPlan:
    with told_of(source):
        check_keys(raw)
        plan = detect_plan_dialect(raw).read(raw, name, num_arrays)
    return replace(plan, source=f"{source}: {plan.source}" if plan.source else source)


def detect_plan_dialect(raw: Mapping[str, object]) -> Dialect[PlanReader]:
    """The dialect that a plan's mapping is written in.

    Raises:
        InputError: no dialect recognises the keys.
    """
    found = detect(PLAN_DIALECTS, raw, "plan")
    if found.read is _read_own and not raw.keys() <= PlanFile.model_fields.keys():  # a slip, or a package's dialect
        found = next((each for each in PLAN_DIALECTS.outside() if each.recognises(raw)), found)
    return found
