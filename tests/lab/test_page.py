"""Every room of the registry, in a browser."""

import itertools
import subprocess
import sys

import pytest
from lab_browser import show

from pullback.lab.rooms import all_rooms
from pullback.registries import ROOMS

NAMES = list(ROOMS)


@pytest.mark.parametrize("name", NAMES)
def test_room_is_shown_without_an_error(visit, pictures, name):
    page = visit(width=1280)
    show(page, name)
    page.wait_for_timeout(2000)
    for width, scheme in itertools.product((1280, 390), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.locator(f"#{name} .bad", has_text="could not").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator(f"#{name}").screenshot(path=pictures / f"{name}-{width}-{scheme}.png")


@pytest.mark.parametrize("room", all_rooms(), ids=NAMES)
def test_code_under_a_room_runs_as_it_stands(room, tiny):
    assert room.code
    exec(compile(room.code, room.name, "exec"), {"__name__": room.name})


def test_rooms_have_the_names_of_their_entries():
    assert [room.name for room in all_rooms()] == NAMES


def test_the_list_of_rooms_needs_neither_panel_nor_jax():
    listing = "import sys, pullback.lab.rooms; print({'panel', 'bokeh', 'jax'} & {*sys.modules})"
    said = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "set()"
