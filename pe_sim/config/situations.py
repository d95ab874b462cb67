"""Situations: takes the name or file of what an array has to serve, gives its steps with their weights.

A situation is a batch of sequences: what their caches hold already, their prompts and their answers. The prompts are
one prefill. Every decode step is a token longer than the one before. The first and the last stand for all, half of them
each: the sum is that of all steps where their time grows in a straight line, and what fits the last one fits them all.
Where answers end at different steps, each stretch between two ends is such a pair, with the sequences that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pe_sim.config.files.schema import Section, checked_file, fault
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import MAX_BATCH, MAX_LENGTH, Decode, Prefill, Step
from pe_sim.notebook import Table, card

Phases = Literal["both", "prefill", "decode"]
WeightedStep = tuple[Step, float]

_FIELDS: Final = ("context_tokens", "prompt_tokens", "output_tokens")
_LEAST: Final = {"context_tokens": 0, "prompt_tokens": 1, "output_tokens": 1}


class SituationFile(Section):
    """The schema of a situation's file."""

    schema_version: Literal[1] = Field(1, description="of this schema")
    name: str | None = Field(None, min_length=1, description="what tables call it; the file's stem if left out")
    description: str = Field(min_length=1, description="one line for people")
    phases: Phases = Field("both", description="what is counted: the prefill of the prompts, the decode steps, or both")
    batch_sequences: int = Field(ge=1, le=MAX_BATCH, description="sequences that go in step")
    context_tokens: int | tuple[int, ...] = Field(0, description="in the cache before the prompt comes")
    prompt_tokens: int | tuple[int, ...] = Field(description="new tokens of the prefill")
    output_tokens: int | tuple[int, ...] = Field(
        description="tokens of the answer; the prefill gives the first of them"
    )

    @field_validator(*_FIELDS, mode="plain")
    @classmethod
    def _read_tokens(cls, given: object, info: ValidationInfo) -> int | tuple[int, ...]:
        least = _LEAST[str(info.field_name)]
        if isinstance(given, list | tuple):
            for position, item in enumerate(given):
                _tokens(item, least, f"number {position + 1} of the list, {item!r}, is ")
            return tuple(given)
        return _tokens(given, least, "")

    @model_validator(mode="after")
    def _one_a_sequence(self) -> SituationFile:
        for name in _FIELDS:
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != self.batch_sequences:
                raise fault(
                    f"{name} has {len(given)} numbers, but batch_sequences is {self.batch_sequences}",
                    f"one number for all, or a list of {self.batch_sequences}",
                )
        outputs = self.output_tokens if isinstance(self.output_tokens, tuple) else (self.output_tokens,)
        if self.phases == "decode" and max(outputs) == 1:
            raise fault(
                "there is no decode step: the prefill gives the only token of every answer",
                "output_tokens above 1",
                "or count the prefill: phases: both",
            )
        return self


def _tokens(given: object, least: int, which: str) -> int:
    """The number of tokens that was given; raises a fault if it is no valid one."""
    expected = f"a whole number from {least} to {MAX_LENGTH:,}, or a list with one for each sequence"
    if not isinstance(given, int) or isinstance(given, bool):
        raise fault(f"{which}not a whole number", expected)
    if not least <= given <= MAX_LENGTH:
        raise fault(f"{which}too {'small' if given < least else 'large'}", expected)
    return given


