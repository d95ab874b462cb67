"""The notebooks rendered: `make notebooks` executes each notebooks/*.py and writes the .ipynb beside it, with outputs.

The sources are the truth. An .ipynb has nothing that changes from run to run: ids of cells are their numbers, there are
no times, and its metadata are fixed. Kernels are fresh, run in a copy of the folder, and leave nothing in a home.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jupytext
import nbformat
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT: Final = Path(__file__).resolve().parents[2]
NOTEBOOKS: Final = ROOT / "notebooks"
KERNEL: Final = "python3"
DATA: Final = (".json", ".yaml")  # what notebooks read
_METADATA: Final = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
_CELL_SECONDS: Final = 120
# Whatever Jupyter, IPython and matplotlib would write into a home goes into a folder that is thrown away.
_PRIVATE: Final = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")


def sources() -> list[Path]:
    """The notebooks' sources by name."""
    return sorted(NOTEBOOKS.glob("*.py"))


def rendered_path(source: Path) -> Path:
    """Where the .ipynb of a source is."""
    return source.with_suffix(".ipynb")


def read_source(source: Path) -> NotebookNode:
    """The cells of a source, without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(_METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def execute(source: Path) -> NotebookNode:
    """The notebook with its outputs, from a fresh kernel.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = read_source(source)
    with tempfile.TemporaryDirectory(prefix="notebook-") as name:
        folder = Path(name)
        for path in NOTEBOOKS.iterdir():
            if path.suffix in DATA:
                shutil.copy(path, folder)
        with _private_folders(folder / "private") as specs:
            manager = AsyncKernelManager(kernel_name=KERNEL, kernel_spec_manager=KernelSpecManager(kernel_dirs=[specs]))
            client = NotebookClient(
                notebook,
                km=manager,
                timeout=_CELL_SECONDS,
                record_timing=False,
                extra_arguments=["--log-level=ERROR"],
                resources={"metadata": {"path": name}},
            )
            client.execute()
    notebook.metadata = nbformat.from_dict(_METADATA)  # the client adds the version of Python
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    return notebook


def to_text(notebook: NotebookNode) -> str:
    """The .ipynb file."""
    nbformat.validate(notebook)
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def _private_folders(folder: Path) -> Iterator[str]:
    """Folders in place of those in a home, and among them that of the kernel's spec, which is this interpreter's."""
    specs = folder / "kernels"
    write_kernel_spec(specs / KERNEL)
    changed = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    for name in _PRIVATE:
        (folder / name).mkdir()
        changed[name] = str(folder / name)
    with _environment({**changed, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}):
        yield str(specs)


@contextlib.contextmanager
def _environment(changed: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main(arguments: Sequence[str] | None = None) -> int:
    """Renders the notebooks that are named, or all; 1 where one of them fails, whose .ipynb stays as it was."""
    names = [source.stem for source in sources()]
    parser = argparse.ArgumentParser(
        prog="python -m tests.notebooks.render",
        description="Executes the sources in notebooks/ and writes the .ipynb beside each.",
        epilog='For instance: make notebooks ARGS="quick_start own_topology"',
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all if left out")
    chosen = parser.parse_args(arguments).names or names
    unknown = [name for name in chosen if name not in names]
    if unknown:
        parser.error(f"no such notebook: {', '.join(unknown)} (there are {', '.join(names)})")
    return max([_render(NOTEBOOKS / f"{name}.py") for name in chosen])


def _render(source: Path) -> int:
    begin = time.monotonic()
    try:
        text = to_text(execute(source))
    except CellExecutionError as error:
        print(f"{source.name} fails:\n{textwrap.indent(_plain(error), '  ')}", file=sys.stderr)
        return 1
    path = rendered_path(source)
    changed = not path.exists() or path.read_text(encoding="utf-8") != text
    if changed:
        path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {'written' if changed else 'unchanged'}, {time.monotonic() - begin:.1f} s", file=sys.stderr)
    return 0


def _plain(error: CellExecutionError) -> str:
    """What was raised, without the colours of its traceback."""
    return f"{error.ename}: {error.evalue}"


def outputs_of(notebook: NotebookNode) -> list[list[dict[str, Any]]]:
    """By code cell its outputs, images as whether there is one: bytes of pictures depend on fonts and versions."""
    return [[_comparable(output) for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]


def _comparable(output: NotebookNode) -> dict[str, Any]:
    if "data" not in output:
        return dict(output)
    data = {kind: "an image" if kind.startswith("image/") else text for kind, text in output.data.items()}
    return {"output_type": output.output_type, "data": data}


if __name__ == "__main__":
    raise SystemExit(main())
