import itertools
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gloria_core.errors import GloriaError, PlanError
from gloria_core.sampling.chunks import Chunk, num_latents_for, plan
from gloria_core.sampling.long_video import ChunkJob, FinishedChunk, PrefixMode, blend, generate
from gloria_core.sampling.seeds import chunk_noise, chunk_seed

SHAPE = (1, 2, 3, 4)
MODES = list(PrefixMode)


class Sampler:
    """Makes latents whose values tell chunk and place, and keeps the prefix or makes it anew as the mode says."""

    def __init__(self) -> None:
        self.jobs: list[ChunkJob[str]] = []

    def __call__(self, job: ChunkJob[str]) -> Tensor:
        self.jobs.append(job)
        places = torch.tensor([float(latent) for latent in job.chunk.latents])
        made = (1000.0 * job.chunk.index + places).view(1, 1, -1, 1, 1).expand(job.noise.shape).clone()
        if job.prefix is not None and job.prefix_mode == PrefixMode.HELD:
            made[:, :, : job.prefix.shape[2]] = job.prefix
        return made


class NoiseSampler:
    """Adds the mean of the prefix to the noise, so that every chunk depends on all before."""

    def __call__(self, job: ChunkJob[str]) -> Tensor:
        return job.noise + (0.0 if job.prefix is None else job.prefix.mean())


def run(chunks: tuple[Chunk, ...], sampler: Any, **options: Any) -> list[FinishedChunk]:
    given: dict[str, Any] = {"conditions": lambda chunk: f"prompt {chunk.index}", "shape": SHAPE, "seed": 42}
    return list(generate(chunks, sampler=sampler, **{**given, **options}))


def values(finished: list[FinishedChunk]) -> list[float]:
    return torch.cat([piece.latents[0, 0, :, 0, 0] for piece in finished]).tolist()


def test_held_prefixes_are_the_last_clean_latents_and_new_latents_come_once() -> None:
    sampler = Sampler()
    finished = run(plan(60, 9, 4), sampler)
    assert values(finished) == [*range(9), *range(1009, 1014), *range(2014, 2019)]
    assert sampler.jobs[0].prefix is None
    assert [job.prefix[0, 0, :, 0, 0].tolist() for job in sampler.jobs[1:] if job.prefix is not None] == [
        [5, 6, 7, 8],
        [1010, 1011, 1012, 1013],
    ]
    assert [piece.first_latent for piece in finished] == [0, 9, 14]
    assert [piece.frames for piece in finished] == [range(0, 33), range(33, 53), range(53, 60)]


def test_given_prefixes_are_blended_before_they_are_final() -> None:
    finished = run(plan(60, 9, 4), Sampler(), prefix_mode=PrefixMode.GIVEN)
    weights = [0, 1 / 3, 2 / 3, 1]
    first = [5 + i + w * 1000 for i, w in enumerate(weights)]
    second = [1010 + i + w * 1000 for i, w in enumerate(weights)]
    assert values(finished) == pytest.approx([*range(5), *first, 1009, *second, *range(2014, 2019)], abs=1e-3)
    assert [piece.first_latent for piece in finished] == [0, 5, 10]
    assert [piece.frames for piece in finished] == [range(0, 17), range(17, 37), range(37, 60)]


