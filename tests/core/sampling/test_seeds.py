import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.sampling.seeds import chunk_noise, chunk_seed, splitmix64

SEEDS = st.integers(0, 2**64 - 1)


def test_splitmix64_gives_the_published_numbers() -> None:
    # The reference program's outputs: the first from state 0, then the first two from 1234567 (it grows by a constant).
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317
    assert splitmix64(1234567 + 0x9E3779B97F4A7C15) == 3203168211198807973


def test_seeds_of_chunks_never_change() -> None:
    assert [chunk_seed(42, index) for index in range(4)] == [42, 8807030335946528, 4022505963573781, 3732922701006745]


@given(SEEDS)
def test_the_first_chunk_takes_the_users_seed(seed: int) -> None:
    assert chunk_seed(seed, 0) == seed


@given(SEEDS, st.integers(1, 10**6))
def test_later_seeds_fit_into_a_web_pages_numbers(seed: int, index: int) -> None:
    made = chunk_seed(seed, index)
    assert 0 <= made < 2**53
    assert float(made) == made


def test_neighbouring_seeds_and_chunks_do_not_collide() -> None:
    made = {chunk_seed(seed, index) for seed in range(100) for index in range(1, 101)}
    assert len(made) == 10_000


def test_seeds_wrap_at_64_bits() -> None:
    assert chunk_seed(2**64 + 7, 3) == chunk_seed(7, 3)
    assert chunk_seed(-1, 0) == 2**64 - 1


@pytest.mark.parametrize("seed", [0, 42, 2**53 - 1, 2**64 - 1])
def test_noise_belongs_to_its_seed_alone(seed: int) -> None:
    torch.manual_seed(5)
    noise = chunk_noise(seed, (1, 4, 9, 8, 6))
    torch.manual_seed(6)
    assert torch.equal(noise, chunk_noise(seed, (1, 4, 9, 8, 6)))
    assert not torch.equal(noise, chunk_noise(seed ^ 1, (1, 4, 9, 8, 6)))
    assert noise.shape == (1, 4, 9, 8, 6)
    assert abs(float(noise.mean())) < 0.1
    assert abs(float(noise.std()) - 1) < 0.1
