"""One step of inference: takes a batch and its lengths, gives the sequences that a decode or prefill step works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import ClassVar, Final, Literal

from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError, did_you_mean

MAX_LENGTH: Final = 2**31
MAX_BATCH: Final = 2**20

Phase = Literal["decode", "prefill"]
Logits = Literal["last", "all"]
Causal = Literal["skip", "full"]


@dataclass(frozen=True, slots=True)
class SequenceSpan:
    """One sequence of a batch: `new_len` tokens are computed after `context_len` tokens already in the KV cache."""

    new_len: int
    context_len: int

    @property
    def total_len(self) -> int:
        """Number of tokens that the last new token attends to, itself included."""
        return self.context_len + self.new_len


@dataclass(frozen=True, init=False)
class Decode:
    """A decode step: one new token for every sequence, which attends to its context and to itself.

    Args:
        batch_size: the number of sequences; None: as many as lengths are given, or one.
        context_len: tokens already in the KV cache, one number for all or one per sequence.

    Raises:
        InputError: a length or size of the wrong type or range, or a list of another length than the batch.
    """

    batch_size: int
    context_len: tuple[int, ...]
    phase: ClassVar[Phase] = "decode"

    def __init__(self, batch_size: int | None = None, context_len: int | Sequence[int] = 0) -> None:
        batch, (contexts,) = _normalise(batch_size, context_len=(context_len, 0))
        object.__setattr__(self, "batch_size", batch)
        object.__setattr__(self, "context_len", contexts)

    @cached_property
    def sequences(self) -> tuple[SequenceSpan, ...]:
        """The sequences in the order of the batch."""
        return tuple(SequenceSpan(1, context) for context in self.context_len)

    @property
    def num_rows(self) -> int:
        """Rows of activations that the step computes: one per sequence."""
        return self.batch_size

    @property
    def logits_rows(self) -> int:
        """Rows that the LM head computes: one per sequence."""
        return self.batch_size

    def check_against(self, model: ModelConfig) -> None:
        """Checks that `model` can do this step.

        Raises:
            InputError: an encoder, a model without an LM head, or a sequence longer than the model's positions.
        """
        if not model.has_kv_cache:
            raise InputError(
                f"{model.name} is an encoder ({model.family}): it has no KV cache and does not decode",
                path="phase",
                given="decode",
                expected="prefill",
            )
        if not model.has_lm_head:
            raise InputError(
                f"{model.name} has no LM head: it gives no next token and does not decode",
                path="phase",
                given="decode",
                expected="prefill, which ends with hidden states",
                hint="the language model of the same sizes is the config with another class under `architectures`,"
                " such as LlamaForCausalLM or GPT2LMHeadModel",
            )
        _check_positions(self.sequences, model)

    def to_dict(self) -> dict[str, object]:
        """The step as a JSON-ready dict; a length that all sequences share is one number."""
        return {"phase": self.phase, "batch_size": self.batch_size, "context_len": _compact(self.context_len)}


@dataclass(frozen=True, init=False)
class Prefill:
    """A prefill step: all tokens of every prompt at once, or a chunk of them after tokens in the KV cache.

    Args:
        batch_size: the number of sequences; None: as many as lengths are given, or one.
        prompt_len: new tokens, one number for all or one per sequence.
        context_len: tokens already in the KV cache, one number for all or one per sequence.
        logits: "last": the LM head (without one: the final norm) sees each sequence's last row; "all": every row.
        causal: "skip": scores above the diagonal are not computed; "full": they are, and masked.

    Raises:
        InputError: a length or size of the wrong type or range, lists of different lengths, or an unknown choice.
    """

    batch_size: int
    prompt_len: tuple[int, ...]
    context_len: tuple[int, ...]
    logits: Logits
    causal: Causal
    phase: ClassVar[Phase] = "prefill"

    def __init__(
        self,
        batch_size: int | None = None,
        *,
        prompt_len: int | Sequence[int],
        context_len: int | Sequence[int] = 0,
        logits: Logits = "last",
        causal: Causal = "skip",
    ) -> None:
        batch, (prompts, contexts) = _normalise(batch_size, prompt_len=(prompt_len, 1), context_len=(context_len, 0))
        _check_choice("logits", logits, ("last", "all"))
        _check_choice("causal", causal, ("skip", "full"))
        object.__setattr__(self, "batch_size", batch)
        object.__setattr__(self, "prompt_len", prompts)
        object.__setattr__(self, "context_len", contexts)
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "causal", causal)

    @cached_property
    def sequences(self) -> tuple[SequenceSpan, ...]:
        """The sequences in the order of the batch."""
        return tuple(SequenceSpan(*lengths) for lengths in zip(self.prompt_len, self.context_len, strict=True))

    @property
    def num_rows(self) -> int:
        """Rows of activations that the step computes: all new tokens."""
        return sum(self.prompt_len)

    @property
    def logits_rows(self) -> int:
        """Rows that the LM head computes: one per sequence, or every new one with logits="all"."""
        return self.num_rows if self.logits == "all" else self.batch_size

    def check_against(self, model: ModelConfig) -> None:
        """Checks that `model` can do this step.

        Raises:
            InputError: a context for an encoder, or a sequence longer than the model's positions.
        """
        if not model.has_kv_cache and any(self.context_len):
            raise InputError(
                f"{model.name} is an encoder ({model.family}): it has no KV cache that could hold a context",
                path="context_len",
                given=_compact(self.context_len),
                expected="0",
            )
        _check_positions(self.sequences, model)

    def to_dict(self) -> dict[str, object]:
        """The step as a JSON-ready dict; a length that all sequences share is one number."""
        return {
            "phase": self.phase,
            "batch_size": self.batch_size,
            "context_len": _compact(self.context_len),
            "prompt_len": _compact(self.prompt_len),
            "logits": self.logits,
            "causal": self.causal,
        }


Step = Decode | Prefill


def _normalise(batch_size: object, **lengths: tuple[object, int]) -> tuple[int, list[tuple[int, ...]]]:
    """The batch size, and one length per sequence for each entry of `lengths` (given, least allowed)."""
    batch = None if batch_size is None else _whole("batch_size", batch_size, 1, MAX_BATCH)
    told_by = "batch_size"
    values: dict[str, int | tuple[int, ...]] = {}
    for name, (given, least) in lengths.items():
        value = _read_lengths(name, given, least)
        values[name] = value
        if isinstance(value, int):
            continue
        if batch is None:
            batch, told_by = len(value), name
        elif len(value) != batch:
            raise _mismatch(name, given, len(value), batch, told_by)
    count = batch or 1
    return count, [(value,) * count if isinstance(value, int) else value for value in values.values()]


def _mismatch(name: str, given: object, length: int, batch: int, told_by: str) -> InputError:
    reason = f"batch_size is {batch}" if told_by == "batch_size" else f"{told_by} has {batch}"
    return InputError(
        f"{length} lengths are given but {reason}",
        path=name,
        given=given,
        expected=f"one number, or a list of {batch}",
    )


def _read_lengths(name: str, given: object, least: int) -> int | tuple[int, ...]:
    if isinstance(given, str | bytes | Mapping | Set) or not hasattr(given, "__len__"):
        return _whole(name, given, least, MAX_LENGTH)
    try:
        items = list(given)  # type: ignore[call-overload]  # TypeError is what tells a list from the rest
    except TypeError:
        return _whole(name, given, least, MAX_LENGTH)
    if not items:
        raise InputError("an empty list of lengths", path=name, given=given, expected="one length per sequence")
    if len(items) > MAX_BATCH:
        raise InputError(f"{len(items):,} lengths are too many", path=name, expected=f"at most {MAX_BATCH:,}")
    return tuple(_whole(f"{name}[{position}]", item, least, MAX_LENGTH) for position, item in enumerate(items))


def _whole(name: str, given: object, least: int, most: int) -> int:
    """`given` as an int between the bounds; NumPy integers count as ints, booleans do not."""
    expected = f"a whole number from {least} to {most:,}"
    try:
        if isinstance(given, bool):
            raise TypeError
        value = index(given)  # type: ignore[arg-type]  # TypeError is what tells a number from the rest
    except TypeError:
        raise InputError("not a whole number", path=name, given=given, expected=expected) from None
    if not least <= value <= most:
        problem = "too small" if value < least else "too large"
        raise InputError(problem, path=name, given=value, expected=expected)
    return value


def _check_choice(name: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        expected = " or ".join(known)
        raise InputError(
            "unknown choice", path=name, given=given, expected=expected, hint=did_you_mean(str(given), known)
        )


def _check_positions(sequences: Sequence[SequenceSpan], model: ModelConfig) -> None:
    position, longest = max(enumerate(sequences), key=lambda item: item[1].total_len)
    limit = model.max_position_embeddings
    if longest.total_len <= limit:
        return
    which = f" of sequence {position}" if len(sequences) > 1 else ""
    raise InputError(
        f"{longest.context_len:,} tokens of context and {longest.new_len:,} new{which} make {longest.total_len:,},"
        f" but {model.name} has {limit:,} positions",
        path="context_len" if longest.context_len else "prompt_len",
        hint=f"shorten it, or raise the limit with --set model.max_position_embeddings={longest.total_len}",
    )


def _compact(lengths: tuple[int, ...]) -> int | list[int]:
    return lengths[0] if len(set(lengths)) == 1 else list(lengths)
