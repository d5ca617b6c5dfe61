"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn by 20 people."""

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pullback.core.array_cache import cache_folder, fingerprint
from pullback.core.errors import DataError
from pullback.tasks.cache import cached, file_state
from pullback.tasks.class_set import ClassSet
from pullback.tasks.images import SIDE, on_paper, open_picture, shrink, visible_entries

SOURCE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
OFFICIAL_MD5 = {
    "background": "68d2efa1b9178cc56df9314c21c6e718",
    "evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
EXAMPLES = 20
_FORMAT = 3
# Of an unpacked drawing; an official one has less than a thousandth of it.
_MOST_BYTES = 1_000_000


def load_omniglot(
    data_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    *,
    progress: bool = False,
) -> ClassSet:
    """The Omniglot characters at 28×28, from files at hand or from the official source.

    Lake, Salakhutdinov, Tenenbaum (2015), "Human-level concept learning through
    probabilistic program induction", Science 350(6266).

    Args:
        data_dir: folder with ``images_background`` and/or ``images_evaluation``, each as the
            official zip file or unpacked; one of the two is enough, and a zip goes before a
            folder. The network is never asked. None: both zips are downloaded once and
            checked against their official checksums.
        cache_dir: folder for downloads and for the decoded images; None for the user's
            cache folder.
        progress: show a progress bar while downloading.

    Returns:
        All classes found, 20 examples each; ``groups`` are the alphabets and ``parts`` say
        ``"background"`` or ``"evaluation"``.

    Raises:
        DataError: if the data are missing, damaged or cannot be downloaded.
    """
    if data_dir is None:
        sources = _download(cache_folder(cache_dir) / "downloads", progress)
    else:
        sources = _find(Path(data_dir))
    key = fingerprint(_FORMAT, SIDE, [(part, _state(path)) for part, path in sources.items()])
    return cached(cache_dir, "omniglot", key, lambda: _decode(sources))


def _find(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"The Omniglot data folder {str(folder)!r} {what}",
            remedy="Give the folder that holds images_background.zip, or none to download",
        )
    sources = {}
    for part in OFFICIAL_MD5:
        for path in (folder / f"images_{part}.zip", folder / f"images_{part}"):
            if path.is_file() if path.suffix else path.is_dir():
                sources[part] = path
                break
    if not sources:
        raise DataError(
            f"The folder {str(folder)!r} holds no Omniglot data",
            allowed="images_background.zip, images_evaluation.zip, or the unpacked folders "
            "images_background, images_evaluation",
            remedy=f"Download the zip files from {SOURCE}",
        )
    return sources


def _download(folder: Path, progress: bool) -> dict[str, Path]:
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    if not progress:
        logger.setLevel("WARNING")
    try:
        return {part: _download_part(part, folder, progress) for part in OFFICIAL_MD5}
    finally:
        logger.setLevel(level)


def _download_part(part: str, folder: Path, progress: bool) -> Path:
    import pooch

    name = f"images_{part}.zip"
    # pooch takes any object that acts as a progress bar, but its annotations say bool.
    http: Any = pooch.HTTPDownloader
    bar = _ProgressBar(name) if progress else False
    try:
        path = pooch.retrieve(
            SOURCE + name,
            known_hash=f"md5:{OFFICIAL_MD5[part]}",
            fname=name,
            path=folder,
            downloader=http(progressbar=bar),
        )
    # pooch passes on what its HTTP client raises, all of which derive from OSError, and
    # says by ValueError that the checksum was wrong.
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} could not be downloaded from {SOURCE} into {str(folder)!r} ({error})",
            remedy="Check the network, or download the file by other means and give its folder "
            "as the data folder",
        ) from error
    return Path(path)


