"""Pages do not rot: every command and every Python block of README.md and docs/ runs and prints what the page shows.

How a page is written:

- ```console: `$ pe-sim ...` lines are run, the lines after one are its whole output (error messages included). A line
  `...` stands for lines that are left out.
- ```python: run in order, in one process a page. A ```text block right after one is what it prints, `...` as above.
- ```yaml and ```json: written to the file that the line before names, as in "`my.yaml`:"; without a name an excerpt.
- ```toml: the entry points of a package, of groups that there are.
- Numbers of three digits and more in the prose of `FIGURES_ARE_SHOWN` stand in one of the page's blocks.

`python -m tests.test_readme` writes the outputs of today into the pages; of those with lines left out the same lines.
"""

import difflib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pe_sim.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FIGURES_ARE_SHOWN = ("README.md", "docs/tutorial.md")
NOT_RUN = ("make", "git")  # what the test of a page cannot run: it would run itself

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
FILE_NAME = re.compile(r"`([\w.-]+\.(?:yaml|yml|json))`[^`\n]*:\s*\Z")
PROGRESS = re.compile(r"^pe-sim [\w -]+: .*, \d+ s\n", re.MULTILINE)  # told every 10 s: by slow machines alone
NUMBER = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?![\w-])|(?<![\w.,-])\d{3,}(?![\w-])")
LEFT_OUT = "..."

# Runs the blocks it is given as JSON in one namespace, and gives what each of them printed.
DRIVER = """
import contextlib, io, json, math, sys
import pe_sim
for search in (pe_sim.search, pe_sim.search_system):  # what a search finds depends on no clock
    search.__kwdefaults__["seconds"] = math.inf
namespace, printed = {"__name__": "__main__"}, []
for name, line, code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\\n" * line + code, name, "exec"), namespace)
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, and the line of its fence (0-based); what stands before it."""

    language: str
    text: str
    line: int
    span: tuple[int, int]
    before: str


@dataclass(frozen=True)
class Shown:
    """An output of a page: what the page says, what came, and where in the page it stands."""

    name: str
    line: int
    expected: str
    actual: str
    span: tuple[int, int]

    @property
    def holds(self) -> bool:
        """Whether the page tells the truth."""
        parts = re.split(rf"^{re.escape(LEFT_OUT)}\n", tidy(self.expected) + "\n", flags=re.MULTILINE)
        pattern = r"(?:.*\n)*".join(re.escape(part) for part in parts)
        return re.fullmatch(pattern, tidy(self.actual) + "\n") is not None

    def renewed(self) -> str | None:
        """What the page should show: with lines left out, those kept, with new figures; None if one is gone."""
        if LEFT_OUT not in self.expected.splitlines():
            return tidy(self.actual) + "\n"
        kept = "".join(self._lines_like(line) for line in tidy(self.expected).splitlines())
        found = re.fullmatch(kept, tidy(self.actual) + "\n")
        parts = [] if found is None else [part if part is not None else f"{LEFT_OUT}\n" for part in found.groups()]
        return "".join(parts) or None

    @staticmethod
    def _lines_like(line: str) -> str:
        """A pattern of a line with any figures in the place of its own; or of any lines, with an empty group."""
        if line == LEFT_OUT:
            return r"(?:.*\n)*?(x)?"
        figures = re.sub(r"[\d.,]+", "0", re.sub(r"[ -]+", " ", line))
        return "(" + re.escape(figures).replace("0", r"[\d.,]+").replace(r"\ ", "[ -]+") + r" *\n)"

    def fault(self) -> str:
        """Where and how page and output differ."""
        lines = difflib.unified_diff(
            tidy(self.expected).splitlines(), tidy(self.actual).splitlines(), "the page", "the output", lineterm=""
        )
        return f"{self.name}:{self.line + 1} shows another output:\n" + "\n".join(lines)


