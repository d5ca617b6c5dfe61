"""A function of JAX as JavaScript, for figures that compute in the browser.

The function is traced, and each primitive of its jaxpr becomes a statement: elementwise ones loops
over typed arrays, loops and branches those of JavaScript, calls functions. What only moves numbers
(slices, transposes, broadcasts and so on) is run here on the numbers of the elements, and becomes a
table of which element goes where. What depends on no input is computed here. So the mathematics is
said once, in Python.

Numbers are rounded after every operation as their type says; sums are accumulated in double
precision. The text needs ``javascript.js``, which :func:`to_javascript` puts before it.
"""

import base64
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jcore

from pullback.core.errors import InputError

RUNTIME = Path(__file__).with_name("javascript.js")

ARRAYS = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "bool": "Uint8Array",
}
"""The typed array of each type of number. A scalar is a number."""

UNROLLED = 6
"""Up to so many elements an array is written out; beyond, a loop fills it."""


class Program(NamedTuple):
    """A function as JavaScript.

    Args:
        text: an expression, a function of the inputs (a list of numbers and arrays of numbers) and
            of a function that gets what ``jax.debug.callback`` would. It returns an object of
            numbers and typed arrays.
        inputs: the inputs' names: where each is among the arguments.
        outputs: the names of what it returns, likewise.
        shapes: the shape of each output.
    """

    text: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def to_javascript(function: Callable[..., Any], *arguments: Any) -> Program:
    """Translate a function of JAX.

    Args:
        function: of pytrees of arrays, to one; pure but for ``jax.debug.callback``.
        arguments: what it is traced with; only shapes and types matter.

    Returns:
        The program.

    Raises:
        InputError: for a primitive or a type that has no translation.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    emitter = _Emitter()
    main = emitter.function(closed)
    inputs, outputs = _names(arguments), _names(shape)
    names = [_unique("v", i) for i in range(len(inputs))]
    given = [
        f"const {name} = {_input(aval, f'inputs[{i}]')};"
        for i, (name, aval) in enumerate(zip(names, closed.in_avals, strict=True))
    ]
    fields = ", ".join(f"{_quote(name)}: found[{i}]" for i, name in enumerate(outputs))
    if len(outputs) == 1:
        fields = f"{_quote(outputs[0])}: found"
    body = [
        *given,
        f"const found = {main}({', '.join(names)});",
        f"return {{{fields}}};",
    ]
    text = "\n".join(
        [
            "(() => {",
            RUNTIME.read_text(encoding="utf-8"),
            "let record = () => {};",
            *emitter.constants.lines,
            *emitter.functions,
            "return (inputs, recorder) => {",
            "record = recorder ?? (() => {});",
            *body,
            "};",
            "})()",
        ]
    )
    return Program(text, inputs, outputs, tuple(tuple(a.shape) for a in closed.out_avals))


def _names(tree: Any) -> tuple[str, ...]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths)


def _unique(letter: str, number: int) -> str:
    return f"{letter}{number}"


def _quote(text: str) -> str:
    return f'"{text}"'


def _input(aval: Any, expression: str) -> str:
    if aval.shape == ():
        return _rounded(aval, f"+{expression}")
    return f"{_array(aval)}.from({expression})"


def _array(aval: Any) -> str:
    name = np.dtype(aval.dtype).name
    if name not in ARRAYS:
        raise InputError(
            f"An array of type {name} has no translation to JavaScript", allowed=", ".join(ARRAYS)
        )
    return ARRAYS[name]


def _rounded(aval: Any, expression: str) -> str:
    """A scalar expression as a number of its type; an array that it is stored in does it too."""
    match np.dtype(aval.dtype).name:
        case "float32":
            return f"Math.fround({expression})"
        case "int32":
            return f"({expression} | 0)"
        case "uint32":
            return f"({expression} >>> 0)"
        case "bool":
            return f"+({expression})"
        case _:
            return f"({expression})"


def _number(value: Any) -> str:
    value = np.asarray(value).item()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
    return f"({value!r})" if value < 0 else repr(value)


class _Constants:
    """Arrays that the program holds, each once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._known: dict[tuple[str, bytes], str] = {}

    def add(self, kind: str, values: np.ndarray) -> str:
        key = (kind, values.tobytes())
        if key not in self._known:
            name = self._known[key] = _unique("k", len(self._known))
            if values.size <= 16:
                held = f"{kind}.of({', '.join(map(_number, values.ravel()))})"
            else:
                data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
                held = f"unpacked({kind}, {_quote(data)})"
            self.lines.append(f"const {name} = {held};")
        return self._known[key]

    def table(self, numbers: np.ndarray) -> str:
        """Numbers of elements."""
        return self.add("Int32Array", np.asarray(numbers, np.int32).ravel())


