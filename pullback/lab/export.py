"""The page without a server: every figure as it is at the start."""

import re
import shutil
from pathlib import Path

import panel as pn
from bokeh.resources import INLINE
from panel.io.resources import CDN_DIST

from pullback.core.errors import StorageError
from pullback.lab.app import page
from pullback.lab.rooms import all_rooms
from pullback.lab.session import Session
from pullback.runs.folder import check_writable

NAME = "index.html"


def export_page(folder: Path, *, run: Path | None = None) -> Path:
    """Write the page into a folder, with the scripts and style sheets that it needs.

    Args:
        folder: where to; made if it is missing.
        run: a folder of runs to show, or of one run.

    Returns:
        The page's file.

    Raises:
        InputError: if ``folder`` is a file, or cannot be made or written to.
        StorageError: if the disk refuses a file.
    """
    check_writable(folder, remedy="Give another folder with --export")
    template = page(all_rooms(), Session(run), live=False)
    target = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        template.save(str(target), title="pullback lab", resources=INLINE)
        _copy_style_sheets(target)
    except OSError as error:
        raise StorageError(f"{target} could not be written: {error.strerror or error}") from error
    return target


def _copy_style_sheets(page_file: Path) -> None:
    """Copy what the page would fetch from Panel's own host, and have it use the copies."""
    text = page_file.read_text(encoding="utf-8")
    source = Path(pn.__file__).parent / "dist"
    for name in set(re.findall(re.escape(CDN_DIST) + r"([\w./-]+)", text)):
        copy = page_file.parent / "panel" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)
    page_file.write_text(text.replace(CDN_DIST, "panel/"), encoding="utf-8")
