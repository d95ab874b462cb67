"""Wrong input ends with exit code 2 and one message that says what was given and what to do."""

import errno
import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from pe_sim import api
from pe_sim.config.arrays.load import array_to_dict, load_array
from tests.cli.conftest import TINY_MODEL


def write_model(**changes) -> str:
    entries = {key: value for key, value in {**TINY_MODEL, **changes}.items() if value is not None}
    Path("model.json").write_text(json.dumps(entries), encoding="utf-8")
    return "model.json"


def write_array(path: str, value: object) -> str:
    entries = array_to_dict(load_array("bus-tree-64"))
    *parents, last = path.split(".")
    inner = entries
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    Path("array.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    return "array.yaml"


def test_missing_files(refused, tiny):
    assert "no such file" in refused("run", "nowhere/config.json")
    assert "no such file" in refused("run", tiny, "--array", "nowhere.yaml")
    assert "no such file" in refused("run", tiny, "--workflow", "nowhere.yaml")
    assert "no such file" in refused("gemm", "--array", "nowhere.yaml", "-m", "1", "-k", "1", "-n", "1")


def test_unknown_presets(refused, tiny):
    assert "did you mean 'llama-2-7b'?" in refused("run", "llama2-7b")
    assert "did you mean 'bus-tree-256'?" in refused("run", tiny, "--array", "bustree-256")


def test_malformed_files(refused, tiny):
    Path("broken.json").write_text('{"model_type": "llama",', encoding="utf-8")
    assert "malformed JSON at line 1" in refused("run", "broken.json")
    Path("broken.yaml").write_text("num_pes: [1\n", encoding="utf-8")
    assert "broken.yaml: malformed YAML" in refused("run", tiny, "--array", "broken.yaml")
    Path("empty.yaml").write_text("", encoding="utf-8")
    assert "the file is empty" in refused("run", tiny, "--array", "empty.yaml")


def test_unknown_keys(refused, tiny):
    assert "hidden_size" in refused("run", write_model(hiden_size=256, hidden_size=None))
    assert "bytes_per_cycle" in refused("run", tiny, "--array", write_array("pe.memory.byte_per_cycle", 64))
    assert "did you mean 'num_pes'?" in refused("run", tiny, "--set", "num_pe=4")
    assert "did you mean 'num_layers'?" in refused("run", tiny, "--set", "model.num_layer=1")


@pytest.mark.parametrize("value", ["16", True, 1e9, float("nan"), 0, -4, 16.5, None, [16]])
def test_values_of_a_wrong_type_or_range(refused, tiny, value):
    assert "num_pes" in refused("run", tiny, "--array", write_array("num_pes", value))
    if value is not None:
        assert "hidden_size" in refused("run", write_model(hidden_size=value)) or value != value
    text = yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
    assert "num_pes" in refused("run", tiny, "--set", f"num_pes={text}")
    assert "model.num_layers" in refused("run", tiny, "--set", f"model.num_layers={text}")


@pytest.mark.parametrize(
    "setting", ["num_pes", "=3", "num_pes=", "num_pes=[", "pe.memory=3", "a..b=1", "model=3", "model.=3"]
)
def test_malformed_settings(refused, tiny, setting):
    assert "--set" in refused("run", tiny, "--set", setting)


def test_sizes_that_do_not_agree(refused):
    assert "head" in refused("run", write_model(num_attention_heads=5, num_key_value_heads=None))
    assert "head" in refused("run", write_model(num_key_value_heads=3))


def test_unknown_family(refused):
    assert "mamba" in refused("run", write_model(model_type="mamba"))


def test_unknown_choices(refused, tiny):
    assert "did you mean 'workflow-1'?" in refused("run", tiny, "--workflow", "workflow1")
    assert "did you mean 'megatron'?" in refused("compare", tiny, "--workflows", "workflow-1,megatrom")
    assert "engine" in refused("run", tiny, "--engine", "quick")
    assert "did you mean 'all-reduce'?" in refused("collective", "allreduce", "--bytes", "1k")


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "1e3", "true", "nan", "1_000", "0x10", "", "a", "9" * 40])
def test_batches_that_are_no_positive_whole_number(refused, tiny, text):
    assert "batch" in refused("run", tiny, "--batch", text)


