"""A person's own feature vectors: a file of rows, and the class of each."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from pullback.core.errors import DataError, InputError
from pullback.tasks.class_set import ClassSet

FORM = (
    "a .npz file of two arrays, as numpy.savez('FILE.npz', x=x, y=y) writes it: x of numbers "
    "[rows, columns], and y with a label for each row, a text or a whole number"
)


def load_vectors(data_dir: Path | str | None = None) -> ClassSet:
    """Own feature vectors from a ``.npz`` file with ``x`` and ``y``.

    Args:
        data_dir: the file. ``x`` has a row for each example, ``y`` its label.

    Returns:
        A class for each label, in the order of the labels; rows keep their order. They are not
        standardised yet: that is done by the training classes (``--standardise``).

    Raises:
        InputError: if no file is given.
        DataError: if the file cannot be read, has other arrays, a number is not finite, or all rows
            are of one class.
    """
    if data_dir is None:
        raise InputError(
            "The data set 'vectors' has no file", allowed=FORM, remedy="Give it by --data-dir"
        )
    x, labels = read_vectors(data_dir)
    if labels is None:
        raise _wrong(Path(data_dir), "has no array y", ("x",))
    names, where = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"All {len(x)} rows of {str(data_dir)!r} are of one class, {str(names[0])!r}",
            allowed="labels of two classes or more",
        )
    each = [x[where == number] for number in range(len(names))]
    return ClassSet.of("vectors", each, tuple(map(str, names)))


def read_vectors(
    path: Path | str,
) -> tuple[Float64[np.ndarray, "rows columns"], Shaped[np.ndarray, " rows"] | None]:
    """The rows of a ``.npz`` file and their labels.

    Args:
        path: the file, with ``x`` and perhaps ``y``.

    Returns:
        The rows, and the labels; None where there is no ``y``.

    Raises:
        DataError: if the file cannot be read, its arrays do not fit each other, or a number is not
            finite.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise DataError(f"There is no file {str(path)!r}", allowed=FORM) from None
    # NumPy reports a damaged archive by many kinds of exception, a plain .npy by another one.
    except Exception as error:
        raise DataError(
            f"The file {str(path)!r} cannot be read as feature vectors ({error})", allowed=FORM
        ) from None
    if "x" not in arrays:
        raise _wrong(path, "has no array x", arrays)
    x, y = arrays["x"], arrays.get("y")
    if x.ndim != 2 or x.dtype.kind not in "biuf" or 0 in x.shape:
        raise _wrong(path, f"has x as {x.dtype}{list(x.shape)}", arrays)
    if y is not None and (y.shape != x.shape[:1] or y.dtype.kind not in "biuUS"):
        raise _wrong(path, f"has y as {y.dtype}{list(y.shape)} for {len(x)} rows", arrays)
    x = x.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(x).all(1))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} rows of x in {str(path)!r} hold a number that is not finite, the first "
            f"is row {wrong[0]} (counted from 0)",
            remedy="Leave them out, or fill them in",
        )
    return x, y.astype(str) if y is not None and y.dtype.kind == "S" else y


def _wrong(path: Path, problem: str, arrays) -> DataError:
    found = ", ".join(arrays) or "none"
    return DataError(f"The file {str(path)!r} {problem} (its arrays: {found})", allowed=FORM)
