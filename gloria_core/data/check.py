"""Looking at a dataset before hours are spent on it: every problem by the file's name, the rule and the way out."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import GloriaError
from ..media import iter_frames, read_audio
from ..types import AnchorRole
from .buckets import Sizes
from .cache import Cache
from .encoders import EncoderIds
from .manifest import Manifest
from .plan import Plan, make_plan
from .prepared import PreparedClip
from .problems import Problem, told

_SILENCE = 1e-3
"""Peak (full scale 1) below which a sound is taken for silence: -60 dB."""
_TINY = 8
"""An anchor of less than a video's pixels over this is tiny."""
_OVERLAP = 0.5
"""Clips that share more than this much of the shorter one are the same footage."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Stands for an encoder where only sizes matter, see `EncoderIds`."""

    grid_px: int = 16
    stride_px: int = 8
    codec: str = ""
    video_id: str = ""
    text_id: str = ""
    audio_id: str = "any"
    audio_kind: str = ""
    pictures: None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a dataset."""

    plan: Plan
    problems: tuple[Problem, ...]
    counts: tuple[tuple[str, str], ...]
    """What there is, by name."""

    @property
    def num_stopping(self) -> int:
        """Problems that must be mended before that footage can be trained on."""
        return sum(problem.stops for problem in self.problems)

    @property
    def text(self) -> str:
        """All of it as lines for a person."""
        lines = [f"{name}: {value}" for name, value in self.counts]
        verdict = "No problems." if not self.problems else told(self.problems)
        return "\n".join([*lines, "", verdict])


def check(
    manifest: Manifest,
    found: Sequence[Problem],
    cache: Cache,
    sizes: Sizes,
    encoder: EncoderIds | None = None,
    *,
    needs_audio: bool = False,
    decode: bool = True,
    look: Callable[[str], None] = lambda what: None,
) -> Report:
    """Look at every file of a dataset.

    Args:
        manifest: the clips.
        found: problems that reading the manifest or the folder has told already.
        cache: remembers digests of files.
        sizes: what the footage will be brought to.
        encoder: of the model that will be trained; None takes the grid of Wan 2.1.
        needs_audio: whether clips without sound are a problem.
        decode: whether videos are decoded to their end, which finds damage and takes as long as playing them fast.
        look: is told what is looked at next; what it raises ends the check.
    """
    plan = make_plan(manifest, encoder or Grid(), cache, sizes, look)
    problems = [*found, *plan.problems]
    for kind in (_one_clip, _rates, _captions, _copies, _small):
        problems += kind(manifest, plan, sizes)
    problems += _sounds(plan, needs_audio=needs_audio, look=look)
    if decode:
        problems += _damage(plan, look)
    return Report(plan, tuple(problems), tuple(_counts(manifest, plan, sizes)))


def _one_clip(manifest: Manifest, plan: Plan, sizes: Sizes) -> Iterator[Problem]:
    if not plan.clips:
        yield Problem("dataset", "no clip can be used", "See the other problems", stops=True)
    elif len(plan.clips) == 1:
        what = "there is one clip, which the model will learn by heart"
        yield Problem("dataset", what, "Add more, or train few steps with a low rank")


def _rates(manifest: Manifest, plan: Plan, sizes: Sizes) -> Iterator[Problem]:
    rates = Counter(round(float(film.fps), 3) for film in plan.films.values())
    other = {rate: count for rate, count in rates.items() if rate != round(sizes.fps, 3)}
    if len(rates) > 1 or other:
        listed = ", ".join(f"{count} at {rate:g}" for rate, count in sorted(rates.items()))
        what = f"frame rates differ from each other or from the model's {sizes.fps:g} ({listed})"
        yield Problem("dataset", what, "Nothing has to be done: each frame shown is the nearest in time")


def _captions(manifest: Manifest, plan: Plan, sizes: Sizes) -> Iterator[Problem]:
    for clip in manifest.clips:
        if not any(prompt.text.strip() for prompt in clip.prompts):
            yield Problem(clip.id, "it has no caption", "Write one into a .txt of the same name")


def _copies(manifest: Manifest, plan: Plan, sizes: Sizes) -> Iterator[Problem]:
    seen: dict[str, list[tuple[str, range]]] = {}
    for clip in manifest.clips:
        film = plan.films.get(clip.id)
        if film is None:
            continue
        frames = clip.frames or range(film.info.num_frames)
        for other, taken in seen.get(film.digest, []):
            shared = min(frames.stop, taken.stop) - max(frames.start, taken.start)
            if shared > _OVERLAP * min(len(frames), len(taken)):
                yield Problem(clip.id, f"it shows the same footage as {other}", "Take one of them out")
                break
        seen.setdefault(film.digest, []).append((clip.id, frames))


def _small(manifest: Manifest, plan: Plan, sizes: Sizes) -> Iterator[Problem]:
    for clip in plan.clips:
        info = plan.films[clip.id].info
        if info.width * info.height * 1.1 < min(sizes.areas):
            what = f"{info.width} x {info.height} pixels are enlarged to {min(sizes.areas)} pixels"
            yield Problem(clip.id, what, "Use larger footage or a smaller size")
        yield from _small_anchors(clip, sizes)
    shapes: dict[tuple[str, str], Counter[tuple[int, int]]] = {}
    for clip in plan.clips:
        for anchor in {a.key: a for a in clip.anchors if a.role != AnchorRole.GLOBAL}.values():
            shapes.setdefault((anchor.role, anchor.slot), Counter())[(anchor.height, anchor.width)] += 1
    for (role, slot), sized in shapes.items():
        if len(sized) > 1:
            what = f"the pictures of the {slot} {role} have {len(sized)} sizes"
            yield Problem("dataset", what, "Crop them alike, or train with batch_size 1: a batch needs one size")


def _small_anchors(clip: PreparedClip, sizes: Sizes) -> Iterator[Problem]:
    largest = max((piece.height * piece.width for piece in clip.pieces), default=1)
    for anchor in clip.anchors:
        if anchor.height * anchor.width * _TINY < largest:
            share = round(100 * anchor.height * anchor.width / largest)
            what = f"the {anchor.slot} {anchor.role} anchor has {share} % of the video's pixels"
            yield Problem(clip.id, what, "Use a larger picture: details that are not there cannot be learned")


def _sounds(plan: Plan, *, needs_audio: bool, look: Callable[[str], None]) -> Iterator[Problem]:
    for clip in plan.clips:
        if not clip.audio_key and needs_audio:
            yield Problem(clip.id, "it has no sound, and this stage needs it", "Add a sound track", stops=True)
    for key, path in plan.sounds.items():
        look(path.name)
        try:
            waveform, _ = read_audio(path)
        except GloriaError as error:
            yield Problem(path.name, str(error).rstrip("."), "Export its sound again", stops=needs_audio)
            continue
        if float(waveform.abs().max()) < _SILENCE:
            what = f"the sound of {plan.owners.get(key, path.name)} is silent"
            yield Problem(path.name, what, 'Add its true sound, or set audio to "none"', stops=needs_audio)


def _damage(plan: Plan, look: Callable[[str], None]) -> Iterator[Problem]:
    for film in {film.path: film for film in plan.films.values()}.values():
        look(film.path.name)
        count = 0
        try:
            for batch in iter_frames(film.path):
                count += len(batch)
        except GloriaError as error:
            yield Problem(film.path.name, str(error).rstrip("."), "Export it again", stops=True)
            continue
        if count < film.info.num_frames:
            what = f"{count} of {film.info.num_frames} frames can be decoded"
            yield Problem(film.path.name, what, "Copy or export it again; sound and pictures may be apart", stops=True)


def _counts(manifest: Manifest, plan: Plan, sizes: Sizes) -> Iterator[tuple[str, str]]:
    pieces = {piece.key: piece for clip in plan.clips for piece in clip.pieces}
    seconds = sum((4 * (piece.num_latents - 1) + 1) / sizes.fps for piece in pieces.values())
    buckets = Counter((piece.width, piece.height) for piece in pieces.values())
    pictures = Counter(
        anchor.slot or str(anchor.role) for clip in plan.clips for anchor in clip.anchors if not anchor.opens
    )
    yield "clips", f"{len(plan.clips)} of {len(manifest.clips)} can be used"
    yield "pieces", f"{len(pieces)}, {seconds:.1f} s in all"
    yield "sizes in latents", ", ".join(f"{w} x {h}: {count}" for (w, h), count in sorted(buckets.items())) or "none"
    yield "with sound", str(sum(bool(clip.audio_key) for clip in plan.clips))
    yield "characters", ", ".join(sorted({clip.character for clip in plan.clips if clip.character})) or "one"
    yield "pictures by slot (over all clips)", ", ".join(f"{s} {n}" for s, n in sorted(pictures.items())) or "none"
