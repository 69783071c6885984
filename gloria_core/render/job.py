"""The job file: every setting of a video in JSON, read strictly and checked before anything is loaded."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ..errors import ConfigError, MediaError
from ..media import SoundFit
from ..media.layout import LAYOUTS
from ..runs.names import run_name
from ..runs.old_takes import KEEP, REMOVE
from ..runs.reroll import BRIDGE, ONWARD, parse_rerolls
from ..sampling.anchor_schedule import SLOTS, parse_anchor_schedule
from ..sampling.prompts import Snap, nearest_word, parse
from ..sampling.solver import SOLVERS
from ..tables import one_of, read_dataclass

VERSION = 1
"""Of the job file."""
NANO = "nano"
"""Stands for the bundled model."""
BUNDLED_SPEECH = "bundled speech"
"""Stands for the speech that comes with the bundled model."""
GLOBAL = "global"
"""As a start image: the global anchor's picture."""
SCHEDULERS = ("simple",)
"""Names of noise schedules."""
DTYPES = ("auto", "bf16", "fp16", "fp32")
"""Names of types that weights are computed in."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "seconds": (0.0, 36000.0),
    "fps": (0.0, 120.0),
    "width": (0, 16384),
    "height": (0, 16384),
    "seed": (0, 2**64 - 1),
    "steps": (1, 1000),
    "text_guidance": (0.0, 30.0),
    "audio_guidance": (0.0, 30.0),
    "chunk_latents": (0, 1024),
    "overlap_latents": (1, 64),
    "enlarge_to": (0, 4096),
    "boundary": (0.0, 1.0),
    "prefix_noise": (0.0, 0.95),
    "colour_guard": (0.0, 1.0),
    "drift_threshold": (0.0, 1.0),
    "drift_tries": (0, 20),
    "sync_offset": (-10.0, 10.0),
    "sync_frames": (-600, 600),
}
"""What the settings of these names may be, both ends included; the same as in the long sampler's node."""
_FILES = ("audio", "start_image", "continue_from")
_WORDS = {BUNDLED_SPEECH, GLOBAL, ""}
"""What may stand in place of a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSource:
    """A LoRA that is worked into the weights."""

    file: str
    strength: float = 1.0
    on: str = "both"
    """Of a pair of experts: ``high``, ``low`` or ``both``."""

    def __post_init__(self) -> None:
        one_of("model.loras.on", self.on, ("both", "high", "low"))
        if not -10.0 <= self.strength <= 10.0:
            raise ConfigError(f"model.loras.strength is {self.strength}; it must be from -10 to 10 (1 is as trained).")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Which weights make the video."""

    diffusers: str = ""
    """Folder of a Wan pipeline in Diffusers' layout; empty is the bundled model."""
    dtype: str = "auto"
    """One of `DTYPES`; ``auto`` is bf16 on CUDA and fp32 on the CPU."""
    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``."""
    shift: float = 0.0
    """How far noise levels are bent; 0 takes the model's own."""
    loras: tuple[LoraSource, ...] = ()
    """In the order in which they are added."""

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype, DTYPES)
        if self.device.partition(":")[0] not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"model.device is {self.device!r}; it must be auto, cpu, cuda or one card such as cuda:1."
            )
        if not 0.0 <= self.shift <= 100.0:
            raise ConfigError(
                f"model.shift is {self.shift}; it must be from 0 (the model's own) to 100 (3 to 8 are usual)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderJob:
    """One video. Settings have the names and defaults of the Gloria Chunked Long Sampler node.

    Paths are relative to the job file.
    """

    version: int
    """1."""
    model: ModelSource
    """``"nano"``, or ``{"diffusers": FOLDER, ...}`` with what `ModelSource` has."""
    prompts: str
    """What happens when, as the Prompt Schedule takes it."""
    anchors: dict[str, Any] = field(default_factory=dict)
    """Picture files by their words (``global``, ``front``, ... ``happy``), or ``{"character": "Mira"}`` for nano."""
    anchor_schedule: str = ""
    """Which anchors are heeded when, as the Anchor Schedule takes it."""
    negative: str = ""
    """The negative prompt."""
    audio: str = ""
    """A sound or video file, or ``bundled speech``; empty is a silent video."""
    sync_offset: float = 0.0
    """Seconds by which the lips come later than the sound."""
    sync_frames: int = 0
    """Frames of the video by which they come later still."""
    start_image: str = ""
    """A picture of the video's size, or ``global`` for the global anchor's."""
    continue_from: str = ""
    """A video of the same size that this one goes on from."""
    seconds: float = 10.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    seed: int = 0
    steps: int = 8
    text_guidance: float = 1.0
    audio_guidance: float = 1.0
    sampler_name: str = "euler"
    scheduler: str = "simple"
    chunk_latents: int = 0
    overlap_latents: int = 4
    layout: str = "plain"
    enlarge_to: int = 0
    filename_prefix: str = "gloria/video"
    """Folder and name of the video below the output folder; a number is added."""
    keep_latents: bool = True
    boundary: float = 0.0
    prefix_noise: float = 0.0
    colour_guard: float = 0.0
    drift_threshold: float = 0.0
    drift_tries: int = 2
    snap: str = Snap.NEAREST
    sound_end: str = "hold"
    run: str = ""
    """Name of the run; empty takes it from ``filename_prefix``."""
    reroll: str = ""
    after_reroll: str = ONWARD
    old_takes: str = KEEP
    output: str = "output"
    """The output folder; the run lies in ``gloria_runs`` below it."""

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigError(f"version is {self.version}; this version of Gloria reads {VERSION}.")
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)
        if self.seconds == 0:
            raise ConfigError("seconds is 0; a video is longer than that.")
        one_of("sampler_name", self.sampler_name, tuple(SOLVERS))
        one_of("scheduler", self.scheduler, SCHEDULERS)
        one_of("layout", self.layout, LAYOUTS)
        one_of("snap", self.snap, tuple(Snap))
        one_of("sound_end", self.sound_end, get_args(SoundFit))
        one_of("after_reroll", self.after_reroll, (ONWARD, BRIDGE))
        one_of("old_takes", self.old_takes, (KEEP, REMOVE))
        self._check_anchors()
        self._check_texts()
        self._check_words()

    @property
    def run_name(self) -> str:
        """Name of the run's folder."""
        return run_name(self.run, self.filename_prefix)

    @property
    def sound_fit(self) -> SoundFit:
        """What happens where the sound is shorter than the video."""
        return self.sound_end  # type: ignore[return-value]  # checked above

    def _check_anchors(self) -> None:
        known = SLOTS if "character" not in self.anchors else ("character",)
        for word, value in self.anchors.items():
            if word not in known:
                told = ", ".join(SLOTS)
                raise ConfigError(
                    f"There is no anchor {word!r}{nearest_word(word, SLOTS)}; use {told}, or 'character' alone for the "
                    "bundled model."
                )
            fits = isinstance(value, str) or (word == "character" and isinstance(value, int))
            if not fits or isinstance(value, bool) or value == "":
                raise ConfigError(f"anchors.{word} is {value!r}; it must be a text in quotes with a picture's file.")

    def _check_texts(self) -> None:
        """Refuse texts that cannot be read; PlanError."""
        parse(self.prompts)
        parse_anchor_schedule(self.anchor_schedule)
        parse_rerolls(self.reroll)
        run_name(self.run, self.filename_prefix)

    def _check_words(self) -> None:
        """Refuse words of the bundled model for other weights, and what contradicts itself."""
        if self.model.diffusers and (self.audio == BUNDLED_SPEECH or "character" in self.anchors):
            raise ConfigError(
                'Characters by name and the bundled speech belong to the bundled model ("model": "nano"); give '
                "files to other weights."
            )
        if self.start_image and self.continue_from:
            raise ConfigError(
                "Both start_image and continue_from are given: a video begins with a picture or goes on from another "
                "video. Leave one of them out."
            )
        if self.start_image == GLOBAL and not {GLOBAL, "character"} & set(self.anchors):
            raise ConfigError("start_image is 'global', and there is no global anchor: add one, or give a file.")


