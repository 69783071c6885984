import pytest
import torch

from gloria_core.errors import ConfigError
from gloria_core.sampling.schedule import flow_sigmas, num_high_noise_steps, simple_sigmas


@pytest.mark.parametrize("num_steps", [1, 2, 8, 50])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 12.0])
def test_levels_fall_from_exactly_one_to_exactly_zero(num_steps: int, shift: float) -> None:
    sigmas = flow_sigmas(num_steps, shift)
    assert sigmas.shape == (num_steps + 1,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert (sigmas.diff() < 0).all()


def test_levels_equal_those_that_the_host_was_seen_to_make() -> None:
    seen = torch.tensor([1.0, 0.9375, 0.8333, 0.625, 0.0])
    torch.testing.assert_close(flow_sigmas(4, 5.0), seen, atol=5e-5, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("num_steps", [1, 3, 8, 30, 1000])
def test_the_simple_schedule_is_the_same_on_a_table_of_a_thousand(num_steps: int, shift: float) -> None:
    """It is the host's own to the last bit: tests/host/test_render.py compares what runs say of it."""
    sigmas = simple_sigmas(num_steps, shift)
    assert sigmas.shape == (num_steps + 1,)
    assert (sigmas[0], sigmas[-1]) == (1.0, 0.0)
    assert (sigmas.diff() < 0).all()
    torch.testing.assert_close(sigmas, flow_sigmas(num_steps, shift), atol=6e-3, rtol=0)


def test_three_steps_of_the_simple_schedule_stand_on_the_table() -> None:
    torch.testing.assert_close(simple_sigmas(3, 1.0), torch.tensor([1.0, 0.667, 0.334, 0.0]))


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 1.0), (1001, 1.0), (8, 0.0), (8, float("inf"))])
def test_simple_schedules_out_of_range_are_refused(num_steps: int, shift: float) -> None:
    with pytest.raises(ConfigError):
        simple_sigmas(num_steps, shift)


def test_shift_one_is_uniform() -> None:
    torch.testing.assert_close(flow_sigmas(4, 1.0), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 1.0), (-3, 1.0), (8, 0.0), (8, -1.0), (8, float("nan"))])
def test_numbers_out_of_range_are_refused(num_steps: int, shift: float) -> None:
    with pytest.raises(ConfigError, match=str(num_steps if num_steps < 1 else shift)):
        flow_sigmas(num_steps, shift)


@pytest.mark.parametrize(
    ("shift", "num_steps", "boundary", "expected"),
    [
        (8.0, 20, 0.9, 10),
        (5.0, 20, 0.9, 8),
        (5.0, 40, 0.9, 15),
        (5.0, 4, 0.9, 2),
        (12.0, 40, 0.875, 26),
        (1.0, 10, 0.9, 2),
    ],
)
def test_steps_that_begin_at_or_above_the_boundary_belong_to_the_high_noise_expert(
    shift: float, num_steps: int, boundary: float, expected: int
) -> None:
    sigmas = flow_sigmas(num_steps, shift)
    assert num_high_noise_steps(sigmas, boundary) == expected
    assert (sigmas[:expected] >= boundary - 1e-6).all()
    assert (sigmas[expected:] < boundary).all()


def test_one_expert_may_have_no_step() -> None:
    assert num_high_noise_steps(torch.tensor([0.8, 0.4, 0.0]), 0.9) == 0
    assert num_high_noise_steps(torch.tensor([1.0, 0.95, 0.0]), 0.9) == 2


@pytest.mark.parametrize("boundary", [0.0, 1.0, -0.5, 900.0, float("nan")])
def test_boundaries_that_are_no_noise_levels_are_refused(boundary: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.9 for Wan 2\.2 I2V-A14B"):
        num_high_noise_steps(flow_sigmas(4, 5.0), boundary)