def test_overlaps_longer_than_the_new_part_blend_what_was_blended() -> None:
    # Chunks of 4 with a prefix of 3: latent 2 is made by chunks 0, 1 and 2.
    made = values(run(plan(21, 4, 3), Sampler(), prefix_mode=PrefixMode.GIVEN))
    assert made == pytest.approx([0, 1, 502, 1503, 2004, 2005], abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
@given(num_frames=st.integers(1, 120), prefix=st.integers(1, 6), more=st.integers(1, 9), num_start=st.integers(0, 3))
def test_latents_are_whole_and_in_order_for_any_plan(
    mode: PrefixMode, num_frames: int, prefix: int, more: int, num_start: int
) -> None:
    chunks = plan(num_frames, prefix + more, prefix)
    start = torch.zeros(1, 2, num_start, 3, 4) if 0 < num_start < prefix + more else None
    finished = run(chunks, Sampler(), prefix_mode=mode, start=start)
    places = [piece.first_latent + i for piece in finished for i in range(piece.latents.shape[2])]
    assert places == list(range(chunks[-1].latents.stop))
    assert sum(piece.visible_latents.shape[2] for piece in finished) == num_latents_for(num_frames)
    assert [frame for piece in finished for frame in piece.frames] == list(range(num_frames))


def test_blend_of_equal_latents_is_the_identity_and_ends_are_exact(generator: torch.Generator) -> None:
    old, new = torch.randn(2, 1, 2, 4, 3, 4, generator=generator)
    assert torch.equal(blend(old, old), old)
    joined = blend(old, new)
    assert torch.equal(joined[:, :, 0], old[:, :, 0])
    assert torch.equal(joined[:, :, -1], new[:, :, -1])
    torch.testing.assert_close(joined[:, :, 1], old[:, :, 1] * 2 / 3 + new[:, :, 1] / 3)


def test_every_chunk_has_its_own_recorded_seed() -> None:
    sampler = Sampler()
    finished = run(plan(60, 9), sampler)
    assert [piece.seed for piece in finished] == [chunk_seed(42, index) for index in range(3)]
    for job in sampler.jobs:
        assert torch.equal(job.noise, chunk_noise(job.seed, (1, 2, 9, 3, 4)))
    assert not torch.equal(sampler.jobs[0].noise, sampler.jobs[1].noise)


def test_conditions_are_asked_for_one_chunk_at_a_time() -> None:
    asked: list[int] = []

    def conditions(chunk: Chunk) -> str:
        asked.append(chunk.index)
        return f"prompt {chunk.index}"

    sampler = Sampler()
    video = generate(plan(60, 9), sampler=sampler, conditions=conditions, shape=SHAPE, seed=1)
    assert asked == []
    assert next(video).seconds >= 0
    assert asked == [0]
    assert [piece.chunk.index for piece in video] == [1, 2]
    assert [job.conditions for job in sampler.jobs] == ["prompt 0", "prompt 1", "prompt 2"]


@pytest.mark.parametrize("mode", MODES)
def test_a_start_frame_is_the_first_latent(mode: PrefixMode) -> None:
    sampler = Sampler()
    finished = run(plan(60, 9), sampler, prefix_mode=mode, start=torch.full((1, 2, 1, 3, 4), -7.0))
    assert values(finished)[:5] == [-7, 1, 2, 3, 4]
    assert sampler.jobs[0].prefix is not None
    assert sampler.jobs[0].prefix.shape[2] == 1


def test_a_held_start_stays_whatever_the_sampler_makes_of_it() -> None:
    start = torch.full((1, 2, 2, 3, 4), -7.0)
    first, *_ = run(plan(60, 9), lambda job: job.noise, start=start)
    assert torch.equal(first.latents[:, :, :2], start)
    assert torch.equal(first.latents[:, :, 2:], chunk_noise(42, (1, 2, 9, 3, 4))[:, :, 2:])


def test_one_start_serves_a_batch() -> None:
    sampler = Sampler()
    run(plan(20, 9), sampler, shape=(3, 2, 3, 4), start=torch.ones(1, 2, 1, 3, 4))
    assert sampler.jobs[0].prefix is not None
    assert sampler.jobs[0].prefix.shape == (3, 2, 1, 3, 4)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_video_that_goes_on_equals_one_that_never_stopped(cut: int) -> None:
    chunks = plan(90, 9)
    whole = run(chunks, NoiseSampler())
    tail = torch.cat([piece.latents for piece in whole[:cut]], dim=2)[:, :, -4:]
    rest = run(chunks[cut:], NoiseSampler(), start=tail)
    assert len(rest) == len(whole) - cut
    for piece, expected in zip(rest, whole[cut:], strict=True):
        assert torch.equal(piece.latents, expected.latents)
        assert (piece.seed, piece.frames, piece.first_latent) == (expected.seed, expected.frames, expected.first_latent)


def test_latents_can_be_saved_as_they_are() -> None:
    for piece in run(plan(60, 9), Sampler()):
        assert piece.latents.is_contiguous()
        assert piece.latents.untyped_storage().nbytes() == piece.latents.nbytes


@pytest.mark.parametrize("mode", MODES)
def test_only_a_prefix_is_alive_between_chunks(mode: PrefixMode) -> None:
    alive: list[weakref.ref[Tensor]] = []
    left: list[int] = []

    def sampler(job: ChunkJob[str]) -> Tensor:
        left.append(sum(ref() is not None for ref in alive))
        if job.prefix is not None:
            assert job.prefix.untyped_storage().nbytes() == job.prefix.nbytes
        made = job.noise.clone()
        alive.extend([weakref.ref(made), weakref.ref(job.noise)])
        return made

    video = generate(plan(400, 9), sampler=sampler, conditions=lambda _: "", shape=SHAPE, seed=1, prefix_mode=mode)
    while (piece := next(video, None)) is not None:
        alive.append(weakref.ref(piece.latents))
        del piece
    assert len(left) > 15
    assert set(left) == {0}


def test_a_video_can_be_longer_than_memory() -> None:
    chunks = plan(10**6, 9)
    video = generate(chunks, sampler=Sampler(), conditions=lambda _: "", shape=(1, 1, 1, 1), seed=1)
    assert [piece.first_latent for piece in itertools.islice(video, 3)] == [0, 9, 14]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": torch.zeros(1, 2, 1, 3, 5)}, "size of the video"),
        ({"start": torch.zeros(1, 3, 1, 3, 4)}, r"needs \(1, 2, frames, 3, 4\)"),
        ({"start": torch.zeros(1, 2, 3, 4)}, "size of the video"),
        ({"start": torch.zeros(1, 2, 9, 3, 4)}, "at most 8"),
        ({"start": torch.zeros(1, 2, 0, 3, 4)}, "at least 1"),
    ],
)
def test_starts_that_do_not_fit_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        generate(plan(60, 9), sampler=Sampler(), conditions=lambda _: "", shape=SHAPE, seed=1, **options)


