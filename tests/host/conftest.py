"""What is collected here, and footage of one new character for the tests of trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gloria_core.train.job import Job
from tests.core.data.footage import write_folder
from tests.host.trainings import CHARACTER, jobs, with_footage

if TYPE_CHECKING:
    from conftest import Host

collect_ignore = ["inside"]  # those run in processes of their own: see test_inside.py


@pytest.fixture(scope="session")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Footage of one new character."""
    folder = tmp_path_factory.mktemp("footage") / "star"
    write_folder(folder, CHARACTER, num_takes=3, num_chunks=6)
    return folder


@pytest.fixture
def footage(host: Host, star: Path) -> Path:
    """Footage of one new character in the host's input folder, where it stays as it is."""
    return with_footage(host, star)


@pytest.fixture
def _trainings_end(host: Host) -> Iterator[None]:
    """No training outlives its test."""
    yield
    for config in jobs(host).glob("*/config.toml"):
        Job(config.parent).kill()
