"""Public audio branches on the host's MODEL."""

import logging
import re
from pathlib import Path

import comfy.model_patcher
import folder_paths

from ...gloria_core.checkpoint import audio_branch
from ...gloria_core.errors import CheckpointError
from .model import model_config, rebuild

FOLDERS = ("diffusion_models", "model_patches")
"""Where people keep such files: the first for other packs, the second for the host's own InfiniteTalk."""

_LIKELY = re.compile(r"talk|humo|audio|gloria|speech", re.IGNORECASE)
_ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_log = logging.getLogger(__name__)


def branch_files() -> list[str]:
    """Return the names of files that may hold an audio branch, likely ones first."""
    known = [folder for folder in FOLDERS if folder in folder_paths.folder_names_and_paths]
    names = {name for folder in known for name in folder_paths.get_filename_list(folder)}
    fitting = [name for name in names if name.lower().endswith(_ENDINGS)]
    return sorted(fitting, key=lambda name: (_LIKELY.search(name) is None, name.lower()))


def branch_path(name: str) -> Path:
    """Return the path of a file of those folders; an unknown name raises CheckpointError."""
    for folder in FOLDERS:
        known = folder in folder_paths.folder_names_and_paths
        path = folder_paths.get_full_path(folder, name) if known else None
        if path is not None:
            return Path(path)
    raise CheckpointError(
        f"There is no file {name!r} in {' or '.join(f'models/{folder}' for folder in FOLDERS)}; copy it there and "
        "press R to refresh."
    )


def fingerprint(name: str) -> str:
    """Return a text that changes when the file does."""
    stat = branch_path(name).stat()
    return f"{name}:{stat.st_mtime_ns}:{stat.st_size}"


def with_branch(
    patcher: comfy.model_patcher.ModelPatcher, name: str, strength: float
) -> comfy.model_patcher.ModelPatcher:
    """Return a new MODEL that hears through a branch; the given one stays as it is, and weights are shared.

    Args:
        patcher: a MODEL of ours.
        name: a file of FOLDERS.
        strength: factor on what the branch adds.

    Raises:
        CheckpointError: the file is missing, no branch that is known, incomplete, or made for another model.
    """
    model = model_config(patcher)
    branch = audio_branch.read(branch_path(name))
    config = audio_branch.joined(model, branch, strength)
    made = rebuild(patcher, config, branch.weights)
    _log.info("%s hears through %s now, best at %g frames a second.", model.name, branch.family, config.fps)
    if branch.num_left_out:
        _log.warning(
            "%s holds a video model too (%d tensors), which is left out. Its sound was trained with it: with another "
            "video model expect weaker lips.",
            name,
            branch.num_left_out,
        )
    return made
