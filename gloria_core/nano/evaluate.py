"""Measures gloria-nano on characters it has never seen, against the renderer's own truth.

``python -m gloria_core.nano.evaluate [--weights FILE] [--characters N] [--jobs P] [--out FOLDER]`` writes a table
(Markdown and JSON) and contact sheets.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..types import EXPRESSIONS, AnchorSet
from .bundle import WEIGHTS_FILE, load_bundle
from .characters import COLOURS, SHAPES
from .recognise import (
    HEAD,
    OPENINGS,
    TORSO,
    correlation,
    frame,
    nearest,
    share,
    with_cheek,
    with_field,
    with_logo,
    with_mood,
    with_opening,
)
from .render import Poses, render
from .rollout import Cast, Settings, cast, rollout, truth
from .scenes import CHUNK_LATENTS, AnchorLatents
from .timeline import CHUNK_FRAMES, FIRST_CHUNK_FRAMES, Commands

_log = logging.getLogger(__name__)
_FRONT, _BACK, _LEFT, _RIGHT = 0, 1, 2, 3
_TOUR = (_FRONT, _LEFT, _FRONT, _RIGHT, _FRONT, _BACK, _BACK, _FRONT, _FRONT)
_LAGS = range(-4, 5)
ROLLOUT_SHARE = 3 / 16
"""Share of the characters that the long rollout is made with: 48 of 256 a seed."""

Measured = dict[str, float]
Choose = Callable[[AnchorLatents], AnchorSet]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an evaluation is asked for."""

    weights: Path
    num: int
    """Characters a seed."""
    seeds: int
    chunks: int
    """Length of the long rollout."""
    out: Path
    measures: tuple[str, ...] = ()
    """Names of the measures to run; empty runs all."""


class Stage:
    """One model and one cast, ready to be measured."""

    def __init__(self, weights: Path, num: int, num_chunks: int, seed: int) -> None:
        bundle = load_bundle(weights)
        self.codec, self.num, self.seed = bundle.codec, num, seed
        self.modules = {"dit": bundle.model(), "text_encoder": bundle.text_encoder}
        self.cast: Cast = cast(self.codec, num, num_chunks, seed)
        self.neutral = torch.full((num,), EXPRESSIONS.index("neutral"))

    def play(
        self, views: tuple[int, ...], emotions: Tensor, choose: Choose, settings: Settings
    ) -> tuple[Poses, Tensor]:
        """Command views (one a chunk) and emotions (N, chunks); return what is true and what was made."""
        commands = Commands(torch.tensor(views).expand(self.num, -1), emotions)
        settings = replace(settings, seed=self.seed)
        made = rollout(self.codec, self.modules, self.cast, commands, choose(self.cast.anchors), settings)
        return truth(self.cast, commands, self.neutral), made

    def calm(self, num_chunks: int) -> Tensor:
        """Return neutral emotions (N, chunks)."""
        return self.neutral[:, None].expand(-1, num_chunks)

    def sheet(self, poses: Poses, made: Tensor) -> Tensor:
        """Return what is true beside what was made: (N, 2, 3, F, 64, 48)."""
        return torch.stack([render(self.cast.who, poses), made], dim=1)


