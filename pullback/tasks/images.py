"""Pictures read from files, and brought to the form that data sets have."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8

from pullback.core.errors import DataError

if TYPE_CHECKING:
    import io

    from PIL.Image import Image

SIDE = 28
DRAWING = (SIDE, SIDE, 1)
"""The shape of an example of the data sets of drawn characters."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# With this span between paper and ink a picture is surely no blank page. A fainter one is read if
# the ink stands out of the paper's own unevenness: else stretching would turn noise into ink.
_SURE_CONTRAST = 16
_FAINT_CONTRAST = 4
_OUT_OF_NOISE = 12
# Those that Pillow decodes itself; for others, such as EPS, it starts programs.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_MOST_PIXELS = 50_000_000
# The page that a picture is padded to may be this long both ways.
_LONGEST_SIDE = 10_000
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
# A JPEG is decoded to no more than about this many times the side it is to have.
_DRAFT = 4
# What red, green and blue weigh in a grey, in parts of 2¹⁶, as Pillow has it.
_LUMA = np.asarray([19595, 38470, 7471], np.uint32)


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


@contextlib.contextmanager
def open_picture(file: "Path | io.BytesIO") -> "Iterator[Image]":
    """A picture from a file that a stranger may have made.

    Args:
        file: its path or its content, in a raster format that Pillow decodes itself.

    Yields:
        The picture, not decoded yet, of a size that can be.

    Raises:
        OSError: if it is no such file or too large; ValueError or SyntaxError where Pillow finds
            it damaged.
    """
    from PIL import Image

    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise OSError("it is not a file")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit; the one below is stricter.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file, formats=_FORMATS)
    except Image.UnidentifiedImageError:
        raise OSError(f"it is in none of the formats {', '.join(_FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from None
    with opened as picture:
        if picture.width * picture.height > _MOST_PIXELS or max(picture.size) > _LONGEST_SIDE:
            raise OSError(
                f"it has {picture.width}×{picture.height} pixels; at most {_MOST_PIXELS:,} in all "
                f"and {_LONGEST_SIDE:,} along a side can be read"
            )
        yield picture


def on_paper(picture: "Image") -> "Image":
    """A picture of eight bits a channel, with white paper where it is transparent.

    Args:
        picture: of any mode. Deep grey and floating-point numbers are scaled by their range.

    Returns:
        The picture without transparency.

    Raises:
        ValueError: if a number in it is not finite.
    """
    from PIL import Image

    if _is_deep(picture):
        return Image.fromarray(np.rint(_scaled(picture)).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture
    layers = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def read_image(
    path: Path | str, shape: tuple[int, ...] = DRAWING
) -> UInt8[np.ndarray, "height width *channels"]:
    """One picture, brought to the form that the examples of a data set have.

    A photograph is turned as its camera says. With one channel the picture is taken for a drawn
    character: transparent areas count as white paper; one that is mostly light is taken for dark
    ink on light paper, one that is mostly dark for a light drawing on a dark ground; the ground
    becomes 0 and the strongest ink 255, and the picture is padded. A faint one is read as long as
    its ink stands out of the paper's unevenness; else it is a blank page, all 0. With more
    channels it is cut to the proportions asked for, about its middle. An antialiasing filter
    resizes it.

    Args:
        path: a PNG, JPEG, GIF, BMP, TIFF, WebP or PPM file of at most 50 million pixels, 10,000
            along a side.
        shape: height, width and channels of the result.

    Returns:
        For one channel grey values ``[height, width]``, 255 = ink and 0 = paper; otherwise colours
        ``[height, width, channels]``.

    Raises:
        DataError: if the file is missing, too large, or cannot be read as a picture.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    height, width, channels = shape
    with _named(path), open_picture(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        if channels > 1:
            # An even number of channels keeps the transparency.
            flat = picture if channels % 2 == 0 and not _is_deep(picture) else on_paper(picture)
            return shrink(_cut(flat.convert(_MODES[channels]), height, width), height, width)
        grey = _grey(picture)

    if np.mean(grey > 127) >= 0.5:
        grey = 255.0 - grey
    paper = float(np.median(grey))
    span = float(grey.max()) - paper
    if span < _SURE_CONTRAST:
        unevenness = float(np.median(np.abs(grey - paper)))
        if span < max(_FAINT_CONTRAST, _OUT_OF_NOISE * unevenness):
            return np.zeros((height, width), np.uint8)
    ink = np.clip(grey - paper, 0.0, None) * (255.0 / span)
    return shrink(Image.fromarray(_padded(np.rint(ink), height, width)), height, width)


def read_picture(
    path: Path | str, side: int = SIDE, channels: int = 3
) -> UInt8[np.ndarray, "side side channels"]:
    """One picture as it is, fitted into a square.

    A photograph is turned as its camera says, and transparent areas are white paper; light and dark
    stay as they are. An antialiasing filter resizes the picture until its longer side fills the
    square, and the rest is filled with the median colour of its border.

    Args:
        path: a file as in :func:`read_image`; of several frames the first counts.
        side: of the square.
        channels: 3 for red, green and blue, 1 for grey values.

    Returns:
        The picture.

    Raises:
        DataError: if the file is missing, too large, or cannot be read as a picture.
    """
    from PIL import ImageOps

    path = Path(path)
    with _named(path), open_picture(path) as opened:
        opened.draft(None, (_DRAFT * side, _DRAFT * side))
        picture = on_paper(ImageOps.exif_transpose(opened)).convert("RGB")
        scale = side / max(picture.size)
        width, height = (max(1, round(scale * length)) for length in picture.size)
        small = shrink(picture, height, width)
        border = np.sort(np.concatenate(border_of(np.asarray(picture))), axis=0)
    page = np.empty((side, side, 3), np.uint8)
    page[:] = border[len(border) // 2]
    top, left = (side - height) // 2, (side - width) // 2
    page[top : top + height, left : left + width] = small
    return page if channels == 3 else as_grey(page)


def border_of(image: Shaped[Any, "height width channels"]) -> list[Shaped[Any, "_ channels"]]:
    """The outermost pixels of a picture, side by side."""
    return [image[0], image[-1], image[1:-1, 0], image[1:-1, -1]]


def as_grey(
    images: UInt8[np.ndarray, "*n height width 3"],
) -> UInt8[np.ndarray, "*n height width 1"]:
    """Grey values of coloured pictures; those of a picture that is grey stay as they are."""
    weighed = images.astype(np.uint32) @ _LUMA
    return ((weighed + 0x8000) >> 16).astype(np.uint8)[..., None]


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever a decoder finds wrong, as an error that names the file."""
    try:
        yield
    except FileNotFoundError:
        why = ", but a link to nowhere" if path.is_symlink() else ""
        raise DataError(f"There is no image file {str(path)!r}{why}") from None
    # A damaged file can fail in any decoder, each with an exception of its own.
    except Exception as error:
        raise DataError(
            f"The file {str(path)!r} cannot be read as an image ({error})",
            allowed="PNG, JPEG, GIF, BMP, TIFF, WebP and PPM",
            remedy="Remove the file or save it again as PNG",
        ) from error


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
    if _is_deep(picture):
        return _scaled(picture)
    return np.asarray(on_paper(picture).convert("L"), dtype=np.float64)


def _is_deep(picture: "Image") -> bool:
    """Whether a pixel is one number that Pillow would clip to 8 bits instead of scaling it."""
    return picture.mode.startswith(("I", "F"))


def _scaled(picture: "Image") -> np.ndarray:
    """Deep grey as float, from black or the lowest value at 0 to the highest at 255."""
    deep = np.asarray(picture, dtype=np.float64)
    if not np.isfinite(deep).all():
        raise ValueError("a number in it is not finite")
    black = min(0.0, float(deep.min()))
    top = float(deep.max()) - black
    return (deep - black) * (255.0 / top) if top > 0 else np.zeros_like(deep)


Read = Callable[[Path, tuple[int, ...]], UInt8[np.ndarray, "height width *channels"]]
"""What reads a picture from a file, in the form of a shape."""


def read_fitted(file: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "height width channels"]:
    """One picture of a square shape, as :func:`read_picture` reads it."""
    return read_picture(file, shape[0], shape[2])


def read_visible(
    file: Path, shape: tuple[int, ...] = DRAWING
) -> UInt8[np.ndarray, "height width *channels"]:
    """One picture that shows something, as :func:`read_image` reads it.

    Raises:
        DataError: as :func:`read_image` does, and if it is blank.
    """
    image = read_image(file, shape)
    if (image == image[0, 0]).all():
        raise DataError(
            f"The picture {str(file)!r} is blank: nothing in it stands out of its ground",
            remedy="Remove it, or scan it again with more contrast",
        )
    return image


def read_class_folders(
    folder: Path | str, shape: tuple[int, ...] = DRAWING, read: Read = read_visible
) -> tuple[list[UInt8[np.ndarray, "examples height width *channels"]], tuple[str, ...]]:
    """A person's own pictures: one sub-folder per class, one file per example.

    Hidden files and the litter that operating systems leave behind are passed over, and so are
    files beside the class folders that are no pictures (``files_beside``); every other file
    must be a picture in a class folder. Classes and examples come in the order of their names.

    Args:
        folder: folder whose sub-folders are the classes.
        shape: height, width and channels of the images, as in :func:`read_image`.
        read: reads one picture of that shape.

    Returns:
        The images of each class (classes may differ in number of examples), and
        the class names, which are the sub-folders' names.

    Raises:
        DataError: if the folder is none, has fewer than two sub-folders, a class holds no
            picture or a blank one, or anything in it cannot be read or belongs to no class.
    """
    folder = Path(folder)
    check_is_folder(folder, "Give a folder with one sub-folder per class")
    subfolders = [entry for entry in visible_entries(folder) if entry.is_dir()]
    if len(subfolders) < 2:
        count = "no sub-folders" if not subfolders else f"only one class, {subfolders[0].name!r}"
        raise DataError(
            f"The folder {str(folder)!r} has {count}",
            allowed="two or more sub-folders, one per class, each with at least one picture",
        )
    for file in files_beside(folder):
        if is_picture(file):
            raise DataError(
                f"The picture {str(file)!r} stands beside the class folders and belongs to none",
                remedy="Move it into the folder of its class, or remove it",
            )
    images = []
    for subfolder in subfolders:
        files = pictures_in(subfolder)
        if not files:
            raise DataError(
                f"The class folder {str(subfolder)!r} holds no pictures",
                remedy="Put at least one picture in it or remove it",
            )
        images.append(np.stack([read(file, shape) for file in files]))
    return images, tuple(subfolder.name for subfolder in subfolders)


def is_picture(file: Path) -> bool:
    """Whether a file is named as a picture that can be read."""
    return file.suffix.lower() in _SUFFIXES


def check_is_folder(folder: Path, remedy: str) -> None:
    """Whether a path is a folder.

    Raises:
        DataError: if it is none.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{str(folder)!r} {what}", remedy=remedy)


def pictures_in(folder: Path) -> list[Path]:
    """The files of one class's folder; everything in it that is not passed over must be one.

    Raises:
        DataError: for a folder in it, or anything else that is no file.
    """
    entries = visible_entries(folder)
    for entry in entries:
        if not entry.is_file():
            what = "a folder" if entry.is_dir() else "neither a file nor a folder"
            raise DataError(
                f"{str(entry)!r} is {what}, where pictures are expected",
                remedy=f"Put its pictures directly into {str(folder)!r}, or remove it",
            )
    return entries


def files_beside(folder: Path) -> list[Path]:
    """What is in a folder of class folders and is no folder."""
    return [entry for entry in visible_entries(folder) if not entry.is_dir()]


def visible_entries(folder: Path) -> list[Path]:
    """A folder's entries in order, without hidden ones and what systems leave behind.

    Raises:
        DataError: if the folder cannot be read, or an entry is a broken link.
    """
    try:
        with os.scandir(folder) as entries:
            links = {
                entry.name: entry.is_symlink()
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in _LITTER
            }
    except OSError as error:
        raise DataError(f"The folder {str(folder)!r} cannot be read ({error.strerror})") from None
    found = [folder / name for name in sorted(links)]
    for entry in found:
        if links[entry.name] and not entry.exists():
            raise DataError(
                f"{str(entry)!r} is a link to {str(entry.readlink())!r}, which does not exist",
                remedy="Remove it, or put in place what it points to",
            )
    return found
