"""``AutoModel.from_pretrained(folder)`` after ``import colipri``, without code from a hub.

transformers knows a model type once its classes are registered; registering needs transformers
and torch, which take seconds to import. ``import colipri`` must stay fast, so a finder in
``sys.meta_path`` waits for the three modules that hold the Auto classes: after one is imported,
the classes that belong to it are registered. It finds nothing itself and changes no other import.
Modules that were imported before colipri are registered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto"
_CLASSES = "colipri.sharing.{}"


def install() -> None:
    """Register what can be registered now, and the rest when transformers imports it."""
    missing = {}
    for name, register in _REGISTER.items():
        if name in sys.modules:
            register(sys.modules[name])
        else:
            missing[name] = register
    if missing and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(missing))


def _config_class() -> Any:
    return import_module(_CLASSES.format("auto_config")).ColipriConfig


def _register_config(module: ModuleType) -> None:
    config = _config_class()
    module.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_model(module: ModuleType) -> None:
    model = import_module(_CLASSES.format("auto_model")).ColipriDualEncoder
    module.AutoModel.register(_config_class(), model, exist_ok=True)


def _register_processor(module: ModuleType) -> None:
    processor = import_module(_CLASSES.format("auto_processor")).ColipriProcessor
    module.AutoProcessor.register(_config_class(), processor, exist_ok=True)


_REGISTER: dict[str, Callable[[ModuleType], None]] = {
    f"{_AUTO}.configuration_auto": _register_config,
    f"{_AUTO}.modeling_auto": _register_model,
    f"{_AUTO}.processing_auto": _register_processor,
}


class _AfterImport(MetaPathFinder):
    """Calls a function with a module once it has been imported."""

    def __init__(self, waiting: dict[str, Callable[[ModuleType], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the other finders, with a loader that calls the function at the end."""
        register = self._waiting.pop(name, None)
        if register is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Registering(spec.loader, register)
                return spec
        return None


class _Registering(Loader):
    """A loader that hands the executed module to a function, and is otherwise the one it wraps."""

    def __init__(self, loader: Any, register: Callable[[ModuleType], None]) -> None:
        self._loader, self._register = loader, register

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source, get_data, ... for tracebacks and inspect

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the wrapped loader."""
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then register."""
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._register(module)
