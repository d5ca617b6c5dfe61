"""A person's own pictures: one folder for each class, whatever their sizes and numbers."""

import os
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pullback.core import memory
from pullback.core.array_cache import fingerprint
from pullback.core.errors import DataError, InputError, check_counts, unknown_name
from pullback.registries import CHANNELS
from pullback.tasks.cache import cached, file_state
from pullback.tasks.class_set import ClassSet
from pullback.tasks.images import (
    SIDE,
    as_grey,
    check_is_folder,
    is_picture,
    read_picture,
    visible_entries,
)

PATIENCE = 2.0
"""Seconds of reading after which something is said; each time after twice as many."""
_FORMAT = 1
_PARTS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
_LAYOUT = "DIR/<class>/<picture>, or DIR/<group>/<class>/<picture>"


def load_folder(
    data_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    *,
    image_size: int = SIDE,
    channels: str = "auto",
    say: Callable[[str], None] | None = None,
) -> ClassSet:
    """Own pictures, one folder for each class, each picture read by ``read_picture``.

    A class is a folder that holds pictures, at any depth; its name is the way to it, as in
    ``"Greek/alpha"``, and its group is the folder that it is in. Classes may have different numbers
    of pictures. Links are followed. Files that are not named as pictures, hidden files and folders
    without a picture are passed over and counted.

    Args:
        data_dir: the folder of the class folders.
        cache_dir: folder for the decoded pictures; None for the user's cache folder. They are read
            anew when a file has changed.
        image_size: side of the square that each picture is fitted into.
        channels: ``"grey"``, ``"colour"``, or ``"auto"`` for grey if all pictures are.
        say: told in sentences what was passed over and, where reading takes more than two seconds,
            how it goes; if None, a warning tells what was passed over.

    Returns:
        The classes, in the order of their names.

    Raises:
        InputError: if no folder is given, an argument is wrong, or the pictures do not fit into
            memory.
        DataError: if there are fewer than two classes, a picture belongs to none or cannot be read,
            or two classes have the very same pictures.
    """
    check_counts("load_folder", image_size=image_size)
    if channels not in CHANNELS:
        raise unknown_name("kind of channels", channels, CHANNELS)
    if data_dir is None:
        raise InputError(
            "The data set 'folder' has no folder of pictures", remedy=f"Give --data-dir: {_LAYOUT}"
        )
    found = _find(Path(data_dir))
    if found.passed_over:
        text = f"Passed over in {str(data_dir)!r}: {found.passed_over}."
        say(text) if say else warnings.warn(text, stacklevel=2)
    needed = found.count * image_size**2 * 3
    available = memory.available_bytes()
    if available is not None and needed > available:
        raise InputError(
            f"{found.count:,} pictures of {image_size}×{image_size} take "
            f"{memory.bytes_text(needed)} of memory, and {memory.bytes_text(available)} are free",
            remedy="Take a smaller --image-size, or fewer pictures",
        )
    key = fingerprint(_FORMAT, image_size, _versions(), found.state())
    loaded = cached(cache_dir, "folder", key, lambda: _decode(found, image_size, say))
    return _with_channels(loaded, channels)


def _versions() -> str:
    import PIL

    return PIL.__version__


