"""The golden cases: takes a folder's name, gives its config, weights and outputs, as make_goldens.py describes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent


@dataclass(frozen=True)
class GoldenCase:
    """One model and what the transformers library computes with it; outputs its family does not have are None.

    `decode_logits` are of the last token over a cache of those before it; `chunk_logits` are of the last `chunk` tokens
    over a cache of those before them. `tokens` are (batch, length); outputs are (batch, rows, vocab or hidden), but
    `pooled` is (batch, hidden).
    """

    name: str
    config: dict[str, object]
    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    logits: np.ndarray | None = None
    decode_logits: np.ndarray | None = None
    chunk_logits: np.ndarray | None = None
    hidden: np.ndarray | None = None
    pooled: np.ndarray | None = None

    @property
    def config_path(self) -> Path:
        return HERE / self.name / "config.json"

    @property
    def weights_path(self) -> Path:
        return HERE / self.name / "weights.safetensors"

    @property
    def is_decoder(self) -> bool:
        return self.logits is not None

    @property
    def chunk(self) -> int:
        """How many tokens the second chunk of a chunked prefill has."""
        if self.chunk_logits is None:
            raise ValueError(f"{self.name} has no cache, so no chunks")
        return self.chunk_logits.shape[1]


def cases() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("*/golden.npz"))


def load_case(name: str) -> GoldenCase:
    if name not in cases():
        raise ValueError(f"no golden case {name!r}; there are {', '.join(cases())}")
    folder = HERE / name
    with np.load(folder / "golden.npz") as outputs:
        return GoldenCase(
            name=name,
            config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
            weights=load_file(folder / "weights.safetensors"),
            **dict(outputs),
        )
