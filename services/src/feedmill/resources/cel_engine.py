"""The CEL evaluator without its command line.

``import cel`` also imports the package's own command line, and with it prompt_toolkit and rich: 12 MiB and 0.2 s in
every service process (measured). Only the extension module is needed here.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from functools import cache
from typing import Any

_NAME = "cel.cel"


@cache
def _extension() -> Any:
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package = importlib.util.find_spec("cel")
    if package is not None and package.submodule_search_locations:
        spec = importlib.machinery.PathFinder.find_spec(_NAME, list(package.submodule_search_locations))
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[_NAME] = module  # An extension can be initialised once: who imports cel later gets this one.
            return module
    raise ImportError("common-expression-language is not installed: pip install feedmill")


def compile_rule(rule: str) -> Any:
    """A program with ``execute(variables)``; raises what the evaluator raises for text that is no CEL."""
    return _extension().compile(rule)
