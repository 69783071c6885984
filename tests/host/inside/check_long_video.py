"""Parts of the long sampler that a workflow cannot reach."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from gloria_pack.gloria_core.errors import MediaError
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.long_video import FinishedChunk
from gloria_pack.nodes.host import long_video
from safetensors.torch import load_file


def finished(index: int = 1) -> FinishedChunk:
    chunk = plan(60, 6, 2)[index]
    return FinishedChunk(chunk, torch.ones(1, 4, 4, 2, 2), chunk.new_latents.start, chunk.frames, 77, 0.1)


def test_latents_are_written_whole(tmp_path: Path) -> None:
    long_video.save_latents(tmp_path / "deep" / "folder", finished(), "happy")
    [file] = (tmp_path / "deep" / "folder").iterdir()
    assert file.name == "chunk_0001.latent"
    assert torch.equal(load_file(file)["latent_tensor"], finished().latents)


def test_a_write_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(MediaError, match="Free some disk space"):
            long_video.save_latents(tmp_path, finished(), "happy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a file in the place of a folder is told otherwise there")
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(MediaError, match="could not be written"):
        long_video.save_latents(tmp_path / "taken", finished(), "happy")
