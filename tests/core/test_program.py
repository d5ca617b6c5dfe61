"""What of a function can be written as a program."""

import io
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.core.program import Input, Program, pack


def of_the_host(x):
    return (jax.pure_callback(np.sin, x, x),)


def of_another_library(x):
    return (jax.ffi.ffi_call("nowhere", jax.ShapeDtypeStruct(x.shape, x.dtype))(x),)


def program(function):
    inputs = {"x": Input(("rows", 2), "float32", "numbers")}
    return Program(function, inputs, {"y": "likewise"})


def test_what_it_takes_and_gives_is_said():
    about, _ = pack(program(lambda x: (jnp.sum(x, 1),)), ["cpu"])
    taken = {"name": "x", "dtype": "float32", "shape": ["rows", 2], "what": "numbers", "span": None}
    assert about["inputs"] == [taken]
    given = {"name": "y", "dtype": "float32", "shape": ["rows"], "what": "likewise"}
    assert about["outputs"] == [given]


def test_no_folder_of_this_machine_stands_in_it():
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    _, content = pack(program(lambda x: (jnp.tanh(x) @ x.T,)), ["cpu"])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = b"".join(map(archive.read, archive.namelist()))
    assert Path(__file__).name.encode() not in parts
    assert b".py" not in parts
    assert jax.config.values["jax_traceback_in_locations_limit"] == limit


@pytest.mark.parametrize("function", [of_the_host, of_another_library])
def test_what_does_not_compute_by_jax_alone_is_refused(function):
    with pytest.raises(InputError, match=r"JAX cannot export this.*by JAX alone"):
        pack(program(function), ["cpu"])


def test_a_mistake_in_a_function_is_no_bad_input():
    def wrong(x):
        raise ValueError("broken")

    with pytest.raises(ValueError, match=r"^broken"):
        pack(program(wrong), ["cpu"])
