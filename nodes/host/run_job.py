"""A video job of the host as a run: what every chunk is made from, in words and by digest, and how it is shown."""

from collections.abc import Callable
from fractions import Fraction
from itertools import groupby

from torch import Tensor

from ...gloria_core.audio import branch_windows
from ...gloria_core.errors import ConfigError
from ...gloria_core.evaluate.drift import DriftMeter
from ...gloria_core.media import FilmSound
from ...gloria_core.runs.chunk_file import Ingredient
from ...gloria_core.runs.digest import digest_of, digest_of_weights
from ...gloria_core.runs.job import Drift, Frames, RunJob, Script
from ...gloria_core.runs.reroll import Reroll, by_chunk, parse_rerolls
from ...gloria_core.sampling.anchor_schedule import parse_anchor_schedule
from ...gloria_core.sampling.chunks import Chunk
from ...gloria_core.sampling.colour_guard import ColourGuard
from ...gloria_core.sampling.guidance import Guidance
from ...gloria_core.sampling.long_video import PrefixMode
from ...gloria_core.sampling.prompts import PromptCue, cue_for_chunk
from ...gloria_core.sampling.seeds import chunk_seed, take_seed
from ...gloria_core.types import AnchorRole, AnchorSet
from ..sockets import Conditioning
from .guider import ChunkPrompts, HostChunkSampler, StepCallback, with_anchors, with_audio
from .image_channels import ImageChannels, num_prefix_pictures, prefix_pictures
from .ingredients import (
    anchors_ingredient,
    conditioning_digest,
    model_ingredient,
    picture_ingredient,
    sampler_ingredient,
)
from .text import encode_texts
from .vae import to_bytes
from .vae_stream import StreamDecoder
from .video_job import VideoJob

_FPS_STEPS = 1001
"""Frame rates are taken as fractions with denominators up to this: 23.976 is 24000/1001."""


def run_job(job: VideoJob, on_step: StepCallback, on_frames: Callable[[Frames], None] | None) -> RunJob[ChunkPrompts]:
    """Describe a video as a run.

    Args:
        job: the video.
        on_step: told about every solver step.
        on_frames: told the frames as decoded, where somebody wants them all.

    Raises:
        PlanError: a re-roll cannot be read or names what is not there.
    """
    request, decoder = job.request, _decoder(job)
    scripts = _Scripts(job)
    sampler = HostChunkSampler(
        request.patcher,
        request.sampler,
        request.sigmas,
        request.guidance,
        on_step,
        low_noise=job.low_noise,
        options=_image_channels(job, decoder),
    )

    def pictures(prefix: Tensor) -> Frames:
        return prefix_pictures(decoder, prefix, job.prefix_mode)

    texts = [scripts.prompt(chunk) for chunk in job.chunks]
    laid_out: list[int] = []  # the chunk that the layout is set up for

    def before(chunk: Chunk) -> list[str]:
        return [text for text, _ in groupby(texts[: chunk.index])]

    source = None if request.audio is None else (request.audio.waveform, request.audio.sample_rate)
    vae = digest_of_weights(request.vae.first_stage_model.state_dict().items())

    def look(chunk: Chunk) -> str:
        pictures = [digest_of(p.image) for p in request.anchors.pictures] if request.layout != "plain" else []
        laid_out.clear()
        return digest_of(vae, request.layout, request.smallest_side, pictures, job.layout.after(before(chunk)))

    def show(frames: Frames, chunk: Chunk, prompt: str) -> Frames:
        if laid_out != [chunk.index]:
            job.layout.after(before(chunk))
            laid_out[:] = [chunk.index]
        return job.layout(frames, prompt)

    return RunJob(
        chunks=job.chunks,
        shape=job.shape,
        prefix_mode=job.prefix_mode,
        start=job.start_latents(),
        skipped_frames=job.skipped_frames,
        script=scripts,
        plain=scripts.plain,
        sampler=sampler,
        decoder=decoder,
        pictures=pictures if job.config.has_image_channels else None,
        guard=ColourGuard(request.colour_guard) if request.colour_guard else None,
        drift=_drift(job),
        fps=Fraction(job.fps).limit_denominator(_FPS_STEPS),
        size=job.layout.size,
        look=look,
        show=show,
        sound=None if source is None else FilmSound(source, request.sound_fit),
        sound_digest="" if source is None else digest_of(*source, request.sound_fit),
        settings=_settings(job),
        on_frames=on_frames,
    )


