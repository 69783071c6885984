"""Encoding a dataset into a cache: once, as a stream, and from where it was left."""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import DatasetError, GloriaError
from ..media import read_audio
from ..runs.digest import digest_of
from ..types import AudioFeatures
from .buckets import Sizes
from .cache import Cache, Tensors, compact
from .encoders import Encoder
from .manifest import Manifest
from .pictures import cover, fitted, read_picture
from .plan import MaskFile, Plan, Still, make_plan
from .prepared import Prepared, without, write_prepared
from .problems import Problem
from .shots import Shot, read_shots

Progress = Callable[[int, int, str], None]
"""Is told how many things are done, of how many, and what is next. What it raises stops the work; what is finished
stays in the cache."""

_TEXTS_AT_ONCE = 64
"""Captions that are encoded together: some encoders are loaded anew for each such batch."""


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """What came of preparing a dataset."""

    path: Path
    """The prepared dataset's file in the cache."""
    prepared: Prepared
    problems: tuple[Problem, ...]
    """What was left out, and why."""
    num_encoded: int
    """Things that were encoded now."""
    num_reused: int
    """Things that were in the cache already."""


def prepare(
    manifest: Manifest,
    encoder: Encoder,
    cache: Cache,
    sizes: Sizes,
    progress: Progress = lambda *told: None,
    *,
    sample_prompts: Sequence[str] = (),
) -> PreparedDataset:
    """Encode what a manifest's clips need and is not in the cache yet.

    Memory holds one piece of a film, or one sound; what was finished before a crash, or before an exception of
    ``progress``, is not encoded again.

    Args:
        manifest: the clips.
        encoder: of the model that will be trained.
        cache: where to.
        sizes: the dataset's settings.
        progress: see `Progress`.
        sample_prompts: texts that a training makes samples of, beside the clips' own.

    Raises:
        DatasetError: no clip can be used, or the disk refuses.
    """
    plan = make_plan(manifest, encoder, cache, sizes, lambda clip: progress(0, 0, f"looking at {clip}"))
    samples = tuple(plan.text(prompt, encoder.text_id) for prompt in sample_prompts)
    empty = plan.text("", encoder.text_id)
    work = _Work(plan, encoder, cache, progress)
    work.run(sizes.fps)
    prepared = Prepared(
        manifest=manifest.digest,
        codec=encoder.codec,
        video_id=encoder.video_id,
        text_id=encoder.text_id,
        audio_id=encoder.audio_id,
        audio_kind=encoder.audio_kind,
        fps=sizes.fps,
        clips=tuple(plan.clips),
        sample_text_keys=samples,
        empty_text_key=empty,
        pictures_id=_pictures_id(encoder, sizes),
    )
    prepared = without(prepared, frozenset(work.lost))
    problems = tuple(plan.problems)
    if not prepared.clips:
        raise DatasetError(f"No clip can be used. {problems[0]}" if problems else "No clip can be used.")
    path = write_prepared(cache, prepared)
    return PreparedDataset(path, prepared, problems, work.done, work.reused)


def _pictures_id(encoder: Encoder, sizes: Sizes) -> str:
    return digest_of(encoder.pictures.clip_id, sizes.prefix_latents) if encoder.pictures else ""


