"""Regression by a curve of the user's own, whose parameters differ between groups."""

import copy
import inspect
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from pullback.core.errors import InputError, check_counts, unknown_name
from pullback.grouped import curves
from pullback.grouped.basis import Rows
from pullback.grouped.curves import NOISES, PULLED, Curve, Parameter, Row
from pullback.grouped.mixed import Adapted
from pullback.grouped.table import Column, Encoder
from pullback.sklearn import groups as naming
from pullback.sklearn.base import AdaptedRegressor, Given, GroupedRegressor
from pullback.sklearn.inputs import Columns, warn_about_categories, warn_about_groups
from pullback.sklearn.reading import as_table

FAR = 1e-3
"""A mode that is farther, in its own standard deviations, is not converged."""


class CurveRegressor(GroupedRegressor):
    """A curve of the user's own with named parameters that differ between groups.

    It is the nonlinear mixed-effects model: each group's parameters are drawn toward the
    population's by a prior that is learned from all groups, by Laplace's approximation of the
    marginal likelihood. A new group is adapted to from a handful of its rows (docs/curves.md).

    Args:
        curve: ``curve(row, **parameters)``, the expected target of one row, written with
            ``jax.numpy``. ``row`` maps the name of each column to its value; the columns of an
            array are ``x0``, ``x1``, ....
        parameters: their names with bounds, as ``"a"``, ``"ka>0"``, ``"a<5"`` or ``"0<f<1"``.
            Those with one bound are normal between groups on a logarithmic scale, those with two
            on a logistic one.
        shared: names of those that are the same in all groups.
        covariates: for the name of a parameter the columns that it hangs on, linearly on its
            unbounded scale; they must be constant within groups.
        noise: ``"additive"``, ``"proportional"`` to the curve, or ``"combined"``.
        correlated: whether the parameters of a group are correlated.
        start: values to begin from, by name; else 1 from a single bound, the middle of two, or 0.
        steps: the most iterations of a fit.
        random_state: of further starts of the least squares that a fit begins with.
        verbose: 1 to print what is being done; a function is told it instead.

    Attributes:
        groups_: names of the groups, in the order of their first rows.
        population_: the parameters of an average group, by name; for a bounded one the median.
        coefficients_: on the unbounded scales, those of :attr:`population_` and of each
            covariate in units of its column, with their standard errors.
        prior_: the covariance of the groups' parameters on the unbounded scales.
        noise_: ``"additive"``, a standard deviation in units of y, and ``"proportional"``, one in
            shares of the curve; what the model has of them.
        group_parameters_: each group's parameters.
        n_features_in_: columns of X.
        feature_names_in_: their names, where X has names that are texts.
    """

    def __init__(
        self,
        curve: Callable[..., Any],
        parameters: Sequence[str],
        *,
        shared: Sequence[str] = (),
        covariates: Mapping[str, Sequence[str]] | None = None,
        noise: str = "additive",
        correlated: bool = False,
        start: Mapping[str, float] | None = None,
        steps: int = 200,
        random_state: Any = 0,
        verbose: Any = 0,
    ):
        self.curve = curve
        self.parameters = parameters
        self.shared = shared
        self.covariates = covariates
        self.noise = noise
        self.correlated = correlated
        self.start = start
        self.steps = steps
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> "CurveRegressor":
        """Learn the population, and each group.

        Args:
            X: a table of rows × columns: an array of numbers, or a data frame. The columns that
                the curve reads are numbers, truth values or times, which are days since the first;
                covariates may be texts too. Other columns are left alone.
            y: the target of each row.
            groups: the name of each row's group; None for one curve for all rows.
            sample_weight: what each row counts for; a row of weight 0 is left out.

        Returns:
            The estimator.

        Raises:
            InputError: for a curve, parameters or columns that cannot be used; says why.
            NumericalError: if the curve is not finite anywhere that a fit begins.
            ValueError: for arrays that scikit-learn refuses.
        """
        parameters, start = self._check()
        if self.covariates and groups is None:
            raise InputError(
                "covariates move the parameters of groups, and fit was given no groups",
                remedy="Write fit(X, y, groups=...)",
            )
        given = self._rows_to_fit(X, y, groups, sample_weight)
        names = [parameter.name for parameter in parameters]
        self._columns = [
            _column(name, column)
            for name, column in given.columns
            if name in _columns_read(self.curve, names, [name for name, _ in given.columns])
        ]
        varying = tuple(groups is not None and name not in self.shared for name in names)
        curve = Curve(
            self.curve,
            parameters,
            tuple(column.name for column in self._columns),
            varying,
            self.noise,
            bool(self.correlated),
        )
        self._names = names
        self._encoder = self._read_covariates(given)
        used = {column.name for column in self._columns} | set(self._covariates)
        warn_about_groups(
            given.group,
            len(self.groups_),
            [(name, column) for name, column in given.columns if name in used],
            stacklevel=2,
        )
        rows = Rows(self._inputs(given.columns), given.y, given.weight, given.group)
        _, first = np.unique(given.group, return_index=True)
        design = self._design(given.columns)[0][first]
        self._say("the curve of all rows, and the evidence")
        seed = int(check_random_state(self.random_state).randint(2**30))
        self._fitted = curves.fit(curve, rows, design, start, seed=seed, steps=self.steps)
        # The last group has no rows, and is what is known of one that was not there.
        self._heads, left = self._fitted.adapt(rows, np.append(design, design[:1], 0))
        self._read_off(design, self._heads)
        self._warn_of_fit()
        self._warn_of_groups(left[:-1])
        return self

    def adapt(self, X: Any, y: Any, sample_weight: Any = None) -> "AdaptedCurve":
        """The curve of one new group, from a handful of its rows and without another fit.

        Args:
            X: as in :meth:`fit`; it may have no rows.
            y: the target of each row.
            sample_weight: what each row counts for.

        Returns:
            Its fitted curve. This estimator stays as it is.

        Raises:
            InputError: if fit was given no groups, or for columns that cannot be used.
            ValueError: for arrays that scikit-learn refuses.
        """
        given = self._rows_to_adapt_to(X, y, sample_weight)
        self._check_constant(given)
        whole, new = self._design(given.columns)
        warn_about_categories(new, len(given.y), stacklevel=2)
        # Without a row nothing is known of its covariates.
        design = whole[:1] if len(whole) else self._average[None]
        rows = Rows(self._inputs(given.columns), given.y, given.weight, given.group)
        heads, left = self._fitted.adapt(rows, design)
        if not left[0] <= FAR:
            warnings.warn(
                "The search for the new group's parameters did not end: its rows may not fit the "
                "curve, or several parameters may fit them alike",
                ConvergenceWarning,
                stacklevel=2,
            )
        phi, _ = self._fitted.phi(design, heads, np.zeros(1, int))
        return AdaptedCurve(self, heads, self._values(phi[0]))

    def with_groups(
        self, X: Any, y: Any, groups: Any, sample_weight: Any = None
    ) -> "CurveRegressor":
        """The same curve with other groups, each of them adapted to from its own rows.

        Args:
            X: as in :meth:`fit`; it may have no rows.
            y: the target of each row.
            groups: the name of each row's group.
            sample_weight: what each row counts for.

        Returns:
            A fitted estimator that knows these groups in place of those of fit. This one stays
            as it is.

        Raises:
            InputError: as :meth:`adapt`.
            ValueError: for arrays that scikit-learn refuses.
        """
        given = self._rows_to_adapt_to(X, y, sample_weight)
        other = copy.copy(self)
        other.groups_, group = naming.number(naming.read(groups, given.y))
        given = given._replace(group=group)
        other._check_constant(given)
        whole, new = self._design(given.columns)
        warn_about_categories(new, len(given.y), stacklevel=2)
        _, first = np.unique(group, return_index=True)
        design = np.append(whole[first], self._average[None], 0)
        rows = Rows(self._inputs(given.columns), given.y, given.weight, group)
        other._heads, left = self._fitted.adapt(rows, design)
        other._warn_of_groups(left[:-1])
        phi, _ = self._fitted.phi(design, other._heads, np.arange(len(design)))
        other._name_parameters(phi)
        return other

    def summary(self) -> str:
        """What was learned, as text: the population's parameters, their spread and the noise."""
        check_is_fitted(self)
        lines = [f"Curve of {self._rows} rows"]
        if self.groups_:
            lines = [
                "Nonlinear mixed model by the Laplace evidence: "
                f"{self._rows} rows in {len(self.groups_)} groups"
            ]
        width = max(map(len, ["Covariates", *self.coefficients_])) + 1
        lines += ["", f"{'Parameters':<{width}}{'estimate':>12}{'95 % from':>12}{'to':>12}"]
        lines[-1] += f"{'spread':>12}  of groups"
        reach = norm.ppf(0.975)
        phi = {}
        for parameter in self._fitted.curve.parameters:
            mean, error = self.coefficients_[parameter.name]
            ends = [parameter.value(mean + sign * reach * error) for sign in (-1, 1)]
            phi[parameter.name] = mean
            line = f"{parameter.name:<{width}}{parameter.value(mean):>12.4g}"
            line += "".join(f"{end:>12.4g}" for end in sorted(ends))
            if parameter.name in self.prior_:
                spread = self.prior_[parameter.name][parameter.name] ** 0.5
                line += f"{spread:>12.4g}  {_scale(parameter)}"
            lines.append(line)
        others = {n: pair for n, pair in self.coefficients_.items() if n not in phi}
        if others:
            lines += ["", f"{'Covariates':<{width}}{'coef.':>12}{'std. err.':>12}"]
            lines += [f"{n:<{width}}{c:>12.4g}{e:>12.4g}" for n, (c, e) in others.items()]
        lines.append("")
        for kind, size in self.noise_.items():
            lines.append(f"Noise, {kind}: {size:.4g}")
        return "\n".join(lines)

    def _check(self) -> tuple[tuple[Parameter, ...], Float[np.ndarray, " p"]]:
        """The parameters, and where they start on their unbounded scales."""
        if not callable(self.curve):
            raise InputError(f"curve is {self.curve!r}", allowed="a function of (row, parameters)")
        try:
            hash(self.curve)
        except TypeError:
            raise InputError(
                f"curve is an unhashable {type(self.curve).__name__}",
                remedy="Give a function, or make the class a frozen dataclass",
            ) from None
        if isinstance(self.parameters, str) or not len(self.parameters):
            raise InputError(
                f"parameters is {self.parameters!r}", allowed="a list such as ['ka>0', 'a']"
            )
        if self.noise not in NOISES:
            raise unknown_name("noise", str(self.noise), NOISES)
        check_counts("CurveRegressor", steps=self.steps)
        parameters = tuple(Parameter.of(text) for text in self.parameters)
        names = [parameter.name for parameter in parameters]
        if len(set(names)) < len(names):
            raise InputError(f"Of the parameters {', '.join(names)} two have one name")
        if isinstance(self.shared, str):
            raise InputError(f"shared is {self.shared!r}", allowed=f"a list: [{self.shared!r}]")
        start, covariates = dict(self.start or {}), dict(self.covariates or {})
        for name in (*self.shared, *start, *covariates):
            if name not in names:
                raise unknown_name("parameter", str(name), names)
        for name, columns in covariates.items():
            if isinstance(columns, str):
                raise InputError(
                    f"covariates has {columns!r} for {name!r}", allowed=f"a list: [{columns!r}]"
                )
        check_signature(self.curve, names)
        phi = [p.phi(start.get(p.name, p.default)) for p in parameters]
        return parameters, np.array(phi)

    def _read_covariates(self, given: Given) -> Encoder:
        covariates = self.covariates or {}
        self._covariates = list(dict.fromkeys(n for some in covariates.values() for n in some))
        known = dict(given.columns)
        for name in self._covariates:
            if name not in known:
                raise unknown_name("column", str(name), known)
        columns = [(name, known[name]) for name in self._covariates]
        # Equal weights of groups, not of rows, make the average that of an average group.
        sizes = np.bincount(given.group)
        encoder = Encoder.fit(columns, 1.0 / sizes[given.group], None)
        self._encoder = encoder
        self._places = [
            (row, encoder.names.index(numbers))
            for row, name in enumerate(self._names)
            for column in encoder.columns
            if column.name in covariates.get(name, ())
            for numbers in column.names
        ]
        self._average = np.eye(len(self._names), len(self._names) + len(self._places))
        self._check_constant(given)
        return encoder

    def _check_constant(self, given: Given) -> None:
        if not (self._covariates and len(given.y)):
            return
        known = dict(given.columns)
        _, first = np.unique(given.group, return_index=True)
        for name in self._covariates:
            apart = known[name] != known[name][first][given.group]
            if apart.any():
                row = int(np.flatnonzero(apart)[0])
                group = self.groups_[given.group[row]] if len(first) > 1 else None
                raise InputError(
                    f"The covariate {name!r} varies within "
                    + (f"the group {group!r}" if group is not None else "the group")
                    + f": {known[name][first][given.group][row]} and {known[name][row]}",
                    allowed="columns that are constant within groups",
                    remedy="Let the curve read it from its row where it changes",
                )

    def _design(self, columns: Columns) -> tuple[Float[np.ndarray, "rows p b"], int]:
        """D of each row, and how many had a new category."""
        known = dict(columns)
        rows = len(columns[0][1])
        numbers, new = self._encoder([(name, known[name]) for name in self._covariates])
        design = np.tile(self._average, (rows, 1, 1))
        for column, (row, place) in enumerate(self._places, len(self._names)):
            design[:, row, column] = numbers[:, place]
        return design, new if self._covariates else 0

    def _inputs(self, columns: Columns) -> Float[np.ndarray, "rows columns"]:
        known, rows = dict(columns), len(columns[0][1])
        parts = [column.numbers(known[column.name]) for column in self._columns]
        return np.concatenate([np.zeros((rows, 0)), *parts], 1)

    def _values(self, phi: Float[np.ndarray, " p"]) -> dict[str, float]:
        pairs = zip(self._fitted.curve.parameters, phi, strict=True)
        return {parameter.name: float(parameter.value(u)) for parameter, u in pairs}

    def _read_off(self, design: Float[np.ndarray, "groups p b"], heads: Adapted) -> None:
        fitted, names = self._fitted, self._names
        if not self.groups_:
            self._heads = Adapted(*[part[-1:] for part in self._heads])
        phi, _ = fitted.phi(design, heads, np.arange(len(design)))
        self._name_parameters(phi)
        width = len(names)
        units = fitted.unit[[*range(width), *(row for row, _ in self._places)]]
        columns = self._encoder.deviation[[place for _, place in self._places]]
        units[width:] /= columns
        labels = [*names]
        labels += [f"{names[row]} × {self._encoder.names[place]}" for row, place in self._places]
        mean = units * fitted.params["coefficients"]
        errors = units * np.sqrt(np.diag(fitted.covariance))
        self.coefficients_ = {
            n: (float(m), float(e)) for n, m, e in zip(labels, mean, errors, strict=True)
        }
        self.population_ = self._values(mean[:width])
        self.noise_ = fitted.noise

    def _name_parameters(self, phi: Float[np.ndarray, "groups p"]) -> None:
        known = len(self.groups_)
        values = [list(self._values(line).values()) for line in phi[:known]]
        self._group_values = np.array(values).reshape(known, len(self._names))
        self._derive()

    _DERIVED = ("_known", "group_parameters_", "prior_")

    def _derive(self) -> None:
        """Set the attributes that follow from the others."""
        self._number_groups()
        self.group_parameters_ = as_table(self._group_values, list(self.groups_), self._names)
        fitted = self._fitted
        factor = fitted.unit[:, None] * fitted.curve.factor(fitted.params, np)
        place = np.flatnonzero(fitted.curve.varying)
        within = [self._names[p] for p in place]
        self.prior_ = as_table((factor @ factor.T)[np.ix_(place, place)], within, within)

    def _warn_of_fit(self) -> None:
        fitted = self._fitted
        if not fitted.converged:
            ended = "raise steps" if fitted.steps >= self.steps else "noise may be next to none"
            _warn_at_fit(
                f"The curve was still changing after {fitted.steps} steps: {ended}, or give "
                "another start"
            )
        # The prior alone has a deviation of one over the root of PULLED.
        deviations = np.sqrt(np.diag(fitted.covariance) * PULLED)
        for name, deviation in zip(self.coefficients_, deviations, strict=True):
            if deviation > 0.5:
                _warn_at_fit(
                    f"The rows do not determine the parameter {name!r}: leave it out, or share or "
                    "bound it"
                )

    def _warn_of_groups(self, left: Float[np.ndarray, " groups"]) -> None:
        far: list[Hashable] = [
            self.groups_[g] if self.groups_ else "all rows" for g in np.flatnonzero(~(left <= FAR))
        ]
        if far:
            shown = ", ".join(map(repr, far[:5])) + (", ..." if len(far) > 5 else "")
            _warn_at_fit(
                f"The search for the parameters of {len(far)} groups did not end ({shown}): look "
                "at their rows, bound the parameters, or give a start"
            )

    def _predict(self, X: Any, groups: Any, heads: Any, return_std: bool) -> Any:
        columns, group = self._rows_to_predict(X, groups, heads)
        heads = self._heads if heads is None else heads
        design, new = self._design(columns)
        warn_about_categories(new, len(design), stacklevel=3)
        mean, variance = self._fitted.predict(self._inputs(columns), design, heads, group)
        lost = ~np.isfinite(mean + variance)
        if lost.any():
            warnings.warn(
                f"The curve is not finite for {int(lost.sum())} of {len(lost)} rows at some of the "
                "parameters that their groups may have: bound the parameters, or mend the curve",
                ConvergenceWarning,
                stacklevel=3,
            )
        return (mean, np.sqrt(variance)) if return_std else mean