class _Value(NamedTuple):
    """What a variable of the jaxpr is: the name of a number or an array, or a known constant."""

    aval: Any
    name: str | None = None
    constant: Any = None

    @property
    def scalar(self) -> bool:
        return self.aval.shape == ()

    @property
    def size(self) -> int:
        return int(np.prod(self.aval.shape, dtype=int))


class _Emitter:
    """The functions and constants of one program."""

    def __init__(self) -> None:
        self.constants = _Constants()
        self.functions: list[str] = []
        self._numbers = itertools.count()
        self._known: dict[int, tuple[Any, str]] = {}

    def function(self, closed: Any) -> str:
        """The name of a function of JavaScript that does what a jaxpr does."""
        known = self._known.get(id(closed))
        # The jaxpr is kept, since the number of one that is gone may be given again.
        if known is None:
            known = self._known[id(closed)] = (closed, self._define(closed))
        return known[1]

    def _define(self, closed: Any) -> str:
        body = _Body(self)
        jaxpr = closed.jaxpr
        arguments = [body.bind(var) for var in jaxpr.invars]
        for var, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            body.values[var] = _Value(var.aval, constant=constant)
        for equation in _needed(jaxpr):
            body.translate(equation)
        found = [body.operand(body.read(var)) for var in jaxpr.outvars]
        result = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
        name = _unique("f", next(self._numbers))
        lines = "\n".join(body.lines)
        self.functions.append(
            f"function {name}({', '.join(arguments)}) {{\n{lines}\nreturn {result};\n}}"
        )
        return name


