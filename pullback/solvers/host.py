"""Inner solvers that run as Python code on the host, inside a compiled program.

The solver's function runs in a thread of its own. Whenever it needs a gradient or a product with
the Hessian, it waits; the compiled program computes the numbers and passes them to the thread by a
callback (``jax.pure_callback``), which returns what is to be computed next. So no JAX code runs
inside a callback: it would wait there for threads that the program itself occupies.
"""

import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt

from pullback.core import trees
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution, check_solver

GRADIENT = 0
PRODUCT = 1

PIECE = 2**16
"""Bytes of one argument of a callback: JAX copies a large one in another thread, and a program
on several host devices may leave none free for that; whole vectors of 400 kB hung on two."""


class Request(NamedTuple):
    """What a host function waits for: the gradient at a point, or a product with the Hessian there.

    Args:
        kind: ``GRADIENT`` or ``PRODUCT``.
        point: where to evaluate.
        direction: what the Hessian is multiplied with; not read for a gradient.
    """

    kind: int
    point: np.ndarray
    direction: np.ndarray


class HostObjective:
    """The proximal objective as a host function sees it; the compiled program evaluates it.

    Args:
        ask: sends a request and waits for the value and the vector computed for it.
        known: the last point, and the value and the gradient there.
    """

    def __init__(self, ask: Callable[[Request], tuple[Any, Any]], known: tuple[Any, Any, Any]):
        self._ask, self._known = ask, known
        self._dtype = known[0].dtype

    def value_and_gradient(self, point: Any) -> tuple[float, np.ndarray]:
        """The objective and its gradient at a flat vector, both in double precision."""
        point = self._cast(point)
        if not np.array_equal(point, self._known[0]):
            self._known = (point, *self._ask(Request(GRADIENT, point, np.zeros_like(point))))
        _, value, gradient = self._known
        return float(value[0]), gradient.astype(np.float64)

    def product(self, point: Any, direction: Any) -> np.ndarray:
        """(H + Λ)·direction at a flat vector, in double precision."""
        request = Request(PRODUCT, self._cast(point), self._cast(direction))
        return self._ask(request)[1].astype(np.float64)

    def _cast(self, vector: Any) -> np.ndarray:
        # Solvers reuse their buffers, and the last point is compared with later.
        return np.array(vector, self._dtype).reshape(self._known[0].shape)


HostFunction = Callable[[HostObjective, np.ndarray, np.ndarray], Any]
"""``function(objective, theta, key_data) -> phi`` on flat NumPy vectors."""


def solve_on_host(
    function: HostFunction,
    problem: InnerProblem,
    theta: Params,
    key: PRNGKeyArray,
    *,
    products: bool = False,
) -> Solution:
    """Let a host function solve an inner problem; safe under ``jit``, ``vmap`` and ``shard_map``.

    Args:
        function: the host function; what it raises ends the program with its message.
        problem: the inner problem.
        theta: where the function starts.
        key: handed on as numbers.
        products: whether the function may ask for products with the Hessian.

    Returns:
        The solution; no derivative flows through it.
    """
    problem, theta = jax.lax.stop_gradient((problem, theta))
    start, unravel = trees.ravel(theta)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    runs = _HostRuns(function, start.dtype)
    bits = jax.eval_shape(_bits, start)
    number, no = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.bool_)
    shapes = (*jax.eval_shape(lambda: (number, no, number)), bits, bits)

    def gradient(x, _):
        value, gradient = problem.value_and_gradient(unravel(x))
        return value.astype(start.dtype), trees.ravel(gradient)[0]

    def product(x, direction):
        tangents = (unravel(direction),)
        product = jax.jvp(problem.gradient, (unravel(x),), tangents)[1]
        return jnp.zeros((), start.dtype), trees.ravel(product)[0]

    # The thread starts inside the loop: XLA would merge equal callbacks before it, and so let
    # several tasks share one thread.
    def turn(carry):
        run, _, kind, x, direction, size = carry
        if products:
            value, vector = jax.lax.cond(kind == PRODUCT, product, gradient, x, direction)
        else:
            value, vector = gradient(x, direction)
        size = jnp.where(run == 0, jnp.linalg.norm(vector), size)
        args = (carry[0], carry[1], _cut(x), _cut(value), _cut(vector), key)
        *state, x, direction = jax.pure_callback(runs, shapes, *args, vmap_method="sequential")
        return *state, _numbers(x, start), _numbers(direction, start), size

    carry = (number, no, number, start, jnp.zeros_like(start), jnp.zeros((), start.dtype))
    _, _, _, phi, _, size = jax.lax.while_loop(lambda carry: ~carry[1], turn, carry)
    return Solution(unravel(phi), size)


def _bits(vector: Float[Array, "..."]) -> UInt[Array, " bits"]:
    # A callback's thread may not know that its program is in double precision, and would round.
    integer = jnp.uint16 if vector.dtype.itemsize == 2 else jnp.uint32
    return jax.lax.bitcast_convert_type(vector, integer).reshape(-1)


def _numbers(bits: UInt[Array, " bits"], like: Float[Array, " n"]) -> Float[Array, " n"]:
    parts = like.dtype.itemsize // bits.dtype.itemsize
    shape = (like.size, parts) if parts > 1 else like.shape
    return jax.lax.bitcast_convert_type(bits.reshape(shape), like.dtype)


