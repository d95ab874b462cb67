"""What the tests of the command line share: a small model, and a runner that never lets an exception through."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pe_sim.cli import cli

TINY_MODEL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, so that what it leaves behind can be counted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PE_SIM_TRACEBACK", raising=False)


@pytest.fixture
def tiny() -> str:
    """The path of a model small enough to simulate often."""
    Path("tiny.json").write_text(json.dumps(TINY_MODEL), encoding="utf-8")
    return "tiny.json"


@pytest.fixture
def call() -> Callable[..., Result]:
    """Runs the command line in this process."""

    def run(*args: str | Path) -> Result:
        return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="pe-sim")

    return run


@pytest.fixture
def refused(call: Callable[..., Result]) -> Callable[..., str]:
    """Runs a command that has to be refused: exit code 2, one message, nothing left behind; gives the message."""

    def run(*args: str | Path) -> str:
        before = files()
        result = call(*args)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("error: ") == 1
        assert "Traceback" not in result.stderr
        assert files() == before
        return result.stderr.removeprefix("error: ")

    return run


def files() -> set[Path]:
    """Everything in the test's folder."""
    return set(Path().rglob("*"))
