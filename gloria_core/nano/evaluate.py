"""Measures gloria-nano on characters it has never seen, against the renderer's own truth.

``python -m gloria_core.nano.evaluate [--characters N] [--out FOLDER]`` writes a table (Markdown and JSON) and contact
sheets. Every recogniser is the renderer itself: the made picture is compared with renders of each possible answer in
the same pose, and the nearest one is what the picture shows.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ..audio import windows
from ..model import AnchorCache
from ..types import EXPRESSIONS, VIEWS, AnchorSet, TrainBatch
from .bundle import WEIGHTS_FILE, Bundle, load_bundle
from .captions import caption
from .characters import COLOURS, SHAPES, Characters
from .render import Poses, render
from .scenes import CHUNK_LATENTS, PREFIX_LATENTS, AnchorLatents, Speech, draw_anchors
from .sheet import sample_clips
from .speech import HELDOUT_FILE
from .text import tokenize
from .textures import paint
from .timeline import CHUNK_FRAMES, FIRST_CHUNK_FRAMES, Commands, State, run

_log = logging.getLogger(__name__)
_FRONT, _BACK, _LEFT, _RIGHT = 0, 1, 2, 3
_TORSO = (slice(30, 54), slice(11, 37))
_HEAD = (slice(4, 32), slice(8, 40))
_OPENINGS = torch.linspace(0, 1, 6)
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """The characters of an evaluation, their anchors and the sound each one hears."""

    who: Characters
    anchors: AnchorLatents
    speech: list[Speech]


def cast(bundle: Bundle, num: int, num_chunks: int, seed: int) -> Cast:
    """Draw characters that no training run has seen (its seeds are far away), with plain anchors."""
    generator = torch.Generator().manual_seed(777_000_000 + seed)
    who = Characters.random(num, generator)
    anchors = [draw_anchors(paint(who.index(i)), bundle.codec) for i in range(num)]
    merged = AnchorLatents(*(torch.cat([getattr(a, f.name) for a in anchors]) for f in fields(AnchorLatents)))
    heard, frames = Speech.read(HELDOUT_FILE), FIRST_CHUNK_FRAMES + CHUNK_FRAMES * (num_chunks - 1) + 3
    copies = math.ceil((frames + 1) / len(heard.opening)) + 1
    mel = replace(heard.mel, frames=heard.mel.frames.repeat(copies, 1))
    heard = Speech(mel, heard.opening.repeat(copies))
    return Cast(who, merged, [heard.random_piece(frames, generator, silence=0.0) for _ in range(num)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How videos are made."""

    steps: int = 8
    sound: bool = True
    seed: int = 0


DEFAULT = Settings()


@torch.no_grad()
def rollout(
    bundle: Bundle,
    modules: Mapping[str, nn.Module],
    cast: Cast,
    commands: Commands,
    anchors: AnchorSet | None,
    settings: Settings,
) -> Tensor:
    """Make whole videos chunk by chunk: (N, 3, F, 64, 48), the start frame being the global anchor's picture."""
    videos = []
    for start in range(0, len(cast.who), _BATCH):
        rows = slice(start, start + _BATCH)
        part = None if anchors is None else AnchorSet(tuple(replace(a, latent=a.latent[rows]) for a in anchors))
        latents, cache = cast.anchors.scene[rows], AnchorCache()
        for chunk in range(commands.view.shape[1]):
            prefix = 1 if chunk == 0 else PREFIX_LATENTS
            first = 0 if chunk == 0 else latents.shape[2] - PREFIX_LATENTS
            heard = torch.stack([windows(s.mel, first, CHUNK_LATENTS) for s in cast.speech[rows]])
            clip = latents.new_zeros(*latents.shape[:2], CHUNK_LATENTS, *latents.shape[3:])
            clip[:, :, :prefix] = latents[:, :, -prefix:]
            before = commands.view[rows, max(0, chunk - 1)]
            told = zip(commands.view[rows, chunk], commands.emotion[rows, chunk], before, strict=True)
            texts = [caption(VIEWS[int(v)], EXPRESSIONS[int(e)], VIEWS[int(b)]) for v, e, b in told]
            request = TrainBatch(
                latents=clip,
                words=torch.tensor([tokenize(text)[0] for text in texts]),
                num_prefix=prefix,
                audio=heard if settings.sound else torch.zeros_like(heard),
                anchors=part,
            )
            seed = settings.seed * 1000 + chunk + 100_000 * start
            made = sample_clips(modules, request, steps=settings.steps, seed=seed, cache=cache)
            latents = torch.cat([latents, made[:, :, prefix:]], dim=2)
        videos.append(bundle.codec.decode(latents).clamp(-1, 1))
    return torch.cat(videos)