@dataclass
class _Found:
    """What is in a folder of classes.

    Args:
        root: the folder.
        classes: the pictures of each class, by its name.
        others: how many files are no pictures, by the end of their names.
        hidden: how many files and folders are hidden, or what systems leave behind.
        empty: folders in which there is neither a picture nor a folder.
    """

    root: Path
    classes: dict[str, list[Path]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    empty: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of pictures."""
        return sum(map(len, self.classes.values()))

    @property
    def passed_over(self) -> str:
        """What is no picture of a class, in words; empty if everything is."""
        parts = []
        if self.others:
            kinds = ", ".join(
                f"{n} {end or 'without an ending'}" for end, n in sorted(self.others.items())
            )
            parts.append(f"files that are no pictures ({kinds})")
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        if self.empty:
            shown = ", ".join(map(repr, self.empty[:3])) + ", …" * (len(self.empty) > 3)
            parts.append(f"{len(self.empty)} folders without pictures ({shown})")
        return "; ".join(parts)

    def state(self) -> list[object]:
        """What changes when a picture does."""
        return [
            (name, f.name, file_state(f)) for name, files in self.classes.items() for f in files
        ]


def _find(root: Path) -> _Found:
    check_is_folder(root, f"Give the folder that holds the class folders: {_LAYOUT}")
    found = _Found(root)
    loose = _walk(root, (), (), found)
    if loose:
        raise DataError(
            f"{len(loose)} pictures stand directly in {str(root)!r} and belong to no class, for "
            f"instance {loose[0].name!r}",
            allowed=_LAYOUT,
            remedy="Move each into the folder of its class",
        )
    if len(found.classes) < 2:
        (only,) = found.classes or ("",)
        held = f"one class of pictures only, {only!r}" if only else "no class folders with pictures"
        beside = f" (there are {found.passed_over})" if found.passed_over else ""
        raise DataError(
            f"The folder {str(root)!r} has {held}{beside}",
            allowed=f"{_LAYOUT}, as PNG, JPEG, GIF, BMP, TIFF, WebP or PPM; two classes or more",
        )
    _check_parts(found)
    return found


def _walk(
    folder: Path, steps: tuple[str, ...], above: tuple[str, ...], found: _Found
) -> list[Path]:
    """Note the classes in a folder and below it; give the pictures that are directly in it."""
    real = os.path.realpath(folder)
    if real in above:
        raise DataError(
            f"{str(folder)!r} is a link to a folder above it, {real!r}", remedy="Remove the link"
        )
    entries = visible_entries(folder)
    found.hidden += sum(1 for _ in folder.iterdir()) - len(entries)
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if not entry.is_dir()]
    pictures = [file for file in files if is_picture(file)]
    found.others.update(file.suffix.lower() for file in files if not is_picture(file))
    if pictures and steps:
        found.classes[_name(folder, steps)] = pictures
    elif not folders and not pictures and steps:
        found.empty.append("/".join(steps))
    for each in folders:
        _walk(each, (*steps, each.name), (*above, real), found)
    return pictures


def _name(folder: Path, steps: tuple[str, ...]) -> str:
    # macOS takes letters with accents apart, and a copy elsewhere may put them together again.
    name = unicodedata.normalize("NFC", "/".join(steps))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"The name of the class folder {str(folder)!r} is no text", remedy="Rename it"
        ) from None
    return name


def _check_parts(found: _Found) -> None:
    """A class must not be in two folders, as in those of data that were split beforehand."""
    tops: dict[str, list[str]] = {}
    for name in found.classes:
        top, _, rest = name.partition("/")
        if rest and top.lower() in _PARTS:
            tops.setdefault(rest, []).append(top)
    for name, where in tops.items():
        if len(where) > 1:
            raise DataError(
                f"The class {name!r} is in {' and in '.join(map(repr, where))} of "
                f"{str(found.root)!r}, and would count as {len(where)} classes",
                remedy="Whole classes are dealt to training, validation and test: put all pictures "
                "of a class into one folder, or give one of these folders",
            )


def _decode(found: _Found, side: int, say: Callable[[str], None] | None) -> ClassSet:
    images: list[np.ndarray] = []
    done, began, due = 0, time.monotonic(), PATIENCE
    for files in found.classes.values():
        pages = np.empty((len(files), side, side, 3), np.uint8)
        for page, file in zip(pages, files, strict=True):
            page[:] = read_picture(file, side)
            done += 1
            if say and time.monotonic() - began > due:
                say(
                    f"Read {done:,} of {found.count:,} pictures of {len(found.classes):,} classes …"
                )
                due *= 2
        images.append(pages)
    if all((pages == pages[..., :1]).all() for pages in images):
        images = [pages[..., :1] for pages in images]
    names = tuple(found.classes)
    groups = [name.rpartition("/")[0] or name for name in names]
    loaded = ClassSet.of("folder", images, names, groups)
    _check_distinct(loaded)
    return loaded


def _check_distinct(class_set: ClassSet) -> None:
    """Classes with the same pictures could be learned in one part and tested in another."""
    first: dict[str, str] = {}
    for name, digest in class_set.digests.items():
        if first.setdefault(digest, name) != name:
            raise DataError(
                f"The classes {first[digest]!r} and {name!r} have the very same pictures",
                remedy="Remove one of them",
            )


def _with_channels(class_set: ClassSet, channels: str) -> ClassSet:
    """The same pictures in grey or in colour."""
    examples, deep = class_set.examples, class_set.shape[-1]
    wanted = {"auto": deep, "grey": 1, "colour": 3}[channels]
    if wanted == deep:
        return class_set
    examples = as_grey(examples) if wanted == 1 else np.repeat(examples, 3, axis=-1)
    each = np.split(examples, class_set.starts[1:])
    return ClassSet.of(class_set.name, each, class_set.classes, class_set.groups)
