"""Takes on disk for tests: small latents, and wishes that say in words what they are made from."""

from __future__ import annotations

from pathlib import Path

import torch

from gloria_core.runs.chunk_file import ChunkRecord, Ingredient, write_chunk
from gloria_core.runs.digest import digest_of
from gloria_core.runs.folder import RunFolder, Take
from gloria_core.runs.reuse import Wish
from gloria_core.sampling.chunks import Chunk, plan

CHUNKS = plan(60, 9, 4)
"""Three chunks."""


def made_from(**words: str) -> dict[str, Ingredient]:
    return {name.replace("_", " "): Ingredient(digest_of(value), value) for name, value in words.items()}


def wish(index: int, *, take: int | None = None, bridge: bool = False, **words: str) -> Wish:
    return Wish(CHUNKS[index], made_from(**{"prompt": "walks", "seed": "1", **words}), take, bridge)


def record(chunk: Chunk, *, take: int = 1, prefix: str = "", tail: str = "", **words: str) -> ChunkRecord:
    latents = latents_of(chunk)
    return ChunkRecord(
        index=chunk.index,
        take=take,
        latents=(chunk.latents.start, chunk.latents.stop),
        num_prefix=chunk.num_prefix,
        seed=7,
        prompt=words.get("prompt", "walks"),
        ingredients=made_from(**{"prompt": "walks", "seed": "1", **words}),
        prefix=prefix,
        tail=tail,
        content=digest_of(latents),
        seconds=1.5,
    )


def latents_of(chunk: Chunk) -> torch.Tensor:
    return torch.arange(2.0 * chunk.num_latents * 6).view(1, 2, chunk.num_latents, 2, 3) + chunk.index


def put(folder: RunFolder, told: ChunkRecord) -> Path:
    path = folder.chunk_path(told.index, told.take)
    write_chunk(path, told, latents_of(CHUNKS[told.index]))
    return path


def take(index: int, *, number: int = 1, prefix: str, tail: str, **words: str) -> Take:
    return Take(
        Path(f"{index:04}.take-{number}"), record(CHUNKS[index], take=number, prefix=prefix, tail=tail, **words)
    )
