"""Sets of small pictures sorted into classes, and pictures read from a person's own files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from pullback.core.errors import DataError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 28
# Below this span between paper and ink a picture is a blank page: stretching it would turn
# the scanner's noise into ink.
_LEAST_CONTRAST = 16
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
_NAMED_AT_MOST = 5


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Pictures sorted into classes, each class with the same number of examples.

    Args:
        name: the data set's name, for instance ``"omniglot"``.
        images: grey values, 255 = ink and 0 = paper.
        classes: one unique name per class, for instance ``"Greek/character03"``.
        groups: the alphabet or script of each class.
        parts: the official part of each class (``"background"`` or ``"evaluation"``), or
            ``""`` where the data set has no official parts.

    Raises:
        InputError: if the shapes disagree or a class name occurs twice.
    """

    name: str
    images: UInt8[np.ndarray, "classes examples 28 28"]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[str, ...]

    def __post_init__(self):
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[2:] != (SIDE, SIDE):
            raise InputError(
                f"The images of {self.name!r} are {self.images.dtype}{list(shape)}",
                allowed=f"uint8[classes, examples, {SIDE}, {SIDE}]",
            )
        lengths = {len(self.classes), len(self.groups), len(self.parts), shape[0]}
        if len(lengths) > 1:
            raise InputError(
                f"Image set {self.name!r} has {shape[0]} rows of images, "
                f"{len(self.classes)} class names, {len(self.groups)} groups and "
                f"{len(self.parts)} parts",
                allowed="the same number of each",
            )
        if len(set(self.classes)) < len(self.classes):
            seen: set[str] = set()
            twice = next(c for c in self.classes if c in seen or seen.add(c))
            raise InputError(f"Class {twice!r} occurs twice in image set {self.name!r}")

    def select(self, class_names: Iterable[str]) -> "ImageSet":
        """The same set with only the given classes, in the given order.

        Args:
            class_names: names of classes of this set.

        Returns:
            An image set with exactly these classes.

        Raises:
            InputError: if no class is given, one is given twice or one is not in this set.
        """
        names = tuple(class_names)
        if not names:
            raise InputError(f"No classes were selected from image set {self.name!r}")
        place = {name: index for index, name in enumerate(self.classes)}
        missing = [name for name in names if name not in place]
        if missing:
            shown = ", ".join(map(repr, missing[:_NAMED_AT_MOST]))
            rest = len(missing) - _NAMED_AT_MOST
            more = f" and {rest} more" if rest > 0 else ""
            raise InputError(
                f"{len(missing)} of {len(names)} classes are not in image set "
                f"{self.name!r}: {shown}{more}",
                allowed=f"its {len(self.classes)} classes, such as {self.classes[0]!r}"
                if self.classes
                else None,
                remedy="Load the data the classes were drawn from, or draw a new split",
            )
        rows = [place[name] for name in names]
        return ImageSet(
            name=self.name,
            images=self.images[rows],
            classes=names,
            groups=tuple(self.groups[row] for row in rows),
            parts=tuple(self.parts[row] for row in rows),
        )


def shrink(ink: "Image") -> UInt8[np.ndarray, "28 28"]:
    """A square grey picture with light ink on black, resized to 28×28 without aliasing.

    Args:
        ink: square Pillow image of mode ``"L"``, 255 = ink.

    Returns:
        Grey values, 255 = ink.
    """
    from PIL import Image

    # The filter the few-shot literature uses for Omniglot, so that numbers compare.
    return np.asarray(ink.resize((SIDE, SIDE), Image.Resampling.LANCZOS), dtype=np.uint8)


def read_image(path: Path | str) -> UInt8[np.ndarray, "28 28"]:
    """One picture of a drawn character, brought to the form the data sets have.

    Transparent areas count as white paper, and a photograph is turned as its camera says.
    A picture that is mostly light is taken for dark ink on light paper, one that is mostly
    dark for a light drawing on a dark ground. The ground becomes 0 and the strongest ink
    255; the picture is padded to a square and resized with an antialiasing filter.

    Args:
        path: file in any format that Pillow opens.

    Returns:
        Grey values, 255 = ink and 0 = paper.

    Raises:
        DataError: if the file is missing or cannot be read as a picture.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
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
    height, width = ink.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = np.rint(ink)
    return shrink(Image.fromarray(square))


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
    folder: Path | str,
) -> tuple[list[UInt8[np.ndarray, "examples 28 28"]], tuple[str, ...]]:
    """A person's own pictures: one sub-folder per class, one file per example.

    Hidden files and the litter that operating systems leave behind are passed over; every
    other file must be a picture. Classes and examples come in the order of their names.

    Args:
        folder: folder whose sub-folders are the classes.

    Returns:
        The images of each class (255 = ink; classes may differ in number of examples), and
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
        images.append(np.stack([read_image(file) for file in files]))
    return images, tuple(subfolder.name for subfolder in subfolders)


def visible_entries(folder: Path) -> list[Path]:
    """A folder's entries in order, without hidden ones and what systems leave behind."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name.lower() not in _LITTER
    )
