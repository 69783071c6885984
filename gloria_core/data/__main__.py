"""``python -m gloria_core.data``: look at footage, encode it, tidy a cache, all without ComfyUI.

check FOOTAGE                              every problem by the file's name; --sheet PNG draws a contact sheet
prepare FOOTAGE --cache DIR --pipeline DIR encode with a Wan pipeline in Diffusers' layout
tidy --cache DIR                           find damaged entries, and delete those that no prepared dataset uses
"""

import argparse
import importlib
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import ConfigError, GloriaError
from .buckets import Sizes, areas_of
from .cache import Cache
from .check import check
from .contact import contact_sheet
from .encoders import Encoder
from .folder import read_dataset
from .pipeline_encoder import PipelineEncoder
from .prepare import prepare
from .problems import told

_log = logging.getLogger(__name__)
_FPS = 16.0
"""Frames a second where nothing tells: Wan 2.1's."""


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, do it, and return the exit status: 1 after an error or where footage cannot be used."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    commands = {"check": _check, "prepare": _prepare, "tidy": _tidy}
    try:
        return commands[options.command](options)
    except GloriaError as error:
        _log.error("%s", error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gloria_core.data", description="Footage for training.")
    commands = parser.add_subparsers(dest="command", required=True)
    looks = commands.add_parser("check", help="tell what is wrong with footage")
    makes = commands.add_parser("prepare", help="encode footage once")
    tidies = commands.add_parser("tidy", help="find damaged entries and delete unused ones")
    for command in (looks, makes):
        command.add_argument("footage", type=Path, help="a folder of clips and pictures, or a manifest (.jsonl)")
        command.add_argument("--size", default="", help="such as 832x480, several with commas; only the area counts")
        command.add_argument("--fps", type=float, default=0.0, help="frames a second; the model's own by default")
        command.add_argument("--longest", type=int, default=129, help="frames of the longest piece, 4k+1")
        command.add_argument("--shortest", type=int, default=17, help="frames of the shortest piece")
    looks.add_argument("--sheet", type=Path, help="draw a contact sheet into this .png")
    looks.add_argument("--needs-sound", action="store_true", help="clips without sound are problems")
    looks.add_argument("--cache", type=Path, default=Path("gloria-cache"), help="remembers which files were read")
    for command in (makes, tidies):
        command.add_argument("--cache", type=Path, required=True, help="folder of what was encoded")
    makes.add_argument("--pipeline", type=Path, help="a Wan pipeline in Diffusers' layout")
    makes.add_argument("--encoder", help="package.module:Class of another encoder, such as nano's")
    makes.add_argument("--weights", type=Path, help="the model that will be trained: for its ears and image channels")
    makes.add_argument(
        "--sample-prompt", action="append", default=[], help="a text to make samples of; may be repeated"
    )
    makes.add_argument("--audio-encoder", type=Path, help="the wav2vec2 or Whisper that its ears need, or will need")
    makes.add_argument(
        "--prefix-latents", type=int, default=4, help="latents that clips go on from; for models with image channels"
    )
    return parser


def _check(options: argparse.Namespace) -> int:
    manifest, found = read_dataset(options.footage)
    sizes = _sizes(options, "wan2.1", _FPS)
    report = check(manifest, found, Cache(options.cache), sizes, needs_audio=options.needs_sound, look=_log.info)
    sys.stdout.write(report.text + "\n")
    if options.sheet:
        contact_sheet(manifest, report.plan).save(options.sheet)
    return 1 if report.num_stopping else 0


def _prepare(options: argparse.Namespace) -> int:
    manifest, found = read_dataset(options.footage)
    encoder, fps = _encoder(options)
    sizes = replace(_sizes(options, encoder.codec, fps), prefix_latents=options.prefix_latents)
    made = prepare(
        manifest,
        encoder,
        Cache(options.cache),
        sizes,
        lambda d, n, what: _log.info("%d/%d %s", d, n, what),
        sample_prompts=options.sample_prompt,
    )
    sys.stdout.write(told((*found, *made.problems)) + "\n")
    _log.info(
        "%d clips are ready; %d things were encoded, %d were there", len(made.prepared.clips), made.num_encoded,
        made.num_reused,
    )  # fmt: skip
    return 1 if any(problem.stops for problem in made.problems) else 0


def _tidy(options: argparse.Namespace) -> int:
    cache = Cache(options.cache)
    damaged = cache.verify()
    freed = cache.remove_unused()
    _log.info("%d damaged entries were found, %.1f MB were freed; prepare again what is missing", len(damaged),
              freed / 1e6)  # fmt: skip
    return 1 if damaged else 0


def _encoder(options: argparse.Namespace) -> tuple[Encoder, float]:
    """Return the encoder, and frames a second of its model."""
    if options.pipeline is not None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        made = PipelineEncoder(
            options.pipeline, weights=options.weights, audio_encoder=options.audio_encoder, device=device
        )
        return made, made.fps
    if not options.encoder:
        raise ConfigError("Nothing tells what to encode with; give --pipeline FOLDER.")
    module, _, name = options.encoder.partition(":")
    try:
        encoder: Encoder = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--encoder {options.encoder!r} cannot be imported ({error}).") from error
    return encoder, _FPS


def _sizes(options: argparse.Namespace, codec: str, fps: float) -> Sizes:
    return Sizes(
        fps=options.fps or fps, areas=areas_of(options.size, codec), longest=options.longest, shortest=options.shortest
    )


if __name__ == "__main__":
    sys.exit(main())
