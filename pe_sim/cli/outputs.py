"""Where results go: checks the files a user named, then writes all of them or none; and plain tables of text."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from pe_sim.cli.progress import current_progress, standard_stream
from pe_sim.errors import InputError

STDOUT: Final = "-"

Writer = Callable[[Path], object]


class Outputs:
    """The output files of a command by option, for instance {"--json": "out.json", "--csv": None}.

    Raises:
        InputError: a target is a folder, its folder does not exist, or two are the same file.
    """

    def __init__(self, targets: Mapping[str, str | None]) -> None:
        """Checks the targets; nothing is written yet."""
        self.json_on_stdout = targets.get("--json") == STDOUT
        self._paths = {
            option: _checked(option, text)
            for option, text in targets.items()
            if text is not None and not (option == "--json" and text == STDOUT)
        }
        _refuse_twins(self._paths)

    @property
    def text(self) -> TextIO:
        """The stream for readable output: standard output, or standard error if JSON goes to standard output."""
        return standard_stream("stderr" if self.json_on_stdout else "stdout")

    def deliver(
        self, make_json: Callable[[], str], show: Callable[[TextIO], None], writers: Mapping[str, Writer] | None = None
    ) -> None:
        """Writes the requested files, shows the readable form, then writes JSON to standard output if it goes there.

        Args:
            make_json: a function that makes the JSON text, which ends with a newline.
            show: a function that prints the readable form to a stream.
            writers: by option (other than --json), a function that writes the file at a path.

        Raises:
            InputError: a file cannot be written.
        """
        progress = current_progress()
        progress("writing what was asked for")
        text = make_json() if self.json_on_stdout or "--json" in self._paths else ""
        known = {"--json": text_writer(text), **(writers or {})}
        _write_all({path: known[option] for option, path in self._paths.items()})
        progress.clear_terminal()
        show(self.text)
        if self.json_on_stdout:
            standard_stream("stdout").write(text)


def to_json(value: object) -> str:
    """The JSON text of a value, as all commands write it."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def text_writer(text: str) -> Writer:
    """A function that writes `text` to a path as UTF-8, with its line ends unchanged."""
    return lambda path: path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _checked(option: str, text: str) -> Path:
    """The path of the file that an option names, with links followed.

    Raises:
        InputError: no file can be written there.
    """
    if not text or text == STDOUT:
        hint = "only --json can go to standard output" if text else None
        raise InputError("not a file", source=option, given=text, expected="the path of a file", hint=hint)
    if os.path.isdir(text):
        raise InputError("this is a folder", source=option, given=text, expected="the path of a file")
    if _is_special(text):
        return Path(text)
    path = Path(os.path.realpath(text))
    if not path.parent.is_dir():
        hint = f"make it first: mkdir -p {Path(text).parent}"
        raise InputError("the folder of this file does not exist", source=option, given=text, hint=hint)
    if not os.access(path.parent, os.W_OK):
        raise InputError("the folder of this file cannot be written", source=option, given=text)
    return path


def _refuse_twins(paths: Mapping[str, Path]) -> None:
    seen: dict[Path, str] = {}
    for option, path in paths.items():
        if path in seen and not _is_special(path):
            raise InputError(f"the same file as {seen[path]}", source=option, given=str(path))
        seen[path] = option


def _is_special(path: str | Path) -> bool:
    """Whether a path is a device or a pipe, which is written to and never replaced."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _write_all(writers: Mapping[Path, Writer]) -> None:
    """Writes every file next to its place, and moves them there once all are complete."""
    with tempfile.TemporaryDirectory(prefix="pe-sim-") as elsewhere:
        drafts = {path: _draft_of(path, number, Path(elsewhere)) for number, path in enumerate(writers)}
        try:
            for path, writer in writers.items():
                _writing(path, partial(writer, drafts[path]))
            for path, draft in drafts.items():
                _writing(path, partial(_move, draft, path))
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)


def _draft_of(path: Path, number: int, elsewhere: Path) -> Path:
    """The path of a draft: a hidden name in the same folder, or in `elsewhere` for a device or a pipe."""
    name = f".pe-sim-{os.getpid()}-{number}{path.suffix}"
    return elsewhere / name if _is_special(path) else path.with_name(name)


def _move(draft: Path, path: Path) -> None:
    if _is_special(path):
        with open(draft, "rb") as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink)
        return
    if path.exists():
        shutil.copymode(path, draft)
    os.replace(draft, path)


def _writing(path: Path, act: Callable[[], object]) -> None:
    """Calls `act`; an error names the file that the user named."""
    try:
        act()
    except InputError as error:
        raise InputError(error.problem, source=str(path), hint=error.hint) from None
    except OSError as error:
        raise InputError(f"the file cannot be written: {error.strerror or error}", source=str(path)) from None


# ---- Plain tables: takes column titles and rows, gives aligned lines in the manner of nccl-tests, or CSV.


def format_table(titles: Sequence[str], units: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The text of a table with right-aligned columns; the lines of titles and units start with `#`."""
    lines = [titles, [f"({unit})" if unit else "" for unit in units], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    marks = ["# ", "# ", *["  "] * len(rows)]
    return "".join(
        mark + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for mark, line in zip(marks, lines, strict=True)
    )


def format_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Lines of `name  value` with the values aligned."""
    width = max(len(name) for name, _ in pairs)
    return "".join(f"  {name:<{width}}  {value}\n" for name, value in pairs)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Writes a header and a line for each row, missing values empty; `columns` are the header if there are no rows."""
    names = list(dict.fromkeys(key for row in rows for key in row)) or list(columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace", newline="")
