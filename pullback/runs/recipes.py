"""Recipes: settings of runs that were found to work, by name.

To add one, put its TOML file into ``pullback/recipes``. Its first line, a comment, says what it is
for.
"""

from importlib import resources
from pathlib import Path

from pullback.core.errors import unknown_name
from pullback.runs import config as configs
from pullback.runs.config import Given

FOLDER = Path(str(resources.files("pullback"))) / "recipes"


def names() -> tuple[str, ...]:
    """The names of all recipes."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read_recipe(name: str) -> Given:
    """The settings of a recipe.

    Args:
        name: of :func:`names`.

    Returns:
        Settings by section and name.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if name not in names():
        raise unknown_name("recipe", name, names(), "a file of settings by --config")
    return configs.read_toml(FOLDER / f"{name}.toml")


def purpose(name: str) -> str:
    """What a recipe is for, in a sentence."""
    first, *_ = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    return first.removeprefix("#").strip()