def truth(cast: Cast, commands: Commands, emotion: Tensor) -> Poses:
    """Return what the characters should do, with the camera at rest."""
    num = len(cast.who)
    motion = run(State(torch.zeros(num), emotion), commands)
    frames = motion.yaw.shape[1]
    mouth = torch.stack([s.opening[:frames] for s in cast.speech])
    return Poses(motion.yaw, motion.emotion, mouth, torch.zeros(num, frames, 2))


def nearest(
    made: Tensor,
    who: Characters,
    poses: Poses,
    options: list[Callable[[Characters, Poses], tuple[Characters, Poses]]],
    window: tuple[slice, slice],
) -> Tensor:
    """Return which option's render is nearest to each picture.

    Args:
        made: (N, 3, 64, 48).
        who: N characters.
        poses: one frame each (F = 1).
        options: each changes characters or poses to one possible answer.
        window: rows and columns that are compared.
    """
    errors = []
    for option in options:
        picture = render(*option(who, poses), background=True)[:, :, 0]
        errors.append((picture[:, :, *window] - made[:, :, *window]).square().mean(dim=(1, 2, 3)))
    return torch.stack(errors).argmin(0)


def _with(name: str, value: int) -> Callable[[Characters, Poses], tuple[Characters, Poses]]:
    return lambda who, poses: (replace(who, **{name: torch.full_like(getattr(who, name), value)}), poses)


def _logo(shape: int, colour: int) -> Callable[[Characters, Poses], tuple[Characters, Poses]]:
    def change(who: Characters, poses: Poses) -> tuple[Characters, Poses]:
        whole = replace(
            who, back_shape=torch.full_like(who.back_shape, shape), back_colour=torch.full_like(who.back_colour, colour)
        )
        return whole, poses

    return change


def _mood(emotion: int) -> Callable[[Characters, Poses], tuple[Characters, Poses]]:
    def change(who: Characters, poses: Poses) -> tuple[Characters, Poses]:
        weights = torch.zeros_like(poses.emotion)
        weights[..., emotion] = 1
        return who, replace(poses, emotion=weights)

    return change


def _cheek(colour: int) -> Callable[[Characters, Poses], tuple[Characters, Poses]]:
    return lambda who, poses: (replace(who, cheek=torch.full_like(who.cheek, colour)), poses)


def _open(amount: float) -> Callable[[Characters, Poses], tuple[Characters, Poses]]:
    return lambda who, poses: (who, replace(poses, mouth=torch.full_like(poses.mouth, amount)))


def _frame(poses: Poses, index: int) -> Poses:
    return poses.part(slice(None), slice(index, index + 1))


def _commands(num: int, views: tuple[int, ...], emotion: Tensor) -> Commands:
    return Commands(torch.tensor(views).expand(num, -1), emotion)


