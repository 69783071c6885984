"""A video job of the host as a run: what every chunk is made from, in words and by digest, and how it is shown."""

from collections.abc import Callable

from torch import Tensor

from ...gloria_core.errors import ConfigError
from ...gloria_core.runs.chunk_file import Ingredient
from ...gloria_core.runs.digest import digest_of_weights
from ...gloria_core.runs.drift import drift_against
from ...gloria_core.runs.ingredients import common_ingredients
from ...gloria_core.runs.job import Frames, RunJob, film_rate
from ...gloria_core.runs.scripts import Cue, Direction, Scripts
from ...gloria_core.runs.showing import Showing
from ...gloria_core.runs.sound import film_sound, film_sound_digest
from ...gloria_core.sampling.chunks import Chunk
from ...gloria_core.sampling.colour_guard import ColourGuard
from ...gloria_core.sampling.long_video import PrefixMode
from ..sockets import Conditioning
from .clip_embedding import clip_embedding
from .guider import ChunkPrompts, HostChunkSampler, StepCallback, with_anchors, with_audio
from .image_channels import ImageChannels, num_prefix_pictures, prefix_pictures
from .ingredients import conditioning_digest, model_ingredient, picture_ingredient, sampler_ingredient
from .text import encode_texts
from .vae_stream import StreamDecoder
from .video_job import VideoJob


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
    scripts = _scripts(job)
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

    sound = None if request.audio is None else film_sound(request.audio, request.sound_fit)
    showing = Showing(
        job.layout,
        what=[request.layout, request.smallest_side],
        vae=digest_of_weights(request.vae.first_stage_model.state_dict().items()),
        pictures=job.pictures if request.layout != "plain" else (),
        chunks=job.chunks,
        prompt=scripts.prompt,
    )
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
        drift=drift_against(
            job.pictures,
            threshold=request.drift_threshold,
            tries=request.drift_tries,
            embedding=None if request.clip_vision is None else clip_embedding(request.clip_vision),
        ),
        fps=film_rate(job.fps),
        size=job.layout.size,
        look=showing.look,
        show=showing.show,
        sound=sound,
        sound_digest="" if request.audio is None or sound is None else film_sound_digest(request.audio, sound),
        settings=_settings(job),
        on_frames=on_frames,
        removes_old=request.removes_old,
    )


def _scripts(job: VideoJob) -> Scripts[ChunkPrompts]:
    """Return what each chunk is made from."""
    request = job.request
    low_noise = job.low_noise
    direction = Direction(
        chunks=job.chunks,
        fps=job.fps,
        cues=job.prompts,
        snap=request.snap,
        anchors=request.anchors.anchors,
        schedule=request.anchors.schedule.later(job.skipped_frames / job.fps),
        guidance=request.guidance,
        hears=job.config.audio,
        sound=job.sound,
        seed=request.seed,
        reroll=request.reroll,
        bridges=request.bridges,
    )
    same = {
        "model": model_ingredient(request.patcher, None if low_noise is None else low_noise.patcher),
        "sampler": sampler_ingredient(request.sampler, request.sigmas),
        **common_ingredients(
            shape=job.shape,
            size=job.size,
            negative=None if request.negative is None else conditioning_digest(request.negative),
            boundary=None if low_noise is None else low_noise.boundary,
            prefix_noise=request.prefix_noise,
            colour_guard=request.colour_guard,
        ),
    }
    return Scripts(
        direction,
        same=same,
        text=lambda prompt: conditioning_digest(_conditioning(job, prompt)),
        conditions=lambda cue: _conditions(job, cue),
        more=lambda chunk: _pictures(job, chunk),
    )


def _conditioning(job: VideoJob, prompt: str) -> Conditioning:
    prompts = job.request.prompts
    known = prompts.conditioning.get(prompt)
    if known is not None:
        return known
    if prompts.clip is None:
        raise ConfigError(
            f"The re-roll asks for the prompt {prompt!r}, which cannot be encoded here: connect a Prompt Schedule "
            "to 'prompts' instead of 'positive', or leave the prompt out of the re-roll."
        )
    return encode_texts(prompts.clip, {prompt})[prompt]


def _pictures(job: VideoJob, chunk: Chunk) -> dict[str, Ingredient]:
    if not job.config.has_image_channels:
        return {}
    request, is_last = job.request, chunk.index == job.chunks[-1].index
    start = job.start_picture if chunk.index == 0 else None
    found = {
        "start picture": picture_ingredient(start, request.clip_start),
        "end picture": picture_ingredient(job.end_picture, request.clip_end) if is_last else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _conditions(job: VideoJob, cue: Cue) -> ChunkPrompts:
    request, chunk = job.request, cue.chunk
    positive = with_anchors(_conditioning(job, cue.prompt), cue.anchors)
    if job.sound is not None:
        positive = with_audio(positive, job.sound, chunk.latents.start)
    return ChunkPrompts(
        positive,
        None if request.negative is None else with_anchors(request.negative, cue.anchors),
        guidance=cue.guidance,
        prefix_noise=request.prefix_noise if chunk.num_prefix else 0.0,
    )


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
