"""The few-shot game in a browser."""

import pytest
from lab_browser import show

from pullback.runs import pretrained

SHIPPED = pretrained.names()[0]


def draw(page, place, strokes):
    """Draw into the pad of that place with the mouse."""
    pad = page.locator("#game canvas.big").nth(place)
    pad.scroll_into_view_if_needed()
    page.wait_for_timeout(700)
    box = pad.bounding_box()
    for stroke in strokes:
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*at[0])
        page.mouse.down()
        for x, y in at[1:]:
            page.mouse.move(x, y, steps=6)
        page.mouse.up()


CROSS = [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)]]


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_a_drawing_is_answered_and_ten_rounds_can_be_played(visit, pictures, width, scheme):
    page = visit(width=width, scheme=scheme)
    show(page, "game")
    game = page.locator("#game")
    game.get_by_text(f"{SHIPPED} plays, which comes with pullback").wait_for()
    game.get_by_text("Now draw one of the five again").wait_for()
    draw(page, 0, CROSS)
    draw(page, 5, CROSS)
    game.get_by_text("The machine says").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    game.screenshot(path=pictures / f"game-drawn-{width}-{scheme}.png")
    game.get_by_role("button", name="Ten rounds against it").click()
    for number in (1, 2):
        game.get_by_text(f"Round {number} of 10").wait_for()
        game.get_by_text("sealed").wait_for()
        game.get_by_role("button", name="It is B").click()
        game.get_by_text("You said B").wait_for()
        if number == 1:
            game.screenshot(path=pictures / f"game-round-{width}-{scheme}.png")
        game.get_by_role("button", name="Next round").click()


def test_two_visitors_have_games_of_their_own(visit):
    first, second = visit(), visit()
    for page in (first, second):
        show(page, "game")
        page.locator("#game").get_by_text(f"{SHIPPED} plays").wait_for()
        page.locator("#game").get_by_text("Now draw one of the five").wait_for()
    draw(first, 5, CROSS)
    first.locator("#game").get_by_text("The machine says").wait_for()
    assert second.locator("#game").get_by_text("The machine says").count() == 0
