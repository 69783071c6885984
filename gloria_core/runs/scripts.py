"""What happens in a video and when, as the scripts of its chunks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..audio import branch_windows
from ..config import AudioConfig
from ..sampling.anchor_schedule import AnchorSchedule, parse_anchor_schedule
from ..sampling.chunks import Chunk
from ..sampling.guidance import Guidance
from ..sampling.prompts import PromptCue, cue_for_chunk
from ..sampling.seeds import chunk_seed, take_seed
from ..types import AnchorSet, AudioFeatures
from .chunk_file import Ingredient
from .digest import digest_of
from .ingredients import anchors_ingredient
from .job import Script
from .reroll import Reroll, by_chunk, parse_rerolls

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Direction:
    """A video as it is directed. All times are on the clock of the latents, which begins with frames not shown."""

    chunks: tuple[Chunk, ...]
    fps: float
    cues: tuple[PromptCue, ...]
    snap: str
    """To which chunk prompts and anchors move that change inside of one."""
    anchors: AnchorSet
    schedule: AnchorSchedule
    guidance: Guidance
    hears: AudioConfig | None
    """How the model listens; None where it is deaf."""
    sound: AudioFeatures | None
    seed: int
    reroll: str
    """Chunks to make again; see `runs.reroll`."""
    bridges: bool
    """Whether re-rolled chunks lead back to the later ones unless their line says otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Cue:
    """What one chunk is told."""

    chunk: Chunk
    prompt: str
    anchors: AnchorSet
    guidance: Guidance


class Scripts(Generic[C]):
    """Tells what each chunk is made from.

    Args:
        direction: the video.
        same: what all chunks have in common: model, solver, size.
        text: gives the digest of a prompt as it is encoded; asked once for each.
        conditions: gives what the sampler needs for a chunk.
        more: gives what else a chunk is made from.

    Raises:
        PlanError: a re-roll cannot be read or names what is not there.
    """

    def __init__(
        self,
        direction: Direction,
        *,
        same: Mapping[str, Ingredient],
        text: Callable[[str], str],
        conditions: Callable[[Cue], C],
        more: Callable[[Chunk], Mapping[str, Ingredient]] = lambda _chunk: {},
    ) -> None:
        self.direction, self._same, self._text, self._conditions, self._more = direction, same, text, conditions, more
        self.rerolls = by_chunk(parse_rerolls(direction.reroll), direction.chunks, direction.fps)
        self._digests: dict[str, str] = {}
        self._entries = {
            index: parse_anchor_schedule(f"0:00 {reroll.anchors}")
            for index, reroll in self.rerolls.items()
            if reroll.anchors
        }

    def __call__(self, chunk: Chunk, attempt: int) -> Script[C]:
        """Return the chunk as it is wanted now."""
        return self._script(chunk, self.rerolls.get(chunk.index), attempt)

    def plain(self, chunk: Chunk) -> Script[C]:
        """Return the chunk without a re-roll."""
        return self._script(chunk, None, 0)

    def prompt(self, chunk: Chunk) -> str:
        """Return the text that a chunk is made with."""
        return self._told(chunk, self.rerolls.get(chunk.index)).prompt

    def _told(self, chunk: Chunk, reroll: Reroll | None) -> Cue:
        told = self.direction
        cue = cue_for_chunk(told.cues, chunk, told.fps, told.snap)
        prompt = reroll.prompt if reroll and reroll.prompt else cue.text
        own = self._entries.get(chunk.index) if reroll is not None else None
        anchors = (own or told.schedule).for_chunk(told.anchors, chunk, told.fps, told.snap)
        return Cue(chunk, prompt, anchors, cue.guidance(told.guidance))

    def _script(self, chunk: Chunk, reroll: Reroll | None, attempt: int) -> Script[C]:
        told, seed = self._told(chunk, reroll), self._seed(chunk, reroll, attempt)
        scales = [told.guidance.text_scale, 0.0 if self.direction.sound is None else told.guidance.audio_scale]
        parts = {
            **self._same,
            "prompt": Ingredient(self._text_digest(told.prompt), told.prompt),
            "anchors": anchors_ingredient(told.anchors),
            "guidance": Ingredient(digest_of(scales), "text {:g}, sound {:g}".format(*scales)),
            "seed": Ingredient(str(seed), str(seed)),
            **self._sound(chunk),
            **self._more(chunk),
        }
        bridges = self.direction.bridges if reroll is None or reroll.bridge is None else reroll.bridge
        return Script(
            chunk=chunk,
            seed=seed,
            prompt=told.prompt,
            ingredients=parts,
            conditions=lambda: self._conditions(told),
            take=reroll.take if reroll else None,
            bridge=reroll is not None and bridges,
        )

    def _seed(self, chunk: Chunk, reroll: Reroll | None, attempt: int) -> int:
        if reroll is not None and reroll.seed is not None:
            return reroll.seed if attempt == 0 else chunk_seed(reroll.seed, attempt)
        return take_seed(self.direction.seed, chunk.index, (reroll.attempt if reroll else 0) + attempt)

    def _text_digest(self, prompt: str) -> str:
        if prompt not in self._digests:
            self._digests[prompt] = self._text(prompt)
        return self._digests[prompt]

    def _sound(self, chunk: Chunk) -> dict[str, Ingredient]:
        sound, hears = self.direction.sound, self.direction.hears
        if sound is None or hears is None:
            return {}
        heard = branch_windows(hears, sound, chunk.latents.start, chunk.num_latents)
        return {"sound": Ingredient(digest_of(heard.float()))}
