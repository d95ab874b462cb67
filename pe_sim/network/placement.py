"""Where PEs stand under the floor plan: takes N, gives coordinates in PE pitches (x to the right, y down).

All orders fill the same near-square grid (`grid_shape`); they differ in which PE stands where.
"""

from __future__ import annotations

from pe_sim.config.floorplan import grid_shape

Point = tuple[float, float]


def row_by_row(num_pes: int, cols: int | None = None) -> list[Point]:
    """PE i in column i mod cols of row i // cols; as many columns as the near-square grid has, if not given."""
    cols = cols or grid_shape(num_pes)[0]
    return [(float(pe % cols), float(pe // cols)) for pe in range(num_pes)]


def z_order(num_pes: int) -> list[Point]:
    """Along a Z-order curve, so that aligned groups of neighbours stand together."""
    cols, _ = grid_shape(num_pes)
    cells = [(_interleave(pe % cols, pe // cols), pe % cols, pe // cols) for pe in range(num_pes)]
    return [(float(x), float(y)) for _, x, y in sorted(cells)]


def snake(num_pes: int) -> list[Point]:
    """Row by row, every second one backwards: neighbours are one pitch apart."""
    cols, _ = grid_shape(num_pes)
    return [
        (float(column if row % 2 == 0 else cols - 1 - column), float(row))
        for row, column in (divmod(pe, cols) for pe in range(num_pes))
    ]


def loop(num_pes: int) -> list[Point]:
    """A closed way through the grid.

    One pitch a step where the grid is full and has an even side; else the snake folded, its steps two pitches at most.
    """
    cols, rows = grid_shape(num_pes)
    if cols * rows == num_pes and min(cols, rows) > 1 and (cols % 2 == 0 or rows % 2 == 0):
        turned = cols % 2 == 1
        width, height = (rows, cols) if turned else (cols, rows)
        way = [(column, 0) for column in range(width)]
        for column in reversed(range(width)):
            down = (width - 1 - column) % 2 == 0
            way += [(column, row) for row in (range(1, height) if down else reversed(range(1, height)))]
        return [(float(y), float(x)) if turned else (float(x), float(y)) for x, y in way]
    line = snake(num_pes)
    return [line[slot] for slot in folded(num_pes)]


def folded(length: int) -> list[int]:
    """The places of a ring's members on a line such that neighbours, the ends included, are two apart at most."""
    half = (length + 1) // 2
    return [2 * index if index < half else 2 * (length - 1 - index) + 1 for index in range(length)]


def by_bits(num_pes: int) -> list[Point]:
    """N a power of two: the even bits of the number are the column, the odd ones the row."""
    bits = range(num_pes.bit_length())
    return [
        (
            float(sum((pe >> 2 * bit & 1) << bit for bit in bits)),
            float(sum((pe >> 2 * bit + 1 & 1) << bit for bit in bits)),
        )
        for pe in range(num_pes)
    ]


def middle(points: list[Point]) -> Point:
    """The middle of the smallest upright rectangle around the points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def _interleave(x: int, y: int) -> int:
    return sum((x >> bit & 1) << 2 * bit | (y >> bit & 1) << 2 * bit + 1 for bit in range(max(x, y).bit_length()))
