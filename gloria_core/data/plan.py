"""From a manifest to what has to be encoded: nothing is decoded here but headers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..errors import DatasetError, GloriaError
from ..media import MediaInfo, exact_rate, probe
from ..runs.digest import digest_of
from ..sampling.chunks import num_latents_for
from ..types import AnchorRole
from .buckets import Sizes, areas_for, bucket_size, cut, on_clock, shown_frames
from .cache import Cache
from .encoders import EncoderIds
from .manifest import NONE, OWN, AnchorSource, Clip, Manifest
from .openings import pictures_at, places_of
from .pictures import anchor_size, check_crop, cover, read_picture
from .prepared import (
    ELSEWHERE,
    PreparedAnchor,
    PreparedClip,
    PreparedFace,
    PreparedOpening,
    PreparedPiece,
    PreparedPrompt,
)
from .problems import Problem
from .shots import Shot


@dataclass(frozen=True, slots=True)
class Film:
    """A video as a clip uses it."""

    path: Path
    digest: str
    """Of the file's contents."""
    info: MediaInfo
    fps: Fraction


@dataclass(frozen=True, slots=True)
class Still:
    """A picture file to encode."""

    key: str
    path: Path
    size: tuple[int, int]
    crop: tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask to bring to the latents of a piece."""

    key: str
    path: Path
    size: tuple[int, int]
    """Of the piece, in pixels."""
    latents: tuple[int, int]
    """Height and width in latents."""


@dataclass(slots=True, eq=False)
class Plan:
    """Everything that a dataset needs, each thing once; keys are the cache's."""

    shots: dict[Path, dict[str, Shot]] = field(default_factory=dict)
    stills: dict[str, Still] = field(default_factory=dict)
    masks: dict[str, MaskFile] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, Path] = field(default_factory=dict)
    clips: list[PreparedClip] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    """Which clip each key was first wanted by, for messages."""
    films: dict[str, Film] = field(default_factory=dict)
    """The source video of each clip, by the clip's id."""

    def text(self, text: str, text_id: str) -> str:
        """Add a text for an encoder of an id, and return its key."""
        key = digest_of("text", text, text_id)
        self.texts[key] = text
        return key


def make_plan(
    manifest: Manifest, encoder: EncoderIds, cache: Cache, sizes: Sizes, look: Callable[[str], None] = lambda clip: None
) -> Plan:
    """Plan what a manifest's clips need; clips that cannot be used are left out and named.

    Args:
        manifest: the clips.
        encoder: what will encode them.
        cache: remembers digests of files.
        sizes: the dataset's settings.
        look: is told each clip's id before its files are looked at, which takes a while where they are large.
    """
    planner = _Planner(manifest, encoder, cache, sizes)
    for clip in manifest.clips:
        look(clip.id)
        try:
            planner.add(clip)
        except GloriaError as error:
            planner.plan.problems.append(Problem(clip.id, str(error).rstrip("."), "The clip is left out", stops=True))
    return planner.plan


