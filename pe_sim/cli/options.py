"""Options that several commands share: decorators, parsers of their texts, and the overrides and steps they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from pe_sim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pe_sim.config.situations import Situation
    from pe_sim.config.step import Step


# ---- Callbacks of options: take the text a user typed, give whole numbers; anything else is an InputError.


PE_WORDS: Final = ("classes", "all")
MAX_PE: Final = 2**20  # the largest number in a list of PEs; no array is larger
MAX_MESSAGE_BYTES: Final = 2**40  # a TiB from each PE still counts inside 64-bit integers

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}")
_SIZE: Final = re.compile(r"([+-]?[0-9]{1,30})([kKmMgGtT]?)")
_FACTORS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def whole_number(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The whole number that was typed in decimal digits; its range is checked where it is used."""
    return None if value is None else _whole(value, _name(param), value, "a whole number")


def lengths(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, ...] | None:
    """One whole number for all sequences, or the numbers of a comma list, one for each sequence."""
    if value is None:
        return None
    expected = "a whole number, or a comma list with one for each sequence, for instance 100,200"
    numbers = tuple(_whole(part, _name(param), value, expected) for part in value.split(","))
    return numbers if "," in value else numbers[0]


def byte_sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """The sizes of a comma list in bytes; k, M, G and T stand for powers of 1024."""
    return tuple(_size(part, _name(param), value) for part in value.split(","))


def pe_choice(ctx: click.Context, param: click.Parameter, value: str | None) -> str | tuple[int, ...] | None:
    """`classes`, `all`, or the PEs of a comma list with ranges as 8-11; whether there are such PEs is checked later."""
    if value is None or value in PE_WORDS:
        return value
    expected = "classes, all, or numbers of PEs as a comma list with ranges, for instance 0,5,8-11"
    if not re.fullmatch(r"[0-9,\s-]*", value):
        hint = did_you_mean(value, PE_WORDS)
        raise InputError("no such choice of PEs", source=_name(param), given=value, expected=expected, hint=hint)
    found: list[int] = []
    for part in value.split(","):
        ends = [_whole(end, _name(param), value, expected) for end in part.split("-")]
        if len(ends) > 2 or ends[-1] < ends[0] or ends[-1] > MAX_PE:
            raise InputError("not a range of PEs", source=_name(param), given=part.strip(), expected=expected)
        found += range(ends[0], ends[-1] + 1)
    return tuple(found)


