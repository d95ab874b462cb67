"""Makes the golden outputs of tiny random models with Hugging Face transformers: the origin of all files beside it.

Every folder made holds one case:

- `config.json` and `weights.safetensors`: written by the library's own `save_pretrained`, float32;
- `golden.npz`: `tokens` (3, 9) and what the library computes from them on the CPU, in eval mode, with eager
  attention:
    - decoders: `logits` (3, 9, vocab) of one prefill of all tokens; `decode_logits` (3, 1, vocab) of the last token
      over a cache of the 8 before it; `chunk_logits` (3, 4, vocab) of the last 4 tokens over a cache of the first 5;
    - BERT: `hidden` (3, 9, hidden), the last hidden state, and `pooled` (3, hidden), the pooler's output; all token
      types are 0 and no token is masked.

Nothing is downloaded: each model is built from a config written here. All its parameters, norms and biases too (those
a new model sets to ones and zeros would hide an error), are drawn from a seeded NumPy generator, in the order of their
names. The epsilons are large, so that a wrong one shows, and every output is checked against the same model in float64.

The tests need none of these libraries. ORIGIN.md, written by this script too, holds their versions and the commands
that run it again.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
from pathlib import Path

import numpy as np
import safetensors
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig, PretrainedConfig

HERE = Path(__file__).parent
BATCH, LENGTH, CHUNK = 3, 9, 5
SPREAD = 0.2  # standard deviation of all weights: ten times the usual, so that the outputs differ clearly
ROUNDING = 2e-5  # how far float32 may be from float64; the tests ask for 1e-4


def llama(hidden: int, heads: int, kv_heads: int, *, ffn: int = 38, vocab: int = 61, **entries: object) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=ffn,
        vocab_size=vocab,
        rms_norm_eps=1e-3,
        initializer_range=SPREAD,
        **{"num_hidden_layers": 2, "max_position_embeddings": 64, **entries},
    )


# Sizes that most numbers of PEs do not divide. The rotary entries of llama-rope-llama3 are such that the five
# frequencies of a head are, in order: kept, blended, divided, divided, divided.
CASES: dict[str, PretrainedConfig] = {
    "llama-mha": llama(48, 4, 4, ffn=92, vocab=131),
    "llama-gqa": llama(48, 8, 2, ffn=70, vocab=131),
    "llama-mqa": llama(32, 4, 1, num_hidden_layers=3),
    "llama-head-dim": llama(36, 4, 2, head_dim=16),
    "llama-bias": llama(40, 4, 2, attention_bias=True, mlp_bias=True),
    "llama-tied": llama(40, 4, 2, tie_word_embeddings=True),
    "llama-rope-llama3": llama(
        40,
        4,
        2,
        max_position_embeddings=256,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama-rope-linear": llama(40, 4, 2, rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}),
    "gpt2": GPT2Config(
        n_embd=48,
        n_head=4,
        n_layer=2,
        n_inner=92,
        n_positions=24,
        vocab_size=97,
        activation_function="gelu_new",
        layer_norm_epsilon=1e-3,
        initializer_range=SPREAD,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "bert": BertConfig(
        hidden_size=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        intermediate_size=80,
        vocab_size=101,
        type_vocab_size=2,
        max_position_embeddings=24,
        layer_norm_eps=1e-3,
        initializer_range=SPREAD,
    ),
}


def build(config: PretrainedConfig, rng: np.random.Generator) -> torch.nn.Module:
    auto = AutoModel if config.model_type == "bert" else AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):  # a tied head is the token table: drawn once
            centre = 1.0 if parameter.ndim == 1 and name.endswith(".weight") else 0.0  # a norm's weight is around 1
            drawn = rng.normal(centre, SPREAD, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn.astype(np.float32)))
    return model


@torch.no_grad()
def run(model: torch.nn.Module, tokens: torch.Tensor) -> dict[str, np.ndarray]:
    if model.config.model_type == "bert":
        encoded = model(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), token_type_ids=torch.zeros_like(tokens)
        )
        return {"hidden": encoded.last_hidden_state.numpy(), "pooled": encoded.pooler_output.numpy()}
    return {
        "logits": model(input_ids=tokens, use_cache=False).logits.numpy(),
        "decode_logits": _continued(model, tokens, LENGTH - 1),
        "chunk_logits": _continued(model, tokens, CHUNK),
    }


def _continued(model: torch.nn.Module, tokens: torch.Tensor, cached: int) -> np.ndarray:
    """The logits of the tokens after the first `cached`, which are run before them and leave only their cache."""
    cache = model(input_ids=tokens[:, :cached], use_cache=True).past_key_values
    if cache.get_seq_length() != cached:
        raise RuntimeError(f"the cache holds {cache.get_seq_length()} tokens, not {cached}")
    return model(input_ids=tokens[:, cached:], past_key_values=cache, use_cache=True).logits.numpy()


def make_case(name: str, config: PretrainedConfig, seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    model = build(config, rng)
    tokens = rng.integers(0, config.vocab_size, (BATCH, LENGTH), dtype=np.int64)
    outputs = run(model, torch.from_numpy(tokens))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        (folder / "config.json").write_bytes(Path(saved, "config.json").read_bytes())
        (folder / "weights.safetensors").write_bytes(Path(saved, "model.safetensors").read_bytes())
    np.savez(folder / "golden.npz", tokens=tokens, **outputs)
    gap = _check(name, model, torch.from_numpy(tokens), outputs)
    print(f"{name:18} seed {seed}: spread {next(iter(outputs.values())).std():.2f}, from float64 {gap:.1e}")


def _check(name: str, model: torch.nn.Module, tokens: torch.Tensor, outputs: dict[str, np.ndarray]) -> float:
    """The largest difference from float64, and of decode and chunks from the prefill; raises when it is too large."""
    exact = run(model.double(), tokens)
    if "logits" in exact:
        exact["decode_logits"] = exact["logits"][:, LENGTH - 1 :]
        exact["chunk_logits"] = exact["logits"][:, CHUNK:]
    gap = max(float(np.abs(outputs[key] - exact[key]).max()) for key in outputs)
    if gap > ROUNDING:
        raise RuntimeError(f"{name}: float32 is {gap:.1e} from float64, more than {ROUNDING:.0e}")
    return gap


def origin() -> str:
    versions = {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "numpy": np.__version__,
    }
    listing = ", ".join(f"{package} {version}" for package, version in versions.items())
    pins = " ".join(f"{package}=={version}" for package, version in versions.items())
    return f"""# Origin of the golden files

Made on {datetime.datetime.now(datetime.UTC).date()} by `make_goldens.py`, whose docstring says what they hold, with
Python {platform.python_version()}, {listing}.

To make them again, from the root of the repository, in a new virtual environment:

```
python -m venv golden-venv
golden-venv/bin/pip install {pins}
golden-venv/bin/python tests/golden/make_goldens.py
```

Running it twice on one machine gives the same bytes (but for the date above). Another processor or another version of
the libraries may change the last digits of `golden.npz`, and the entries of `config.json` that nobody reads.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the golden files of tests/golden again.")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to; default: the script's own")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed, (name, config) in enumerate(CASES.items()):
        make_case(name, config, seed, out / name)
    (out / "ORIGIN.md").write_text(origin(), encoding="utf-8")
    print((out / "ORIGIN.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