class _Scripts:
    """Tells what each chunk is made from."""

    def __init__(self, job: VideoJob) -> None:
        request = self.request = job.request
        self.job = job
        self.rerolls = by_chunk(parse_rerolls(request.reroll), job.chunks, job.fps)
        self._digests: dict[str, str] = {}
        low_noise = None if job.low_noise is None else job.low_noise.patcher
        width, height = job.size
        self._same = {
            "model": model_ingredient(request.patcher, low_noise),
            "sampler": sampler_ingredient(request.sampler, request.sigmas),
            "size": Ingredient(digest_of(job.shape), f"{width} x {height}"),
        }
        if job.low_noise is not None:
            self._same["boundary"] = Ingredient(str(job.low_noise.boundary), f"{job.low_noise.boundary:g}")
        if request.negative is not None:
            self._same["negative prompt"] = Ingredient(conditioning_digest(request.negative))
        if request.prefix_noise:
            self._same["prefix noise"] = Ingredient(str(request.prefix_noise), f"{request.prefix_noise:g}")
        if request.colour_guard:
            self._same["colour guard"] = Ingredient(str(request.colour_guard), f"{request.colour_guard:g}")
        self._entries = {
            index: parse_anchor_schedule(f"0:00 {reroll.anchors}")
            for index, reroll in self.rerolls.items()
            if reroll.anchors
        }

    def __call__(self, chunk: Chunk, attempt: int) -> Script[ChunkPrompts]:
        """Return the chunk as it is wanted now."""
        return self._script(chunk, self.rerolls.get(chunk.index), attempt)

    def plain(self, chunk: Chunk) -> Script[ChunkPrompts]:
        """Return the chunk without a re-roll."""
        return self._script(chunk, None, 0)

    def prompt(self, chunk: Chunk) -> str:
        """Return the text that a chunk is made with."""
        reroll = self.rerolls.get(chunk.index)
        return reroll.prompt if reroll and reroll.prompt else self._scheduled(chunk)

    def _scheduled(self, chunk: Chunk) -> str:
        return self._cue(chunk).text

    def _cue(self, chunk: Chunk) -> PromptCue:
        return cue_for_chunk(self.job.prompts, chunk, self.job.fps, self.request.snap)

    def _anchors(self, chunk: Chunk, reroll: Reroll | None) -> AnchorSet:
        """Return the anchors that a chunk heeds."""
        anchors = self.request.anchors
        own = self._entries.get(chunk.index) if reroll is not None else None
        schedule = own or anchors.schedule.later(self.job.skipped_frames / self.job.fps)
        return schedule.for_chunk(anchors.anchors, chunk, self.job.fps, self.request.snap)

    def _script(self, chunk: Chunk, reroll: Reroll | None, attempt: int) -> Script[ChunkPrompts]:
        prompt = reroll.prompt if reroll and reroll.prompt else self._scheduled(chunk)
        seed = self._seed(chunk, reroll, attempt)
        guidance, anchors = self._cue(chunk).guidance(self.request.guidance), self._anchors(chunk, reroll)
        scales = [guidance.text_scale, guidance.audio_scale if self.request.audio is not None else 0.0]
        parts = {
            **self._same,
            "prompt": Ingredient(self._text_digest(prompt), prompt),
            "anchors": anchors_ingredient(anchors),
            "guidance": Ingredient(digest_of(scales), "text {:g}, sound {:g}".format(*scales)),
            "seed": Ingredient(str(seed), str(seed)),
            **self._sound(chunk),
            **self._pictures(chunk),
        }
        after = self.request.bridges if reroll is None or reroll.bridge is None else reroll.bridge
        return Script(
            chunk=chunk,
            seed=seed,
            prompt=prompt,
            ingredients=parts,
            conditions=lambda: self._conditions(chunk, prompt, anchors, guidance),
            take=reroll.take if reroll else None,
            bridge=reroll is not None and after,
        )

    def _seed(self, chunk: Chunk, reroll: Reroll | None, attempt: int) -> int:
        if reroll is not None and reroll.seed is not None:
            return reroll.seed if attempt == 0 else chunk_seed(reroll.seed, attempt)
        return take_seed(self.request.seed, chunk.index, (reroll.attempt if reroll else 0) + attempt)

    def _conditioning(self, prompt: str) -> Conditioning:
        prompts = self.request.prompts
        known = prompts.conditioning.get(prompt)
        if known is not None:
            return known
        if prompts.clip is None:
            raise ConfigError(
                f"The re-roll asks for the prompt {prompt!r}, which cannot be encoded here: connect a Prompt Schedule "
                "to 'prompts' instead of 'positive', or leave the prompt out of the re-roll."
            )
        return encode_texts(prompts.clip, {prompt})[prompt]

    def _text_digest(self, prompt: str) -> str:
        if prompt not in self._digests:
            self._digests[prompt] = conditioning_digest(self._conditioning(prompt))
        return self._digests[prompt]

    def _sound(self, chunk: Chunk) -> dict[str, Ingredient]:
        sound, hears = self.job.sound, self.job.config.audio
        if sound is None or hears is None:
            return {}
        heard = branch_windows(hears, sound, chunk.latents.start, chunk.num_latents)
        return {"sound": Ingredient(digest_of(heard.float()))}

    def _pictures(self, chunk: Chunk) -> dict[str, Ingredient]:
        if not self.job.config.has_image_channels:
            return {}
        is_first, is_last = chunk.index == 0, chunk.index == self.job.chunks[-1].index
        request = self.request
        found = {
            "start picture": picture_ingredient(self.job.start_picture if is_first else None, request.clip_start),
            "end picture": picture_ingredient(self.job.end_picture, request.clip_end) if is_last else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _conditions(self, chunk: Chunk, prompt: str, anchors: AnchorSet, guidance: Guidance) -> ChunkPrompts:
        request = self.request
        positive = with_anchors(self._conditioning(prompt), anchors)
        if self.job.sound is not None:
            positive = with_audio(positive, self.job.sound, chunk.latents.start)
        return ChunkPrompts(
            positive,
            None if request.negative is None else with_anchors(request.negative, anchors),
            guidance=guidance,
            prefix_noise=request.prefix_noise if chunk.num_prefix else 0.0,
        )


def _drift(job: VideoJob) -> Drift:
    """Return how the video's drift is measured: against all of the character's pictures."""
    request, pictures = job.request, job.request.anchors.pictures
    main = next((p for p in pictures if p.role == AnchorRole.GLOBAL), None)
    others = [to_bytes(p.image)[0] for p in pictures if p is not main]
    meter = DriftMeter(None if main is None else to_bytes(main.image)[0], more=others)
    return Drift(meter=meter, threshold=request.drift_threshold, tries=request.drift_tries)


def _decoder(job: VideoJob) -> StreamDecoder:
    """Return the decoder that the whole video goes through."""
    if job.config.has_image_channels and job.prefix_mode == PrefixMode.HELD:
        return StreamDecoder(job.request.vae, keep=num_prefix_pictures(job.longest_prefix))  # the model is shown them
    return StreamDecoder(job.request.vae)


def _image_channels(job: VideoJob, decoder: StreamDecoder) -> ImageChannels | None:
    """Return what fills the image channels of a model that has them."""
    if not job.config.has_image_channels:
        return None
    request = job.request
    return ImageChannels(
        request.vae,
        decoder,
        job.chunks[-1].index,
        start=job.start_picture,
        end=job.end_picture,
        clip_start=request.clip_start,
        clip_end=request.clip_end,
    )


def _settings(job: VideoJob) -> dict[str, object]:
    """Return what a person wants to find in run.json."""
    request = job.request
    return {
        "model": job.config.name,
        "seconds": request.seconds,
        "fps": job.fps,
        "width": job.size[0],
        "height": job.size[1],
        "seed": request.seed,
        "steps": len(request.sigmas) - 1,
        "chunk_latents": job.chunks[0].num_latents,
        "overlap_latents": request.prefix_latents,
        "text_guidance": request.guidance.text_scale,
        "audio_guidance": request.guidance.audio_scale,
        "reroll": request.reroll,
    }