def read_job(path: Path) -> RenderJob:
    """Read a job file; in what it returns every file is an absolute path that is there.

    Raises:
        GloriaError: the file is missing or no JSON, or a setting is unknown, missing, of a wrong kind or out of range,
            or names a file that is not there.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except OSError as error:
        raise ConfigError(f"The job file {path} cannot be read ({error.strerror}); check its path.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The job file {path} is not JSON: {error}.") from error
    if not isinstance(table, dict):
        raise ConfigError(f"The job file {path} holds no table of settings: begin it with {{ and end it with }}.")
    job = read_dataclass(RenderJob, {**table, "model": _model(table.get("model"))})
    return _with_paths(job, path.resolve().parent)


def _model(given: object) -> dict[str, Any]:
    if given == NANO:
        return {}
    if isinstance(given, dict) and isinstance(given.get("diffusers"), str) and given["diffusers"]:
        return given
    raise ConfigError(f'model is {given!r}; it must be "nano" or {{"diffusers": "FOLDER"}}.')


def _with_paths(job: RenderJob, base: Path) -> RenderJob:
    files = {name: _file(name, getattr(job, name), base) for name in _FILES}
    anchors = {
        word: value if word == "character" else _file(f"anchors.{word}", value, base)
        for word, value in job.anchors.items()
    }
    model = job.model
    if model.diffusers:
        folder = _absolute(model.diffusers, base)
        if not folder.is_dir():
            raise ConfigError(f"model.diffusers is {model.diffusers!r}, and there is no folder {folder}.")
        loras = tuple(replace(lora, file=_file("model.loras.file", lora.file, base)) for lora in model.loras)
        model = replace(model, diffusers=str(folder), loras=loras)
    output = str(_absolute(job.output, base))
    return replace(job, **files, anchors=anchors, model=model, output=output)  # type: ignore[arg-type]  # by their names


def _file(name: str, value: str, base: Path) -> str:
    if value in _WORDS:
        return value
    path = _absolute(value, base)
    if not path.is_file():
        raise MediaError(f"{name} is {value!r}, and there is no file {path}.")
    return str(path)


def _absolute(value: str, base: Path) -> Path:
    return (base / Path(value).expanduser()).resolve()


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(f"{name} is {value}; it must be from {low:g} to {high:g}.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ConfigError(f"The setting {key!r} is given twice; keep one of the two.")
        table[key] = value
    return table


def _no_constant(word: str) -> float:
    raise ConfigError(f"The job file holds the number {word}, which is none; write one with digits.")