def back(stage: Stage, choose: Choose, settings: Settings) -> tuple[Measured, Tensor]:
    """Turn to the back in two chunks: the back logo at the end, the side badge while passing 90 degrees."""
    poses, made = stage.play((_FRONT, _BACK, _BACK), stage.calm(3), choose, settings)
    last, who = made.shape[2] - 1, stage.cast.who
    logos = [with_logo(s, c) for s in range(len(SHAPES)) for c in range(len(COLOURS))]
    found = nearest(made[:, :, last], who, frame(poses, last), logos, TORSO)
    side = int((poses.yaw[0] + math.pi / 2).abs().argmin())
    badges = [with_field("left_badge", c) for c in range(len(COLOURS))]
    passing = nearest(made[:, :, side], who, frame(poses, side), badges, TORSO)
    numbers = {
        "back logo colour": share(found % len(COLOURS) == who.back_colour),
        "back logo shape": share(found // len(COLOURS) == who.back_shape),
        "left badge in passing": share(passing == who.left_badge),
    }
    pairs = stage.sheet(poses, made)
    return numbers | {"PSNR": _psnr(pairs[:, 0], pairs[:, 1])}, pairs


def sides(stage: Stage, choose: Choose, settings: Settings) -> tuple[Measured, Tensor]:
    """Turn to either side in one chunk: the badge's colour."""
    numbers, sheets = {}, []
    for view, field in ((_LEFT, "left_badge"), (_RIGHT, "right_badge")):
        poses, made = stage.play((_FRONT, view), stage.calm(2), choose, settings)
        last = made.shape[2] - 1
        badges = [with_field(field, c) for c in range(len(COLOURS))]
        found = nearest(made[:, :, last], stage.cast.who, frame(poses, last), badges, TORSO)
        numbers[field.replace("_", " ")] = share(found == getattr(stage.cast.who, field))
        sheets.append(stage.sheet(poses, made))
    return numbers, torch.stack(sheets, dim=1).flatten(0, 1)


def moods(stage: Stage, choose: Choose, settings: Settings) -> tuple[Measured, Tensor]:
    """Change the mood in front of the camera: expression, cheeks, and the mouth against the speech."""
    order = torch.arange(stage.num) % (len(EXPRESSIONS) - 1)
    mood = order + (order >= EXPRESSIONS.index("neutral"))
    poses, made = stage.play((_FRONT, _FRONT), torch.stack([stage.neutral, mood], dim=1), choose, settings)
    who, last = stage.cast.who, made.shape[2] - 1
    picture, one = made[:, :, last], frame(poses, last)
    emotion = nearest(picture, who, one, [with_mood(e) for e in range(len(EXPRESSIONS))], HEAD)
    cheek = nearest(picture, who, one, [with_cheek(c) for c in range(len(COLOURS))], HEAD)
    numbers = {
        "emotion": share(emotion == mood),
        "cheek colour": share(cheek == who.cheek.gather(1, mood[:, None])[:, 0]),
    }
    pairs = stage.sheet(poses, made)
    return numbers | _mouth(stage, poses, made) | {"PSNR": _psnr(pairs[:, 0], pairs[:, 1])}, pairs


def _mouth(stage: Stage, poses: Poses, made: Tensor) -> Measured:
    """Compare the mouth's opening in every frame of the second chunk with what the speech asks for."""
    options = [with_opening(float(opening)) for opening in OPENINGS]
    frames = range(CHUNK_LATENTS, made.shape[2])
    opened = torch.stack(
        [OPENINGS[nearest(made[:, :, f], stage.cast.who, frame(poses, f), options, HEAD)] for f in frames], dim=1
    )
    spoken = poses.mouth[:, frames.start :]
    inner = slice(-_LAGS.start, opened.shape[1] - _LAGS.stop + 1)
    lagged = [correlation(opened.roll(-lag, 1)[:, inner], spoken[:, inner]) for lag in _LAGS]
    return {
        "mouth correlation": correlation(opened, spoken),
        "mouth amplitude": float(opened.std() / spoken.std()),
        "mouth lag (frames)": float(_LAGS[max(range(len(lagged)), key=lagged.__getitem__)]),
    }


def drift(stage: Stage, choose: Choose, settings: Settings) -> tuple[Measured, Tensor]:
    """Make many chunks that go round and home again: PSNR (dB) of chunk 2 and of the last one, at the front."""
    chunks = (len(stage.cast.speech[0].opening) - 3 - FIRST_CHUNK_FRAMES) // CHUNK_FRAMES + 1
    views = (*(_TOUR[i % len(_TOUR)] for i in range(chunks - 1)), _FRONT)
    poses, made = stage.play(views, stage.calm(chunks), choose, settings)

    def quality(chunk: int) -> float:
        shown = slice(FIRST_CHUNK_FRAMES + CHUNK_FRAMES * (chunk - 1), FIRST_CHUNK_FRAMES + CHUNK_FRAMES * chunk)
        real = render(stage.cast.who, poses.part(slice(None), shown))
        return _psnr(made[:, :, shown], real)

    early, late = quality(2), quality(chunks - 1)
    rows = slice(0, 6)
    few = torch.linspace(0, made.shape[2] - 1, 12).long()
    picked = Poses(poses.yaw[rows, few], poses.emotion[rows, few], poses.mouth[rows, few], poses.camera[rows, few])
    pairs = torch.stack([render(stage.cast.who.index(rows), picked), made[rows, :, few]], dim=1)
    return {"PSNR early": early, "PSNR late": late, "drop": early - late}, pairs


def _psnr(one: Tensor, other: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of pictures in -1..1."""
    return float(10 * torch.log10(4 / (one - other).square().mean()))


def _swapped(anchors: AnchorLatents) -> AnchorSet:
    """Return all anchors, the front view's picture in the back's slot and the other way round."""
    other = {"front": "back", "back": "front"}
    return AnchorSet(tuple(replace(a, slot=other.get(a.slot, a.slot)) for a in anchors.select()))


def _all(anchors: AnchorLatents) -> AnchorSet:
    return anchors.select()


def _no_views(anchors: AnchorLatents) -> AnchorSet:
    return anchors.select(views=())


def _no_faces(anchors: AnchorLatents) -> AnchorSet:
    return anchors.select(faces=())


def _faces_only(anchors: AnchorLatents) -> AnchorSet:
    return anchors.select(scene=False, views=())


Measure = Callable[[Stage, Choose, Settings], tuple[Measured, Tensor]]
MEASURES: dict[str, tuple[Measure, Choose, Settings]] = {
    "long rollout": (drift, _all, Settings()),
    "long rollout, no global, no views": (drift, _faces_only, Settings()),
    "turn to the back": (back, _all, Settings()),
    "turn to the back, 2 steps": (back, _all, Settings(steps=2)),
    "turn to the back, no views": (back, _no_views, Settings()),
    "turn to the back, front and back positions swapped": (back, _swapped, Settings()),
    "turn to a side": (sides, _all, Settings()),
    "turn to a side, no views": (sides, _no_views, Settings()),
    "moods": (moods, _all, Settings()),
    "moods, 2 steps": (moods, _all, Settings(steps=2)),
    "moods, no expressions": (moods, _no_faces, Settings()),
    "moods, no audio": (moods, _all, Settings(sound=False)),
}
"""Every measure by the name it has in the table; the slow ones first, so that several processes end together."""


@lru_cache(maxsize=2)
def _stage(weights: Path, num: int, num_chunks: int, seed: int) -> Stage:
    return Stage(weights, num, num_chunks, seed)


@torch.no_grad()
def measure(request: Request, name: str, seed: int) -> Measured:
    """Run one measure with one seed; the first seed also leaves a contact sheet."""
    torch.set_num_threads(1)
    work, choose, settings = MEASURES[name]
    is_long = work is drift
    num = max(4, round(request.num * ROLLOUT_SHARE)) if is_long else request.num
    numbers, pairs = work(_stage(request.weights, num, request.chunks if is_long else 3, seed), choose, settings)
    if seed == 0:
        write_sheet(pairs, request.out / f"{name.replace(',', '').replace(' ', '-')}.png")
    return numbers


def write_sheet(pairs: Tensor, path: Path, *, rows: int = 6, columns: int = 12) -> None:
    """Write truth above picture for some characters: pairs (N, 2, 3, F, H, W)."""
    index = torch.linspace(0, pairs.shape[3] - 1, columns).long()
    chosen = pairs[:rows, :, :, index].clamp(-1, 1)
    picture = chosen.permute(0, 1, 4, 3, 5, 2).flatten(0, 2).flatten(1, 2)
    image = Image.fromarray(((picture + 1) * 127.5).byte().numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def evaluate(request: Request, jobs: int = 1) -> dict[str, Measured]:
    """Run every measure with every seed, write table and sheets, and return means over the seeds.

    Args:
        request: what is measured.
        jobs: processes, of one thread each.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    names = request.measures or tuple(MEASURES)
    tasks = [(name, seed) for name in names for seed in range(request.seeds)]
    found: dict[str, list[Measured]] = {name: [] for name in names}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(measure, request, *task) for task in tasks]
        for (name, seed), future in zip(tasks, futures, strict=True):
            numbers = future.result()
            found[name].append(numbers)
            _log.info("%s, seed %d: %s", name, seed, {key: round(value, 3) for key, value in numbers.items()})
    means = {name: {key: sum(r[key] for r in rows) / len(rows) for key in rows[0]} for name, rows in found.items()}
    lines = [f"| measure ({request.num} characters, {request.seeds} seeds) | mean | each seed |", "|---|---|---|"]
    for name, rows in found.items():
        for key, mean in means[name].items():
            each = ", ".join(f"{row[key]:.3f}" for row in rows)
            lines.append(f"| {name}: {key} | {mean:.3f} | {each} |")
    (request.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (request.out / "table.json").write_text(json.dumps({"means": means, "seeds": found}, indent=1), encoding="utf-8")
    return means


def main() -> None:
    """Read the command line and evaluate."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Measure gloria-nano against the renderer's truth.")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FILE)
    parser.add_argument(
        "--characters", type=int, default=256, help="how many a seed; the long rollout takes 3/16 of them"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=50, help="length of the long rollout")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/nano-evaluation"))
    parser.add_argument(
        "--measures", nargs="+", choices=tuple(MEASURES), default=(), metavar="NAME", help="only these; default: all"
    )
    given = parser.parse_args()
    request = Request(
        weights=given.weights,
        num=given.characters,
        seeds=given.seeds,
        chunks=given.chunks,
        out=given.out,
        measures=tuple(given.measures),
    )
    began = time.perf_counter()
    evaluate(request, given.jobs)
    _log.info("done in %.0f s", time.perf_counter() - began)


if __name__ == "__main__":
    main()