class Evaluation:
    """All measures of one model on one cast."""

    def __init__(self, bundle: Bundle, num: int, seed: int, mode: str | None = None) -> None:
        self.bundle, self.num, self.seed = bundle, num, seed
        self.modules = {"dit": bundle.model(mode), "text_encoder": bundle.text_encoder}
        self.cast = cast(bundle, num, 3, seed)
        self.neutral = torch.full((num,), EXPRESSIONS.index("neutral"))
        self.sheets: dict[str, Tensor] = {}

    def _roll(self, commands: Commands, anchors: AnchorSet | None, settings: Settings) -> Tensor:
        return rollout(self.bundle, self.modules, self.cast, commands, anchors, replace(settings, seed=self.seed))

    def back(self, name: str, anchors: AnchorSet | None, settings: Settings = DEFAULT) -> dict[str, float]:
        """Turn to the back in two chunks: the back logo at the end, the side badge while passing 90 degrees."""
        commands = _commands(self.num, (_FRONT, _BACK, _BACK), self.neutral[:, None].expand(-1, 3))
        poses = truth(self.cast, commands, self.neutral)
        made = self._roll(commands, anchors, settings)
        self.sheets[name] = torch.stack([render(self.cast.who, poses), made], dim=1)
        last, who = made.shape[2] - 1, self.cast.who
        answers = [(s, c) for s in range(len(SHAPES)) for c in range(len(COLOURS))]
        found = nearest(made[:, :, last], who, _frame(poses, last), [_logo(s, c) for s, c in answers], _TORSO)
        shape, colour = found // len(COLOURS), found % len(COLOURS)
        side = int((poses.yaw[0] + math.pi / 2).abs().argmin())
        options_ = [_with("left_badge", c) for c in range(len(COLOURS))]
        passing = nearest(made[:, :, side], who, _frame(poses, side), options_, _TORSO)
        return {
            "back logo colour": _share(colour == who.back_colour),
            "back logo shape": _share(shape == who.back_shape),
            "left badge in passing": _share(passing == who.left_badge),
        }

    def sides(self, name: str, anchors: AnchorSet | None, settings: Settings = DEFAULT) -> dict[str, float]:
        """Turn to a side in one chunk: the badge's colour."""
        out = {}
        for view, field in ((_LEFT, "left_badge"), (_RIGHT, "right_badge")):
            commands = _commands(self.num, (_FRONT, view), self.neutral[:, None].expand(-1, 2))
            poses, made = truth(self.cast, commands, self.neutral), self._roll(commands, anchors, settings)
            last = made.shape[2] - 1
            answers = [_with(field, c) for c in range(len(COLOURS))]
            found = nearest(made[:, :, last], self.cast.who, _frame(poses, last), answers, _TORSO)
            out[field.replace("_", " ")] = _share(found == getattr(self.cast.who, field))
        return out

    def moods(self, name: str, anchors: AnchorSet | None, settings: Settings = DEFAULT) -> dict[str, float]:
        """Change the mood in front of the camera: expression, cheeks, and the mouth against the speech."""
        sequence = torch.arange(self.num) % (len(EXPRESSIONS) - 1)
        mood = sequence + (sequence >= EXPRESSIONS.index("neutral"))
        emotions = torch.stack([self.neutral, mood], dim=1)
        commands = _commands(self.num, (_FRONT, _FRONT), emotions)
        poses, made = truth(self.cast, commands, self.neutral), self._roll(commands, anchors, settings)
        self.sheets[name] = torch.stack([render(self.cast.who, poses), made], dim=1)
        last = made.shape[2] - 1
        one = _frame(poses, last)
        emotion = nearest(made[:, :, last], self.cast.who, one, [_mood(e) for e in range(len(EXPRESSIONS))], _HEAD)
        cheek = nearest(made[:, :, last], self.cast.who, one, [_cheek(c) for c in range(len(COLOURS))], _HEAD)
        wanted = self.cast.who.cheek.gather(1, mood[:, None])[:, 0]
        frames = range(CHUNK_LATENTS, made.shape[2])
        answers = [_open(float(o)) for o in _OPENINGS]
        opened = torch.stack(
            [_OPENINGS[nearest(made[:, :, f], self.cast.who, _frame(poses, f), answers, _HEAD)] for f in frames], dim=1
        )
        spoken = poses.mouth[:, frames.start :]
        return {
            "emotion": _share(emotion == mood),
            "cheek colour": _share(cheek == wanted),
            "mouth correlation": _correlation(opened, spoken),
            "mouth amplitude": float(opened.std() / spoken.std()),
        }


def drift(bundle: Bundle, modules: Mapping[str, nn.Module], choose: Callable[[AnchorLatents], AnchorSet | None], *,
          num: int, chunks: int, seed: int) -> dict[str, float]:  # fmt: skip
    """Roll out many chunks that go round and home again: PSNR (dB) of an early and of the last chunk at the front."""
    actors = cast(bundle, num, chunks, seed)
    tour = (_FRONT, _LEFT, _FRONT, _RIGHT, _FRONT, _BACK, _BACK, _FRONT, _FRONT)
    views = (*(tour[i % len(tour)] for i in range(chunks - 1)), _FRONT)
    neutral = torch.full((num,), EXPRESSIONS.index("neutral"))
    commands = _commands(num, views, neutral[:, None].expand(-1, chunks))
    made = rollout(bundle, modules, actors, commands, choose(actors.anchors), Settings(seed=seed))
    real = render(actors.who, truth(actors, commands, neutral))

    def quality(chunk: int) -> float:
        frames = slice(FIRST_CHUNK_FRAMES + CHUNK_FRAMES * (chunk - 1), FIRST_CHUNK_FRAMES + CHUNK_FRAMES * chunk)
        return float(10 * torch.log10(4 / (made[:, :, frames] - real[:, :, frames]).square().mean()))

    early, late = quality(2), quality(chunks - 1)
    return {"PSNR early": early, "PSNR late": late, "drop": early - late}


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-9))


