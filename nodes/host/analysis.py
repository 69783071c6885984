"""The picture analysis of this host: what Python packages bring, then what other custom-node packs do."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import folder_paths

from ...gloria_core.anchors.installed import InstalledAnalysis, Part, parts_of_packages

HOOK = "gloria_picture_analysis"
"""Name of the function in a pack's own module that makes an analysis, without arguments."""


def _parts() -> Iterator[Part]:
    yield from parts_of_packages()
    yield from sorted(_parts_of_packs(), key=lambda part: part.name)


def _parts_of_packs() -> Iterator[Part]:
    """Look at what the host has imported, so that it does not matter which pack it imports first."""
    folders = {Path(folder).resolve() for folder in folder_paths.get_folder_paths("custom_nodes")}
    for module in list(sys.modules.values()):
        make = vars(module).get(HOOK) if isinstance(module, ModuleType) else None
        if make is not None and (place := _place(module)).parent in folders:
            yield Part(f"{place.stem} (custom_nodes/{place.name})", make)


def _place(module: ModuleType) -> Path:
    """Return the folder of a pack, or the file of one that has no folder."""
    path = Path(vars(module).get("__file__") or "").absolute()
    path = path.parent if path.name == "__init__.py" else path
    return path.parent.resolve() / path.name  # a pack may be a link to a checkout elsewhere


ANALYSIS = InstalledAnalysis(_parts)
"""Of the whole process; found and loaded at its first use."""
