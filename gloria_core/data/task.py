"""What the trainer learns from a user's footage: batches out of the cache, and nothing but the cache."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..audio import branch_windows, silent_windows
from ..checkpoint import inspect
from ..config import AudioConfig, ModelConfig
from ..errors import ConfigError, DatasetError, NothingHeldOutError
from ..sampling.chunks import STRIDE, num_latents_for
from ..types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet, AudioFeatures, TrainBatch
from .anchor_pool import AnchorPool, Slot
from .balance import SHARES, draw_anchor, uniform
from .cache import Cache, DamagedEntryError
from .clip_sound import clip_sound, footage_at
from .face_weight import loss_weight
from .folder import read_dataset
from .network import NEW_AUDIO, load_network
from .openings import check_pictures, with_pictures
from .options import FootageOptions, read_options
from .prepare import sound_features
from .prepared import (
    Prepared,
    PreparedAnchor,
    PreparedClip,
    find_prepared,
    read_prepared,
    without,
    without_openings,
)
from .sample_maker import SampleMaker
from .sampler import Drawn, Sampler, Window, common_sizes, held_out_ids
from .samples import SOUND_RATE

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")
_SLOTS: Sequence[Slot] = (
    (AnchorRole.GLOBAL, ""),
    *((AnchorRole.VIEW, view) for view in VIEWS),
    *((AnchorRole.EXPRESSION, expression) for expression in EXPRESSIONS),
)
_HELD_OUT_BATCHES = 4
_USUAL_LATENTS = 9
"""Length of a window where neither the options nor the model name one."""
_LEAD = 2
"""Latents before a window whose sound is cut out too, as context: as far as any window of sound reaches back."""


class FootageTask:
    """Batches of a prepared dataset; takes the fields of `FootageOptions` as keywords.

    Raises:
        ConfigError: an option breaks its rule, or does not go with the weights.
        CheckpointError: the weights are no model.
        DatasetError: the dataset is missing, was not prepared for this model, or has nothing to train on.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - FootageOptions names and types them
        self.options = read_options(options)
        self._cache = Cache(Path(self.options.cache), memory_bytes=self.options.memory_mb << 20)
        self._weights = Path(self.options.weights)
        config = inspect(self._weights).config
        self._prepared = _found(Path(self.options.manifest), self._cache, config)
        if config.has_image_channels:
            check_pictures(self._prepared, config, self.options, self._cache)
        self.config = _with_ears(config, self._prepared, self.options, self._cache)
        self.new_parameters = NEW_AUDIO if self.options.audio == "new" else ()
        """Name patterns of parameters that start fresh rather than from the weights."""
        self._samples = SampleMaker(self.options, self.config, self._prepared, self._cache)
        self._mending = threading.Lock()
        self.num_lost = 0
        """Damaged entries of the cache that were met, and are left out."""
        self._start()

    def _start(self) -> None:
        """Choose what is trained on and what is held out, of what there is."""
        options = self.options
        clips = self._prepared.clips
        self._pool = AnchorPool(clips, lend=options.lend)
        left = {clip.id for clip in clips}
        named = [name for name in options.held_out_ids if name in left or not self.num_lost]
        held = held_out_ids(clips, options.held_out, named)
        lengths = _lengths(options, self.config)
        kept, out = ([clip for clip in clips if (clip.id in held) == is_out] for is_out in (False, True))
        if self.num_lost and not kept:
            raise DatasetError(
                f"What was prepared is missing or damaged in the cache, {self.num_lost} things so far, and no clip is "
                "left: prepare the dataset again (what is whole is not encoded again)."
            )
        self._sampler = Sampler(kept, lengths, options, self._pool)
        self._held = Sampler(out, lengths, options, self._pool) if out else None
        if self._sampler.too_short:
            _log.warning("too short to train on: %s", ", ".join(self._sampler.too_short))

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the transformer with its weights, and a fresh audio branch where one is wanted.

        Raises:
            ConfigError: samples cannot be shown with the decoder that was named.
        """
        self._samples.load_codec()
        new = self.config.audio if self.options.audio == "new" else None
        chosen = self.options
        dit = load_network(
            self._weights, attention=chosen.attention, new_audio=new, dtype=chosen.weights_dtype, seed=chosen.seed
        )
        return {"dit": dit}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        """Return the batch of one process in one step. A damaged entry is left out, counted, named and drawn around."""
        return self._drawn("train", self.options.seed, step * world_size + rank)

    @property
    def num_held_out(self) -> int:
        """How many held-out batches there are: four where a clip is held out."""
        return _HELD_OUT_BATCHES if self._held else 0

    def held_out(self, index: int) -> TrainBatch:
        """Return a fixed batch of clips that training never sees, with all of their anchors."""
        return self._drawn("held-out", 0, index)

    def _drawn(self, stream: str, seed: int, index: int) -> TrainBatch:
        trains = stream == "train"

        def draw() -> TrainBatch:
            sampler = self._sampler if trains else self._held
            if sampler is None:
                raise NothingHeldOutError("No clip is held out; set held_out or held_out_ids.")
            generator = _generator(seed, stream, index)
            return self._batch(sampler.draw(generator), generator, drops=trains)

        return self._undamaged(draw)

    def _undamaged(self, make: Callable[[], _Made]) -> _Made:
        """Return what is made of undamaged entries: a damaged one is left out, counted, named and drawn around."""
        while True:
            try:
                return make()
            except DamagedEntryError as error:
                self._leave_out(error)

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        """Write a sheet of clips, and a film (.mp4) beside it: what is true, and what the networks make of it.

        Each begins a video. Nothing is written without a decoder and without a VAE, or where no samples are wanted.
        """
        drawn = self._undamaged(self._sampled) if self._samples.is_wanted else []
        if not drawn:
            return
        dit, fps, footage = modules["dit"], self._prepared.fps, footage_at(Path(self.options.manifest))
        made = []
        for number, (window, batch) in enumerate(drawn):
            start_s, stop_s = window.frames.start / fps, window.frames.stop / fps
            sound = clip_sound(footage, window.place.clip.id, start_s, stop_s, SOUND_RATE)
            made.append(self._samples.make(dit, batch, number, sound))
        self._samples.write(made, path, fps, next(dit.parameters()).device)

    def _sampled(self) -> list[tuple[Window, TrainBatch]]:
        """Return the clips that are sampled; those of prompts take anchors and sound of the others in turn."""
        count, prompts = self.options.sample_clips, self._prepared.sample_text_keys
        windows = (self._held or self._sampler).beginnings(max(count, len(prompts)))
        wanted = [(window, "") for window in windows[:count]]
        wanted += [(windows[index % len(windows)], text) for index, text in enumerate(prompts)]
        given = self.config.has_image_channels or self.options.start_image == 1.0
        found = []
        for number, (window, text) in enumerate(wanted):
            prefix = int(given and window.place.length > 1)
            drawn = Drawn((window,), prefix, None, is_regularisation=False)
            batch = self._batch(drawn, _generator(0, "samples", number), drops=False)
            rows = self._cache.get(text)["rows"].float()[None] if text else batch.context
            found.append((window, replace(batch, context=rows)))
        return found

    def _leave_out(self, error: DamagedEntryError) -> None:
        with self._mending:
            owners = [clip.id for clip in self._prepared.clips if error.key in _used(clip)]
            owners += ["a sample prompt"] if error.key in self._prepared.sample_text_keys else []
            if not owners:  # another thread has met it too
                return
            self.num_lost += 1
            _log.warning("%s, of the clip %s: it is left out.", str(error).rstrip("."), ", ".join(owners[:3]))
            self._prepared = without(self._prepared, frozenset({error.key}))
            self._start()

    def _batch(self, drawn: Drawn, generator: torch.Generator, *, drops: bool) -> TrainBatch:
        windows, prefix = drawn.windows, drawn.num_prefix
        kept = self._kept_slots(drawn.slot, generator) if drops else [s for s in _SLOTS if s[0] in self.options.roles]
        anchors, outside = self._anchors(windows, kept, generator)
        batch = TrainBatch(
            latents=torch.cat([self._latents(window) for window in windows]),
            context=_stacked([self._cache.get(window.text_key(prefix))["rows"].float() for window in windows]),
            num_prefix=prefix,
            audio=self._audio(windows),
            anchors=anchors if len(anchors) else None,
            weight=self._weight(drawn),
            metrics={"num_anchors": float(len(anchors)), "superset": outside, "lost": float(self.num_lost)},
            names=tuple(window.place.clip.id for window in windows),
        )
        return self._shown(batch, windows) if self.config.has_image_channels else batch

    def _shown(self, batch: TrainBatch, windows: Sequence[Window]) -> TrainBatch:
        """Return a batch with what a model with image channels is shown of it; CLIP sees how the videos begin."""
        if not batch.num_prefix:
            return with_pictures(batch, None, self.config, goes_on=False)
        keys = [window.place.piece.opening(window.offset).key for window in windows]
        length = batch.latents.shape[2]
        known = torch.cat([self._cache.get(key)["latents"][:, :, :length].float() for key in keys])
        if self.config.clip_dim:
            seen = [self._cache.get(window.place.piece.seen_key)["rows"].float() for window in windows]
            batch = replace(batch, clip_fea=torch.stack(seen))
        return with_pictures(batch, known, self.config, goes_on=windows[0].offset > 0)

    def _latents(self, window: Window) -> Tensor:
        latents = self._cache.get(window.place.piece.key)["latents"]
        return latents[:, :, window.latents.start : window.latents.stop].float()

    def _kept_slots(self, taught: Slot | None, generator: torch.Generator) -> list[Slot]:
        """Return the slots that a batch may show; the one that it is to teach always among them."""
        options = self.options
        roles = {role for role in options.roles if uniform(generator) >= options.drop_role}
        if uniform(generator) < options.one_type:
            chance = AnchorRole.EXPRESSION if uniform(generator) < 0.5 else AnchorRole.VIEW
            one = taught[0] if taught else chance
            roles -= set(SHARES) - {one}
        kept = {slot for slot in _SLOTS if uniform(generator) >= options.drop_slot and slot[0] in roles}
        return [slot for slot in _SLOTS if slot in kept or slot == taught]

    def _anchors(
        self, windows: Sequence[Window], slots: Sequence[Slot], generator: torch.Generator
    ) -> tuple[AnchorSet, float]:
        """Draw the anchors of a batch, and tell the share from outside of its clips. Clips alike share them."""
        chosen: list[tuple[Slot, list[PreparedAnchor]]] = []
        num_outside = num = 0
        for slot in slots:
            offered = [self._offered(window, slot) for window in windows]
            sizes = common_sizes(offered)
            if not sizes:
                continue
            drawn = [
                self._draw_anchor(window, [a for a in own if (a.height, a.width) == sizes[0]], generator)
                for window, own in zip(windows, offered, strict=True)
            ]
            chosen.append((slot, [anchor for anchor, _ in drawn]))
            num_outside += sum(outside for _, outside in drawn)
            num += len(drawn)
        alike = all(len({(a.key, a.opens) for a in pictures}) == 1 for _, pictures in chosen)
        count = 1 if alike else len(windows)
        found = tuple(
            Anchor(*slot, torch.cat([self._picture(anchor) for anchor in pictures[:count]]))
            for slot, pictures in chosen
        )
        return AnchorSet(found), num_outside / max(num, 1)

    def _offered(self, window: Window, slot: Slot) -> list[PreparedAnchor]:
        """Return a clip's pictures for a slot; the global one has the video's own size. Paper: 4.1."""
        piece, offered = window.place.piece, self._pool.offered(window.place.clip, slot)
        if slot[0] != AnchorRole.GLOBAL:
            return offered
        return [anchor for anchor in offered if (anchor.height, anchor.width) == (piece.height, piece.width)]

    def _draw_anchor(
        self, window: Window, anchors: Sequence[PreparedAnchor], generator: torch.Generator
    ) -> tuple[PreparedAnchor, bool]:
        gap = round(self.options.min_gap_s * self._prepared.fps)
        frames = window.place.clip.num_source_frames
        return draw_anchor(anchors, window.frames, frames, self.options.superset, gap, generator)

    def _picture(self, anchor: PreparedAnchor) -> Tensor:
        return self._cache.get(anchor.key)["latents"][:, :, :1].float()

    def _audio(self, windows: Sequence[Window]) -> Tensor | None:
        branch = self.config.audio
        if branch is None or not self._prepared.audio_kind:
            return None
        return torch.stack([self._heard(window, branch) for window in windows])

    def _heard(self, window: Window, branch: AudioConfig) -> Tensor:
        """Return what a window hears (T, W, A): a start as the start of a video, all else in the middle of one."""
        clip, length, fps = window.place.clip, window.place.length, self._prepared.fps
        if not clip.audio_key:
            return silent_windows(branch, fps, window.offset, length)
        sound = sound_features(self._cache.get(clip.audio_key), fps)
        start = window.place.piece.start
        lead = min(_LEAD, start // STRIDE) if window.offset else 0
        rate = sound.rows_per_second or fps
        first = round((start - STRIDE * lead) * rate / fps)
        rows = sound.frames[first:]
        if not len(rows):  # the sound is over
            return silent_windows(branch, fps, window.offset, length)
        rest = AudioFeatures(rows, fps, sound.padding, sound.rows_per_second)
        return branch_windows(branch, rest, window.offset + lead, length)

    def _weight(self, drawn: Drawn) -> Tensor | None:
        scale = self.options.regularisation_weight if drawn.is_regularisation else 1.0
        if self.options.face_weight == 1.0:
            return None if scale == 1.0 else torch.full((1, 1, 1, 1, 1), scale)
        weights = []
        for window in drawn.windows:
            place = window.place
            mask = self._cache.get(place.piece.mask_key)["mask"].float() if place.piece.mask_key else None
            weights.append(loss_weight(place.clip, place.piece, window.latents, self.options.face_weight, mask))
        return torch.stack(weights) * scale


def _found(source: Path, cache: Cache, config: ModelConfig) -> Prepared:
    """Return the prepared form of a manifest or a folder; or a prepared dataset's own file (.json), without footage."""
    if source.suffix == ".json":
        found = read_prepared(source)
    else:
        manifest, _ = read_dataset(source)
        found = find_prepared(
            cache,
            manifest.digest,
            config.codec,
            has_openings=config.has_image_channels,
            has_seen=config.has_image_channels and config.clip_dim > 0,
        )
    return found if config.has_image_channels else without_openings(found)


