"""A pure function as one file, which JAX alone can run.

The file is a zip of two parts: ``program.bin``, which ``jax.export`` wrote, and ``about.json``,
which says what it takes and gives.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import export

from pullback.core.errors import InputError, unknown_name

FORMAT = 1
ABOUT, PROGRAM = "about.json", "program.bin"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Input:
    """An array that a program takes.

    Args:
        shape: its lengths; one with a name is free, and the same wherever that name stands.
        dtype: its type, such as ``"float64"``.
        what: a few words on it.
        span: the least and the largest number in it; None where any will do.
    """

    shape: tuple[int | str, ...]
    dtype: str
    what: str
    span: tuple[int | None, int | None] | None = None


@dataclass(frozen=True)
class Program:
    """A pure function and what must be known to call it.

    Args:
        function: from arrays in the order of ``inputs`` to a tuple of arrays.
        inputs: by name.
        outputs: by name, a few words on each.
        about: what else must be known, as JSON has it.
        x64: whether it computes in 64 bits.
    """

    function: Callable[..., tuple[jax.Array, ...]]
    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]
    about: Mapping[str, Any] = field(default_factory=dict)
    x64: bool = False


def check_installed() -> None:
    """Whether JAX can write programs and read them.

    Raises:
        InputError: if the package that it needs for that is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError(
            "JAX needs flatbuffers to write a program, and to read one",
            remedy="Install it by: pip install 'pullback[export]'",
        )


def check_platforms(platforms: Sequence[str]) -> None:
    """Whether a program can be compiled for these.

    Raises:
        InputError: for none at all, or an unknown one.
    """
    if not platforms:
        raise InputError("No platform was given", allowed=", ".join(PLATFORMS))
    for platform in platforms:
        if platform not in PLATFORMS:
            raise unknown_name("platform", platform, PLATFORMS)


def pack(program: Program, platforms: Sequence[str]) -> tuple[dict[str, Any], bytes]:
    """A program as the content of a file.

    Args:
        program: the function and its inputs.
        platforms: what it is going to run on, of ``PLATFORMS``.

    Returns:
        What ``about.json`` says, and the zip.

    Raises:
        InputError: for a function that calls the host.
    """
    free = sorted({n for each in program.inputs.values() for n in each.shape if type(n) is str})
    lengths: dict[Any, Any] = dict(zip(free, export.symbolic_shape(", ".join(free)), strict=True))
    with jax.enable_x64(program.x64), _without_places():
        arguments = [
            jax.ShapeDtypeStruct([lengths.get(n, n) for n in each.shape], each.dtype)
            for each in program.inputs.values()
        ]
        try:
            exported = export.export(jax.jit(program.function), platforms=platforms)(*arguments)
        # Of a call of the host JAX says that it is not implemented, or fails in its own code.
        except (RuntimeError, ValueError) as error:
            if isinstance(error, ValueError) and "custom calls" not in str(error):
                raise
            raise InputError(
                f"JAX cannot export this: {str(error).splitlines()[0]}",
                allowed="solvers and models that compute by JAX alone, which scipy does not",
            ) from None
    written = bytes(exported.serialize())
    outputs = [
        {"name": name, "dtype": str(each.dtype), "shape": _lengths(each.shape), "what": what}
        for (name, what), each in zip(program.outputs.items(), exported.out_avals, strict=True)
    ]
    inputs = [
        {
            "name": name,
            "dtype": each.dtype,
            "shape": list(each.shape),
            "what": each.what,
            "span": each.span,
        }
        for name, each in program.inputs.items()
    ]
    about = {
        "format": FORMAT,
        **program.about,
        "inputs": inputs,
        "outputs": outputs,
        "x64": program.x64,
        "platforms": list(exported.platforms),
        "versions": {name: _version(name) for name in ("pullback", "jax", "jaxlib")},
        "checksum": hashlib.sha256(written).hexdigest(),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps(about, indent=1, ensure_ascii=False))
        archive.writestr(PROGRAM, written)
    return about, content.getvalue()


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """JAX would note down for each operation in which file of this machine it was asked for."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _lengths(shape: Sequence[Any]) -> list[int | str]:
    return [n if isinstance(n, int) else str(n) for n in shape]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