@pytest.mark.parametrize("text", ["-1", "1.5", "1e3", "", ",", "1,", "1,,2", "1,-2", "[1]", "99999999999"])
def test_contexts_that_are_no_lengths(refused, tiny, text):
    assert "context" in refused("run", tiny, "--context", text)


def test_steps_that_contradict_themselves(refused, tiny):
    assert "batch_size is 3" in refused("run", tiny, "--context", "100,200", "--batch", "3")
    assert "only prefill" in refused("run", tiny, "--prompt", "5")
    assert "only prefill" in refused("run", tiny, "--logits", "all")
    assert "only prefill" in refused("compare", tiny, "--causal", "full")
    assert "--prompt" in refused("run", tiny, "--phase", "prefill")
    assert "prompt_len" in refused("run", tiny, "--phase", "prefill", "--prompt", "0")
    assert "prompt_len has 2" in refused("run", tiny, "--phase", "prefill", "--prompt", "5,6", "--context", "1,2,3")
    assert "model.max_position_embeddings=5001" in refused("run", tiny, "--context", "5000")


def test_overlap(refused, tiny):
    assert "overlap" in refused("run", tiny, "--overlap", "4")
    assert "overlap" in refused("run", tiny, "--overlap", "one")
    assert "contradict" in refused("run", tiny, "--overlap", "1", "--set", "overlap=2")


@pytest.mark.parametrize("text", ["0", "-1", "1.5k", "1kB", "k", "", "1,", "1e3", "2T", "9" * 40])
def test_sizes_of_collectives(refused, text):
    assert "--bytes" in refused("collective", "broadcast", "--bytes", text)


@pytest.mark.parametrize("option", ["-m", "-k", "-n"])
@pytest.mark.parametrize("text", ["0", "-1", "1.5", "true", "1e9"])
def test_sizes_of_gemms(refused, option, text):
    sizes = {"-m": "2", "-k": "3", "-n": "4", option: text}
    assert option.strip("-") in refused("gemm", *[part for pair in sizes.items() for part in pair])


def test_sizes_beyond_the_simulator(refused):
    assert "too large a GEMM" in refused("gemm", "-m", "1000000", "-k", "10000000", "-n", "10000000")


def test_model_settings_where_there_is_no_model(refused):
    assert "no model" in refused("gemm", "-m", "1", "-k", "1", "-n", "1", "--set", "model.num_layers=1")
    assert "no model" in refused("collective", "reduce", "--bytes", "8", "--set", "model.num_layers=1")


def test_what_does_not_fit(refused, call, tiny):
    message = refused("run", tiny, "--set", "pe.memory.capacity_bytes=1024", "--json", "out.json")
    assert "--allow-overflow" in message or "allow_overflow" in message
    assert call("run", tiny, "--set", "pe.memory.capacity_bytes=1024", "--allow-overflow").exit_code == 0


