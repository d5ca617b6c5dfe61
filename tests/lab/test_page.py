"""Every room of the registry, in a browser."""

import pytest
from lab_browser import show

from pullback.lab.rooms import ROOMS

NAMES = [room.name for room in ROOMS]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", NAMES)
def test_room_is_shown_without_an_error(visit, pictures, name, width):
    page = visit(width=width)
    show(page, name)
    page.wait_for_timeout(2500)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.locator(f"#{name} .bad", has_text="could not").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator(f"#{name}").screenshot(path=pictures / f"{name}-{width}-{scheme}.png")


@pytest.mark.parametrize("room", [room for room in ROOMS if room.code], ids=lambda room: room.name)
def test_code_under_a_room_runs_as_it_stands(room):
    exec(compile(room.code, room.name, "exec"), {"__name__": room.name})
