"""Which optimum? in a browser."""

import pytest
from lab_browser import eventually, model, show


@pytest.mark.parametrize("width, scheme", [(1280, "dark"), (390, "light")])
def test_ends_move_with_theta(visit, pictures, width, scheme):
    page = visit(width=width, scheme=scheme)
    show(page, "optimum")
    points = lambda: model(page, "optimum-points", "data")["x"]  # noqa: E731
    assert eventually(lambda: len(points()) > 200)
    page.wait_for_timeout(1500)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("#optimum").screenshot(path=pictures / f"optimum-ended-{width}-{scheme}.png")
    before = points()
    page.locator("#optimum .noUi-handle").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert eventually(lambda: points() != before)
