import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from gloria_core.errors import ConfigError
from gloria_core.sampling.schedule import flow_sigmas
from gloria_core.sampling.solver import SOLVERS, Solver, Step, euler, solver_named

# A world of one number, drawn from a mixture of two Gaussians (weight, mean, standard deviation).
MIXTURE = ((0.3, -0.8, 0.4), (0.7, 0.6, 0.5))
GAUSSIAN = ((1.0, 0.7, 0.5),)
World = tuple[tuple[float, float, float], ...]


class Counter:
    """The exact denoiser of a world, which counts its calls."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        if sigma == 0:
            return x
        densities, guesses = [], []
        for weight, mean, std in self.world:
            variance = ((1 - sigma) * std) ** 2 + sigma**2
            offset = x - (1 - sigma) * mean
            densities.append(weight * torch.exp(-(offset**2) / (2 * variance)) / math.sqrt(variance))
            guesses.append(mean + (1 - sigma) * std**2 / variance * offset)
        total = torch.stack(densities).sum(0)
        return (torch.stack(densities) * torch.stack(guesses)).sum(0) / total


def transported(x: Tensor, world: World, before: float, after: float) -> Tensor:
    """Where the exact flow carries ``x``: in one dimension it keeps quantiles, so distribution functions give it."""

    def cdf(at: Tensor, sigma: float) -> Tensor:
        terms = [
            w * torch.special.ndtr((at - (1 - sigma) * m) / math.sqrt(((1 - sigma) * s) ** 2 + sigma**2))
            for w, m, s in world
        ]
        return torch.stack(terms).sum(0)

    quantile = cdf(x, before)
    low, high = torch.full_like(x, -20.0), torch.full_like(x, 20.0)
    for _ in range(100):
        middle = (low + high) / 2
        is_below = cdf(middle, after) < quantile
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (low + high) / 2


def error(solver: Solver, world: World, sigmas: Tensor) -> float:
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)
    made = solver(Counter(world), x, sigmas)
    return float((made - transported(x, world, float(sigmas[0]), float(sigmas[-1]))).abs().max())


def orders(errors: list[float]) -> list[float]:
    """The powers with which the error falls as the number of steps doubles."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("world", [GAUSSIAN, MIXTURE])
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_error_falls_with_the_order_of_the_solver(name: str, order: int, world: World) -> None:
    errors = [error(SOLVERS[name], world, torch.linspace(1.0, 0.2, n + 1)) for n in (200, 400, 800)]
    assert orders(errors) == pytest.approx([order, order], abs=0.05)
    assert errors[-1] < 2e-3 / 100 ** (order - 1)


@pytest.mark.parametrize("world", [GAUSSIAN, MIXTURE])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("name", "order"), [("euler", 0.95), ("heun", 1.95), ("dpmpp_2m", 1.65)])
def test_error_falls_all_the_way_to_noise_level_zero(name: str, order: float, shift: float, world: World) -> None:
    # dpmpp_2m's variable, log(sigma), always has the same last steps near 0: N^-2 becomes N^-2 log(N).
    errors = [error(SOLVERS[name], world, flow_sigmas(n, shift)) for n in (200, 400, 800)]
    assert min(orders(errors)) > order


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_second_order_beats_euler_at_twenty_steps(name: str) -> None:
    assert error(SOLVERS[name], MIXTURE, flow_sigmas(20, 1.0)) < 0.5 * error(euler, MIXTURE, flow_sigmas(20, 1.0))


@pytest.mark.parametrize("name", list(SOLVERS))
def test_part_of_the_way_can_be_walked(name: str) -> None:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    levels = torch.linspace(0.8, 0.3, 201)
    made = SOLVERS[name](Counter(MIXTURE), x, levels)
    torch.testing.assert_close(made, transported(x, MIXTURE, float(levels[0]), float(levels[-1])), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("name", "calls"), [("euler", 8), ("heun", 15), ("dpmpp_2m", 8)])
def test_network_calls(name: str, calls: int) -> None:
    denoise = Counter(GAUSSIAN)
    SOLVERS[name](denoise, torch.zeros(3), flow_sigmas(8, 3.0))
    assert denoise.calls == calls


@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_known_answer_is_met_and_noise_is_left_alone(name: str) -> None:
    answer = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(2))
    kept = noise.clone()
    made = SOLVERS[name](lambda x, sigma: answer, noise, flow_sigmas(5, 3.0))
    if name != "dpmpp_2m":  # these add up as k-diffusion does, which rounds in the last step
        torch.testing.assert_close(made, answer, atol=1e-6, rtol=0)
    else:
        assert torch.equal(made, answer)
    assert torch.equal(noise, kept)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_callback_is_told_each_step_once(name: str) -> None:
    told: list[Step] = []
    sigmas = flow_sigmas(4, 3.0)
    SOLVERS[name](Counter(GAUSSIAN), torch.ones(2), sigmas, told.append)
    assert [step.index for step in told] == [0, 1, 2, 3]
    assert {step.num_steps for step in told} == {4}
    assert [step.sigma for step in told] == sigmas[:-1].tolist()
    assert torch.equal(told[0].x, torch.ones(2))
    torch.testing.assert_close(told[2].x0, Counter(GAUSSIAN)(told[2].x, told[2].sigma))


@pytest.mark.parametrize("name", list(SOLVERS))
def test_what_a_callback_raises_ends_the_walk(name: str) -> None:
    denoise = Counter(GAUSSIAN)

    def stop(step: Step) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        SOLVERS[name](denoise, torch.ones(2), flow_sigmas(4, 1.0), stop)
    assert denoise.calls == 1


@pytest.mark.parametrize("levels", [[1.0], [], [0.5, 0.5, 0.0], [0.0, 1.0], [1.5, 0.0], [1.0, -0.1], [[1.0, 0.0]]])
def test_levels_that_do_not_fall_are_refused(levels: list[float]) -> None:
    with pytest.raises(ConfigError, match="fall"):
        euler(Counter(GAUSSIAN), torch.ones(2), torch.tensor(levels))


def test_solver_by_name() -> None:
    assert solver_named("euler") is euler
    with pytest.raises(ConfigError, match=r"'unipc'.*euler, heun, dpmpp_2m"):
        solver_named("unipc")