def _needed(jaxpr: Any) -> list[Any]:
    """The equations whose results are used, or that have an effect."""
    used = {var for var in jaxpr.outvars if isinstance(var, jcore.Var)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(var in used for var in equation.outvars):
            kept.append(equation)
            used |= {var for var in equation.invars if isinstance(var, jcore.Var)}
    return kept[::-1]


class _Body:
    """The statements of one function."""

    def __init__(self, emitter: _Emitter):
        self.emitter, self.lines = emitter, []
        self.values: dict[Any, _Value] = {}
        self._numbers = itertools.count()

    def fresh(self) -> str:
        """A name that nothing has yet."""
        return _unique("v", next(self._numbers))

    def bind(self, var: Any) -> str:
        """A name for what a variable holds."""
        name = self.fresh()
        self.values[var] = _Value(var.aval, name)
        return name

    def read(self, var: Any) -> _Value:
        if isinstance(var, jcore.Literal):
            return _Value(var.aval, constant=var.val)
        return self.values[var]

    def operand(self, value: _Value) -> str:
        """An expression for a whole number or array."""
        if value.name is not None:
            return value.name
        if jnp.issubdtype(value.aval.dtype, jax.dtypes.prng_key):
            return "null"
        if value.scalar:
            return _number(value.constant)
        kind = _array(value.aval)
        return self.emitter.constants.add(kind, np.asarray(value.constant, value.aval.dtype))

    def element(self, value: _Value, index: Any) -> str:
        """An expression for one element; of a scalar, itself."""
        text = self.operand(value)
        return text if value.scalar else f"{text}[{index}]"

    def translate(self, equation: Any) -> None:
        """Add the statements of one equation."""
        name = equation.primitive.name
        values = [self.read(var) for var in equation.invars]
        if name == "platform_index":
            self._known(equation, [_platform(equation.params["platforms"])])
        elif name == "debug_callback":
            self.lines.append(f"record({', '.join(self.operand(v) for v in values)});")
        elif name not in LOOPS and not equation.effects and all(v.name is None for v in values):
            self._known(equation, _evaluate(equation, [v.constant for v in values]))
        elif name in CALLS:
            self.call(equation, CALLS[name](equation.params), values)
        elif name in MOVES:
            self.move(equation, values)
        elif name in ELEMENTWISE:
            self.elementwise(equation, values, ELEMENTWISE[name])
        elif name in OTHERS:
            OTHERS[name](self, equation, values)
        else:
            raise InputError(
                f"The primitive {name} has no translation to JavaScript",
                allowed=", ".join(sorted({*CALLS, *MOVES, *ELEMENTWISE, *OTHERS})),
                remedy="Write what is shown without it",
            )

    def _known(self, equation: Any, constants: Sequence[Any]) -> None:
        for var, constant in zip(equation.outvars, constants, strict=True):
            self.values[var] = _Value(var.aval, constant=constant)

    def let(self, var: Any, expression: str) -> str:
        name = self.bind(var)
        self.lines.append(f"const {name} = {expression};")
        return name

    def alias(self, var: Any, value: _Value) -> None:
        self.values[var] = value._replace(aval=var.aval)

    def spread(self, equation: Any, expression: str) -> None:
        """Bind all results of an equation to what an expression returns."""
        names = [self.bind(var) for var in equation.outvars]
        if len(names) == 1:
            self.lines.append(f"const {names[0]} = {expression};")
        elif names:
            self.lines.append(f"const [{', '.join(names)}] = {expression};")

    def call(self, equation: Any, closed: Any, values: Sequence[_Value]) -> None:
        function = self.emitter.function(closed)
        self.spread(equation, f"{function}({', '.join(map(self.operand, values))})")

    def fill(self, var: Any, at: Callable[[Any], str]) -> None:
        """An array from an expression for each of its elements."""
        aval = var.aval
        size = int(np.prod(aval.shape, dtype=int))
        if aval.shape == ():
            self.let(var, _rounded(aval, at(0)))
        elif size <= UNROLLED:
            self.let(var, f"{_array(aval)}.of({', '.join(at(i) for i in range(size))})")
        else:
            name = self.let(var, f"new {_array(aval)}({size})")
            self.lines.append(f"for (let i = 0; i < {size}; i++) {name}[i] = {at('i')};")

    def elementwise(self, equation: Any, values: Sequence[_Value], rule: Callable[..., str]):
        var = equation.outvars[0]
        kind = np.dtype(values[-1].aval.dtype).kind
        at = [self._spread_over(var.aval.shape, v) for v in values]
        self.fill(var, lambda i: rule(kind, equation.params, *(element(i) for element in at)))

    def _spread_over(self, shape: tuple[int, ...], value: _Value) -> Callable[[Any], str]:
        """The element of an operand that belongs to one of a result; axes of length 1 repeat."""
        if value.scalar or value.aval.shape == shape:
            return lambda i: self.element(value, i)
        numbers = np.broadcast_to(_numbers_of(value.aval.shape), shape)
        if numbers.size <= UNROLLED:
            return lambda i: self.element(value, numbers.flat[i])
        held = self.index(numbers)
        return lambda i: self.element(value, held(i))

    def move(self, equation: Any, values: Sequence[_Value]) -> None:
        """Results whose elements are elements of the operands."""
        first = np.cumsum([0, *(v.size for v in values)])
        numbers = [
            jnp.arange(start, start + v.size, dtype=jnp.int32).reshape(v.aval.shape)
            for start, v in zip(first, values, strict=False)
        ]
        params = dict(equation.params)
        if "fill_value" in params:
            params["fill_value"] = None
        found = equation.primitive.bind(*numbers, **params)
        found = found if equation.primitive.multiple_results else [found]
        for var, table in zip(equation.outvars, found, strict=True):
            self._take(var, values, first, np.asarray(table).ravel())

    def _take(
        self, var: Any, values: Sequence[_Value], first: np.ndarray, table: np.ndarray
    ) -> None:
        which = np.searchsorted(first, table, side="right") - 1
        only = values[int(which[0])] if len(table) and np.all(which == which[0]) else None
        if only is not None:
            table = table - first[which[0]]
            same = not only.scalar and var.aval.shape != ()
            if same and len(table) == only.size and np.array_equal(table, np.arange(only.size)):
                return self.alias(var, only)
            if var.aval.shape != () and len(table) > UNROLLED:
                if only.scalar:
                    made = f"new {_array(var.aval)}({len(table)}).fill({self.operand(only)})"
                    self.let(var, made)
                    return None
                held = self.emitter.constants.table(table)
                return self.fill(var, lambda i: self.element(only, f"{held}[{i}]"))
        if len(table) <= UNROLLED:
            places = [
                self.element(values[which[i]], table[i] - (0 if only else first[which[i]]))
                for i in range(len(table))
            ]
            return self.fill(var, lambda i: places[i])
        name = self.let(var, f"new {_array(var.aval)}({len(table)})")
        for number, value in enumerate(values):
            places = np.flatnonzero(which == number)
            if not len(places):
                continue
            to = self.emitter.constants.table(places)
            of = self.emitter.constants.table(table[places] - first[number])
            element = self.element(value, f"{of}[i]")
            self.lines.append(
                f"for (let i = 0; i < {len(places)}; i++) {name}[{to}[i]] = {element};"
            )
        return None

    def index(self, table: np.ndarray) -> Callable[[str], str]:
        """An expression for entries of a table of numbers of elements."""
        flat = np.asarray(table).ravel()
        if np.array_equal(flat, np.arange(len(flat))):
            return lambda at: at
        held = self.emitter.constants.table(flat)
        return lambda at: f"{held}[{at}]"


def _evaluate(equation: Any, constants: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation without inputs."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return jcore.jaxpr_as_fun(CALLS[name](params))(*constants)
    found = equation.primitive.bind(*constants, **params)
    return found if equation.primitive.multiple_results else [found]


def _platform(platforms: Any) -> np.ndarray:
    """The number of the branch for a processor."""
    for number, names in enumerate(platforms):
        if names is None or "cpu" in names:
            return np.asarray(number, np.int32)
    raise InputError(f"Nothing here is for a processor among {platforms}")


def _numbers_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(int(np.prod(shape, dtype=int))).reshape(shape)


# ---------------------------------------------------------------------------- calls

CALLS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "jit": lambda p: p["jaxpr"],
    "pjit": lambda p: p["jaxpr"],
    "closed_call": lambda p: p["call_jaxpr"],
    "custom_jvp_call": lambda p: p["call_jaxpr"],
    "custom_vjp_call": lambda p: p["call_jaxpr"],
    "remat2": lambda p: _closed(p["jaxpr"]),
    "checkpoint": lambda p: _closed(p["jaxpr"]),
}


def _closed(jaxpr: Any) -> Any:
    return jaxpr if isinstance(jaxpr, jcore.ClosedJaxpr) else jcore.ClosedJaxpr(jaxpr, ())


LOOPS = frozenset({"while", "scan", "cond", "custom_linear_solve"})

MOVES = frozenset(
    (
        *("broadcast_in_dim", "concatenate", "copy", "expand_dims", "pad", "reshape", "rev"),
        *("slice", "split", "squeeze", "stack", "tile", "transpose"),
    )
)

# ---------------------------------------------------------------------------- elementwise


def _infix(operator: str) -> Callable[..., str]:
    return lambda kind, params, a, b: f"({a} {operator} {b})"


def _of_math(name: str) -> Callable[..., str]:
    return lambda kind, params, *a: f"Math.{name}({', '.join(a)})"


def _times(kind: str, params: Any, a: str, b: str) -> str:
    return f"Math.imul({a}, {b})" if kind in "iu" else f"({a} * {b})"


def _divided(kind: str, params: Any, a: str, b: str) -> str:
    return f"Math.trunc({a} / {b})" if kind in "iu" else f"({a} / {b})"


def _power(kind: str, params: Any, a: str) -> str:
    y = params["y"]
    if y < 0:
        return f"(1 / {_power(kind, {'y': -y}, a)})"
    return "1" if y == 0 else f"power({a}, {y})"


def _not(kind: str, params: Any, a: str) -> str:
    return f"(1 - {a})" if kind == "b" else f"(~{a})"


def _convert(kind: str, params: Any, a: str) -> str:
    wanted = np.dtype(params["new_dtype"]).kind
    if wanted == "b":
        return f"({a} != 0)"
    return f"Math.trunc({a})" if wanted in "iu" and kind == "f" else a


def _select(kind: str, params: Any, which: str, *cases: str) -> str:
    chosen = cases[-1]
    for number in reversed(range(len(cases) - 1)):
        chosen = f"({which} == {number} ? {cases[number]} : {chosen})"
    return chosen


def _round(kind: str, params: Any, a: str) -> str:
    even = int(params["rounding_method"]) == 1
    return f"evenly({a})" if even else f"(Math.sign({a}) * Math.floor(Math.abs({a}) + 0.5))"


MATH = (
    *("abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "cos"),
    *("cosh", "exp", "expm1", "floor", "log", "log1p", "max", "min", "pow", "sign", "sin"),
    *("sinh", "sqrt", "tan", "tanh"),
)
"""What JavaScript's ``Math`` has under the same name."""

ELEMENTWISE: dict[str, Callable[..., str]] = {
    **{name: _infix(s) for name, s in {"add": "+", "add_any": "+", "sub": "-"}.items()},
    **{name: _infix(s) for name, s in {"eq": "==", "ne": "!=", "lt": "<", "le": "<="}.items()},
    **{name: _infix(s) for name, s in {"gt": ">", "ge": ">=", "and": "&", "or": "|"}.items()},
    **{name: _infix(s) for name, s in {"xor": "^", "rem": "%", "shift_left": "<<"}.items()},
    "shift_right_logical": _infix(">>>"),
    "shift_right_arithmetic": _infix(">>"),
    "mul": _times,
    "div": _divided,
    "neg": lambda kind, params, a: f"(-{a})",
    "not": _not,
    "square": lambda kind, params, a: _times(kind, params, a, a),
    "integer_pow": _power,
    **{
        name: _of_math(name)
        for name in ["abs", "atan2", "cbrt", "ceil", "cos", "cosh", "exp", "expm1", "floor"]
    },
    **{
        name: _of_math(name)
        for name in ["log", "log1p", "max", "min", "pow", "sign", "sin", "sinh", "sqrt"]
    },
    **{
        name: _of_math(name)
        for name in ["tan", "tanh", "acos", "acosh", "asin", "asinh", "atan", "atanh"]
    },
    "exp2": lambda kind, params, a: f"Math.pow(2, {a})",
    "rsqrt": lambda kind, params, a: f"(1 / Math.sqrt({a}))",
    "logistic": lambda kind, params, a: f"(1 / (1 + Math.exp(-{a})))",
    "is_finite": lambda kind, params, a: f"Number.isFinite({a})",
    "round": _round,
    "clamp": lambda kind, params, low, a, high: f"Math.min(Math.max({low}, {a}), {high})",
    "select_n": _select,
    "convert_element_type": _convert,
    "stop_gradient": lambda kind, params, a: a,
    "reduce_precision": lambda kind, params, a: a,
}

# ---------------------------------------------------------------------------- the rest


def _barrier(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    for var, value in zip(equation.outvars, values, strict=True):
        body.alias(var, value)


_STARTS = {"sum": "0", "prod": "1", "max": "-Infinity", "min": "Infinity", "and": "1", "or": "0"}
_STEPS = {
    "sum": "total += {}",
    "prod": "total *= {}",
    "max": "total = Math.max(total, {})",
    "min": "total = Math.min(total, {})",
    "and": "total &= {}",
    "or": "total |= {}",
}


def _rows(shape: tuple[int, ...], axes: Sequence[int]) -> np.ndarray:
    """The numbers of elements, those along some axes in a row."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    numbers = _numbers_of(shape).transpose(*kept, *axes)
    length = int(np.prod([shape[axis] for axis in axes], dtype=int))
    return numbers.reshape(-1, length) if length else np.zeros((1, 0), int)


def _reduce(name: str) -> Callable[..., None]:
    def rule(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
        value, var = values[0], equation.outvars[0]
        rows = _rows(value.aval.shape, equation.params["axes"])
        at = body.index(rows)
        step = _STEPS[name].format(body.element(value, at("at")))
        _by_rows(body, var, rows, f"let total = {_STARTS[name]};", f"{step};", "total")

    return rule


def _by_rows(body: _Body, var: Any, rows: np.ndarray, before: str, step: str, result: str) -> None:
    """One number for each row of a table; ``at`` is the place in the table."""
    count, length = rows.shape
    out = body.let(var, f"new {_array(var.aval)}({max(count, 1)})")
    body.lines.append(
        f"for (let i = 0; i < {count}; i++) {{ {before} "
        f"for (let j = 0, at = i * {length}; j < {length}; j++, at++) {step} "
        f"{out}[i] = {result}; }}"
    )
    if var.aval.shape == ():
        body.let(var, f"{out}[0]")


def _extreme(sign: str) -> Callable[..., None]:
    def rule(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
        value, var = values[0], equation.outvars[0]
        rows = _rows(value.aval.shape, equation.params["axes"])
        x = body.element(value, body.index(rows)("at"))
        better = f"{x} {sign} best || ({x} !== {x} && best === best)"
        step = f"if (j === 0 || {better}) {{ best = {x}; place = j; }}"
        _by_rows(body, var, rows, "let best = NaN, place = 0;", step, "place")

    return rule


def _cumulative(name: str) -> Callable[..., None]:
    def rule(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
        value, var = values[0], equation.outvars[0]
        rows = _rows(value.aval.shape, [equation.params["axis"]])
        rows = rows[:, ::-1] if equation.params["reverse"] else rows
        at, (count, length) = body.index(rows), rows.shape
        out = body.let(var, f"new {_array(var.aval)}({value.size})")
        step = _STEPS[name].format(body.element(value, at("at")))
        body.lines.append(
            f"for (let i = 0; i < {count}; i++) {{ let total = {_STARTS[name]}; "
            f"for (let j = 0, at = i * {length}; j < {length}; j++, at++) "
            f"{{ {step}; {out}[{at('at')}] = total; }} }}"
        )

    return rule


def _dot(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    (contract, batch) = equation.params["dimension_numbers"]
    sides = []
    for value, summed, shared in zip(values, contract, batch, strict=True):
        shape = value.aval.shape
        free = [axis for axis in range(len(shape)) if axis not in (*summed, *shared)]
        numbers = _numbers_of(shape).transpose(*shared, *free, *summed)
        blocks = int(np.prod([shape[axis] for axis in shared], dtype=int))
        length = int(np.prod([shape[axis] for axis in summed], dtype=int))
        rows = int(np.prod([shape[axis] for axis in free], dtype=int))
        sides.append((blocks, rows, length, _in_order(body, value, numbers)))
    (blocks, m, length, left), (_, n, _, right) = sides
    var, a, b = equation.outvars[0], f"{left}[p]", f"{right}[q]"
    out = body.let(var, f"new {_array(var.aval)}({max(blocks * m * n, 1)})")
    body.lines.append(
        f"for (let g = 0, o = 0; g < {blocks}; g++) for (let i = 0; i < {m}; i++) "
        f"for (let j = 0; j < {n}; j++, o++) {{ let total = 0; "
        f"for (let k = 0, p = (g * {m} + i) * {length}, q = (g * {n} + j) * {length}; "
        f"k < {length}; k++, p++, q++) total += {a} * {b}; {out}[o] = total; }}"
    )
    if var.aval.shape == ():
        body.let(var, f"{out}[0]")


def _in_order(body: _Body, value: _Value, numbers: np.ndarray) -> str:
    """The name of an operand whose elements are in the order in which a product reads them."""
    flat, name = numbers.ravel(), body.operand(value)
    if value.scalar:
        return f"[{name}]"
    if np.array_equal(flat, np.arange(flat.size)):
        return name
    held = body.fresh()
    table = body.emitter.constants.table(flat)
    body.lines.append(f"const {held} = inOrder({name}, {table});")
    return held


def _while(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    params = equation.params
    tests, steps = params["cond_nconsts"], params["body_nconsts"]
    operands = [body.operand(v) for v in values]
    of_test, of_step = operands[:tests], operands[tests : tests + steps]
    going = body.emitter.function(params["cond_jaxpr"])
    step = body.emitter.function(params["body_jaxpr"])
    carry = _carried(body, equation.outvars, operands[tests + steps :])
    assigned = carry[0] if len(carry) == 1 else f"[{', '.join(carry)}]"
    test = f"{going}({', '.join([*of_test, *carry])})"
    made = f"{step}({', '.join([*of_step, *carry])})"
    if params["cond_jaxpr"].out_avals[0].shape == ():
        body.lines.append(f"while ({test}) {assigned} = {made};")
        return
    # Mapped over, a loop goes on until all are done; what is done stays as it is.
    kept = f"[{', '.join(carry)}]"
    made = made if len(carry) > 1 else f"[{made}]"
    body.lines.append(
        f"for (let going = {test}; going.some(Boolean); going = {test}) "
        f"{kept} = unfinished(going, {made}, {kept});"
    )


def _carried(body: _Body, variables: Sequence[Any], starts: Sequence[str]) -> list[str]:
    names = []
    for var, start in zip(variables, starts, strict=True):
        names.append(body.bind(var))
        body.lines.append(f"let {names[-1]} = {start};")
    return names


def _scan(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    params = equation.params
    length, constants, carries = params["length"], params["num_consts"], params["num_carry"]
    shared = [body.operand(v) for v in values[:constants]]
    starts = [body.operand(v) for v in values[constants : constants + carries]]
    step = body.emitter.function(params["jaxpr"])
    carry = _carried(body, equation.outvars[:carries], starts)
    at = f"{length - 1} - i" if params["reverse"] else "i"
    rows = [
        _row(body.operand(v), v.aval.shape, v.size // length if length else 0)
        for v in values[constants + carries :]
    ]
    outs, stored = [], []
    for number, var in enumerate(equation.outvars[carries:]):
        size = int(np.prod(var.aval.shape, dtype=int))
        name = body.let(var, f"new {_array(var.aval)}({size})")
        row = f"y{number}"
        outs.append(row)
        if len(var.aval.shape) == 1:
            stored.append(f"{name}[at] = {row};")
        else:
            stored.append(f"{name}.set({row}, at * {size // length if length else 0});")
    results = [*(f"n{i}" for i in range(carries)), *outs]
    passed = ", ".join([*shared, *carry, *rows])
    if not results:
        made = f"{step}({passed});"
    else:
        target = results[0] if len(results) == 1 else f"[{', '.join(results)}]"
        made = f"const {target} = {step}({passed});"
    moved = " ".join(f"{name} = n{i};" for i, name in enumerate(carry))
    body.lines.append(
        f"for (let i = 0; i < {length}; i++) {{ const at = {at}; {made} {moved} "
        f"{' '.join(stored)} }}"
    )


def _row(name: str, shape: tuple[int, ...], size: int) -> str:
    return f"{name}[at]" if len(shape) == 1 else f"{name}.subarray(at * {size}, (at + 1) * {size})"


def _cond(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    branches, which = equation.params["branches"], values[0]
    if which.name is None:
        number = int(np.clip(int(which.constant), 0, len(branches) - 1))
        return body.call(equation, branches[number], values[1:])
    chosen = body.emitter.function(branches[-1])
    for number in reversed(range(len(branches) - 1)):
        function = body.emitter.function(branches[number])
        chosen = f"({body.operand(which)} <= {number} ? {function} : {chosen})"
    operands = ", ".join(map(body.operand, values[1:]))
    return body.spread(equation, f"{chosen}({operands})")


def _linear_solve(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    given = [*values[first : first + lengths.solve]]
    sides = values[first + lengths.solve + lengths.transpose_solve :]
    body.call(equation, jaxprs.solve, [*given, *sides])


class _Windows(NamedTuple):
    """Where the windows of gather, scatter and their like are in an operand.

    Args:
        base: for each element of the windows its place in the operand, of windows at the origin.
        row: for each element the row of the starts that belongs to it.
        limits: the largest start along each axis that is indexed.
        strides: what a step along each of them adds to the place.
    """

    base: np.ndarray
    row: np.ndarray
    limits: np.ndarray
    strides: np.ndarray


def _windows(operand: tuple[int, ...], indices: tuple[int, ...], numbers: Any, sizes: Any):
    """The windows of a gather.

    Args:
        operand: its shape.
        indices: the shape of the starts; the last axis is that of a start.
        numbers: a ``GatherDimensionNumbers``.
        sizes: of a window.
    """
    zeros = jnp.zeros(indices, jnp.int32)

    def gather(values, starts):
        return jax.lax.gather(values, starts, numbers, sizes, mode="clip")

    base = np.asarray(gather(jnp.asarray(_numbers_of(operand), jnp.int32), zeros))
    rows = indices[:-1]
    batch = [axis for axis in range(base.ndim) if axis not in numbers.offset_dims]
    row = np.broadcast_to(
        _numbers_of(rows).reshape([base.shape[a] if a in batch else 1 for a in range(base.ndim)]),
        base.shape,
    )
    strides = np.cumprod([1, *operand[:0:-1]])[::-1]
    axes = numbers.start_index_map
    limits = np.asarray([operand[axis] - sizes[axis] for axis in axes])
    return _Windows(base.ravel(), row.ravel(), limits, np.asarray([strides[a] for a in axes]))


def _place(body: _Body, windows: _Windows, starts: _Value, at: str, outside: str) -> str:
    """The place in the operand of an element of the windows, or −1 outside of it."""
    base, row = body.index(windows.base)(at), body.index(windows.row)(at)
    limits = body.emitter.constants.table(windows.limits)
    strides = body.emitter.constants.table(windows.strides)
    held = body.operand(starts)
    if starts.scalar:
        held = f"[{held}]"
    return f"place({held}, {row}, {base}, {limits}, {strides}, {outside})"


def _outside(mode: Any) -> str:
    """What becomes of a start beyond the operand: moved inside, or the element left out."""
    return "false" if "CLIP" in str(mode).upper() or "PROMISE" in str(mode).upper() else "true"


def _gather(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    operand, starts = values
    params, var = equation.params, equation.outvars[0]
    windows = _windows(
        operand.aval.shape, starts.aval.shape, params["dimension_numbers"], params["slice_sizes"]
    )
    missing = _number(params["fill_value"]) if params.get("fill_value") is not None else "NaN"
    if np.dtype(var.aval.dtype).kind != "f" and missing == "NaN":
        missing = _number(np.iinfo(var.aval.dtype).min) if var.aval.dtype != bool else "0"

    def at(i: Any) -> str:
        place = _place(body, windows, starts, str(i), _outside(params["mode"]))
        return f"taken({body.operand(operand)}, {place}, {missing})"

    body.fill(var, at)


def _scatter(operator: str) -> Callable[..., None]:
    def rule(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
        operand, starts, updates = values
        params, var = equation.params, equation.outvars[0]
        numbers = params["dimension_numbers"]
        shape = operand.aval.shape
        window = [updates.aval.shape[axis] for axis in numbers.update_window_dims]
        kept = iter(window)
        inserted = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        sizes = tuple(1 if a in inserted else next(kept) for a in range(len(shape)))
        gathered = jax.lax.GatherDimensionNumbers(
            offset_dims=numbers.update_window_dims,
            collapsed_slice_dims=numbers.inserted_window_dims,
            start_index_map=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.scatter_indices_batching_dims,
        )
        windows = _windows(shape, starts.aval.shape, gathered, sizes)
        out = body.let(var, f"{body.operand(operand)}.slice()")
        place = _place(body, windows, starts, "i", _outside(params["mode"]))
        new = body.element(updates, "i")
        body.lines.append(
            f"for (let i = 0; i < {max(updates.size, 1)}; i++) {{ const at = {place}; "
            f"if (at >= 0) {out}[at] {operator} {new}; }}"
        )

    return rule


def _dynamic(shape: tuple[int, ...], sizes: Sequence[int]) -> _Windows:
    """The window of a dynamic slice."""
    base = _numbers_of(shape)[tuple(slice(0, size) for size in sizes)]
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    limits = np.asarray(shape) - np.asarray(sizes)
    return _Windows(base.ravel(), np.zeros(base.size, int), limits, strides)


def _starts(body: _Body, values: Sequence[_Value], shape: tuple[int, ...]) -> str:
    """A dynamic slice's starts; a negative one counts from the end."""
    made = (f"{body.operand(v)}" for v in values)
    return f"[{', '.join(made)}]"


def _dynamic_slice(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    operand, *starts = values
    windows = _dynamic(operand.aval.shape, equation.params["slice_sizes"])
    held = _Value(_Shaped((len(starts),)), _starts(body, starts, operand.aval.shape))

    def at(i: Any) -> str:
        place = _place(body, windows, held, str(i), "false")
        return f"{body.operand(operand)}[{place}]"

    body.fill(equation.outvars[0], at)


def _dynamic_update_slice(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    operand, update, *starts = values
    var = equation.outvars[0]
    windows = _dynamic(operand.aval.shape, update.aval.shape)
    held = _Value(_Shaped((len(starts),)), _starts(body, starts, operand.aval.shape))
    out = body.let(var, f"{body.operand(operand)}.slice()")
    place = _place(body, windows, held, "i", "false")
    body.lines.append(
        f"for (let i = 0; i < {max(update.size, 1)}; i++) "
        f"{out}[{place}] = {body.element(update, 'i')};"
    )


class _Shaped(NamedTuple):
    """As much of an abstract value as the place of a window needs."""

    shape: tuple[int, ...]


def _matrices(name: str, options: Callable[[dict[str, Any]], list[Any]]) -> Callable[..., None]:
    """A decomposition or a solve, by a function of ``javascript.js`` for one matrix each."""

    def rule(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
        shapes = [list(v.aval.shape[-2:]) for v in values]
        count = int(np.prod(values[0].aval.shape[:-2], dtype=int))
        kinds = [_array(var.aval) for var in equation.outvars]
        sizes = [int(np.prod(v.aval.shape, dtype=int)) // max(count, 1) for v in equation.outvars]
        given = ", ".join(body.operand(v) for v in values)
        settings = ", ".join([*map(str, shapes), *map(_javascript, options(equation.params))])
        made = ", ".join(kinds)
        body.spread(
            equation,
            f"each({count}, [{given}], [{made}], {sizes}, (...m) => {name}(m, {settings}))"
            + ("[0]" if len(kinds) == 1 else ""),
        )

    return rule


def _javascript(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sort(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    params = equation.params
    rows = _rows(values[0].aval.shape, [params["dimension"]])
    held = body.emitter.constants.table(rows)
    given = ", ".join(map(body.operand, values))
    made = f"sorted([{given}], {held}, {rows.shape[1]}, {params['num_keys']})"
    body.spread(equation, made + ("[0]" if len(values) == 1 else ""))


def _hash(body: _Body, equation: Any, values: Sequence[_Value]) -> None:
    size = int(np.prod(equation.outvars[0].aval.shape, dtype=int))
    given = ", ".join(map(body.operand, values))
    scalar = equation.outvars[0].aval.shape == ()
    made = f"threefry({size}, {given})"
    body.spread(equation, f"{made}.map(x => x[0])" if scalar else made)


OTHERS: dict[str, Callable[[_Body, Any, Sequence[_Value]], None]] = {
    "optimization_barrier": _barrier,
    **{f"reduce_{name}": _reduce(name) for name in _STEPS},
    **{f"cum{name}": _cumulative(name) for name in ("sum", "prod", "max", "min")},
    "argmax": _extreme(">"),
    "argmin": _extreme("<"),
    "dot_general": _dot,
    "while": _while,
    "scan": _scan,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "gather": _gather,
    "scatter": _scatter("="),
    "scatter-add": _scatter("+="),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "lu": _matrices("decomposed", lambda p: []),
    "eigh": _matrices("eigen", lambda p: [p["lower"]]),
    "cholesky": _matrices("rooted", lambda p: []),
    "triangular_solve": _matrices(
        "substituted",
        lambda p: [p["left_side"], p["lower"], p["transpose_a"], p["unit_diagonal"]],
    ),
    "sort": _sort,
    "threefry2x32": _hash,
}
