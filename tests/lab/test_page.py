"""Every room of the registry, in a browser."""

import pytest
from lab_browser import show

from pullback.lab.rooms import ROOMS

NAMES = [room.name for room in ROOMS]


@pytest.mark.parametrize(
    "width, scheme", [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
)
@pytest.mark.parametrize("name", NAMES)
def test_room_is_shown_without_an_error(visit, pictures, name, width, scheme):
    page = visit(width=width, scheme=scheme)
    show(page, name)
    page.wait_for_timeout(2500)
    assert page.locator(f"#{name} .bad", has_text="could not").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator(f"#{name}").screenshot(path=pictures / f"{name}-{width}-{scheme}.png")


@pytest.mark.parametrize("room", [room for room in ROOMS if room.code], ids=lambda room: room.name)
def test_code_under_a_room_runs_as_it_stands(room):
    exec(compile(room.code, room.name, "exec"), {"__name__": room.name})