def split_names(text: str, option: str) -> tuple[str, ...]:
    """The distinct names of a comma list, in their order.

    Raises:
        InputError: a name is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError("an empty name in the list", source=option, given=text, expected="names with commas between")
    return tuple(dict.fromkeys(names))


def _size(part: str, name: str, given: str) -> int:
    match = _SIZE.fullmatch(part.strip())
    if match is None:
        expected = "bytes as a whole number, also with k, M, G or T (powers of 1024), or a comma list of them"
        raise InputError("not a size", source=name, given=given, expected=expected)
    size = int(match[1]) * _FACTORS[match[2].lower()]
    if not 1 <= size <= MAX_MESSAGE_BYTES:
        problem = "too small" if size < 1 else "too large"
        raise InputError(problem, source=name, given=part, expected=f"1 to {MAX_MESSAGE_BYTES:,} bytes (1 TiB)")
    return size


def _whole(text: str, name: str, given: str, expected: str) -> int:
    if _WHOLE.fullmatch(text.strip()) is None:
        raise InputError("not a whole number", source=name, given=given, expected=expected)
    return int(text)


def _name(param: click.Parameter) -> str:
    return max(param.opts, key=len)


_Command = TypeVar("_Command", bound=Callable[..., Any])

DEFAULT_ARRAY: Final = "bus-tree-256"
DEFAULT_WORKFLOW: Final = "workflow-1"
DEFAULT_CONTEXT: Final = 2048  # tokens, in decode
_MODEL_PREFIX: Final = "model."

array_option = click.option(
    "--array",
    "array_name",
    metavar="ARRAY",
    default=DEFAULT_ARRAY,
    show_default=True,
    help="The machine: a preset (see `pe-sim arrays`) or a YAML file.",
)
workflow_option = click.option(
    "--workflow",
    metavar="W",
    default=DEFAULT_WORKFLOW,
    show_default=True,
    help="How operators are distributed: a name (see `pe-sim workflows`) or a YAML file.",
)
set_option = click.option(
    "--set",
    "settings",
    metavar="PATH=VALUE",
    multiple=True,
    help="Change one value of the array by its dotted path, for instance --set network.bus.bytes_per_cycle=128."
    " May be repeated; the last one of a path counts.",
)
model_set_option = click.option(
    "--set",
    "settings",
    metavar="PATH=VALUE",
    multiple=True,
    help="Change one value of the array by its dotted path (--set pe.matrix.outputs=32), or of the model behind"
    " `model.` (--set model.num_layers=2). May be repeated; the last one of a path counts.",
)
ignore_key_option = click.option(
    "--ignore-key",
    "ignore_keys",
    metavar="NAME",
    multiple=True,
    help="Read the model's config without this key; the result tells so. May be repeated.",
)
overlap_option = click.option(
    "--overlap",
    metavar="0..3",
    callback=whole_number,
    help="0 none, 1 inside an operator, 2 also prefetch of weights, 3 also streaming; short for --set overlap=."
    "  [default: as the array says, 1 in the presets]",
)
json_option = click.option(
    "--json", "json_target", metavar="FILE|-", help="Write the result as JSON; `-` is standard output, and it alone."
)
html_option = click.option(
    "--html",
    "html_target",
    metavar="FILE",
    help="Write a page with figures, tables and a timeline; one file that a browser opens without a network.",
)
_STEP_OPTIONS: Final = (
    click.option(
        "--phase",
        type=click.Choice(["decode", "prefill"]),
        help="decode: one new token for every sequence; prefill: all tokens of every prompt at once."
        "  [default: decode]",
    ),
    click.option(
        "--batch",
        metavar="B",
        callback=whole_number,
        help="Number of sequences.  [default: 1, or as many as lengths are given]",
    ),
    click.option(
        "--context",
        metavar="L[,L2,...]",
        callback=lengths,
        help="Tokens already in the KV cache, for all sequences or one for each; in prefill above 0 for a chunk of a"
        f" prompt.  [default: {DEFAULT_CONTEXT} in decode, 0 in prefill]",
    ),
    click.option(
        "--prompt",
        metavar="S[,S2,...]",
        callback=lengths,
        help="New tokens, for all sequences or one for each.  [prefill only, required there]",
    ),
    click.option(
        "--logits",
        type=click.Choice(["last", "all"]),
        help="Rows that pass the LM head: each sequence's last, or all.  [prefill only; default: last]",
    ),
    click.option(
        "--causal",
        type=click.Choice(["skip", "full"]),
        help="Scores above the diagonal: skipped, or computed and masked.  [prefill only; default: skip]",
    ),
    click.option(
        "--situation",
        metavar="NAME",
        help="The steps of a situation, in place of all these: a preset (see `pe-sim situations`) or a YAML file.",
    ),
)
_SIMULATION_OPTIONS: Final = (
    click.option(
        "--engine",
        metavar="ENGINE",
        default="fast",
        show_default=True,
        help="fast, or event: the reference, event by event; both give the same cycles.",
    ),
    click.option("--allow-overflow", is_flag=True, help="Simulate even what does not fit the memories."),
)


def step_options(command: _Command) -> _Command:
    """Adds the options that say what a step computes to a command."""
    return add_options(_STEP_OPTIONS, command)


def simulation_options(command: _Command) -> _Command:
    """Adds the options that say how to simulate to a command."""
    return add_options((overlap_option, model_set_option, ignore_key_option, *_SIMULATION_OPTIONS), command)


def add_options(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    """Adds options to a command, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class StepChoice:
    """The values of `step_options`; None where the user gave none."""

    phase: Literal["decode", "prefill"] | None
    batch: int | None
    context: int | tuple[int, ...] | None
    prompt: int | tuple[int, ...] | None
    logits: Literal["last", "all"] | None
    causal: Literal["skip", "full"] | None
    situation: str | None = None

    def build(self) -> Step:
        """The single step that the options mean; for a situation, which has several, see `load_situation`.

        Raises:
            InputError: an option of the other phase, no prompt in prefill, or lengths a step cannot have.
        """
        return self._prefill() if self.phase == "prefill" else self._decode()

    def load_situation(self) -> Situation | None:
        """The situation that was named; None if none was.

        Raises:
            InputError: there is none of this name, its file has a fault, or options of a single step are given too.
        """
        if self.situation is None:
            return None
        from pe_sim.config.situations import load_situation

        single = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "situation"}
        given = [f"--{name}" for name, value in single.items() if value is not None]
        if given:
            raise InputError(
                "a situation has its own steps",
                source=given[0],
                given=single[given[0].removeprefix("--")],
                hint="leave it out, or write a situation file of your own, after those under workloads/situations",
            )
        return load_situation(self.situation)

    def weighted_steps(self) -> tuple[tuple[Step, float], ...]:
        """The steps to simulate as (step, weight): the single step, or those of the situation.

        Raises:
            InputError: as `build` and `load_situation` raise it.
        """
        situation = self.load_situation()
        return situation.steps if situation else ((self.build(), 1.0),)

    def _decode(self) -> Step:
        from pe_sim.config.step import Decode

        for option, value in (("--prompt", self.prompt), ("--logits", self.logits), ("--causal", self.causal)):
            if value is not None:
                raise InputError(
                    "only prefill has this option, and the phase is decode",
                    source=option,
                    given=value,
                    hint="add --phase prefill, or leave it out",
                )
        return Decode(self.batch, DEFAULT_CONTEXT if self.context is None else self.context)

    def _prefill(self) -> Step:
        from pe_sim.config.step import Prefill

        if self.prompt is None:
            raise InputError(
                "prefill needs the number of new tokens", source="--prompt", hint="for instance --prompt 512"
            )
        return Prefill(
            self.batch,
            prompt_len=self.prompt,
            context_len=0 if self.context is None else self.context,
            logits=self.logits or "last",
            causal=self.causal or "skip",
        )


