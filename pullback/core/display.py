"""How records of results print: their numbers, the verdict, and what to do about it.

Inside ``jit`` there are no numbers yet, and a record prints its fields' shapes and types, as any
Equinox module does.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from pullback.core import results
from pullback.core.errors import InputError
from pullback.core.results import Verdict


class Record(eqx.Module):
    """A module that prints the numbers in it, one line a field.

    Of a pytree of parameters only the size is shown. A record of several tasks, as from ``vmap``,
    shows the range and the median of each field.
    """

    def __repr__(self) -> str:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not all(_is_concrete(leaf) for leaf in jax.tree.leaves(fields)):
            return super().__repr__()
        return self._summary({name: value for name, value in fields.items() if value is not None})

    def _summary(self, fields: dict[str, Any]) -> str:
        name, axes = type(self).__name__, min(map(np.ndim, fields.values()))
        return summary(name, fields, axes)


class VerdictRecord(Record):
    """A record with a verdict.

    Args:
        code: the number of a :class:`~pullback.core.results.Verdict`.
    """

    code: eqx.AbstractVar[Int[Array, "..."]]

    @property
    def verdict(self) -> Any:
        """The verdict's name, such as ``"ok"``; an array of names for a record of several tasks.

        Raises:
            InputError: inside ``jit``, where a verdict is a number.
        """
        if isinstance(self.code, Tracer):
            raise InputError(
                "verdict is a name, which does not exist inside jit",
                remedy="Compare code with a pullback.core.results.Verdict there",
            )
        names = np.asarray([results.label(int(code)) for code in np.ravel(self.code)], dtype=str)
        return names.reshape(np.shape(self.code)) if np.ndim(self.code) else str(names[0])

    def _message(self, verdict: Verdict, fields: Mapping[str, Any]) -> str:
        """What happened and what to change."""
        curvatures = fields.get("smallest_curvature")
        smallest = None if curvatures is None else float(np.fmin.reduce(np.ravel(curvatures)))
        return results.message(verdict, smallest)

    def _summary(self, fields: dict[str, Any]) -> str:
        code = np.asarray(fields.pop("code"))
        counts = count_codes(code)
        name = type(self).__name__
        title = f"{name} of shape {code.shape}: {verdicts_text(counts)}"
        if not code.ndim:
            title = f"{name}: {results.label(int(code))}"
        messages = advice(counts, lambda verdict: self._message(verdict, fields), not code.ndim)
        return summary(title, fields, code.ndim, messages)


def summary(
    title: str, fields: Mapping[str, Any], axes: int = 0, messages: Iterable[str] = ()
) -> str:
    """A record in a few lines.

    Args:
        title: the first line.
        fields: by name numbers, texts, or pytrees of arrays, of which only the size is shown.
        axes: how many axes each number has because there are several tasks.
        messages: what to do, below the fields.

    Returns:
        The lines.
    """
    width = max(map(len, fields), default=0)
    lines = [f"  {name:<{width}}  {_value_text(value, axes)}" for name, value in fields.items()]
    return "\n".join([title, *lines, *(f"  {message}" for message in messages)])


def count_codes(codes: Any) -> dict[int, int]:
    """How often each code occurs, in ascending order."""
    numbers, counts = np.unique(np.asarray(codes), return_counts=True)
    return {int(n): int(c) for n, c in zip(numbers, counts, strict=True)}


def verdicts_text(counts: Mapping[int, int]) -> str:
    """How often each verdict occurs, as in ``"6 ok, 2 negative_curvature"``."""
    return ", ".join(f"{count} {results.label(code)}" for code, count in counts.items())


def advice(
    counts: Iterable[int], message: Callable[[Verdict], str], single: bool = False
) -> list[str]:
    """What to do about each bad verdict, after its name unless there is a ``single`` one."""
    bad = [Verdict(code) for code in counts if code in list(Verdict) and code != Verdict.OK]
    return [message(each) if single else f"{each.name.lower()}: {message(each)}" for each in bad]


def range_text(values: Any) -> str:
    """The least, the greatest and the median of some numbers, and how many are not finite."""
    values = np.asarray(values, float).ravel()
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "not finite" if values.size else "empty"
    low, middle, high = np.min(finite), np.median(finite), np.max(finite)
    text = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}, median {middle:.3g}"
    missing = values.size - finite.size
    return text + (f", {missing} of {values.size} not finite" if missing else "")


def _value_text(value: Any, axes: int) -> str:
    if isinstance(value, str):
        return value
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value and np.ndim(value) <= axes:
        if np.ndim(value):
            return range_text(value)
        return "unknown" if np.isinf(value) else f"{np.asarray(value)[()]:.4g}"
    count = sum(np.size(leaf) for leaf in leaves)
    return f"{count:,} numbers in {len(leaves)} array{'s' * (len(leaves) != 1)}"


def _is_concrete(leaf: Any) -> bool:
    """Whether the numbers can be read on this host."""
    if isinstance(leaf, Tracer):
        return False
    if isinstance(leaf, jax.Array):
        return not leaf.is_deleted() and leaf.is_fully_addressable
    return isinstance(leaf, np.ndarray | np.number | int | float)