@pytest.mark.parametrize("option", ["--json", "--csv", "--trace"])
def test_targets_that_cannot_be_written(refused, tiny, option, monkeypatch):
    monkeypatch.setattr(
        "pe_sim.api.simulate", lambda *_, **__: pytest.fail("simulated before the targets were checked")
    )
    assert f"{option}: the folder of this file does not exist" in refused("run", tiny, option, "no/folder/out")
    Path("folder").mkdir()
    assert f"{option}: this is a folder" in refused("run", tiny, option, "folder")
    assert f"{option}: not a file" in refused("run", tiny, option, "")
    if option != "--json":
        assert "only --json" in refused("run", tiny, option, "-")
        assert "the same file as --json" in refused("run", tiny, "--json", "out", option, "./out")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rum"], "did you mean 'run'?"),
        (["frobnicate"], "known: arrays, calibrate, collective, compare"),
        (["run"], "MODEL"),
        (["run", "llama-2-7b", "--contxt", "3"], "Did you mean '--context'?"),
        (["run", "llama-2-7b", "--phase", "encode"], "'encode' is not one of"),
        (["run", "llama-2-7b", "extra"], "extra"),
        (["gemm", "-m", "1"], "'-k'"),
        (["collective", "reduce"], "'--bytes'"),
    ],
)
def test_usage_errors(call, args, words):
    result = call(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: pe-sim")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_step_beyond_64_bits_is_refused(refused, tiny):
    args = ("--phase", "prefill", "--prompt", "1000000", "--set", "model.max_position_embeddings=1000000")
    for more in ((), ("--array", "mesh-256"), ("--arrays", "ring-of-4-bus-tree-1024", "--tp", "4")):
        message = refused("run", tiny, *args, "--batch", "50000", "--allow-overflow", *more)
        assert message.startswith("this step is too large to be counted exactly")
        assert "hint:     a smaller batch, shorter prompts" in message


def test_messages_stay_short_however_many_faults_there_are(refused, tiny):
    array = array_to_dict(load_array("bus-tree-64"))
    Path("array.yaml").write_text(json.dumps(array | {f"odd_{at}": at for at in range(12_000)}), encoding="utf-8")
    text = refused("run", tiny, "--array", "array.yaml")
    assert "11,999 more faults" in text
    assert "and 11,989 more" in text
    assert len(text) < 6_000
    long = {**TINY_MODEL, "x" * 10**6: {"a": 1}}
    Path("model.json").write_text(json.dumps(long), encoding="utf-8")
    assert len(refused("run", "model.json")) < 8_000


HOSTILE = "\x1b]0;pwn\x07\x1b[31mRED\r\nlatency 1 cycles\u202e\x9b2J\ud800"


def test_nothing_in_a_file_steers_the_terminal(call, refused, tiny):
    """No control character, no change of direction and no forged line, of a name that is shown or refused."""
    array = array_to_dict(load_array("bus-tree-64", {"num_pes": 8})) | {"name": HOSTILE}
    Path("array.json").write_text(json.dumps(array), encoding="utf-8")
    Path("workflow.json").write_text(
        json.dumps({"schema_version": 1, "name": HOSTILE, "base": "megatron"}), encoding="utf-8"
    )
    Path("odd.json").write_text(json.dumps({**TINY_MODEL, HOSTILE: {"a": 1}}), encoding="utf-8")
    Path("told.json").write_text(json.dumps({**TINY_MODEL, HOSTILE: 1}), encoding="utf-8")
    Path("enum.json").write_text(json.dumps(array | {"overlap": HOSTILE, HOSTILE: 1}), encoding="utf-8")
    machine = ("--array", "array.json", "--workflow", "workflow.json", "--context", "5")
    shown = [
        call("run", "told.json", *machine, "--html", "page.html", "--trace", "trace.json").output,
        call("compare", tiny, "--array", "array.json", "--workflows", "workflow.json,megatron").output,
        call("topology", "array.json").output,
        refused("run", "odd.json"),
        refused("run", tiny, "--array", "enum.json"),
        refused("run", HOSTILE),
        refused("run", tiny, "--set", f"{HOSTILE}=3"),
    ]
    for text in shown:
        assert "\\x1b" in text
        assert not set(text) & set("\x1b\x07\r\u202e\x9b\ud800")
        assert not any(line.startswith("latency 1 cycles") for line in text.splitlines())
    assert "\\ud800" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_file_without_end_is_not_read_to_its_end(refused, tiny):
    assert "/dev/zero: the file is larger than 64 MiB" in refused("run", "/dev/zero")
    assert "larger than 64 MiB" in refused("run", tiny, "--array", "/dev/zero")
    assert "larger than 64 MiB" in refused("sweep", "/dev/zero", "--out", "out")
    assert "larger than 64 MiB" in refused("calibrate", "/dev/zero")


def test_weights_in_the_place_of_a_model(refused):
    with open("model.safetensors", "wb") as file:
        file.truncate(10**10)  # a hole: nothing is stored
    assert "the file is larger than 64 MiB" in refused("run", "model.safetensors")


@pytest.mark.parametrize("name", [["x"], {}, 5, None, "", "..", "../other/a.safetensors", "/etc/passwd", "sub/a"])
def test_an_index_of_shards_names_files_beside_it(refused, tiny, name):
    Path("a.index.json").write_text(json.dumps({"weight_map": {"fine": "b", "w": name}}), encoding="utf-8")
    text = refused("verify", tiny, "--array", "bus-tree-64", "--set", "num_pes=4", "--weights", "a.index.json")
    assert "a.index.json: weight_map.w: not the name of a shard" in text


@pytest.mark.parametrize("index", ["[]", '{"weight_map": 3}', '{"weight_map": [1]}', "{}", '{"weight_map": null}', "x"])
def test_what_is_no_index_of_shards(refused, tiny, index):
    Path("a.index.json").write_text(index, encoding="utf-8")
    assert "a.index.json" in refused("verify", tiny, "--array", "bus-tree-64", "--weights", "a.index.json")


HUGE = 10**400


def test_integers_beyond_a_double(refused, tiny):
    Path("profile.json").write_text(json.dumps({"allreduce_size_2_8MB_time": HUGE}), encoding="utf-8")
    assert "allreduce_size_2_8MB_time: too large" in refused("calibrate", "profile.json")
    for end in ("from", "to", "times"):
        values = {"from": 4, "to": 64, "times": 2, end: HUGE}
        sweep = {"base": {"model": tiny, "array": "bus-tree-64", "context": 5}, "grid": {"num_pes": values}}
        Path("sweep.json").write_text(json.dumps(sweep), encoding="utf-8")
        assert f"grid.num_pes.{end}: too large" in refused("sweep", "sweep.json", "--out", "out")


NO_UTF_8 = os.fsdecode(b"odd\xff")


def test_file_names_that_are_not_utf_8(call, refused, tiny):
    Path(f"{NO_UTF_8}.json").write_text(json.dumps(TINY_MODEL), encoding="utf-8")
    small = ("--array", "bus-tree-64", "--set", "num_pes=8", "--context", "5")
    files = {"--html": ".html", "--trace": ".trace", "--heat": ".png", "--csv": ".csv", "--json": ".js"}
    targets = [part for option, ending in files.items() for part in (option, NO_UTF_8 + ending)]
    done = call("run", f"{NO_UTF_8}.json", *small, *targets)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("model       odd\\udcff: ")
    assert all(Path(NO_UTF_8 + ending).stat().st_size for ending in files.values())
    base = {"model": tiny, "array": "bus-tree-64", "context": 5, "workflow": "megatron"}
    sweep = {"base": base, "grid": {"num_pes": [8]}}
    Path("sweep.json").write_text(json.dumps(sweep), encoding="utf-8")
    assert "--out: the folder's name is not UTF-8 text" in refused("sweep", "sweep.json", "--out", NO_UTF_8)


def test_too_many_open_files_are_no_fault_of_ours(refused, tiny, monkeypatch):
    for error in (
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        OSError(errno.ENFILE, os.strerror(errno.ENFILE), "some/file"),
        ImportError(f"libfoo.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"),
    ):
        monkeypatch.setattr(api, "simulate", Mock(side_effect=error))
        assert refused("run", tiny).startswith("too many open files; a higher limit")


def test_a_folder_that_went_away(call, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for args in (("run", "llama-3.2-1b", "--json", "out.json"), ("run", "config.json"), ("calibrate", "a.json")):
        done = call(*args)
        assert done.exit_code == 2, done.output
        assert done.stderr.startswith("error: ")


def test_a_name_that_no_file_can_have(refused):
    base = {"model": "9" * 5000, "array": "bus-tree-64", "context": 5, "workflow": "megatron"}
    Path("sweep.json").write_text(json.dumps({"base": base, "grid": {"num_pes": [8]}}), encoding="utf-8")
    assert "unknown model" in refused("sweep", "sweep.json", "--out", "out")


def test_too_little_memory_is_not_a_fault_of_ours(refused, tiny, monkeypatch):
    def too_much(*args, **options):
        raise MemoryError("Unable to allocate 24.0 GiB")

    monkeypatch.setattr("pe_sim.api.simulate", too_much)
    assert refused("run", tiny).startswith("this machine has not enough memory for it; fewer PEs (num_pes)")
