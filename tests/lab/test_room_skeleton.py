"""The skeleton of a room in docs/lab.md, taken as it stands there."""

import re
import sys
from pathlib import Path

import panel as pn
import pytest

from pullback.core.registry import Entry, Registry
from pullback.lab import rooms
from pullback.lab.app import page
from pullback.lab.export import export_page
from pullback.lab.rooms import all_rooms
from pullback.lab.session import Session

DOCUMENT = Path(__file__).parents[2] / "docs" / "lab.md"
pytestmark = pytest.mark.filterwarnings("ignore:Widget.name is deprecated")


@pytest.fixture(scope="module")
def blocks():
    """The two pieces of code in the document: the room's module, and its line in the list."""
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text[text.index("## Adding a room") : text.index("## What is given")]
    return re.findall(r"```(?:python)?\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def skeleton(blocks, tmp_path, monkeypatch):
    """The skeleton's room, registered after the rooms that there are."""
    module, line = blocks
    (entry,) = eval(f"({line})", {"Entry": Entry})
    module_name = entry.target.partition(":")[0]
    (tmp_path / f"{module_name.rpartition('.')[2]}.py").write_text(module, encoding="utf-8")
    # As if the file were in the folder of rooms, where the document puts it.
    monkeypatch.setattr(rooms, "__path__", [*rooms.__path__, str(tmp_path)])
    monkeypatch.setattr(rooms, "ROOMS", Registry("room", "none", *rooms.ROOMS.values(), entry))
    yield entry
    sys.modules.pop(module_name, None)


def test_it_is_the_last_of_the_rooms(skeleton):
    assert all_rooms()[-1].name == skeleton.name
    assert len(all_rooms()) == len(rooms.ROOMS)


def test_its_figure_is_computed(skeleton):
    room = all_rooms()[-1]
    template = page([room], Session(), live=False)
    content, _ = template._render_items[room.name]
    (slider,) = content.select(pn.widgets.FloatSlider)
    (table,) = content.select(pn.pane.HTML)
    assert f"{slider.value**2:.2f}" in table.object
    slider.value = 1.5
    assert "2.25" in table.object


def test_its_code_runs(skeleton):
    exec(compile(all_rooms()[-1].code, "code", "exec"), {})


def test_its_figure_is_in_the_exported_page(skeleton, tmp_path, monkeypatch):
    # The other rooms have tests of their own, and take long to compile.
    monkeypatch.setattr(rooms, "ROOMS", Registry("room", "none", skeleton))
    room = all_rooms()[-1]
    text = export_page(tmp_path / "site").read_text(encoding="utf-8")
    assert f'id="{room.name}"' in text
    assert f'href="#{room.name}"' in text
    assert room.title in text
    # The label of the figure for screen readers.
    assert skeleton.summary in text