class AdaptedCurve(AdaptedRegressor):
    """The curve of one group, as :meth:`CurveRegressor.adapt` returns it.

    Args:
        population: the estimator that it was adapted from.
        heads: the group's own.
        phi: its parameters by name.
    """

    def __init__(self, population: CurveRegressor, heads: Adapted, phi: dict[str, float]):
        super().__init__(population, heads)
        self.phi = phi

    @property
    def phi_(self) -> dict[str, float]:
        """The group's parameters by name; for a bounded one the median of what it may be."""
        return self.phi

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "AdaptedCurve":
        """Adapt to other rows, in place of those before."""
        other = self.population.adapt(X, y, sample_weight)
        self.heads, self.phi = other.heads, other.phi
        return self


def check_signature(curve: Callable[..., Any], names: Sequence[str]) -> None:
    """Whether a curve takes a row and the parameters.

    Raises:
        InputError: naming what it takes, and what it would be given.
    """
    try:
        signature = inspect.signature(curve)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, **dict.fromkeys(names))
    except TypeError as error:
        raise InputError(
            f"The curve takes {signature} and would be given (row, {', '.join(names)}): {error}",
            allowed="a curve whose arguments after the first are named like the parameters",
        ) from error


def _columns_read(
    curve: Callable[..., Any], names: Sequence[str], columns: Sequence[str]
) -> set[str]:
    """The columns that a curve looks at; it is traced, not computed."""
    read: set[str] = set()

    def once(values, phi):
        row = Row(dict(zip(columns, values, strict=True)), read)
        return curve(row, **dict(zip(names, phi, strict=True)))

    with jax.enable_x64(True):
        number = jax.ShapeDtypeStruct((), jnp.float64)
        try:
            found = jax.eval_shape(once, [number] * len(columns), [number] * len(names))
        except jax.errors.JAXTypeError as error:
            raise InputError(
                f"JAX cannot trace the curve: {str(error).splitlines()[0]}",
                remedy="Write it with jax.numpy in place of numpy and math, and with "
                "jnp.where in place of if",
            ) from error
    shapes = [leaf.shape for leaf in jax.tree.leaves(found)]
    if shapes != [()] or not hasattr(found, "shape"):
        raise InputError(f"The curve gives {found} for one row", allowed="one number for each row")
    if jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise InputError("The curve gives complex numbers", allowed="real numbers")
    return read


def _warn_at_fit(message: str) -> None:
    warnings.warn(message, ConvergenceWarning, stacklevel=4)


def _column(name: str, column: np.ndarray) -> Column:
    known = Column.of(name, column)
    if known.kind == "category":
        raise InputError(
            f"The curve reads the column {name!r}, which holds texts",
            allowed="numbers, truth values and times",
            remedy="Give it as numbers, or as a covariate of a parameter",
        )
    return known


def _scale(parameter: Parameter) -> str:
    """What the spread of a parameter is measured in."""
    if parameter.free:
        return "in its own units"
    ends = np.isinf([parameter.low, parameter.high])
    return "of its logarithm" if ends.any() else "of its logit"
