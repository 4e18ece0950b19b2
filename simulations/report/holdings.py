"""The picture of who holds what as an SVG of its own: matplotlib takes a third of a second, a page a run."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import product

from matplotlib.ticker import MaxNLocator

from server.run_schema import PartitionCounts

LEFT, TOP, GAP, BELOW = 110, 44, 12, 62
BARS = 110
"""Height of the bars, all rows of each client."""
WIDEST, TALLEST = 760, 500
"""Most pixels of the grid of cells."""
MOST_NUMBERED = 25
"""Clients, and classes, up to which there is room to write the numbers into the cells."""
LONGEST_NAME = 16
BLUE, RED, INK, FAINT, BLANK = "#2f6fa8", "#b8383d", "#333333", "#d9dde2", "#f6f6f6"
SHADES = ((214, 230, 244), (107, 174, 214), (8, 48, 107))
"""One hue, light to dark, which every kind of sight tells apart; the lightest differs from blank."""


def holdings_svg(held: PartitionCounts) -> str:
    """Draw the rows of each class that each client holds, and above them a bar of all its rows.

    Where there are no classes the bars are the picture. Bars of clients that attack are red.
    """
    clients, classes = len(held.counts), len(held.classes)
    cell = min(36.0, WIDEST / max(clients, 1)), min(22.0, TALLEST / max(classes, 1))
    across, down = max(cell[0] * clients, 200.0), cell[1] * classes
    cell = across / max(clients, 1), cell[1]
    width, height = LEFT + across + 20, TOP + BARS + GAP + down + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="11" fill="{INK}">',
        _text(width / 2, 18, _title(clients, held.num_clients), 'font-size="15" font-weight="bold"'),
        *_bars([sum(row) for row in held.counts], held.attackers, cell[0], across),
    ]
    if classes:
        grid = TOP + BARS + GAP
        parts.append(f'<rect x="{LEFT}" y="{grid}" width="{across:g}" height="{down:g}" fill="{BLANK}"/>')
        parts += _cells(held.counts, cell, grid)
        for index in range(0, classes, -(-classes // MOST_NUMBERED)):
            name, y = _short(held.classes[index]), grid + (index + 0.5) * cell[1] + 4
            parts.append(_text(LEFT - 6, y, name, 'text-anchor="end"'))
    parts += _clients(held, cell[0], height - BELOW + 14, bool(classes))
    return "\n".join([*parts, "</svg>"])


def _bars(totals: Sequence[int], attackers: Sequence[int], cell: float, across: float) -> Iterator[str]:
    """Draw all rows of each client, and a line at their mean."""
    most, mean, floor = max([*totals, 1]), sum(totals) / max(len(totals), 1), TOP + BARS
    for tick in MaxNLocator(4, integer=True).tick_values(0, most):
        if 0 <= tick <= most:
            y = floor - BARS * tick / most
            yield f'<path d="M{LEFT} {y:.1f}h{across:g}" stroke="{FAINT}"/>'
            yield _text(LEFT - 6, y + 4, f"{tick:,.0f}", 'text-anchor="end"')
    for client, total in enumerate(totals):
        x, tall = LEFT + (client + 0.1) * cell, BARS * total / most
        colour = RED if client in attackers else BLUE
        yield (
            f'<rect x="{x:.1f}" y="{floor - tall:.1f}" width="{0.8 * cell:.1f}" height="{tall:.1f}" '
            f'fill="{colour}"/>'
        )
    y = floor - BARS * mean / most
    yield f'<path d="M{LEFT} {y:.1f}h{across:g}" stroke="{INK}" stroke-dasharray="4 3"/>'
    yield _text(LEFT + across, TOP - 6, f"- - -  mean {mean:,.0f} rows", 'text-anchor="end"')


def _cells(counts: Sequence[Sequence[int]], cell: tuple[float, float], top: float) -> Iterator[str]:
    """Draw a cell for each class and client: the darker, the more rows; one without any stays blank."""
    most = max((max(row) for row in counts), default=0)
    numbered = max(len(counts), len(counts[0]) if counts else 0) <= MOST_NUMBERED
    for client, index in product(range(len(counts)), range(len(counts[0]) if counts else 0)):
        if count := counts[client][index]:
            x, y = LEFT + client * cell[0], top + index * cell[1]
            yield (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{0.96 * cell[0]:.1f}" height="{0.96 * cell[1]:.1f}" '
                f'fill="{_shade(count / most)}"/>'
            )
            if numbered:
                ink = "white" if count > 0.3 * most else "black"
                middle = x + cell[0] / 2
                yield _text(middle, y + cell[1] / 2 + 3.5, f"{count:,}", f'font-size="10" fill="{ink}"')


def _clients(held: PartitionCounts, cell: float, y: float, classes: bool) -> Iterator[str]:
    """Name the clients below, or number some of them."""
    shown = len(held.counts)
    step = next((step for step in (1, 2, 5, 10, 20, 50) if shown <= step * MOST_NUMBERED), shown)
    named = bool(held.names) and shown <= MOST_NUMBERED
    for client in range(0, shown, step):
        x = LEFT + (client + 0.5) * cell
        if named:
            turned = f'text-anchor="end" transform="rotate(-35 {x:.1f} {y:.1f})"'
            yield _text(x, y, _short(held.names[client]), turned)
        else:
            yield _text(x, y, f"{client:,}")
    attack = "; red ones attack" * any(client < shown for client in held.attackers)
    scale = ", row: class, the darker the more rows" * classes
    yield _text(LEFT, y + 42, f"column: client{scale}{attack}", 'text-anchor="start"')


def _title(shown: int, num_clients: int) -> str:
    if shown < num_clients:
        return f"Who holds what: the first {shown:,} of {num_clients:,} clients"
    return f"Who holds what: {num_clients:,} client{'s' if num_clients > 1 else ''}"


def _shade(share: float) -> str:
    """Return a colour; the square root keeps a few rows visible beside a thousand."""
    place = share**0.5 * (len(SHADES) - 1)
    lower = min(int(place), len(SHADES) - 2)
    mixed = (
        round(low + (high - low) * (place - lower))
        for low, high in zip(SHADES[lower], SHADES[lower + 1], strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _text(x: float, y: float, text: str, how: str = "") -> str:
    anchor = "" if "text-anchor" in how else ' text-anchor="middle"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{anchor} {how}>{escape(text)}</text>'