def tidy(text: str) -> str:
    """Without what nobody sees: blanks at the ends of lines, empty lines at both ends."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def blocks_of(page: str) -> list[Block]:
    return [
        Block(match[1], match[2], page.count("\n", 0, match.start()), match.span(2), page[: match.start()].rstrip())
        for match in FENCE.finditer(page)
    ]


def commands_of(block: Block) -> Iterator[tuple[str, int, str, tuple[int, int]]]:
    """(command, line, expected output, span of the output) of a console block; `\\` at the end continues a command."""
    assert block.text.startswith("$ "), f"line {block.line + 2}: a console block starts with `$ `"
    for match in COMMAND.finditer(block.text):
        line = block.line + 1 + block.text.count("\n", 0, match.start())
        start, end = (block.span[0] + position for position in match.span(2))
        yield match[1].replace("\\\n", " "), line, match[2], (start, end)


def run_page(path: Path, name: str) -> list[Shown]:
    """Runs everything on a page in the working directory; gives its outputs."""
    page = path.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    shown: list[Shown] = []
    for block in blocks:
        where = f"{name}:{block.line + 1}"
        match block.language:
            case "yaml" | "json":
                assert isinstance(yaml.safe_load(block.text), dict), f"{where}: this is no mapping"
                named = FILE_NAME.search(block.before)
                if named:
                    Path(named[1]).write_text(block.text, encoding="utf-8")
            case "console":
                for command, line, expected, span in commands_of(block):
                    words = shlex.split(command)
                    if words[0] in NOT_RUN:
                        continue
                    assert words[0] == "pe-sim", f"{name}:{line + 1}: only pe-sim is run here: {command}"
                    shown.append(Shown(name, line, expected, call(words[1:], f"{name}:{line + 1}"), span))
            case "toml":  # of a package's pyproject.toml: groups that registries have
                outside = tomllib.loads((ROOT / "tests/plugin/outside/pyproject.toml").read_text(encoding="utf-8"))
                groups = tomllib.loads(block.text)["project"]["entry-points"]
                assert groups.keys() <= outside["project"]["entry-points"].keys(), f"{where}: an unknown group"
            case "python" | "text":
                pass
            case _:
                raise AssertionError(f"{where}: what is done with a block of {block.language or 'no language'}?")
    return shown + run_python(blocks, page, name)


def call(args: list[str], where: str) -> str:
    """What a command prints; it ends with 0, or with 2 and a message."""
    done = CliRunner().invoke(cli, args, prog_name="pe-sim")
    refused = done.exit_code == 2 and "error: " in done.stderr.lower()
    assert done.exit_code == 0 or refused, f"{where}: exit code {done.exit_code}:\n{done.output}"
    return done.stdout + PROGRESS.sub("", done.stderr)


def run_python(blocks: list[Block], page: str, name: str) -> list[Shown]:
    """The Python of a page runs in a process of its own: pages may add to the registries."""
    code = [block for block in blocks if block.language == "python"]
    if not code:
        return []
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([(name, block.line + 1, block.text) for block in code]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = []
    for block, actual in zip(code, json.loads(done.stdout), strict=True):
        after = page.index("```", block.span[1]) + 4
        output = next((other for other in blocks if other.language == "text" and other.line > block.line), None)
        follows = output is not None and not page[after : output.span[0] - len("```text\n")].strip()
        if output is not None and follows:
            shown.append(Shown(name, output.line, output.text, actual, output.span))
        else:
            assert not actual, f"{name}:{block.line + 1}: the page does not show what this prints:\n{actual}"
    return shown


def numbers_of(text: str) -> set[int]:
    return {int(number.replace(",", "")) for number in NUMBER.findall(text)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_page(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PE_SIM_TRACEBACK", raising=False)
    faults = [output.fault() for output in run_page(path, name_of(path)) if not output.holds]
    assert not faults, "\n\n".join([*faults, "If the page is what is wrong: python -m tests.test_readme"])


@pytest.mark.parametrize("name", FIGURES_ARE_SHOWN)
def test_figures_in_prose_stand_in_a_block(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", FENCE.sub("", page))
    shown = "\n".join(block.text for block in blocks_of(page))
    assert not sorted(numbers_of(prose) - numbers_of(shown))


def test_links_lead_to_files() -> None:
    broken = [
        f"{name_of(path)}: {target}"
        for path in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken


def test_left_out_lines_are_any_lines() -> None:
    def holds(expected: str, actual: str) -> bool:
        return Shown("page", 0, expected, actual, (0, 0)).holds

    assert holds("a\n...\nd\n", "a\nb\nc\nd\n")
    assert holds("a\n...\nd\n", "a\nd\n")
    assert holds("a  \n...\n", "\na\nb\n")
    assert not holds("a\n...\nd\n", "a\nb\n")
    assert not holds("a\n", "a\nb\n")
    assert not holds("a.c\n", "abc\n")


def test_renewed_outputs_keep_what_they_leave_out() -> None:
    shown = Shown("page", 0, "cycles 1,000  9%\n...\ntotal 2.5 s\n", "cycles  900  10%\nb 1\nc\ntotal 2.75 s\n", (0, 0))
    assert not shown.holds
    assert shown.renewed() == "cycles  900  10%\n...\ntotal 2.75 s\n"
    assert Shown("page", 0, "gone\n...\n", "a\nb\n", (0, 0)).renewed() is None
    assert Shown("page", 0, "a\n", "b\n", (0, 0)).renewed() == "b\n"


def update(path: Path) -> None:
    """Writes today's outputs into a page; what leaves lines out has to be looked at by a person."""
    before = page = path.read_text(encoding="utf-8")
    for output in sorted(run_page(path, name_of(path)), key=lambda output: output.span, reverse=True):
        if output.holds:
            continue
        renewed = output.renewed()
        if renewed is None:
            print(output.fault(), end="\n\n")
            continue
        first, last = output.span
        page = page[:first] + renewed + page[last:]
        print(f"{name_of(path)}:{output.line + 1} rewritten")
    if path.read_text(encoding="utf-8") != before:
        print(f"{name_of(path)}: changed in the meantime, left as it is")
    elif page != before:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    chosen = [Path(argument).resolve() for argument in sys.argv[1:]] or list(PAGES)
    for chosen_page in chosen:
        with tempfile.TemporaryDirectory() as folder:  # of its own: pages write files of the same names
            os.chdir(folder)
            update(chosen_page)
            os.chdir(ROOT)
