"""Sine in five points, in a browser."""

import pytest
from lab_browser import eventually, model, show


def marks(page):
    return len(model(page, "sine-points", "data")["x"])


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_points_are_placed_and_all_four_adapt(visit, pictures, width, scheme):
    page = visit(width=width, scheme=scheme)
    show(page, "sine")
    assert eventually(lambda: marks(page) == 5)
    names = ("imaml", "maml", "fomaml", "reptile")
    fitted = lambda name: len(model(page, f"sine-{name}-after", "data")["y"]) > 0  # noqa: E731
    assert eventually(lambda: all(map(fitted, names)), seconds=400)
    page.wait_for_timeout(1000)
    page.locator("#sine").screenshot(path=pictures / f"sine-trained-{width}-{scheme}.png")
    page.locator("#sine button", has_text="Clear").click()
    assert eventually(lambda: marks(page) == 0)
    figure = page.locator("#sine .bk-Figure").first
    figure.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)  # Rooms above may still grow.
    box = figure.bounding_box()
    for i, (right, down) in enumerate([(0.3, 0.3), (0.5, 0.6), (0.7, 0.3)], start=1):
        page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
        assert eventually(lambda i=i: marks(page) == i)
    before = model(page, "sine-imaml-after", "data")["y"]
    page.mouse.click(box["x"] + 0.6 * box["width"], box["y"] + 0.2 * box["height"])
    assert eventually(lambda: model(page, "sine-imaml-after", "data")["y"] != before)
