"""JSON as a page or a program may see it: readable numbers, and nothing of this computer's folders."""

import math
import re
from pathlib import Path
from typing import Any

_FOLDERS = re.compile(r"(?<![\w.~/\\-])(?:[A-Za-z]:[\\/]+|[\\/]+(?=[\w.]))(?:[^\\/\s\"'<>|]+[\\/]+)*")
"""The folders of an absolute path inside a sentence."""
_OWN_WORDS = {"prompt", "reroll"}
"""What a person wrote, which is shown as it is."""


def shown(value: Any, root: Path, name: str = "") -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return JSON that a page can read and that tells nothing of this computer's folders.

    Args:
        value: what is to be shown.
        root: the output folder; paths below it are told from there.
        name: the field that it stands in.
    """
    if name == "seed" and isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if name in _OWN_WORDS else _without_folders(value, root)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [shown(item, root, name) for item in value]
    if isinstance(value, dict):
        return {key: shown(item, root, key) for key, item in value.items()}
    return value


def _without_folders(text: str, root: Path) -> str:
    """Return a sentence in which every absolute path is the file's name, or begins below the output folder."""
    for folder in (root, root.resolve(), root.parent, root.resolve().parent):
        if folder != folder.parent:  # these may have spaces in their names
            for spelled in {str(folder), folder.as_posix(), repr(str(folder))[1:-1]}:
                text = re.sub(re.escape(spelled) + r"[\\/]+", "", text)
                text = re.sub(re.escape(spelled) + r"(?![\w.-])", folder.name, text)
    return _FOLDERS.sub("", text)
