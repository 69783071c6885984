"""wav2vec 2.0 hidden states on the output clock; transformers' own model is the oracle of their number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gloria_core.audio import from_encoder_output, hidden_of
from gloria_core.errors import AudioError


def states(samples: int) -> Tensor:
    """Hidden states that hold the time of their own centre, in seconds."""
    count = (samples - 400) // 320 + 1
    return ((torch.arange(count) * 320 + 200) / 16000)[None, :, None].repeat(1, 1, 4)


@pytest.mark.parametrize("fps", [16, 24, 25, 29.97, 60])
def test_a_frame_reads_the_instant_of_its_centre(fps: float) -> None:
    samples = 16000 * 4
    num_frames = int(4 * fps)
    rows = from_encoder_output(states(samples), samples, fps=fps, num_frames=num_frames).frames
    centres = (torch.arange(num_frames) + 0.5) / fps
    inner = (centres > 0.0125) & (centres < 3.9725)
    torch.testing.assert_close(rows[inner, 0], centres[inner], atol=1e-5, rtol=0)


def test_a_shorter_video_has_the_same_rows() -> None:
    hidden = torch.randn(1, 199, 6, generator=torch.Generator().manual_seed(0))
    whole = from_encoder_output(hidden, 64000, fps=24, num_frames=96).frames
    assert torch.equal(from_encoder_output(hidden, 64000, fps=24, num_frames=30).frames, whole[:30])


def test_behind_the_end_of_the_sound_are_zeros() -> None:
    rows = from_encoder_output(torch.ones(1, 49, 6), 16000, fps=16, num_frames=20).frames
    assert (rows[:16] == 1).all()
    assert (rows[16:] == 0).all()


def test_one_state_is_enough() -> None:
    assert from_encoder_output(torch.ones(1, 1, 6), 400, fps=16, num_frames=2).frames.shape == (2, 6)


@pytest.mark.slow
def test_the_number_of_states_is_that_of_the_true_structure() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # slow to import, for this test alone

    tiny = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = Wav2Vec2Model(tiny).eval()
    for samples in (400, 719, 720, 16000, 50001):
        with torch.no_grad():
            hidden = model(torch.zeros(1, samples)).last_hidden_state
        assert hidden.shape[1] == states(samples).shape[1]
        assert from_encoder_output(hidden, samples, fps=16, num_frames=4).frames.shape == (4, 16)


def test_layers_are_picked_from_the_hosts_output() -> None:
    layers = [torch.full((1, 49, 4), float(n)) for n in range(3)]
    output = {"encoded_audio": layers[-1], "encoded_audio_all_layers": tuple(layers), "audio_samples": 16000}
    assert hidden_of(output) is layers[2]
    assert hidden_of(output, 0) is layers[0]
    assert hidden_of(output, -2) is layers[1]
    with pytest.raises(AudioError, match="3 layers; there is no layer 3"):
        hidden_of(output, 3)
    with pytest.raises(AudioError, match="encoded_audio"):
        hidden_of({})


@pytest.mark.parametrize(
    ("shape", "samples", "message"),
    [
        ((1, 1500, 4), 16000, "wav2vec2 gives 49"),
        ((2, 49, 4), 16000, "one sound"),
        ((49, 4), 16000, "one sound"),
        ((1, 0, 4), 100, "100 samples"),
    ],
)
def test_output_of_another_kind_is_refused(shape: tuple[int, ...], samples: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        from_encoder_output(torch.zeros(shape), samples, fps=16, num_frames=4)
