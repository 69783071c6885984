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


def write_prepared(cache: Cache, prepared: Prepared) -> Path:
    """Write a prepared dataset into its cache, in place of one of the same manifest and encoder.

    Raises:
        DatasetError: the disk refuses.
    """
    encoder = digest_of(prepared.codec, prepared.video_id, prepared.text_id, prepared.audio_id)
    path = cache.sets / f"{prepared.manifest}.{encoder[:8]}.json"
    with written_whole(path, kind=DatasetError) as partial:
        partial.write_text(json.dumps(asdict(prepared), ensure_ascii=False), encoding="utf-8")
    return path


def find_prepared(cache: Cache, manifest: str, codec: str) -> Prepared:
    """Return the latest prepared form of a manifest for a latent space.

    Args:
        cache: where it was prepared to.
        manifest: the manifest's digest.
        codec: the latent space that is wanted.

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
    for prepared in found:
        if prepared.codec == codec:
            return prepared
    raise DatasetError(
        f"The dataset was prepared with the VAE of {found[0].codec!r}; the model works in {codec!r}: prepare it with "
        "the VAE that belongs to the model."
    )


def read_prepared(path: Path) -> Prepared:
    """Read a prepared dataset; DatasetError where the file is damaged or of another version."""
    try:
        return read_dataclass(Prepared, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError) as error:
        raise DatasetError(f"The prepared dataset {path.name} cannot be read ({error}); prepare it again.") from error


def without(prepared: Prepared, lost: frozenset[str]) -> Prepared:
    """Return a dataset less some entries: anchors and pieces that need them, and clips that have no piece left."""
    clips = []
    for clip in prepared.clips:
        pieces = tuple(piece for piece in clip.pieces if piece.key not in lost)
        if pieces and not lost.intersection(prompt.text_key for prompt in clip.prompts):
            anchors = tuple(anchor for anchor in clip.anchors if anchor.key not in lost)
            audio = "" if clip.audio_key in lost else clip.audio_key
            clips.append(replace(clip, pieces=pieces, anchors=anchors, audio_key=audio))
    return replace(prepared, clips=tuple(clips))