@dataclass(slots=True, eq=False)
class _Work:
    plan: Plan
    encoder: Encoder
    cache: Cache
    progress: Progress
    done: int = 0
    total: int = 0
    reused: int = 0
    lost: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def run(self, fps: float) -> None:
        """Encode what is missing."""
        plan = self.plan
        shots = {video: [s for s in found.values() if self._missing(s.key)] for video, found in plan.shots.items()}
        stills = [still for still in plan.stills.values() if self._missing(still.key)]
        masks = [mask for mask in plan.masks.values() if self._missing(mask.key)]
        texts = {key: text for key, text in plan.texts.items() if self._missing(key)}
        sounds = {key: path for key, path in plan.sounds.items() if self._missing(key)}
        parts: list[Sized] = [*shots.values(), stills, masks, texts, sounds]
        self.total = sum(len(part) for part in parts)
        try:
            for video, missing in shots.items():
                self._films(video, missing)
            for still in stills:
                self._guarded(still.key, still.path, partial(self._still, still))
            for mask in masks:
                self._guarded(mask.key, mask.path, partial(_mask, mask))
            for key, path in sounds.items():
                self._guarded(key, path, partial(self._sound, path, fps))
            self._texts(texts)
        finally:
            self.cache.flush()

    def _missing(self, key: str) -> bool:
        """Tell whether something has to be made; a copy of a film under another name has the same keys."""
        if key in self.seen:
            return False
        self.seen.add(key)
        there = key in self.cache
        self.reused += there
        return not there

    def _films(self, video: Path, missing: list[Shot]) -> None:
        if not missing:
            return
        left = {shot.key for shot in missing}
        reason = "it has fewer frames than its header says"
        try:
            for shot, frames in read_shots(video, missing):
                self._tell(f"{self._whose(shot.key)}, {len(frames)} frames of {video.name}")
                self._put(shot.key, self._shown(shot, frames))
                left.discard(shot.key)
        except GloriaError as error:
            reason = str(error).rstrip(".")
        for key in left:
            self._lose(key, video, reason)

    def _shown(self, shot: Shot, frames: NDArray[np.uint8]) -> Tensors:
        pictures = self.encoder.pictures
        if shot.use == "known" and pictures is not None:
            return {"latents": compact(pictures.encode_known(frames, shot.num_latents))}
        if shot.use == "seen" and pictures is not None:
            return {"rows": compact(pictures.encode_seen(frames[0]))}
        return {"latents": compact(self.encoder.encode_video(frames))}

    def _still(self, still: Still) -> Tensors:
        picture = read_picture(still.path)
        shown = fitted(picture, cover(picture.shape[1], picture.shape[0], still.size, still.crop))
        return {"latents": compact(self.encoder.encode_video(shown[None]))}

    def _sound(self, path: Path, fps: float) -> Tensors:
        return sound_tensors(self.encoder.encode_audio(*read_audio(path), fps))

    def _texts(self, texts: dict[str, str]) -> None:
        keys = list(texts)
        for start in range(0, len(keys), _TEXTS_AT_ONCE):
            some = keys[start : start + _TEXTS_AT_ONCE]
            self._tell(f"{len(keys)} captions")
            for key, rows in zip(some, self.encoder.encode_text([texts[key] for key in some]), strict=True):
                self._put(key, {"rows": compact(_without_padding(rows))})

    def _guarded(self, key: str, path: Path, make: Callable[[], Tensors]) -> None:
        self._tell(f"{self._whose(key)}, {path.name}")
        try:
            made = make()
        except GloriaError as error:
            self._lose(key, path, str(error).rstrip("."))
        else:
            self._put(key, made)

    def _put(self, key: str, tensors: Tensors) -> None:
        self.cache.put(key, tensors)
        self.done += 1

    def _tell(self, what: str) -> None:
        self.progress(self.done, self.total, what)

    def _whose(self, key: str) -> str:
        return self.plan.owners.get(key, "")

    def _lose(self, key: str, path: Path, reason: str) -> None:
        self.lost.add(key)
        self.plan.problems.append(
            Problem(
                f"{self._whose(key)} ({path.name})", reason, "What needs it is left out; export the file again", True
            )
        )


def sound_tensors(features: AudioFeatures) -> Tensors:
    """Return an encoded sound as a cache keeps it."""
    kept = {"rows": compact(features.frames)}
    if features.padding is not None:
        kept["padding"] = compact(features.padding)
    if features.rows_per_second is not None:
        kept["rows_per_second"] = torch.tensor(features.rows_per_second)
    return kept


def sound_features(kept: Tensors, fps: float) -> AudioFeatures:
    """Return an encoded sound out of a cache."""
    rate = kept.get("rows_per_second")
    padding = kept.get("padding")
    return AudioFeatures(
        kept["rows"].float(),
        fps,
        None if padding is None else padding.float(),
        None if rate is None else float(rate),
    )


def _without_padding(rows: Tensor) -> Tensor:
    """Return rows of text (L, D) less the rows of zeros at their end; one stays at least."""
    filled = rows.ne(0).any(1).nonzero()
    return rows[: int(filled[-1]) + 1 if len(filled) else 1]


def _mask(mask: MaskFile) -> Tensors:
    """Return how white a mask is at each latent (h, w), 0..1."""
    picture = read_picture(mask.path)
    shown = fitted(picture, cover(picture.shape[1], picture.shape[0], mask.size))
    height, width = mask.latents
    small = Image.fromarray(shown).convert("L").resize((width, height), Image.Resampling.BOX)
    return {"mask": compact(torch.from_numpy(np.asarray(small, np.float32) / 255))}