def write_sheet(pairs: Tensor, path: Path, *, rows: int = 6, columns: int = 12) -> None:
    """Write truth above picture for some characters: pairs (N, 2, 3, F, H, W)."""
    index = torch.linspace(0, pairs.shape[3] - 1, columns).long()
    chosen = pairs[:rows, :, :, index].clamp(-1, 1)
    picture = chosen.permute(0, 1, 4, 3, 5, 2).flatten(0, 2).flatten(1, 2)
    image = Image.fromarray(((picture + 1) * 127.5).byte().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def evaluate(bundle: Bundle, *, num: int, seeds: int, chunks: int, out: Path) -> dict[str, dict[str, float]]:
    """Run every measure and write table and sheets; numbers are means over the seeds."""
    results: dict[str, list[dict[str, float]]] = {}

    def add(name: str, numbers: dict[str, float]) -> None:
        results.setdefault(name, []).append(numbers)
        _log.info("%s %s", name, {key: round(value, 3) for key, value in numbers.items()})

    for seed in range(seeds):
        run_ = Evaluation(bundle, num, seed)
        select = run_.cast.anchors.select
        full = select(scene=True, views=VIEWS, faces=EXPRESSIONS)
        swapped = AnchorSet(tuple(
            replace(a, slot={"front": "back", "back": "front"}.get(a.slot, a.slot)) for a in full
        ))  # fmt: skip
        add("turn to the back", run_.back("back", full))
        add("turn to the back, 2 steps", run_.back("back-2-steps", full, Settings(steps=2)))
        add("turn to the back, no views", run_.back("back-no-views", select(scene=True, views=(), faces=EXPRESSIONS)))
        add("turn to the back, front and back positions swapped", run_.back("back-swapped", swapped))
        add("turn to a side", run_.sides("sides", full))
        add("turn to a side, no views", run_.sides("sides-no-views", select(scene=True, views=(), faces=EXPRESSIONS)))
        add("moods", run_.moods("moods", full))
        add("moods, 2 steps", run_.moods("moods-2-steps", full, Settings(steps=2)))
        add("moods, no expressions", run_.moods("moods-no-expressions", select(scene=True, views=VIEWS, faces=())))
        add("moods, no audio", run_.moods("moods-no-audio", full, Settings(sound=False)))
        if seed == 0:
            for name, pairs in run_.sheets.items():
                write_sheet(pairs, out / f"{name}.png")
        few = max(4, num // 8)
        add("long rollout", drift(bundle, run_.modules, lambda a: a.select(), num=few, chunks=chunks, seed=seed))
        bare = drift(bundle, run_.modules, lambda a: a.select(scene=False, views=()), num=few, chunks=chunks, seed=seed)
        add("long rollout, no global, no views", bare)
    means = {name: {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]} for name, rows in results.items()}
    lines = [f"| measure ({num} characters, {seeds} seeds) | value |", "|---|---|"]
    lines += [f"| {name}: {key} | {value:.3f} |" for name, numbers in means.items() for key, value in numbers.items()]
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "table.json").write_text(json.dumps(means, indent=1), encoding="utf-8")
    return means


def main() -> None:
    """Read the command line and evaluate."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Measure gloria-nano against the renderer's truth.")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FILE)
    parser.add_argument("--characters", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=50, help="length of the long rollout")
    parser.add_argument("--out", type=Path, default=Path("runs/nano-evaluation"))
    arguments = parser.parse_args()
    began = time.process_time()
    evaluate(
        load_bundle(arguments.weights),
        num=arguments.characters,
        seeds=arguments.seeds,
        chunks=arguments.chunks,
        out=arguments.out,
    )
    _log.info("done in %.0f CPU seconds", time.process_time() - began)


if __name__ == "__main__":
    main()
