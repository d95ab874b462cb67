"""Situations: what comes with pe-sim, which steps that makes, and what is refused in which words."""

from dataclasses import FrozenInstanceError

import pytest

import pe_sim as ps
from pe_sim.config.files.loading import preset_names
from pe_sim.config.models.load import load_model
from pe_sim.config.situations import describe_situation, load_situation
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError

PLAIN = {"description": "a test", "batch_sequences": 2, "prompt_tokens": 10, "output_tokens": 5}


def message(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    return str(caught.value)


class TestPresets:
    def test_there_are_five(self):
        assert preset_names("situations") == ("batch-long", "batch-short", "mixed", "one-long", "one-short")

    @pytest.mark.parametrize("name", preset_names("situations"))
    def test_each_is_whole(self, name):
        situation = ps.load_situation(name)
        assert situation.name == name
        assert load_situation(situation.to_dict()) == situation
        assert describe_situation(situation).startswith(f"{name}: {situation.description}; ")
        situation.check_against(load_model("llama-2-7b"))
        with pytest.raises(FrozenInstanceError):
            situation.name = "other"

    def test_short_and_long_one_and_many(self):
        of = {name: load_situation(name) for name in preset_names("situations")}
        assert of["one-short"].batch_sequences == of["one-long"].batch_sequences == 1
        assert of["batch-short"].prompt_tokens[0] == of["one-short"].prompt_tokens[0] < of["one-long"].prompt_tokens[0]
        assert of["batch-long"].prompt_tokens == of["one-long"].prompt_tokens * 8
        assert len(set(of["mixed"].prompt_tokens)) == 8
        assert len(set(of["mixed"].output_tokens)) == 2

    def test_descriptions_in_a_line(self):
        assert describe_situation(load_situation("mixed")) == (
            "mixed: prompts from a line to a document, half of the answers end early; 8 sequences,"
            " prompt 16 to 3,072, output 32 to 256 tokens, steps: 1 prefill and 255 decode"
        )


class TestSteps:
    def test_first_and_last_stand_for_all(self):
        situation = load_situation(PLAIN | {"context_tokens": 3})
        prefill = Prefill(2, prompt_len=10, context_len=3)
        assert situation.steps == ((prefill, 1.0), (Decode(2, 13), 2.0), (Decode(2, 16), 2.0))

    @pytest.mark.parametrize(("tokens", "weights"), [(1, []), (2, [1.0]), (3, [1.0, 1.0]), (4, [1.5, 1.5])])
    def test_weights_add_up(self, tokens, weights):
        steps = load_situation(PLAIN | {"output_tokens": tokens}).steps
        assert [weight for step, weight in steps if step.phase == "decode"] == weights

    def test_answers_that_end_early(self):
        steps = load_situation(PLAIN | {"output_tokens": [3, 6], "prompt_tokens": [10, 20]}).steps
        assert steps[1:] == (
            (Decode(context_len=[10, 20]), 1.0),
            (Decode(context_len=[11, 21]), 1.0),
            (Decode(context_len=[22]), 1.5),
            (Decode(context_len=[24]), 1.5),
        )

    def test_an_answer_of_one_token_is_never_decoded(self):
        steps = load_situation(PLAIN | {"output_tokens": [1, 2]}).steps
        assert steps[1:] == ((Decode(context_len=[10]), 1.0),)

    def test_one_phase(self):
        prefill, decode = (load_situation(PLAIN | {"phases": phase}) for phase in ("prefill", "decode"))
        assert prefill.steps + decode.steps == load_situation(PLAIN).steps
        assert (prefill.counted_tokens, decode.counted_tokens, load_situation(PLAIN).counted_tokens) == (2, 8, 10)

    def test_the_sum_is_nearly_that_of_all_steps(self):
        situation = load_situation("one-short")
        steps = [
            weight * ps.simulate("llama-2-7b", "bus-tree-256", step, "megatron").latency_cycles
            for step, weight in situation.steps
        ]
        whole = ps.generate("llama-2-7b", "bus-tree-256", 128, 128, workflow="megatron")
        assert steps[0] == whole.ttft_cycles
        assert sum(steps[1:]) == pytest.approx(sum(whole.decode_cycles), rel=1e-4)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"output_token": 3},
                "output_token: unknown key\n  given:    3\n  hint:     did you mean 'output_tokens'?",
            ),
            ({"phases": "decod"}, "phases: not one of the known values"),
            ({"phases": "decod"}, "did you mean 'decode'?"),
            ({"batch_sequences": 0}, "batch_sequences: too small"),
            ({"batch_sequences": "2"}, "write 2 without quotes"),
            ({"prompt_tokens": 0}, "prompt_tokens: too small"),
            ({"prompt_tokens": [1, 2, 3]}, "prompt_tokens has 3 numbers, but batch_sequences is 2"),
            ({"prompt_tokens": [1, True]}, "number 2 of the list, True, is not a whole number"),
            ({"context_tokens": -1}, "a whole number from 0 to 2,147,483,648, or a list with one for each sequence"),
            ({"output_tokens": 1.5}, "output_tokens: not a whole number"),
            ({"output_tokens": 2**32}, "output_tokens: too large"),
            ({"output_tokens": 1, "phases": "decode"}, "there is no decode step"),
            ({"description": ""}, "description: empty"),
            ({"schema_version": 2}, "schema_version: not one of the known values"),
        ],
    )
    def test_faults(self, changes, words):
        assert words in message(load_situation, PLAIN | changes)

    @pytest.mark.parametrize("missing", ["description", "batch_sequences", "prompt_tokens", "output_tokens"])
    def test_missing(self, missing):
        given = {key: value for key, value in PLAIN.items() if key != missing}
        assert f"situation: {missing}: missing" in message(load_situation, given)

    def test_names_and_files(self, tmp_path):
        assert "did you mean 'one-short'?" in message(load_situation, "one-shrt")
        assert "no such file" in message(load_situation, "nowhere/mixed.yaml")
        assert "the preset is called 'mixed'" in message(load_situation, "workloads/nothing/mixed.yaml")
        assert "not a situation" in message(load_situation, 3)
        path = tmp_path / "mine.yaml"
        path.write_text("description: mine\nbatch_sequences: 1\nprompt_tokens: 7\noutput_tokens: 2e1\n")
        assert f"{path}: output_tokens: not a whole number" in message(load_situation, path)
        path.write_text("description: mine\nbatch_sequences: 1\nprompt_tokens: 7\noutput_tokens: 2\n")
        assert load_situation(path).name == "mine"

    def test_a_model_with_too_few_positions(self):
        words = message(load_situation("one-long").check_against, load_model("llama-7b"))
        assert "--set model.max_position_embeddings=4095" in words
        words = message(load_situation("one-short").check_against, load_model("bert-base-uncased"))
        assert "does not decode" in words