class _ProgressBar:
    """What pooch asks of a progress bar, drawn by rich."""

    def __init__(self, name: str):
        from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

        columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task(name, total=None)
        self.total: float | None = None

    def update(self, size: int) -> None:
        self._progress.start()
        self._progress.update(self._task, total=self.total or None, advance=size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop()


def _state(path: Path) -> object:
    """What changes when the data at a path change."""
    if path.is_file():
        return _md5(path)
    # Reading 20 000 small files again would be as slow as decoding them. Where links lead counts,
    # since what they are called may stay the same.
    files = []
    for folder, drawings in _drawings_in(path):
        files.append((folder, os.path.realpath(folder)))
        files += [(file.name, *_stat(file)) for file in drawings]
    return files


def _stat(file: Path) -> tuple[int, ...]:
    try:
        return file_state(file)
    except OSError as error:
        raise _unreadable(file, error) from error


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()
    except OSError as error:
        raise DataError(f"The file {str(path)!r} cannot be read ({error})") from error


def _decode(sources: dict[str, Path]) -> ClassSet:
    images, classes, groups, parts = [], [], [], []
    for part, path in sources.items():
        read = _read_zip if path.is_file() else _read_folder
        drawings: dict[tuple[str, str], list[tuple[str, np.ndarray]]] = {}
        for (alphabet, character, name), image in read(path, part):
            drawings.setdefault((alphabet, character), []).append((name, image))
        if not drawings:
            raise DataError(
                f"{str(path)!r} holds no Omniglot drawings",
                allowed=f"images_{part}/<Alphabet>/character<number>/<drawing>.png",
            )
        for (alphabet, character), found in sorted(drawings.items()):
            if len(found) != EXAMPLES:
                raise DataError(
                    f"Class {alphabet}/{character} in {str(path)!r} has {len(found)} drawings",
                    allowed=f"{EXAMPLES} drawings in each class",
                    remedy=f"Get images_{part}.zip again from {SOURCE}",
                )
            images.append(np.stack([image for _, image in sorted(found, key=lambda f: f[0])]))
            classes.append(f"{alphabet}/{character}")
            groups.append(alphabet)
            parts.append(part)
    return ClassSet.of("omniglot", images, classes, groups, parts)


_Drawing = tuple[tuple[str, str, str], np.ndarray]


def _read_zip(path: Path, part: str) -> Iterator[_Drawing]:
    # RuntimeError is how zipfile refuses an encrypted member or an unknown compression.
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                place = _place(member.filename)
                if place is None:
                    continue
                yield place, _read_drawing(_unpack(archive, member), member.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"The file {str(path)!r} is damaged ({error}); its md5 is {_md5(path)}, that of "
            f"the official file {OFFICIAL_MD5[part]}",
            remedy=f"Get images_{part}.zip again from {SOURCE}",
        ) from error


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> io.BytesIO:
    """A member's content, of which no more is unpacked than a drawing may have."""
    # Other methods unpack a whole block at once, however large it becomes.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise OSError(f"{member.filename} is not packed as a drawing is")
    if member.file_size > _MOST_BYTES:
        raise OSError(f"{member.filename} would unpack to {member.file_size:,} bytes")
    with archive.open(member) as stream:
        return io.BytesIO(stream.read(_MOST_BYTES))


def _read_folder(path: Path, part: str) -> Iterator[_Drawing]:
    for folder, drawings in _drawings_in(path):
        if not drawings:
            raise DataError(
                f"The class folder {str(folder)!r} holds no drawings",
                allowed=f"{EXAMPLES} drawings in each class, each a file .png",
                remedy=f"Remove it, or unpack images_{part}.zip again",
            )
        for file in drawings:
            try:
                yield (folder.parent.name, folder.name, file.name), _read_drawing(file, file.name)
            except OSError as error:
                raise _unreadable(file, error) from error


def _drawings_in(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each class's folder, links to folders among them, and the drawings in it."""
    for alphabet in filter(Path.is_dir, visible_entries(path)):
        for character in filter(Path.is_dir, visible_entries(alphabet)):
            entries = visible_entries(character)
            yield character, [file for file in entries if file.suffix.lower() == ".png"]


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(
        f"The drawing {str(file)!r} cannot be read ({error})",
        remedy="Unpack the official zip file again",
    )


def _place(member: str) -> tuple[str, str, str] | None:
    """Alphabet, character and file of a drawing; None for anything else in the archive."""
    steps = PurePosixPath(member).parts
    hidden = any(step.startswith(".") or step == "__MACOSX" for step in steps)
    if hidden or len(steps) < 3 or not member.lower().endswith(".png"):
        return None
    return steps[-3], steps[-2], steps[-1]


def _read_drawing(file: Path | io.BytesIO, name: str) -> np.ndarray:
    from PIL import ImageChops

    try:
        with open_picture(file) as picture:
            ink = ImageChops.invert(on_paper(picture).convert("L"))
    # Pillow's PNG decoder reports a damaged chunk by SyntaxError, a short one by ValueError.
    except (OSError, SyntaxError, ValueError) as error:
        raise OSError(f"{name}: {error}") from error
    if ink.width != ink.height:
        raise OSError(f"{name}: {ink.width}×{ink.height} pixels, but a drawing is square")
    return shrink(ink)