@dataclass(frozen=True, slots=True)
class Situation:
    """What an array has to serve: a batch of sequences, from their prompts to the ends of their answers.

    Args:
        name, description: texts for people.
        phases: the phases that count.
        context_tokens, prompt_tokens, output_tokens: one number for each sequence.
    """

    name: str
    description: str
    phases: Phases
    context_tokens: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]

    @property
    def batch_sequences(self) -> int:
        """Number of sequences that are processed together."""
        return len(self.prompt_tokens)

    @property
    def steps(self) -> tuple[WeightedStep, ...]:
        """Representative steps, each with the number of steps it stands for, as `pe_sim.search` takes them."""
        prefill: list[WeightedStep] = []
        if self.phases != "decode":
            step = Prefill(self.batch_sequences, prompt_len=self.prompt_tokens, context_len=self.context_tokens)
            prefill = [(step, 1.0)]
        return (*prefill, *(self._decodes() if self.phases != "prefill" else ()))

    @property
    def counted_tokens(self) -> int:
        """Number of answer tokens that the counted phases give."""
        firsts, all_of_them = self.batch_sequences, sum(self.output_tokens)
        return {"both": all_of_them, "prefill": firsts, "decode": all_of_them - firsts}[self.phases]

    def _decodes(self) -> list[WeightedStep]:
        found: list[WeightedStep] = []
        done = 0
        for end in sorted({tokens - 1 for tokens in self.output_tokens} - {0}):
            count = end - done
            for after in dict.fromkeys((done, end - 1)):  # the first and the last step of this stretch
                found.append((self._decode(after), count / 2 if count > 1 else 1.0))
            done = end
        return found

    def _decode(self, after: int) -> Decode:
        """The decode step that follows `after` others, for the sequences that are not done by then."""
        lengths = zip(self.context_tokens, self.prompt_tokens, self.output_tokens, strict=True)
        return Decode(
            context_len=[context + prompt + after for context, prompt, output in lengths if after < output - 1]
        )

    def check_against(self, model: ModelConfig) -> None:
        """Checks that `model` can do every step.

        Raises:
            InputError: an encoder that would have to decode, or a sequence longer than the model's positions.
        """
        longest_first = sorted(self.steps, key=lambda pair: -max(span.total_len for span in pair[0].sequences))
        for step, _ in longest_first:
            step.check_against(model)

    def _repr_html_(self) -> str:
        """HTML for a notebook: the steps, each with how often it occurs."""
        rows = [(step.phase, str(step.batch_size), f"{weight:,g}") for step, weight in self.steps]
        table = Table(("step", "sequences", "times"), rows)
        return card(describe_situation(self), tables=[table])

    def to_dict(self) -> dict[str, object]:
        """The situation as a file's mapping; `load_situation` of it gives the same situation."""
        tokens = {name: _compact(getattr(self, name)) for name in _FIELDS}
        return {
            "schema_version": 1,
            "name": self.name,
            "description": self.description,
            "phases": self.phases,
            "batch_sequences": self.batch_sequences,
            **tokens,
        }


def load_situation(given: str | Path | Mapping[str, Any]) -> Situation:
    """A situation by a preset's name, from a file, or from such a file's mapping.

    Raises:
        InputError: no such preset or file, or a fault in it.
    """
    file, stem = checked_file("situations", given, SituationFile)
    context, prompt, output = (_spread(getattr(file, name), file.batch_sequences) for name in _FIELDS)
    return Situation(file.name or stem, file.description, file.phases, context, prompt, output)


def _spread(given: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    return given if isinstance(given, tuple) else (given,) * count


def _compact(tokens: tuple[int, ...]) -> int | list[int]:
    return tokens[0] if len(set(tokens)) == 1 else list(tokens)


def describe_situation(situation: Situation) -> str:
    """One line: name, description, lengths, and the numbers of steps."""
    tokens = [_range(situation.prompt_tokens, "prompt"), _range(situation.output_tokens, "output")]
    if any(situation.context_tokens):
        tokens.insert(0, _range(situation.context_tokens, "context"))
    counts = {"prefill": 0, "decode": 0}
    for step, weight in situation.steps:
        counts[step.phase] += round(weight * 2)  # pairs of an odd number of steps have halves
    steps = [f"{count // 2:,} {phase}" for phase, count in counts.items() if count]
    noun = "sequence" if situation.batch_sequences == 1 else "sequences"
    return (
        f"{situation.name}: {situation.description}; {situation.batch_sequences} {noun}, {', '.join(tokens)} tokens,"
        f" steps: {' and '.join(steps)}"
    )


def _range(tokens: tuple[int, ...], noun: str) -> str:
    least, most = min(tokens), max(tokens)
    return f"{noun} {least:,}" if least == most else f"{noun} {least:,} to {most:,}"
