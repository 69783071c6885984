from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gloria_core.errors import MediaError
from gloria_core.runs.chunk_file import ChunkFileError, read_latents, read_record, read_state, write_chunk
from gloria_core.runs.digest import digest_of
from tests.core.runs.shelf import CHUNKS, latents_of, record


def written(folder: Path) -> Path:
    path = folder / "0001.take-2.safetensors"
    write_chunk(path, record(CHUNKS[1], take=2, prefix="p", tail="t"), latents_of(CHUNKS[1]), {"mean": torch.ones(2)})
    return path


def test_a_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path)
    told = read_record(path)
    assert told == record(CHUNKS[1], take=2, prefix="p", tail="t")
    assert torch.equal(read_latents(path, told), latents_of(CHUNKS[1]))
    assert torch.equal(read_state(path)["mean"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_latents_are_in_the_stock_form(tmp_path: Path) -> None:
    """ComfyUI's Load Latent takes `latent_tensor`, and leaves its scale alone where the version mark is there."""
    held = load_file(written(tmp_path))
    assert held["latent_tensor"].shape == (1, 2, 9, 2, 3)
    assert "latent_format_version_0" in held


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_says_so(tmp_path: Path, share: float) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ChunkFileError, match=r"0001\.take-2\.safetensors is cut or damaged"):
        read_record(path)


def test_a_flipped_bit_is_noticed_where_the_latents_are_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChunkFileError, match="damaged"):
        read_latents(path, record(CHUNKS[1], take=2))


def test_foreign_files_are_no_chunks(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"latent_tensor": torch.zeros(1, 2, 9, 2, 3)}, path)
    with pytest.raises(ChunkFileError):
        read_record(path)
    path.write_text("not a file of tensors")
    with pytest.raises(ChunkFileError):
        read_record(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    with safe_open(path, "pt") as file:
        told = file.metadata()["gloria.chunk"].replace('"version": 1', '"version": 2')
    save_file(load_file(path), path, metadata={"gloria.chunk": told})
    with pytest.raises(ChunkFileError, match="version 2"):
        read_record(path)


def test_a_record_that_its_latents_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_chunk(path, replace(record(CHUNKS[1]), latents=(0, 4)), latents_of(CHUNKS[1]))
    with pytest.raises(ChunkFileError, match="does not fit"):
        read_record(path)


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file where a folder should be")
    with pytest.raises(MediaError, match="the run goes on here"):
        write_chunk(tmp_path / "folder" / "x.safetensors", record(CHUNKS[0]), latents_of(CHUNKS[0]))


def test_the_content_is_the_digest_of_the_latents() -> None:
    assert record(CHUNKS[0]).content == digest_of(latents_of(CHUNKS[0]))
