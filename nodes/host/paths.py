"""Where the host keeps models, inputs and results. Only names below its own folders are taken from a workflow."""

import os
import re
from pathlib import Path
from typing import Any

import folder_paths

from ...gloria_core.errors import CheckpointError, DatasetError, MediaError
from ...gloria_core.runs.names import RUNS, run_name
from .api import VideoFromFile

_MOST_LETTERS, _MOST_BYTES = 1000, 200
"""Of a video's folder and name, and of each part of it; systems take 4096 and 255, and the number comes on top."""
_SOUNDS = ("audio", "video")
_INDEX = ".safetensors.index.json"
_MORE_MODELS = (".gguf", _INDEX)
_PART = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


def check_prefix(prefix: str) -> Path:
    """Return the output folder; MediaError where a prefix such as ``gloria/video`` leads out of it or names no file."""
    root = Path(folder_paths.get_output_directory()).resolve()
    parts = re.split(r"[\\/]", prefix)
    if not parts[-1].strip(" .") or any(not part.isprintable() for part in parts):
        raise MediaError(f"The file name {prefix[:100]!r} names no file; use a name such as 'gloria/video'.")
    if len(prefix) > _MOST_LETTERS or max(len(part.encode()) for part in parts) > _MOST_BYTES:
        raise MediaError(
            f"The file name {prefix[:40] + '...'!r} has {len(prefix)} letters; use at most {_MOST_LETTERS}, and "
            f"{_MOST_BYTES} bytes between two slashes."
        )
    asked = (root / os.path.dirname(os.path.normpath(prefix))).resolve()
    if not asked.is_relative_to(root):
        raise MediaError(f"The file name {prefix!r} leads out of the output folder; use a name such as 'gloria/video'.")
    return root


def new_output(prefix: str, width: int, height: int) -> Path:
    """Return the next free video file for a prefix such as ``gloria/video``.

    Raises:
        MediaError: the prefix leads out of the output folder.
    """
    root = check_prefix(prefix)
    folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(root), width, height)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / f"{name}_{counter:05}_.mp4"


def run_path(name: str, prefix: str) -> Path:
    """Return the folder of a run: ``gloria_runs/NAME`` below the output folder.

    Args:
        name: the run's name; empty makes one from ``prefix``: ``gloria/video`` becomes ``gloria_video``.
        prefix: folder and name of the video.

    Raises:
        PlanError: the name could lead elsewhere, or is none on every system.
    """
    return Path(folder_paths.get_output_directory()) / RUNS / run_name(name, prefix)


def model_files() -> list[str]:
    """Return the names of weights in the host's ``diffusion_models`` folders.

    Beside the host's own kinds these are GGUF files, and the index of a model in parts in place of its parts.
    """
    names = set(folder_paths.get_filename_list("diffusion_models"))
    for folder in folder_paths.get_folder_paths("diffusion_models"):
        if Path(folder).is_dir():
            found, _ = folder_paths.recursive_search(folder, excluded_dir_names=[".git"])
            names |= {name for name in found if name.lower().endswith(_MORE_MODELS)}
    indexed = {name.removesuffix(_INDEX) for name in names if name.endswith(_INDEX)}
    return sorted(name for name in names if _PART.sub("", name) not in indexed)


def model_path(name: str) -> Path:
    """Return the path of a weights file; an unknown name raises CheckpointError."""
    path = folder_paths.get_full_path("diffusion_models", name)
    if path is None:
        raise CheckpointError(
            f"There is no file {name!r} in models/diffusion_models; copy it there and press R to refresh."
        )
    return Path(path)


def vae_files() -> list[str]:
    """Return the names of the VAEs in the host's ``vae`` folders."""
    found: list[str] = folder_paths.get_filename_list("vae")
    return found


def vae_path(name: str) -> Path:
    """Return the path of a file in the host's ``vae`` folders; an unknown name raises CheckpointError."""
    path = folder_paths.get_full_path("vae", name)
    if path is None:
        raise CheckpointError(f"There is no file {name!r} in models/vae; copy it there and press R to refresh.")
    return Path(path)


def sound_files() -> list[str]:
    """Return the names of sound and video files in the host's input folder."""
    folder = folder_paths.get_input_directory()
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return sorted(folder_paths.filter_files_content_types(names, list(_SOUNDS)))


def input_path(name: str) -> Path:
    """Return the path of a file in the host's input folder; a name that is not there raises MediaError."""
    root = Path(folder_paths.get_input_directory()).resolve()
    path = (root / name).resolve()
    if not name or not path.is_relative_to(root) or not path.is_file():
        raise MediaError(
            f"There is no file {name!r} in the input folder; copy it there, or upload it with a Load Audio node."
        )
    return path


def dataset_names() -> list[str]:
    """Return what of the host's input folder may be footage to train on: folders and manifests (.jsonl)."""
    entries = [entry for entry in os.scandir(folder_paths.get_input_directory()) if not entry.name.startswith(".")]
    return sorted(entry.name for entry in entries if entry.is_dir() or entry.name.lower().endswith(".jsonl"))


def dataset_path(name: str) -> Path:
    """Return a folder or a manifest of the host's input folder; DatasetError where there is none of that name.

    A link inside of the input folder may lead elsewhere: footage is seldom copied.
    """
    root = Path(folder_paths.get_input_directory()).absolute()
    path = Path(os.path.normpath(root / name))
    if not name or path == root or not path.is_relative_to(root) or not path.exists():
        raise DatasetError(
            f"There is no footage {name!r} in ComfyUI's input folder; put a folder of clips (or a link to one), or a "
            "manifest (.jsonl), there and press R to refresh."
        )
    return path


def training_folder() -> Path:
    """Return the folder below the output folder that trainings and their caches lie in."""
    return Path(folder_paths.get_output_directory()) / "gloria_training"


def viewable(video: Any) -> tuple[str, str, str]:  # noqa: ANN401 - the host's VIDEO
    """Return name, subfolder and folder (``output``, ``input`` or ``temp``) by which the page can play a VIDEO.

    A file of one of the host's folders is shown where it lies; anything else is written to the temporary folder first.
    """
    source = video.get_stream_source() if isinstance(video, VideoFromFile) else None
    for folder in ("output", "input", "temp"):
        root = Path(folder_paths.get_directory_by_type(folder)).resolve()
        if isinstance(source, str) and Path(source).resolve().is_relative_to(root):
            place = Path(source).resolve().relative_to(root)
            return place.name, place.parent.as_posix() if len(place.parts) > 1 else "", folder
    target, name, counter, subfolder, _ = folder_paths.get_save_image_path("gloria", folder_paths.get_temp_directory())
    video.save_to(str(Path(target) / f"{name}_{counter:05}_.mp4"))
    return f"{name}_{counter:05}_.mp4", subfolder, "temp"
