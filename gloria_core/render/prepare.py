"""A job, its inputs and the weights' parts put together as a run."""

from dataclasses import dataclass, replace

from torch import Tensor

from ..anchors.picture import on_grid
from ..audio import branch_windows, on_video_clock, silent_windows, sync_offset_s
from ..errors import ConfigError
from ..media.layout import LabelledPicture, layout_named
from ..runs.drift import drift_against
from ..runs.ingredients import common_ingredients, model_ingredient, solver_ingredient, text_digest
from ..runs.job import RunJob, film_rate
from ..runs.old_takes import REMOVE
from ..runs.reroll import BRIDGE, parse_rerolls
from ..runs.scripts import Cue, Direction, Scripts
from ..runs.showing import Showing
from ..runs.sound import film_sound, film_sound_digest, sound_notes
from ..runs.tail import check_tail, tail_pictures
from ..runs.video import VideoPlan, VideoWish, check_guidance, check_picture, plan_video
from ..sampling.anchor_schedule import parse_anchor_schedule
from ..sampling.chunks import Chunk
from ..sampling.colour_guard import ColourGuard
from ..sampling.denoise import ChunkConditions, chunk_sampler
from ..sampling.guidance import Guidance
from ..sampling.long_video import ChunkJob, ChunkSampler, PrefixMode
from ..sampling.prompts import later, lost_cues, parse
from ..sampling.schedule import simple_sigmas
from ..sampling.solver import solver_named
from ..types import Anchor, AnchorRole, AnchorSet, AudioFeatures
from .inputs import Inputs, heard
from .job import RenderJob
from .kit import Kit
from .stream import picture_bytes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """A render that may begin."""

    run: RunJob[ChunkConditions]
    video: VideoPlan
    anchors: AnchorSet
    notes: tuple[str, ...]
    """Sentences about what of the job will never be seen."""


def prepare(job: RenderJob, inputs: Inputs, kit: Kit) -> Prepared:
    """Encode and check what a job asks for; the network itself is loaded when the first chunk is sampled.

    Raises:
        GloriaError: the job cannot be met.
    """
    return _Preparation(job, inputs, kit).prepared()


