"""A dataset that was prepared: what its clips are on the model's clock, and where each part lies in the cache."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import ConfigError, DatasetError
from ..runs.digest import digest_of
from ..tables import read_dataclass
from ..whole import written_whole
from .cache import Cache

SCHEMA = 1
ELSEWHERE = -1
"""Stands for the frame of an anchor that is not of the clip's own video, or whose frame is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAnchor:
    """An encoded picture of the character; sides in latents."""

    role: str
    slot: str
    key: str
    frame: int = ELSEWHERE
    """Where in the clip's source video it is from."""
    height: int
    width: int
    opens: bool = False
    """Whether it is the first latent of an encoded piece, rather than an entry of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedOpening:
    """What a model with image channels is shown where a training clip begins: pictures, and grey behind them."""

    key: str
    offset: int
    """Latent of the piece that the clip begins with."""
    num_prefix: int
    """Latents that are known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPiece:
    """Encoded frames of a clip, in one go; sides in latents."""

    key: str
    start: int
    """First frame, in the source video."""
    num_latents: int
    height: int
    width: int
    box: tuple[float, float, float, float]
    """Part of the source's picture that is shown: left, top, right and bottom in pixels."""
    mask_key: str = ""
    """Where the loss counts more; empty where faces tell it, or nothing does."""
    openings: tuple[PreparedOpening, ...] = ()
    """Where clips can begin for a model with image channels; empty where they can begin anywhere."""
    seen_key: str = ""
    """What CLIP vision sees in the first frame; empty where the model has no image branch."""

    @property
    def keys(self) -> frozenset[str]:
        """The entries that it cannot be used without."""
        shown = {self.seen_key} if self.seen_key else set()
        return frozenset({self.key, *shown, *(opening.key for opening in self.openings)})

    def opening(self, offset: int) -> PreparedOpening:
        """Return what is shown where a clip begins; DatasetError where none can."""
        for opening in self.openings:
            if opening.offset == offset:
                return opening
        raise DatasetError(f"No picture was prepared for latent {offset} of a piece; prepare the dataset again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPrompt:
    """A text that holds from a frame of the source video on."""

    frame: int
    text_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFace:
    """A face in a frame: left, top, width and height in pixels of the source's picture."""

    frame: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedClip:
    """A clip; all frames are counted on the model's clock, from the source video's start."""

    id: str
    character: str
    category: str
    weight: float
    regularisation: bool
    num_source_frames: int
    audio_key: str
    """Empty where there is no sound."""
    prompts: tuple[PreparedPrompt, ...]
    anchors: tuple[PreparedAnchor, ...]
    pieces: tuple[PreparedPiece, ...]
    faces: tuple[PreparedFace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A whole dataset as one encoder saw it."""

    schema: int = SCHEMA
    manifest: str
    """Digest of the manifest's lines."""
    codec: str
    """The latent space."""
    video_id: str
    text_id: str
    audio_id: str
    audio_kind: str
    """As `AudioConfig.kind` names it; empty where no sound was encoded."""
    fps: float
    clips: tuple[PreparedClip, ...]
    sample_text_keys: tuple[str, ...] = ()
    """Prompts that samples are made of, beside the clips' own."""
    empty_text_key: str = ""
    """The empty text, which guided samples are compared with; empty in datasets prepared without."""
    pictures_id: str = ""
    """Id of what a model with image channels is shown; empty for every other."""


def write_prepared(cache: Cache, prepared: Prepared) -> Path:
    """Write a prepared dataset into its cache, in place of one of the same manifest and encoder.

    Raises:
        DatasetError: the disk refuses.
    """
    pictures = [prepared.pictures_id] if prepared.pictures_id else []
    encoder = digest_of(prepared.codec, prepared.video_id, prepared.text_id, prepared.audio_id, *pictures)
    path = cache.sets / f"{prepared.manifest}.{encoder[:8]}.json"
    with written_whole(path, kind=DatasetError) as partial:
        partial.write_text(json.dumps(asdict(prepared), ensure_ascii=False), encoding="utf-8")
    return path


def find_prepared(cache: Cache, manifest: str, codec: str, *, has_openings: bool, has_seen: bool) -> Prepared:
    """Return the latest prepared form of a manifest for a latent space.

    Of several, one with what a model is shown of pictures is taken where it is wanted.

    Args:
        cache: where it was prepared to.
        manifest: the manifest's digest.
        codec: the latent space that is wanted.
        has_openings: whether the model has image channels.
        has_seen: whether it has an image branch, which CLIP vision feeds.

    Raises:
        DatasetError: it was not prepared, not since the manifest was changed, or with the VAE of another model.
    """
    files = sorted(cache.sets.glob(f"{manifest}.*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    if not files:
        raise DatasetError(
            f"The dataset was not prepared into {cache.folder}, or was changed since: prepare it again (what has not "
            "changed is not encoded again)."
        )
    found = [read_prepared(path) for path in files]
    fit = [prepared for prepared in found if prepared.codec == codec]
    if fit:
        return max(fit, key=lambda prepared: _num_fitting(prepared, has_openings=has_openings, has_seen=has_seen))
    raise DatasetError(
        f"The dataset was prepared with the VAE of {found[0].codec!r}; the model works in {codec!r}: prepare it with "
        "the VAE that belongs to the model."
    )


def _num_fitting(prepared: Prepared, *, has_openings: bool, has_seen: bool) -> int:
    pieces = [piece for clip in prepared.clips for piece in clip.pieces]
    return (any(piece.openings for piece in pieces) == has_openings) + (
        any(piece.seen_key for piece in pieces) == has_seen
    )


def read_prepared(path: Path) -> Prepared:
    """Read a prepared dataset; DatasetError where the file is damaged or of another version."""
    try:
        return read_dataclass(Prepared, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise DatasetError(f"The prepared dataset {path.name} cannot be read ({error}); prepare it again.") from error


def without(prepared: Prepared, lost: frozenset[str]) -> Prepared:
    """Return a dataset less some entries: anchors, masks, pieces that need them, and clips that have no piece left."""
    clips = []
    for clip in prepared.clips:
        pieces = tuple(_unmasked(piece, lost) for piece in clip.pieces if lost.isdisjoint(piece.keys))
        if pieces and not lost.intersection(prompt.text_key for prompt in clip.prompts):
            anchors = tuple(anchor for anchor in clip.anchors if anchor.key not in lost)
            audio = "" if clip.audio_key in lost else clip.audio_key
            clips.append(replace(clip, pieces=pieces, anchors=anchors, audio_key=audio))
    texts = tuple(key for key in prepared.sample_text_keys if key not in lost)
    return replace(prepared, clips=tuple(clips), sample_text_keys=texts)


def _unmasked(piece: PreparedPiece, lost: frozenset[str]) -> PreparedPiece:
    return replace(piece, mask_key="") if piece.mask_key in lost else piece


def without_openings(prepared: Prepared) -> Prepared:
    """Return a dataset for a model without image channels, whose clips may begin anywhere."""
    clips = tuple(
        replace(clip, pieces=tuple(replace(piece, openings=(), seen_key="") for piece in clip.pieces))
        for clip in prepared.clips
    )
    return replace(prepared, clips=clips)
