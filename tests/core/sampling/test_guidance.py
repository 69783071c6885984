import pytest
import torch
from torch import Tensor

from gloria_core.errors import ConfigError
from gloria_core.sampling.guidance import Branch, Guidance

VELOCITY = {
    branch: torch.randn(2, 3, generator=torch.Generator().manual_seed(number)) for number, branch in enumerate(Branch)
}


class Predict:
    def __init__(self) -> None:
        self.asked: list[Branch] = []

    def __call__(self, branch: Branch) -> Tensor:
        self.asked.append(branch)
        return VELOCITY[branch]


@pytest.mark.parametrize("text_scale", [0.0, 1.0, 3.5, 5.0])
@pytest.mark.parametrize("audio_scale", [0.0, 1.0, 2.0, 5.0])
def test_velocity_equals_the_formula(text_scale: float, audio_scale: float) -> None:
    negative, text, full = (VELOCITY[branch] for branch in (Branch.NEGATIVE, Branch.TEXT, Branch.FULL))
    expected = negative + text_scale * (text - negative) + audio_scale * (full - text)
    made = Guidance(text_scale=text_scale, audio_scale=audio_scale).mix(Predict(), has_audio=True)
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("text_scale", [0.0, 1.0, 5.0])
def test_without_audio_the_formula_is_plain_guidance(text_scale: float) -> None:
    predict = Predict()
    made = Guidance(text_scale=text_scale, audio_scale=4.0).mix(predict, has_audio=False)
    negative, text = VELOCITY[Branch.NEGATIVE], VELOCITY[Branch.TEXT]
    torch.testing.assert_close(made, negative + text_scale * (text - negative))
    assert Branch.FULL not in predict.asked


@pytest.mark.parametrize(
    ("text_scale", "audio_scale", "asked"),
    [
        (1.0, 1.0, [Branch.FULL]),
        (1.0, 3.0, [Branch.TEXT, Branch.FULL]),
        (1.0, 0.0, [Branch.TEXT]),
        (4.0, 4.0, [Branch.NEGATIVE, Branch.FULL]),
        (4.0, 1.0, [Branch.NEGATIVE, Branch.TEXT, Branch.FULL]),
        (0.0, 0.0, [Branch.NEGATIVE]),
    ],
)
def test_only_branches_that_are_needed_are_computed(text_scale: float, audio_scale: float, asked: list[Branch]) -> None:
    predict = Predict()
    Guidance(text_scale=text_scale, audio_scale=audio_scale).mix(predict, has_audio=True)
    assert predict.asked == asked


@pytest.mark.parametrize("scale", [-0.5, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="text guidance scale"):
        Guidance(text_scale=scale)
    with pytest.raises(ConfigError, match="audio guidance scale"):
        Guidance(audio_scale=scale)
