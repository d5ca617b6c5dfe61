"""Pictures read from files, and brought to the form that data sets have."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pullback.core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 28
DRAWING = (SIDE, SIDE, 1)
"""The shape of an example of the data sets of drawn characters."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Below this span between paper and ink a picture is a blank page: stretching it would turn
# the scanner's noise into ink.
_LEAST_CONTRAST = 16
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}


def shrink(picture: "Image", height: int = SIDE, width: int = SIDE) -> UInt8[np.ndarray, "..."]:
    """A picture resized without aliasing.

    Args:
        picture: a Pillow image of mode ``"L"``, ``"LA"``, ``"RGB"`` or ``"RGBA"``.
        height: of the result.
        width: of the result.

    Returns:
        Its values, with an axis of channels if there are several.
    """
    from PIL import Image

    # The filter the few-shot literature uses for Omniglot, so that numbers compare.
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), dtype=np.uint8)


def read_image(
    path: Path | str, shape: tuple[int, ...] = DRAWING
) -> UInt8[np.ndarray, "height width *channels"]:
    """One picture, brought to the form that the examples of a data set have.

    A photograph is turned as its camera says. With one channel the picture is taken for a drawn
    character: transparent areas count as white paper; one that is mostly light is taken for dark
    ink on light paper, one that is mostly dark for a light drawing on a dark ground; the ground
    becomes 0 and the strongest ink 255, and the picture is padded. With more channels it is cut
    to the proportions asked for, about its middle. An antialiasing filter resizes it.

    Args:
        path: file in any format that Pillow opens.
        shape: height, width and channels of the result.

    Returns:
        For one channel grey values ``[height, width]``, 255 = ink and 0 = paper; otherwise colours
        ``[height, width, channels]``.

    Raises:
        DataError: if the file is missing or cannot be read as a picture.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    height, width, channels = shape
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if channels > 1:
                return shrink(_cut(picture.convert(_MODES[channels]), height, width), height, width)
            grey = _grey(picture)
    except FileNotFoundError:
        raise DataError(f"There is no image file {str(path)!r}") from None
    # A damaged file can fail in any decoder, each with an exception of its own.
    except Exception as error:
        raise DataError(
            f"The file {str(path)!r} cannot be read as an image ({error})",
            allowed="PNG, JPEG, GIF, BMP, TIFF, WebP and whatever else Pillow opens",
            remedy="Remove the file or save it again as PNG",
        ) from error

    if np.mean(grey > 127) >= 0.5:
        grey = 255.0 - grey
    paper = float(np.median(grey))
    span = float(grey.max()) - paper
    grey = np.clip(grey - paper, 0.0, None)
    ink = grey * (255.0 / span) if span >= _LEAST_CONTRAST else np.zeros_like(grey)
    return shrink(Image.fromarray(_padded(np.rint(ink), height, width)), height, width)


def _padded(ink: np.ndarray, height: int, width: int) -> UInt8[np.ndarray, "padded padded2"]:
    """The ink in the middle of a page that has the proportions asked for."""
    rows, columns = ink.shape
    scale = max(rows / height, columns / width)
    page = np.zeros((round(scale * height), round(scale * width)), np.uint8)
    top, left = (page.shape[0] - rows) // 2, (page.shape[1] - columns) // 2
    page[top : top + rows, left : left + columns] = ink
    return page


def _cut(picture: "Image", height: int, width: int) -> "Image":
    """The largest part about the middle that has the proportions asked for."""
    scale = min(picture.height / height, picture.width / width)
    rows, columns = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (picture.height - rows) // 2, (picture.width - columns) // 2
    return picture.crop((left, top, left + columns, top + rows))


def _grey(picture: "Image") -> np.ndarray:
    """Grey values 0..255 as float, transparent areas white."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        # Pillow clips deep grey to 8 bits instead of scaling it.
        deep = np.asarray(picture, dtype=np.float64)
        top = 65535.0 if deep.max() > 255 else 255.0
        return np.clip(deep * (255.0 / top), 0.0, 255.0)
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        picture = Image.alpha_composite(white, layers)
    return np.asarray(picture.convert("L"), dtype=np.float64)


def read_class_folders(
    folder: Path | str, shape: tuple[int, ...] = DRAWING
) -> tuple[list[UInt8[np.ndarray, "examples height width *channels"]], tuple[str, ...]]:
    """A person's own pictures: one sub-folder per class, one file per example.

    Hidden files and the litter that operating systems leave behind are passed over; every
    other file must be a picture. Classes and examples come in the order of their names.

    Args:
        folder: folder whose sub-folders are the classes.
        shape: height, width and channels of the images, as in :func:`read_image`.

    Returns:
        The images of each class (classes may differ in number of examples), and
        the class names, which are the sub-folders' names.

    Raises:
        DataError: if the folder is none, has fewer than two sub-folders, a class holds no
            picture or a file cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"{str(folder)!r} {what}", remedy="Give a folder with one sub-folder per class"
        )
    subfolders = [entry for entry in visible_entries(folder) if entry.is_dir()]
    if len(subfolders) < 2:
        count = "no sub-folders" if not subfolders else f"only one class, {subfolders[0].name!r}"
        raise DataError(
            f"The folder {str(folder)!r} has {count}",
            allowed="two or more sub-folders, one per class, each with at least one picture",
        )
    images = []
    for subfolder in subfolders:
        files = [entry for entry in visible_entries(subfolder) if entry.is_file()]
        if not files:
            raise DataError(
                f"The class folder {str(subfolder)!r} holds no pictures",
                remedy="Put at least one picture in it or remove it",
            )
        images.append(np.stack([read_image(file, shape) for file in files]))
    return images, tuple(subfolder.name for subfolder in subfolders)


def visible_entries(folder: Path) -> list[Path]:
    """A folder's entries in order, without hidden ones and what systems leave behind."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name.lower() not in _LITTER
    )
