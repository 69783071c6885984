"""Films beside sample sheets, as others see them: by the sheet's number, and never what a link leads to."""

from pathlib import Path

import pytest

from gloria_core.train.job import Job
from gloria_core.train.view import NoJobError, job_view, sample_film


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job with three sheets, a film beside the first, and a link for one beside the last."""
    made = Job(tmp_path / "output" / "mira")
    samples = made.path / "samples"
    samples.mkdir(parents=True)
    for step in (5, 10, 15):
        (samples / f"step-{step:08d}.png").write_bytes(b"png")
    (samples / "step-00000005.mp4").write_bytes(b"film 5")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (samples / "step-00000015.mp4").symlink_to(tmp_path / "secret.mp4")
    return made


def test_films_go_by_the_number_of_their_sheet(job: Job, tmp_path: Path) -> None:
    root = tmp_path / "output"
    view = job_view(job, root)
    assert (view["samples"], view["films"]) == ([1, 2, 3], [1])
    assert sample_film(job, root, 1).read_bytes() == b"film 5"


@pytest.mark.parametrize(("number", "told"), [(2, "no film beside"), (3, "no film beside"), (4, "no sample sheet 4")])
def test_what_is_no_film_or_leads_elsewhere_is_not_there(job: Job, tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(NoJobError, match=told):
        sample_film(job, tmp_path / "output", number)