@dataclass(frozen=True, slots=True)
class Overrides:
    """The values that `--set` and `--overlap` change, by dotted path, in the order they were given."""

    model: dict[str, object] = field(default_factory=dict)
    array: dict[str, object] = field(default_factory=dict)


def read_overrides(
    settings: tuple[str, ...], overlap: int | None = None, *, has_model: bool = True, several: bool = False
) -> Overrides:
    """The overrides of the model (paths that begin with `model.`) and of the array, or the system if `several`.

    Raises:
        InputError: malformed text, contradicting overlaps, or a model's path where there is no model.
    """
    overrides = Overrides()
    for text in settings:
        _add_override(overrides, text, has_model)
    if overlap is not None:
        _add_overlap(overrides.array, "array.overlap" if several else "overlap", overlap)
    return overrides


def _add_override(overrides: Overrides, text: str, has_model: bool) -> None:
    from pe_sim.config.files.overrides import parse_override

    path, value = parse_override(text)
    of_model = path.startswith(_MODEL_PREFIX)
    if path == _MODEL_PREFIX.rstrip("."):
        raise InputError("this is a section, not a value", source=f"--set {path}", expected="a value inside it")
    if of_model and not has_model:
        raise InputError("this command has no model", source=f"--set {path}", expected="a path of the array")
    target = overrides.model if of_model else overrides.array
    path = path.removeprefix(_MODEL_PREFIX)
    target.pop(path, None)  # the last one counts, for the order too
    target[path] = value


def _add_overlap(array: dict[str, object], path: str, overlap: int) -> None:
    if array.get(path, overlap) != overlap:
        raise InputError(
            f"--overlap and --set {path} contradict each other",
            source="--overlap",
            given=overlap,
            expected=f"{array[path]!r}, as --set {path} says, or one of the two alone",
        )
    array[path] = overlap


# ---- Options that name a picture: takes a path, refuses unknown endings before any work is done.


ENDINGS: Final = (".png", ".svg")


def picture(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The path that was given, checked to end in one of `ENDINGS`."""
    if value is not None and Path(value).suffix.lower() not in ENDINGS:
        raise InputError(
            "the ending does not say which kind of picture",
            source=max(param.opts, key=len),
            given=value,
            expected="a file that ends in " + " or ".join(ENDINGS),
        )
    return value


roofline_option = click.option(
    "--roofline",
    "roofline_target",
    metavar="FILE.png|svg",
    callback=picture,
    help="Draw the operators below the array's roofline: flops a second against flops per byte read from memory.",
)

timeline_option = click.option(
    "--timeline",
    "timeline_target",
    metavar="FILE.png|svg",
    callback=picture,
    help="Draw the stages over time, a colour a microbatch.  [with --arrays]",
)


def refuse_given(options: Mapping[str, object], problem: str, hint: str) -> None:
    """Raises if one of the options was given (is neither None nor False), as it has no meaning here.

    Raises:
        InputError: an option was given.
    """
    for option, value in options.items():
        if value is not None and value is not False:
            raise InputError(problem, source=option, given=value, hint=hint)
