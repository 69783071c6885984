"""Draw a run's folder: its files with their true sizes, a picture of every chunk, and the drift plot.

python docs/images/run_folder.py output/gloria_runs/NAME docs/images/run-folder.png
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gloria_core.runs.drift_picture import drift_png  # noqa: E402 - needs the path
from gloria_core.runs.folder import read_json  # noqa: E402

PAPER, INK, FAINT, MARK = "#f4f4ef", "#20242a", "#7d828a", "#c8452b"
WIDTH, MARGIN, LINE, LETTER = 1440, 24, 21, 15
PICTURE, PLOT = 145, 640
SHOWN = ("0000.", "0002.")
"""Beginnings of the names that are listed: the first chunk's, and the third's. Of the rest the sum is told."""
MEANINGS = {
    "run.json": "settings, plan, every chunk's story",
    "events.jsonl": "what happened, a line each",
    "waveform.json": "the sound, as the page draws it",
    "lock": "held while a process works here",
    "film.mp4": "the film as far as it is, while the run works",
    "chunks": "the latents of every take",
    "segments": "every chunk as a video of its own",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree."""

    name: str
    num_bytes: int
    meaning: str = ""


def sized(num_bytes: int) -> str:
    """Return a size in words, such as ``112 kB``."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}" if num_bytes < 10 * scale else f"{num_bytes / scale:.0f} {unit}"
    return f"{num_bytes} B"


def rows_of(run: Path) -> list[Row]:
    """List a run's files as a tree."""
    rows = [Row(f"{run.name}/", sum(path.stat().st_size for path in run.rglob("*") if path.is_file()))]
    for path in sorted(run.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        meaning = MEANINGS.get(path.name, "")
        if path.is_file():
            rows.append(Row(f"    {path.name}", path.stat().st_size, meaning))
            continue
        files = sorted(path.iterdir())
        rows.append(Row(f"    {path.name}/", sum(file.stat().st_size for file in files), meaning))
        rows += [Row(f"        {file.name}", file.stat().st_size) for file in files if file.name.startswith(SHOWN)]
        rest = [file for file in files if not file.name.startswith(SHOWN)]
        if rest:
            rows.append(Row(f"        … {len(rest)} more", sum(file.stat().st_size for file in rest)))
    return rows


def middle_picture(segment: Path) -> Image.Image:
    """Return the picture in the middle of a chunk's video."""
    with av.open(str(segment)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return frames[len(frames) // 2]


def drawn(run: Path) -> Image.Image:
    """Draw the whole picture of a run."""
    told, rows = read_json(run / "run.json"), rows_of(run)
    plot = Image.open(io.BytesIO(drift_png(run)))
    plot = plot.resize((PLOT, plot.height * PLOT // plot.width), Image.Resampling.LANCZOS)
    pictures = [middle_picture(run / "segments" / chunk["segment"]) for chunk in told["chunks"]]
    pictures = [picture.resize((PICTURE, PICTURE * picture.height // picture.width)) for picture in pictures]
    tree_height = max(LINE * len(rows), plot.height)
    height = 3 * MARGIN + tree_height + pictures[0].height + 2 * LINE
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        _draw_row(pen, row, MARGIN + number * LINE)
    sheet.paste(plot, (WIDTH - MARGIN - PLOT, MARGIN))
    top = 2 * MARGIN + tree_height
    for index, (picture, chunk) in enumerate(zip(pictures, told["chunks"], strict=True)):
        left = MARGIN + index * (PICTURE + 10)
        if left + PICTURE > WIDTH:
            break
        sheet.paste(picture, (left, top))
        where = f"chunk {chunk['chunk']}, take {chunk['take']}"
        pen.text((left, top + picture.height + 4), where, FAINT if chunk["take"] == 1 else MARK, _font())
        pen.text((left, top + picture.height + 4 + LINE), f"from {chunk['start_s']:.1f} s", FAINT, _font())
    return sheet


def _draw_row(pen: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    depth = (len(row.name) - len(row.name.lstrip())) // 4
    marked = any(f"take-{take}" in row.name for take in range(2, 10))
    pen.text((MARGIN + 22 * depth, top), row.name.strip(), MARK if marked else INK, _font())
    pen.text((MARGIN + 365, top), sized(row.num_bytes), FAINT, _font(), anchor="ra")
    pen.text((MARGIN + 380, top), row.meaning, FAINT, _font())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(LETTER)


def main() -> None:
    """Draw the run that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("out", type=Path, help="PNG file to write")
    options = parser.parse_args()
    drawn(options.run).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
