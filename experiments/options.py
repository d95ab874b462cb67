"""Types of options that experiments have of their own: lists of names and of numbers."""

from __future__ import annotations

import argparse


def names(given: str) -> list[str]:
    """Names separated by commas."""
    found = [name.strip() for name in given.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{given!r} is not a list of different names, separated by commas")
    return found


def whole_numbers(given: str) -> list[int]:
    """Whole numbers from 1 on, separated by commas."""
    found = [positive(number) for number in given.split(",")]
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{given!r} has a number twice")
    return found


def positive(given: str) -> int:
    """A whole number from 1 on."""
    if not (given.isascii() and given.isdecimal() and int(given) > 0):
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 1 on")
    return int(given)
