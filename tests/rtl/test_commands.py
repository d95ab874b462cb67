"""The commands' fields: the SystemVerilog is written from the tables, and nothing is packed that does not fit."""

import pytest

from tests.rtl.commands import FORMATS, SVH, WORD_BITS, pack, svh


def test_the_structs_are_those_of_the_tables() -> None:
    assert SVH.read_text() == svh(), "run `python -m tests.rtl.commands`"


@pytest.mark.parametrize("name", FORMATS)
def test_formats_fit_their_words(name: str) -> None:
    fields = FORMATS[name]
    assert len({field for field, _ in fields}) == len(fields)
    full = pack(fields, {field: (1 << bits) - 1 for field, bits in fields})
    used = sum(bits for _, bits in fields)
    assert full == ((1 << used) - 1) << (WORD_BITS - used)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="rows=4096 does not fit 12 bits"):
        pack(FORMATS["matrix"], {"rows": 4096})
    with pytest.raises(ValueError, match=r"no such fields: \['row'\]"):
        pack(FORMATS["matrix"], {"row": 1})