def _with_ears(config: ModelConfig, prepared: Prepared, options: FootageOptions, cache: Cache) -> ModelConfig:
    """Return the model's configuration with the audio branch that it will have, which must fit the prepared sound.

    Raises:
        ConfigError: the sound was encoded for another kind of branch, or a new branch is wanted and nothing was.
        DatasetError: no clip has sound, and the stage needs it.
    """
    sounds = [clip.audio_key for clip in prepared.clips if clip.audio_key]
    if options.needs_audio and not sounds:
        raise DatasetError(
            "No clip has sound, and this stage trains the ears: prepare the dataset with an audio encoder, from videos "
            "with a sound track."
        )
    if options.audio == "new":
        if not sounds:
            raise ConfigError("audio is 'new', but no sound was prepared: prepare the dataset with an audio encoder.")
        width = cache.get(sounds[0])["rows"].shape[1]
        kind: Any = prepared.audio_kind
        return replace(config, audio=AudioConfig(kind=kind, feature_dim=width))
    if config.audio is not None and prepared.audio_kind not in ("", config.audio.kind):
        raise ConfigError(
            f"The sound was prepared as {prepared.audio_kind!r}; this model hears {config.audio.kind!r}: prepare the "
            "dataset with this model."
        )
    return config


def _lengths(options: FootageOptions, config: ModelConfig) -> list[int]:
    """Return the lengths of windows in latents, longest first."""
    if options.frames:
        return sorted({num_latents_for(frames) for frames in options.frames}, reverse=True)
    whole = config.chunk_latents or _USUAL_LATENTS
    return sorted({whole, max(1, whole * 3 // 4), max(1, whole // 2)}, reverse=True)


def _generator(seed: int, stream: str, index: int) -> torch.Generator:
    digest = blake2b(f"{seed}/footage/{stream}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _used(clip: PreparedClip) -> set[str]:
    pictures = {anchor.key for anchor in clip.anchors}
    texts = {prompt.text_key for prompt in clip.prompts}
    return pictures | texts | {clip.audio_key} | {k for piece in clip.pieces for k in (*piece.keys, piece.mask_key)}


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """Return rows of texts (L, D) as one tensor (B, L, D), shorter ones padded with zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
