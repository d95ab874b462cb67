"""Rotary position parameters in old and new forms: takes the raw entries, gives the base and a supported scaling."""

from __future__ import annotations

from collections.abc import Mapping

from pe_sim.config.files.schema import AtLeastOne, Positive, Section, Size, validate
from pe_sim.errors import InputError

DEFAULT_THETA = 10000.0
Scaling = dict[str, float | int | str]


class LinearScaling(Section):
    """The schema of linear scaling: positions are divided by `factor`."""

    factor: AtLeastOne


class Llama3Scaling(Section):
    """The schema of llama3 scaling: low frequencies are divided by `factor`, high ones kept, others blended."""

    factor: AtLeastOne
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Size


SCALINGS: dict[str, type[Section]] = {"linear": LinearScaling, "llama3": Llama3Scaling}


def read_rope(
    theta: float | None,
    parameters: Mapping[str, object] | None,
    scaling: Mapping[str, object] | None,
) -> tuple[float, Scaling]:
    """The base of the rotary frequencies, and the scaling (empty if there is none).

    Args:
        theta: the `rope_theta` entry at the top level.
        parameters: the `rope_parameters` entry: the newer form, which may hold the base too.
        scaling: the `rope_scaling` entry: the older form.

    Raises:
        InputError: the forms contradict each other, or ask for a scaling that is not supported.
    """
    from_parameters, new = parse_rope(parameters, path="rope_parameters", default_type="default")
    from_scaling, old = parse_rope(scaling, path="rope_scaling", default_type=None)
    if parameters and scaling and new != old:
        raise InputError(
            "rope_parameters and rope_scaling contradict each other",
            path="rope_parameters",
            given=dict(parameters),
            hint="keep one of the two",
        )
    bases = {base for base in (theta, from_parameters, from_scaling) if base is not None}
    if len(bases) > 1:
        listing = " and ".join(f"{base:g}" for base in sorted(bases))
        raise InputError(f"rope_theta is given twice, as {listing}", path="rope_theta")
    return (bases.pop() if bases else DEFAULT_THETA), new or old


def parse_rope(
    table: Mapping[str, object] | None, *, path: str, default_type: str | None
) -> tuple[float | None, Scaling]:
    """The base (None if absent) and the scaling of one `rope_parameters` or `rope_scaling` mapping.

    Args:
        table: the mapping; None or empty means no scaling.
        path: the dotted path of the mapping inside its source.
        default_type: the rope_type of a mapping that states none; None: it must state one.

    Raises:
        InputError: the type is missing, contradictory or not supported, or a factor of it is wrong.
    """
    if not table:
        return None, {}
    entries = dict(table)
    kind = _take_type(entries, path, default_type)
    theta = _take_theta(entries, path)
    _take_partial(entries, path)
    if kind == "default":
        for key, value in entries.items():
            problem = "not supported: only a scaled RoPE has such a key"
            raise InputError(problem, path=f"{path}.{key}", given=value)
        return theta, {}
    if kind not in SCALINGS:
        raise InputError(
            f"rotary scaling {kind!r} is not supported",
            path=f"{path}.rope_type",
            given=kind,
            expected="default, linear or llama3",
            hint="the numeric executor could not honour it, so its traffic and times would describe another model",
        )
    values = validate(SCALINGS[kind], entries, None, prefix=f"{path}.")
    _check_band(values, path)
    return theta, {"rope_type": kind, **values.model_dump()}


def _take_type(entries: dict[str, object], path: str, default: str | None) -> str:
    """The type, under its new name (rope_type), its old one (type) or both, which are removed from the entries."""
    named = [(key, entries.pop(key)) for key in ("rope_type", "type") if key in entries]
    if not named:
        if default is None:
            raise InputError("missing", path=f"{path}.rope_type", expected="default, linear or llama3")
        return default
    for key, value in named:
        if not isinstance(value, str):
            raise InputError("not text", path=f"{path}.{key}", given=value, expected="a text")
    if len({value for _, value in named}) > 1:
        raise InputError(f"rope_type {named[0][1]!r} and type {named[1][1]!r} contradict each other", path=path)
    return str(named[0][1])


class _Theta(Section):
    rope_theta: Positive


def _take_theta(entries: dict[str, object], path: str) -> float | None:
    if "rope_theta" not in entries:
        return None
    theta = {"rope_theta": entries.pop("rope_theta")}
    return validate(_Theta, theta, None, prefix=f"{path}.").rope_theta


def _take_partial(entries: dict[str, object], path: str) -> None:
    factor = entries.pop("partial_rotary_factor", None)
    if factor not in (None, 1.0) or isinstance(factor, bool):
        raise InputError(
            "not supported: only a part of each head is rotated",
            path=f"{path}.partial_rotary_factor",
            given=factor,
            expected="1.0, or no such key",
        )


def _check_band(values: Section, path: str) -> None:
    if isinstance(values, Llama3Scaling) and values.low_freq_factor >= values.high_freq_factor:
        raise InputError(
            f"low_freq_factor {values.low_freq_factor:g} is not below high_freq_factor {values.high_freq_factor:g}",
            path=path,
        )
