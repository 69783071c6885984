"""A file appears whole or not at all, whoever fails while it is written."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gloria_core.errors import CheckpointError, LoraError
from gloria_core.whole import written_whole


def test_a_file_appears_under_its_name_and_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with written_whole(path) as partial:
        partial.write_text("all", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "all"
    assert list(path.parent.iterdir()) == [path]


def test_whatever_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")

    def fail_half_way() -> None:
        with written_whole(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise KeyError

    with pytest.raises(KeyError):  # somebody's own error is not changed
        fail_half_way()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_is_told_whichever_library_meets_it(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit on file sizes to test with")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with (
            pytest.raises(LoraError, match=r"big\.safetensors cannot be written \(.+\): buy a disk\."),
            written_whole(tmp_path / "big.safetensors", kind=LoraError, advice="buy a disk") as partial,
        ):
            save_file({"w": torch.zeros(1000)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    path = tmp_path / "taken" / "file.txt"
    with pytest.raises(CheckpointError, match=r"file\.txt cannot be written .* another folder"), written_whole(path):
        pytest.fail("nothing can be written there")
