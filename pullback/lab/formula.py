"""Text with formulas, as HTML and MathML: no script has to run for it to be read."""

import functools

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin


def mathml(latex: str, *, block: bool = False) -> str:
    """One formula.

    Args:
        latex: the formula, without dollar signs.
        block: on a line of its own, instead of in the text.

    Returns:
        A ``<math>`` element.
    """
    return convert(latex, display="block" if block else "inline")


@functools.cache
def prose(text: str) -> str:
    """Markdown with ``$…$`` and ``$$…$$`` as HTML.

    Args:
        text: the Markdown. Raw HTML in it is shown, not used.

    Returns:
        HTML.
    """
    return _markdown().render(text)


@functools.cache
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return parser.use(
        dollarmath_plugin,
        renderer=lambda latex, options: mathml(latex, block=options["display_mode"]),
    )