def _cut(vector: Float[Array, "..."]) -> list[UInt[Array, " piece"]]:
    bits = _bits(vector)
    length = PIECE // bits.dtype.itemsize
    return [bits[i : i + length] for i in range(0, bits.size, length)]


class _Ended(BaseException):
    """Unwinds a host function whose program is gone."""


class _HostRun:
    """One run of a host function in its own thread."""

    def __init__(self, function: HostFunction, key: np.ndarray, known: tuple[Any, Any, Any]):
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        objective = HostObjective(self._ask, known)

        def call():
            try:
                self._requests.put((function(objective, known[0].copy(), key), None))
            except _Ended:
                return
            except BaseException as error:
                self._requests.put((None, error))

        threading.Thread(target=call, daemon=True).start()

    def _ask(self, request: Request) -> tuple[Any, Any]:
        self._requests.put(request)
        answer = self._answers.get()
        if answer is None:
            raise _Ended
        return answer

    def answer(self, value: Any, vector: Any) -> None:
        self._answers.put((value, vector))

    def end(self) -> None:
        self._answers.put(None)

    def next(self) -> Any:
        return self._requests.get()


class _HostRuns:
    """The callback of one traced program, and the host functions that it has running, by number."""

    def __init__(self, function: HostFunction, dtype: Any):
        self._function, self._dtype = function, np.dtype(dtype)
        self._open: dict[int, _HostRun] = {}
        self._failed: dict[int, BaseException] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, run, done, x, value, vector, key):
        # The arrays are views of the program's memory, valid during this call only.
        number = int(run)
        integer = value[0].dtype
        x, value, vector = (np.concatenate(part).view(self._dtype) for part in (x, value, vector))
        nothing = np.zeros_like(x).view(integer)
        if done:
            # Under vmap a finished task is asked again until all have finished.
            return np.int32(number), np.True_, np.int32(GRADIENT), x.view(integer), nothing
        with self._lock:
            if number in self._failed:
                raise self._failed.pop(number)
            if number == 0:
                number = next(self._numbers)
                host_run = _HostRun(self._function, np.array(key), (x, value, vector))
                self._open[number] = host_run
            else:
                host_run = self._open[number]
                # Within the lock: a run that another device's failure ends would never answer.
                host_run.answer(value, vector)
        reply = host_run.next()
        if isinstance(reply, Request):
            kind = np.int32(reply.kind)
            point, direction = reply.point.view(integer), reply.direction.view(integer)
            return np.int32(number), np.False_, kind, point, direction
        phi, error = reply
        with self._lock:
            self._open.pop(number, None)
            error = error or self._failed.pop(number, None)
            if error is not None:
                # The whole program ends with this error, and its other runs with it.
                for other, host_run in self._open.items():
                    host_run.end()
                    self._failed[other] = error
                self._open.clear()
        if error is not None:
            raise error
        phi = np.array(phi, self._dtype).view(integer)
        return np.int32(number), np.True_, np.int32(GRADIENT), phi, nothing


ValueAndGradient = Callable[[Any], tuple[float, np.ndarray]]
"""``value_and_gradient(vector) -> (value, gradient)``, in double precision."""

HostSolver = Callable[[ValueAndGradient, np.ndarray, np.ndarray], Any]
"""``function(value_and_gradient, theta, key_data) -> phi`` on flat NumPy vectors."""


class Callback(eqx.Module):
    """A Python function that minimises on the host, while all else stays compiled.

    The function may do what Python can: call other libraries, other processes, other languages.
    It must not use JAX, whose threads may all be waiting for it. It runs in a thread of its own,
    once a task, and what it raises ends the program with its message.

    Args:
        function: ``function(value_and_gradient, theta, key_data) -> phi``. ``theta`` is the flat
            vector of all parameters, ``key_data`` the numbers of the task's random key, and
            ``value_and_gradient(vector)`` returns the proximal objective and its gradient, in
            double precision though computed in that of the parameters.

    Raises:
        InputError: if ``function`` cannot be called; inside a solve, if it returns anything but
            a finite floating-point vector of θ's length.
    """

    differentiable: ClassVar[bool] = False
    function: HostSolver = eqx.field(static=True)

    def __init__(self, function: HostSolver):
        check_solver(function)
        self.function = function

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""

        def minimise(
            objective: HostObjective, start: np.ndarray, key_data: np.ndarray
        ) -> np.ndarray:
            phi = self.function(objective.value_and_gradient, start, key_data)
            return _check_vector(phi, start)

        return solve_on_host(minimise, problem, theta, key)


def _check_vector(phi: Any, theta: np.ndarray) -> np.ndarray:
    wanted = f"a NumPy vector of {theta.size} finite floating-point numbers, as in θ"
    if not isinstance(phi, np.ndarray):
        raise InputError(
            f"The inner solver's function returned {type(phi).__name__}", allowed=wanted
        )
    if phi.shape != theta.shape or not np.issubdtype(phi.dtype, np.floating):
        raise InputError(
            f"The inner solver's function returned {phi.dtype}{list(phi.shape)}", allowed=wanted
        )
    bad = np.flatnonzero(~np.isfinite(phi))
    if bad.size:
        raise InputError(
            f"The inner solver's function returned {phi[bad[0]]} at index {bad[0]}, "
            f"{bad.size} of {phi.size} numbers that are not finite",
            allowed=wanted,
        )
    return phi
