"""Options that name a picture: takes a path, refuses endings that say nothing of its format before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pe_sim.errors import InputError

ENDINGS: Final = (".png", ".svg")


def picture(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The path, if its ending is one of `ENDINGS`."""
    if value is not None and Path(value).suffix.lower() not in ENDINGS:
        raise InputError(
            "the ending does not say which kind of picture",
            source=max(param.opts, key=len),
            given=value,
            expected="a file that ends in " + " or ".join(ENDINGS),
        )
    return value


roofline_option = click.option(
    "--roofline",
    "roofline_target",
    metavar="FILE.png|svg",
    callback=picture,
    help="Draw the operators below the array's roofline: flops a second against flops per byte read from memory.",
)
