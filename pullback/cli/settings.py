"""Options of the command line from the schema of settings. Nothing here imports JAX."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any

import typer

from pullback.runs.config import SECTION_OF, SETTINGS, CompareConfig
from pullback.runs.fields import Default, Setting, parse, settings_of

PANELS = {
    "data": "Data",
    "model": "Model",
    "algorithm": "Algorithm",
    "pretraining": "Pretraining",
    "training": "Training",
}
"""The heading of each section's options in a help text."""


def with_settings(*, leave_out: Iterable[str] = ()) -> Callable[[Callable[..., None]], Any]:
    """Give a command an option for each setting of a run.

    The command is called with ``given``: the settings that were really given, by section and
    name, as a TOML file has them.

    Args:
        leave_out: settings that the command has no option for.
    """
    options = [
        option
        for section, settings in SETTINGS.items()
        for name, described in settings.items()
        if name not in leave_out
        for option in _options(name, described, PANELS[section])
    ]

    def gather(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
        given: dict[str, dict[str, Any]] = {}
        for option, value in values.items():
            name = option.removesuffix(_FORMER)
            given.setdefault(SECTION_OF[name], {})[name] = value
        return given

    return _with_options("given", options, gather)


def with_comparison(command: Callable[..., None]) -> Any:
    """Give a command an option for each setting of a comparison.

    The command is called with ``chosen``: the settings that were really given, by name.
    """
    options = [
        option
        for name, described in settings_of(CompareConfig).items()
        for option in _options(name, described, "Comparison")
    ]
    return _with_options("chosen", options, dict)(command)


_FORMER = "_by_former_name"


def _with_options(
    argument: str,
    options: list[inspect.Parameter],
    gather: Callable[[dict[str, Any]], Any],
) -> Callable[[Callable[..., None]], Any]:
    """Replace an argument of a command by options, in the command's own place for it."""
    names = [option.name for option in options]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        parameters = []
        for parameter in own.parameters.values():
            parameters += options if parameter.name == argument else [parameter]

        @wraps(command)
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            found = {name: value for name, value in given.items() if value is not None}
            command(**values, **{argument: gather(_parsed(found))})

        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return call

    return decorate


def _parsed(found: dict[str, Any]) -> dict[str, Any]:
    known = settings_of(CompareConfig) | {
        name: described for settings in SETTINGS.values() for name, described in settings.items()
    }
    return {
        option: parse(known[option.removesuffix(_FORMER)].kind, option, value)
        for option, value in found.items()
    }


def _options(name: str, described: Setting, panel: str) -> Iterable[inspect.Parameter]:
    written = (described.flag or name).replace("_", "-")
    yield _option(
        name,
        described,
        written,
        help=described.help,
        rich_help_panel=panel,
        show_default=default_text(name, described) or False,
    )
    if described.former:
        yield _option(name + _FORMER, described, described.former.replace("_", "-"), hidden=True)


def _option(name: str, described: Setting, written: str, **more: Any) -> inspect.Parameter:
    kind = described.kind
    flag = f"--{written}/--no-{written}" if kind.option is bool else f"--{written}"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind.option | None, typer.Option(flag, **more)],
    )


def default_text(name: str, described: Setting) -> str:
    """A setting's default in words, with those that single entries of a registry have."""
    from pullback import registries

    default = described.default
    text = default.text if isinstance(default, Default) else _written(default)
    owners = (registries.DATASETS, registries.ALGORITHMS, registries.MODELS, registries.SOLVERS)
    special = [
        (entry.name, entry.defaults[name])
        for registry in owners
        for entry in registry.values()
        if name in entry.defaults
    ]
    for owner, value in special:
        text += f"; {owner} {_written(value)}"
    return text


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