def test_going_on_needs_the_latents_before() -> None:
    rest = plan(60, 9)[1:]
    with pytest.raises(PlanError, match="chunk 1, but the 4 latent frames"):
        generate(rest, sampler=Sampler(), conditions=lambda _: "", shape=SHAPE, seed=1)
    with pytest.raises(PlanError, match="4 latent frames, but 2"):
        generate(
            rest, sampler=Sampler(), conditions=lambda _: "", shape=SHAPE, seed=1, start=torch.zeros(1, 2, 2, 3, 4)
        )
    with pytest.raises(PlanError, match="no chunks left"):
        generate((), sampler=Sampler(), conditions=lambda _: "", shape=SHAPE, seed=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_numbers_stop_the_video(bad: float) -> None:
    def sampler(job: ChunkJob[str]) -> Tensor:
        return torch.full_like(job.noise, bad if job.chunk.index == 1 else 0.0)

    video = generate(plan(60, 9), sampler=sampler, conditions=lambda _: "", shape=SHAPE, seed=1)
    next(video)
    with pytest.raises(GloriaError, match="Chunk 1 came out with values that are not numbers"):
        next(video)


def test_latents_of_another_shape_stop_the_video() -> None:
    with pytest.raises(GloriaError, match=r"\(1, 2, 8, 3, 4\) for chunk 0"):
        run(plan(60, 9), lambda job: job.noise[:, :, 1:])
