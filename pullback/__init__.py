"""Few-shot learning by implicit gradients, on JAX.

Names are imported when first used, so that ``import pullback`` and ``pullback --help`` are quick.
What is exported stands in ``__init__.pyi``; what the registries hold comes with it.
"""

from typing import Any

import lazy_loader

_load, _names, _ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name in _names():
        return _load(name)
    if name == "__version__":
        from importlib import metadata

        return metadata.version("pullback")
    if not name.startswith("_"):
        from pullback import registries

        for registry in registries.BY_ATTRIBUTE:
            for entry in registry.values():
                if entry.attribute == name:
                    return entry.load_attribute()
    raise AttributeError(f"module 'pullback' has no attribute {name!r}")


def __dir__() -> list[str]:
    from pullback import registries

    registered = {e.attribute for r in registries.BY_ATTRIBUTE for e in r.values()}
    return sorted({*_names(), *registered, "__version__"})
