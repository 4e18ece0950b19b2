"""The report's picture of who holds what."""

from xml.etree import ElementTree

import pytest

from server.run_schema import PartitionCounts
from simulations.report.holdings import BLANK, BLUE, RED, holdings_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(held: PartitionCounts) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rectangles and the texts of the picture."""
    picture = ElementTree.fromstring(holdings_svg(held))
    return [each.attrib for each in picture.iter(f"{SVG}rect")], [
        each.text or "" for each in picture.iter(f"{SVG}text")
    ]


def test_it_shows_every_count() -> None:
    held = PartitionCounts(
        num_clients=2, classes=("cat", "<dog>"), counts=[[30, 0], [10, 2500]], attackers=(1,)
    )
    boxes, texts = drawn(held)
    bars = [(box["fill"], float(box["height"])) for box in boxes if box["fill"] in (BLUE, RED)]
    assert bars == [(BLUE, 1.3), (RED, 110.0)]  # 30 and 2,510 rows
    cells = [box["fill"] for box in boxes if box["fill"] not in (BLUE, RED, BLANK)]
    assert len(cells) == 3  # the one without a row is blank
    assert cells[2] == "#08306b"  # the most rows, the darkest shade
    assert {"30", "10", "2,500", "cat", "<dog>", "0", "1", "Who holds what: 2 clients"} <= set(texts)
    assert any(text.endswith("red ones attack") for text in texts)


@pytest.mark.parametrize(("clients", "num_classes"), [(1, 10), (100, 10), (40, 100), (100, 0), (1, 0)])
def test_any_size_draws(clients: int, num_classes: int) -> None:
    counts = [[client + index for index in range(num_classes or 1)] for client in range(clients)]
    classes = tuple(str(index) for index in range(num_classes))
    boxes, texts = drawn(PartitionCounts(num_clients=1_000_000, classes=classes, counts=counts))
    assert f"Who holds what: the first {clients} of 1,000,000 clients" in texts
    assert sum(box["fill"] == BLUE for box in boxes) == clients
    held = sum(bool(count) for row in counts for count in row) if classes else 0
    assert sum(box["fill"] not in (BLUE, BLANK) for box in boxes) == held


def test_nobody_holds_anything() -> None:
    _, texts = drawn(PartitionCounts(num_clients=0, classes=("a",), counts=[]))
    assert "Who holds what: 0 client" in texts


def test_named_clients_go_by_their_names() -> None:
    held = PartitionCounts(
        num_clients=2, classes=(), counts=[[3], [4]], names=("AAPL", "a name of no end at all")
    )
    _, texts = drawn(held)
    assert {"AAPL", "a name of no en…"} <= set(texts)
