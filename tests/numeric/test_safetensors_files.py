import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from pe_sim.errors import InputError
from pe_sim.numeric.state_dict import open_safetensors, random_weights, read_weights
from tests.numeric.cases import llama


def write_raw(path, tensors):
    """A safetensors file of {name: (dtype, shape, bytes)}."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def bf16(array):
    """The upper half of each float32."""
    return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_come_as_they_are(tmp_path, dtype):
    array = np.arange(6, dtype=dtype).reshape(2, 3) / 7
    save_file({"a": array, "b": array[:0]}, tmp_path / "x.safetensors", metadata={"format": "np"})
    tensors = open_safetensors(tmp_path / "x.safetensors")
    assert sorted(tensors) == ["a", "b"]
    assert tensors["a"].dtype == dtype
    assert (tensors["a"] == array).all()
    assert tensors["b"].shape == (0, 3)


def test_bf16_is_widened(tmp_path):
    values = np.array([[1.0, -2.5, 3.140625], [0.0, 1e30, -np.inf]], dtype=np.float32)
    exact = (values.view(np.uint32) >> 16 << 16).view(np.float32)
    write_raw(tmp_path / "x.safetensors", {"w": ("BF16", [2, 3], bf16(values))})
    assert (open_safetensors(tmp_path / "x.safetensors")["w"] == exact).all()


def test_a_model_in_bf16_is_read(tmp_path):
    model = llama()
    given = random_weights(model, 0)
    write_raw(tmp_path / "m.safetensors", {n: ("BF16", list(a.shape), bf16(a)) for n, a in given.items()})
    read = read_weights(model, tmp_path / "m.safetensors")
    assert np.abs(read.tables[0] - given["model.embed_tokens.weight"]).max() < 1e-2


def test_another_dtype_is_refused_with_the_tensors_name(tmp_path):
    save_file({"w": np.zeros((2, 2), dtype=np.int8)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"w: weights of this dtype are not supported\n.*'I8'"):
        open_safetensors(tmp_path / "x.safetensors")["w"]


def test_a_folder_holds_one_file_or_shards(tmp_path):
    model = llama()
    given = random_weights(model, 0)
    names = list(given)
    (tmp_path / "one").mkdir()
    save_file(given, tmp_path / "one" / "model.safetensors")
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    weight_map = {name: f"part-{at % 2}.safetensors" for at, name in enumerate(names)}
    for part in set(weight_map.values()):
        save_file({name: given[name] for name in names if weight_map[name] == part}, sharded / part)
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for path in (tmp_path / "one", sharded, str(index)):
        assert (
            read_weights(model, path).layers[1].matrices["gate"].weight
            == given[names[names.index("model.layers.1.mlp.gate_proj.weight")]]
        ).all()


def test_an_index_that_lies_is_caught(tmp_path):
    save_file({"a": np.zeros(1, dtype=np.float32)}, tmp_path / "p.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "p.safetensors", "b": "p.safetensors"}}))
    with pytest.raises(InputError, match=r"b: the index says that p\.safetensors holds this tensor"):
        open_safetensors(tmp_path)["b"]


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="this folder holds no safetensors weights"):
        open_safetensors(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        open_safetensors(tmp_path / "x.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="not a readable index of shards"):
        open_safetensors(tmp_path)