class _Planner:
    def __init__(self, manifest: Manifest, encoder: EncoderIds, cache: Cache, sizes: Sizes) -> None:
        self.manifest, self.encoder, self.cache, self.sizes = manifest, encoder, cache, sizes
        self.fps = exact_rate(sizes.fps)
        self.plan = Plan()
        self._probed: dict[Path, MediaInfo] = {}

    def add(self, clip: Clip) -> None:
        """Plan a clip; GloriaError where it cannot be used."""
        source = self._source(clip.video, clip.fps)
        pieces = self._pieces(clip, source)
        prompts = clip.prompts or ()
        prepared = PreparedClip(
            id=clip.id,
            character=clip.character,
            category=clip.category,
            weight=clip.weight,
            regularisation=clip.regularisation,
            num_source_frames=on_clock(source.info.num_frames, source.fps, self.fps),
            audio_key=self._sound(clip, source),
            prompts=tuple(
                PreparedPrompt(frame=on_clock(p.frame, source.fps, self.fps), text_key=self._text(p.text))
                for p in prompts
            )
            or (PreparedPrompt(frame=0, text_key=self._text("")),),
            anchors=(*self._anchors(clip, source, pieces),),
            pieces=pieces,
            faces=self._faces(clip, source),
        )
        self.plan.clips.append(prepared)
        self.plan.films[clip.id] = source
        for key in _keys(prepared):
            self.plan.owners.setdefault(key, clip.id)

    def _source(self, name: str, fps: float = 0.0) -> Film:
        path = self.manifest.path(name)
        if path not in self._probed:
            self._probed[path] = probe(path)
        info = self._probed[path]
        if not info.has_video or info.num_frames < 1 or not (fps or info.fps):
            raise DatasetError(f"{path} has no moving pictures, or its header does not tell how many; export it again")
        return Film(path, self.cache.digest_of_file(path), info, exact_rate(fps or info.fps))

    def _pieces(self, clip: Clip, source: Film) -> tuple[PreparedPiece, ...]:
        count = source.info.num_frames
        wanted = clip.frames or range(count)
        if wanted.stop > count:
            raise DatasetError(
                f"frames {wanted.start}..{wanted.stop} are asked for, and {source.path.name} has {count}; end at "
                f"{count} at most"
            )
        first, shown = shown_frames(wanted, source.fps, self.fps)
        parts = cut(len(shown), self.sizes)
        if not parts:
            raise DatasetError(
                f"the clip has {len(shown)} frames at {self.sizes.fps:g} fps, and the shortest piece has "
                f"{self.sizes.shortest}; use a longer part, or a smaller 'shortest'"
            )
        width, height = source.info.width, source.info.height
        pieces = []
        for area in areas_for(width, height, self.sizes.areas):
            size = bucket_size(width, height, area, self.encoder.grid_px)
            mask = self._mask(clip, size)
            for part in parts:
                frames = tuple(shown[part.start : part.stop])
                shot = self._shot(source, frames, size, None)
                pieces.append(
                    PreparedPiece(
                        key=shot.key,
                        start=first + part.start,
                        num_latents=num_latents_for(len(frames)),
                        height=size[1] // self.encoder.stride_px,
                        width=size[0] // self.encoder.stride_px,
                        box=cover(width, height, size).box,
                        mask_key=mask,
                        openings=self._openings(source, frames, size),
                        seen_key=self._seen(source, frames[0], size),
                    )
                )
        return tuple(pieces)

    def _openings(self, source: Film, frames: tuple[int, ...], size: tuple[int, int]) -> tuple[PreparedOpening, ...]:
        """Return what a model with image channels is shown of a piece's source frames, wherever a clip can begin."""
        if self.encoder.pictures is None:
            return ()
        openings, num_latents = [], num_latents_for(len(frames))
        for offset, prefix in places_of(num_latents, self.sizes.prefix_latents):
            where = pictures_at(offset, prefix)
            shown, length = frames[where.start : where.stop], num_latents - offset
            key = digest_of("known", source.digest, shown, length, size, self.encoder.video_id)
            self._keep(source, Shot(key, shown, size, use="known", num_latents=length))
            openings.append(PreparedOpening(key=key, offset=offset, num_prefix=prefix))
        return tuple(openings)

    def _seen(self, source: Film, frame: int, size: tuple[int, int]) -> str:
        if self.encoder.pictures is None or not self.encoder.pictures.clip_id:
            return ""
        key = digest_of("seen", source.digest, frame, size, self.encoder.pictures.clip_id)
        return self._keep(source, Shot(key, (frame,), size, use="seen")).key

    def _anchors(self, clip: Clip, source: Film, pieces: tuple[PreparedPiece, ...]) -> Iterator[PreparedAnchor]:
        for anchor in clip.anchors:
            try:
                yield from self._anchor(clip, source, anchor, pieces)
            except GloriaError as error:
                told = f"the {anchor.name} anchor is left out: {error}".rstrip(".")
                self.plan.problems.append(Problem(clip.id, told, "Mend the picture or take it out of the list"))
        if not any(anchor.role == AnchorRole.GLOBAL for anchor in clip.anchors):
            for piece in pieces:  # the first latent of a film is what its first frame alone would be encoded to
                yield PreparedAnchor(
                    role=str(AnchorRole.GLOBAL),
                    slot="",
                    key=piece.key,
                    frame=piece.start,
                    height=piece.height,
                    width=piece.width,
                    opens=True,
                )

    def _anchor(
        self, clip: Clip, source: Film, anchor: AnchorSource, pieces: tuple[PreparedPiece, ...]
    ) -> Iterator[PreparedAnchor]:
        own = self.manifest.own_video(clip, anchor)
        frame = on_clock(anchor.frame, source.fps, self.fps) if own and anchor.frame is not None else ELSEWHERE
        if anchor.picture:
            path = self.manifest.path(anchor.picture)
            height, width = read_picture(path).shape[:2]
        else:
            film = source if own else self._source(anchor.video)
            path, width, height = film.path, film.info.width, film.info.height
            if anchor.frame is None or anchor.frame >= film.info.num_frames:
                raise DatasetError(f"frame {anchor.frame} is not in {path.name}, which has {film.info.num_frames}")
        check_crop(path, width, height, anchor.crop)
        inner = (anchor.crop[2], anchor.crop[3]) if anchor.crop else (width, height)
        for size in self._anchor_sizes(anchor, inner, pieces):
            if anchor.picture:
                key = digest_of("still", self.cache.digest_of_file(path), anchor.crop, size, self.encoder.video_id)
                self.plan.stills[key] = Still(key, path, size, anchor.crop)
            else:
                key = self._shot(film, (anchor.frame or 0,), size, anchor.crop).key
            yield PreparedAnchor(
                role=str(anchor.role),
                slot=anchor.slot,
                key=key,
                frame=frame,
                height=size[1] // self.encoder.stride_px,
                width=size[0] // self.encoder.stride_px,
            )

    def _anchor_sizes(
        self, anchor: AnchorSource, inner: tuple[int, int], pieces: tuple[PreparedPiece, ...]
    ) -> set[tuple[int, int]]:
        """Return the sizes of an anchor: the video's for the global one (paper 4.1), its own for all others."""
        if anchor.role == AnchorRole.GLOBAL:
            stride = self.encoder.stride_px
            return {(piece.width * stride, piece.height * stride) for piece in pieces}
        return {anchor_size(*inner, self.sizes.largest_anchor, self.encoder.grid_px)}

    def _shot(
        self,
        source: Film,
        frames: tuple[int, ...],
        size: tuple[int, int],
        crop: tuple[int, int, int, int] | None,
    ) -> Shot:
        key = digest_of("film", source.digest, frames, size, crop, self.encoder.video_id)
        return self._keep(source, Shot(key, frames, size, crop))

    def _keep(self, source: Film, shot: Shot) -> Shot:
        return self.plan.shots.setdefault(source.path, {}).setdefault(shot.key, shot)

    def _text(self, text: str) -> str:
        return self.plan.text(text, self.encoder.text_id)

    def _faces(self, clip: Clip, source: Film) -> tuple[PreparedFace, ...]:
        faces = sorted(clip.faces, key=lambda face: face.frame)
        return tuple(PreparedFace(frame=on_clock(f.frame, source.fps, self.fps), box=f.box) for f in faces)

    def _sound(self, clip: Clip, source: Film) -> str:
        if not self.encoder.audio_id or clip.audio == NONE or (clip.audio == OWN and not source.info.has_audio):
            return ""
        path = source.path if clip.audio == OWN else self.manifest.path(clip.audio)
        digest = source.digest if clip.audio == OWN else self.cache.digest_of_file(path)
        key = digest_of("sound", digest, str(self.fps), self.encoder.audio_id)
        self.plan.sounds[key] = path
        return key

    def _mask(self, clip: Clip, size: tuple[int, int]) -> str:
        if not clip.mask:
            return ""
        path, stride = self.manifest.path(clip.mask), self.encoder.stride_px
        latents = (size[1] // stride, size[0] // stride)
        key = digest_of("mask", self.cache.digest_of_file(path), size, latents)
        self.plan.masks[key] = MaskFile(key, path, size, latents)
        return key


def _keys(clip: PreparedClip) -> Iterable[str]:
    yield from (key for piece in clip.pieces for key in piece.keys)
    yield from (piece.mask_key for piece in clip.pieces if piece.mask_key)
    yield from (anchor.key for anchor in clip.anchors)
    yield from (prompt.text_key for prompt in clip.prompts)
    if clip.audio_key:
        yield clip.audio_key