class _Preparation:
    """One job on its way to a run."""

    def __init__(self, job: RenderJob, inputs: Inputs, kit: Kit) -> None:
        self.job, self.inputs, self.kit, self.config = job, inputs, kit, kit.config
        if self.config.prefix != "held":
            raise ConfigError(
                f"The model {self.config.name!r} is given its start through image channels, which a render without "
                "ComfyUI does not do: render it inside ComfyUI, or use text-to-video weights."
            )
        self._latents: dict[tuple[AnchorRole, str], Tensor] = {}
        self.guidance = Guidance(text_scale=job.text_guidance, audio_scale=job.audio_guidance)
        self.cues = parse(job.prompts)
        pictures = inputs.pictures
        grid = 2 * kit.stride
        self.anchors = AnchorSet(tuple(Anchor(p.role, p.slot, kit.encode(on_grid(p, grid)[0:1])) for p in pictures))
        self.labelled = tuple(LabelledPicture(p.role, p.slot, picture_bytes(p.image)[0]) for p in pictures)
        self.video = self._video()
        self.sound = self._sound()
        check_guidance(self.guidance, self.cues, has_audio=self.sound is not None, has_negative=True)
        shift = job.model.shift or kit.shift
        self.sigmas = simple_sigmas(job.steps, shift)
        rerolled = (line.reroll.prompt for line in parse_rerolls(job.reroll))
        self.rows = dict(kit.texts({job.negative, *(cue.text for cue in self.cues), *filter(None, rerolled)}))

    def prepared(self) -> Prepared:
        """Return the run."""
        job, video, scripts = self.job, self.video, self._scripts()
        layout = layout_named(job.layout, video.size, self.labelled, job.enlarge_to)
        showing = Showing(
            layout,
            what=[job.layout, job.enlarge_to],
            vae=self.kit.vae,
            pictures=self.labelled if job.layout != "plain" else (),
            chunks=video.chunks,
            prompt=scripts.prompt,
        )
        sound = self.inputs.sound
        track = None if sound is None else film_sound(sound, job.sound_fit)
        run = RunJob(
            chunks=video.chunks,
            shape=video.shape,
            prefix_mode=PrefixMode.HELD,
            start=self._start(),
            skipped_frames=video.skipped_frames,
            script=scripts,
            plain=scripts.plain,
            sampler=_LateSampler(self.kit, self.sigmas, job.sampler_name),
            decoder=self.kit.decoder,
            guard=ColourGuard(job.colour_guard) if job.colour_guard else None,
            drift=drift_against(self.labelled, threshold=job.drift_threshold, tries=job.drift_tries),
            fps=film_rate(video.fps),
            size=layout.size,
            look=showing.look,
            show=showing.show,
            sound=track,
            sound_digest="" if sound is None or track is None else film_sound_digest(sound, track),
            settings=self._settings(),
            removes_old=job.old_takes == REMOVE,
        )
        return Prepared(run=run, video=video, anchors=self.anchors, notes=(*self._notes(), *sound_notes(track)))

    def _video(self) -> VideoPlan:
        job, sound = self.job, self.inputs.sound
        wish = VideoWish(
            seconds=job.seconds,
            fps=job.fps,
            width=job.width,
            height=job.height,
            chunk_latents=job.chunk_latents,
            prefix_latents=job.overlap_latents,
            goes_on=self.inputs.tail is not None,
            sound_s=None if sound is None else sound.seconds,
            sound_fit=job.sound_fit,
        )
        return plan_video(wish, self.config, stride=self.kit.stride, main=self.anchors.get(AnchorRole.GLOBAL))

    def _sound(self) -> AudioFeatures | None:
        sound, video = self.inputs.sound, self.video
        if sound is None:
            return None
        late_s = sync_offset_s(self.job.sync_offset, self.job.sync_frames, video.fps)
        return on_video_clock(
            heard(sound, self.config, fps=video.fps, late_s=late_s),
            num_frames=video.num_frames,
            skipped_frames=video.skipped_frames,
            period_s=sound.seconds if self.job.sound_fit == "loop" else None,
        )

    def _start(self) -> Tensor | None:
        """Encode what the video begins with."""
        size, tail = self.video.size, self.inputs.tail
        if tail is not None:
            num_latents = self.job.overlap_latents
            frames = check_tail(tail, size, num_latents, held=True)
            return self.kit.encode(tail_pictures(frames, num_latents))[:, :, -num_latents:]
        start = self.inputs.start
        return None if start is None else self.kit.encode(check_picture("start", start, size))

    def _scripts(self) -> Scripts[ChunkConditions]:
        job, video, kit = self.job, self.video, self.kit
        skipped_s = video.skipped_frames / video.fps
        direction = Direction(
            chunks=video.chunks,
            fps=video.fps,
            cues=later(self.cues, skipped_s),
            snap=job.snap,
            anchors=self.anchors,
            schedule=parse_anchor_schedule(job.anchor_schedule).later(skipped_s),
            guidance=self.guidance,
            hears=self.config.audio,
            sound=self.sound,
            seed=job.seed,
            reroll=job.reroll,
            bridges=job.after_reroll == BRIDGE,
        )
        same = {
            "model": model_ingredient(*kit.parts),
            "sampler": solver_ingredient(job.sampler_name, self.sigmas),
            **common_ingredients(
                shape=video.shape,
                size=video.size,
                negative=text_digest((self.rows[job.negative], {})),
                boundary=kit.boundary,
                prefix_noise=job.prefix_noise,
                colour_guard=job.colour_guard,
            ),
        }
        return Scripts(
            direction,
            same=same,
            text=lambda prompt: text_digest((self.rows[prompt], {})),
            conditions=self._conditions,
        )

    def _conditions(self, cue: Cue) -> ChunkConditions:
        chunk, guidance, kit = cue.chunk, cue.guidance, self.kit
        audio = self._windows(chunk)
        if self.sound is None:
            guidance = Guidance(text_scale=guidance.text_scale, audio_scale=0.0)
        return ChunkConditions(
            context=self.rows[cue.prompt].to(kit.device, kit.dtype),
            negative_context=self.rows[self.job.negative].to(kit.device, kit.dtype),
            audio=None if audio is None else audio.unsqueeze(0).to(kit.device),
            anchors=AnchorSet(tuple(self._on_device(anchor) for anchor in cue.anchors)),
            guidance=guidance,
            prefix_noise=self.job.prefix_noise if chunk.num_prefix else 0.0,
        )

    def _windows(self, chunk: Chunk) -> Tensor | None:
        """Return what a chunk hears (T, W, A); a model with ears that is given no sound hears silence."""
        hears, start = self.config.audio, chunk.latents.start
        if hears is None:
            return None
        if self.sound is None:
            return silent_windows(hears, self.video.fps, start, chunk.num_latents)
        return branch_windows(hears, self.sound, start, chunk.num_latents)

    def _on_device(self, anchor: Anchor) -> Anchor:
        """Return an anchor whose latent is the same object every time, by which a cache knows it again."""
        place = (anchor.role, anchor.slot)
        if place not in self._latents:
            self._latents[place] = anchor.latent.to(self.kit.device)
        return replace(anchor, latent=self._latents[place])

    def _settings(self) -> dict[str, object]:
        """Return what a person wants to find in run.json."""
        job, video = self.job, self.video
        return {
            "model": self.config.name,
            "seconds": job.seconds,
            "fps": video.fps,
            "width": video.size[0],
            "height": video.size[1],
            "seed": job.seed,
            "steps": job.steps,
            "chunk_latents": video.chunks[0].num_latents,
            "overlap_latents": job.overlap_latents,
            "text_guidance": job.text_guidance,
            "audio_guidance": job.audio_guidance,
            "reroll": job.reroll,
        }

    def _notes(self) -> tuple[str, ...]:
        job, video = self.job, self.video
        cues = later(self.cues, video.skipped_frames / video.fps)
        lost = lost_cues(cues, video.chunks, video.fps, job.snap)
        return (*lost, *parse_anchor_schedule(job.anchor_schedule).missing(self.anchors))


class _LateSampler:
    """The core's sampler around a network that is loaded when the first chunk is sampled."""

    def __init__(self, kit: Kit, sigmas: Tensor, solver: str) -> None:
        self._kit, self._sigmas, self._solver = kit, sigmas, solver_named(solver)
        self._sampler: ChunkSampler[ChunkConditions] | None = None

    def __call__(self, job: ChunkJob[ChunkConditions]) -> Tensor:
        """Sample one chunk."""
        if self._sampler is None:
            network = self._kit.network()
            self._sampler = chunk_sampler(
                network.denoiser,
                solver=self._solver,
                sigmas=self._sigmas,
                cache=network.cache,
                together=network.together,
            )
        return self._sampler(job).cpu()
