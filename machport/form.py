"""Which form of the compiled modules is used: the compiled one, or with MACHPORT_PURE=1 their Python sources.

Imported before anything else of the package, and decides it.  All or nothing: a compiled module knows the C structures
of the others and could do nothing with an interpreted one.  The ring is always compiled: Python has no memory order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

_PACKAGE = "machport."
_ALWAYS_COMPILED = "machport.ring."


class SourceFinder:
    """Finds the package's modules by their Python sources, whatever stands beside them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if path is None or not name.startswith(_PACKAGE) or name.startswith(_ALWAYS_COMPILED):
            return None
        for directory in path:
            spec = FileFinder(directory, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name)
            if spec is not None:
                return spec
        return None


def is_compiled() -> bool:
    """Whether the kernel is in its compiled form."""
    from machport.abi import message

    return message.is_compiled()


if os.environ.get("MACHPORT_PURE", "") not in ("", "0"):
    sys.meta_path.insert(0, SourceFinder())
