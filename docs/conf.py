"""Sphinx: the documents and the reference of the library as one site, built by ``make docs``.

The source folder is the repository's root, so that a link in a document leads to the same place
here and in the repository. Nothing is fetched while the site is built or read.
"""

import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path

from sphinx import addnodes

import pullback

project = "pullback"
version = release = pullback.__version__

root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/*.md", "docs/api/*"]
exclude_patterns = [".*", "build", "dist", "site", "pullback", "tests", "benchmarks", "examples"]
# Absolute: Sphinx would look from this folder on, autosummary from the source folder.
templates_path = [str(Path(__file__).with_name("_templates"))]

html_theme = "furo"
html_title = "pullback"
html_additional_pages = {"index": "redirect.html"}

myst_heading_anchors = 3
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_default_options = {"no-value": True}
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(collections|jaxtyping)\..*")]
python_use_unqualified_type_names = True

PAGES = re.findall(
    r"^   (pullback\S*)$", Path(__file__).with_name("reference.md").read_text(), re.MULTILINE
)
"""The modules that have a page, listed once, in ``reference.md``."""


def _find_exports() -> tuple[list[str], dict[str, list[tuple[str, str]]]]:
    """Where each export of the package is described.

    Returns:
        The names of the exports within the package as their pages describe them, and for each page
        what it does not describe by itself, as pairs of a directive and a full name.

    Raises:
        LookupError: if an export belongs to no page.
    """
    names, additions = [], defaultdict(list)
    for name in dir(pullback):
        export = getattr(pullback, name)
        if name.startswith("__") or inspect.ismodule(export):
            continue
        home = next((page for page in PAGES if _describes(page, name, export)), None)
        if home is None:
            parents = [page for page in PAGES[1:] if f"{export.__module__}.".startswith(f"{page}.")]
            if not parents:
                raise LookupError(f"pullback.{name} is described on no page of reference.md")
            home, full = max(parents, key=len), f"{export.__module__}.{export.__qualname__}"
            additions[home].append(("class" if inspect.isclass(export) else "function", full))
            names.append(full.removeprefix("pullback."))
        else:
            names.append(f"{home}.{name}".removeprefix("pullback."))
    return names, additions


def _describes(page: str, name: str, export: object) -> bool:
    module = importlib.import_module(page)
    if getattr(module, name, None) is not export:
        return False
    listed = getattr(module, "__all__", None)
    return getattr(export, "__module__", "") == page if listed is None else name in listed


_exports, _additions = _find_exports()
autosummary_context = {"exports": _exports, "additions": _additions}

SHORTER = {
    "~jaxtyping.Key[~jaxlib._jax.Array, ''] | ~jaxtyping.UInt32[~jaxlib._jax.Array, '2'] "
    "| ~jaxtyping.UInt32[~jaxlib._jax.Array, '4']": "~jaxtyping.PRNGKeyArray",
    "~jaxlib._jax.Array": "~jax.Array",
    "<factory>": "...",
}


def _shorten(app, what, name, thing, options, signature, returned):
    """The types in a signature by the names that users know them by."""
    for long, short in SHORTER.items():
        signature = signature and signature.replace(long, short)
        returned = returned and returned.replace(long, short)
    return signature, returned


def _skip(app, what, name, thing, skip, options):
    """Whether to leave out a member: fields of a named tuple have no words of their own, and the
    requests of metadata are described by scikit-learn, which makes them."""
    if re.fullmatch(r"set_\w+_request", name.rpartition(".")[2]):
        return True
    if "Alias for field number" in (getattr(thing, "__doc__", None) or ""):
        return True
    return None


def _is_annotation(app, domain, node):
    """Whether to keep quiet about a reference without a target: the types in a signature may be
    those of other packages, whose inventories would have to be fetched."""
    while node is not None and not isinstance(node, addnodes.desc_signature):
        node = node.parent
    return node is not None or None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-skip-member", _skip)
    app.connect("warn-missing-reference", _is_annotation)
