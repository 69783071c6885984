"""The host's picture encoders as what drift is measured with: small random ones of the true structure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import comfy.clip_vision
import numpy as np
import pytest
import torch
from gloria_pack.gloria_core.errors import ConfigError
from gloria_pack.gloria_core.evaluate.drift import DEFAULT_THRESHOLD, DriftMeter
from gloria_pack.gloria_core.evaluate.embedding import COLOUR_GRID
from gloria_pack.gloria_core.evaluate.plot import drift_plot
from gloria_pack.nodes.host import clip_embedding as module
from gloria_pack.nodes.host.clip_embedding import clip_embedding
from tiny_wan import make, ours, tiny, wan_vae
from torch import Tensor

TINY = Path(__file__).parents[1] / "tiny_pack" / "clip_vision_config_h.json"
DINO = {
    "model_type": "dinov2", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "layer_norm_eps": 1e-6,
    "use_swiglu_ffn": True, "image_size": 224,
}  # fmt: skip


def encoder(folder: Path, seed: int = 0, **changes: Any) -> comfy.clip_vision.ClipVisionModel:
    """One as the stock loader makes it from its description, with random weights."""
    path = folder / "config.json"
    path.write_text(json.dumps(changes if "hidden_size" in changes else {**json.loads(TINY.read_text()), **changes}))
    made = comfy.clip_vision.ClipVisionModel(path)
    generator = torch.Generator().manual_seed(seed)
    for value in made.model.state_dict().values():
        if value.is_floating_point():
            scale = value[0].numel() ** -0.5 if value.ndim > 1 else 0.2
            value.copy_(torch.randn(value.shape, generator=generator) * scale + (value.ndim == 1))
    return made


def scene(seed: int, number: int = 1) -> np.ndarray:
    """Smooth pictures (n, 96, 64, 3) that hardly move."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (96, 64), mode="bilinear").movedim(1, -1)
    moved = torch.cat([smooth.roll(index, dims=2) for index in range(number)])
    return (moved * 255).round().byte().numpy()


def product(vectors: Tensor) -> float:
    return float(vectors[0] @ vectors[1])


@pytest.fixture
def clip(tmp_path: Path) -> comfy.clip_vision.ClipVisionModel:
    return encoder(tmp_path)


def test_vectors_are_those_of_the_stock_node(clip: comfy.clip_vision.ClipVisionModel) -> None:
    frames = np.concatenate([scene(1), scene(2)])
    vectors = clip_embedding(clip)(frames)
    stock = clip.encode_image(torch.from_numpy(frames).float() / 255, crop=False)["image_embeds"].float()
    assert vectors.shape == (2, 64)
    assert torch.allclose(vectors, stock / stock.norm(dim=1, keepdim=True), atol=1e-6)
    assert product(vectors) < 0.999, "this would compare nothing"


def test_the_name_tells_kind_size_and_weights(tmp_path: Path, clip: comfy.clip_vision.ClipVisionModel) -> None:
    name = clip_embedding(clip).name
    assert name.startswith("CLIP vision, 21 M weights, 224 px (")
    assert clip_embedding(encoder(tmp_path)).name == name, "the same weights"
    assert clip_embedding(encoder(tmp_path, seed=1)).name != name
    assert clip_embedding(encoder(tmp_path, **DINO)).name.startswith("DINOv2, 0 M weights, 224 px (")


def test_the_scale_makes_the_usual_threshold_a_sensible_product(
    tmp_path: Path, clip: comfy.clip_vision.ClipVisionModel
) -> None:
    clip_floor, dino_floor = clip_embedding(clip).floor, clip_embedding(encoder(tmp_path, **DINO)).floor
    assert clip_floor + DEFAULT_THRESHOLD * (1 - clip_floor) == pytest.approx(0.85)
    assert dino_floor + DEFAULT_THRESHOLD * (1 - dino_floor) == pytest.approx(0.73)
    for real, floor in ((0.885, clip_floor), (0.774, dino_floor)):  # one subject elsewhere, as DreamBooth measured it
        assert (real - floor) / (1 - floor) > DEFAULT_THRESHOLD


def test_a_meter_measures_with_it(clip: comfy.clip_vision.ClipVisionModel) -> None:
    embedding = clip_embedding(clip)
    meter = DriftMeter(scene(1)[0], embedding, more=[scene(3)[0]])
    meter.keep_first(scene(1, 8))
    alike, other = meter.measure(scene(1, 8)), meter.measure(255 - scene(1, 8))
    assert alike["to_first"] > 0.95
    assert other["similarity"] < alike["similarity"]
    assert meter.name.startswith(embedding.name)
    assert meter.name != DriftMeter(scene(1)[0], COLOUR_GRID, more=[scene(3)[0]]).name
    assert meter.state()["embedding"] == embedding.name


def test_a_whole_video_is_measured_with_it_and_tells_its_name(
    tmp_path: Path, clip: comfy.clip_vision.ClipVisionModel
) -> None:
    (tmp_path / "films").mkdir()
    patcher, vae = ours(tiny("t2v")), wan_vae("wan2.1")
    plotted: list[str] = []

    def plot(chunks: Any, **how: Any) -> Any:
        plotted.append(how["embedding"])
        return drift_plot(chunks, **how)

    with patch("gloria_pack.gloria_core.runs.drift_picture.drift_plot", plot):
        make(tmp_path / "films", patcher, vae, clip_vision=clip, drift_threshold=0.4, drift_tries=0)
        make(tmp_path / "films", patcher, vae)
    told = [json.loads(path.read_text()) for path in sorted((tmp_path / "films").glob("*/gloria_runs/*/run.json"))]
    name = clip_embedding(clip).name
    assert [one["meter"] for one in told] == [
        {"embedding": name, "threshold": 0.4},
        {"embedding": COLOUR_GRID.name, "threshold": 0.0},
    ]
    assert plotted == [name, COLOUR_GRID.name]
    measured = [[chunk["drift"]["to_first"] for chunk in one["chunks"]] for one in told]
    assert measured[0][0] > 0.9
    assert measured[0] != measured[1]


def test_an_encoder_without_one_vector_a_picture_is_refused(tmp_path: Path) -> None:
    siglip = encoder(tmp_path, model_type="siglip_vision_model")
    with pytest.raises(ConfigError, match=r"'clip_vision'.*load CLIP ViT-H or ViT-L, or DINOv2"):
        clip_embedding(siglip)(scene(1))


def test_a_kind_that_is_not_known_is_taken_as_clip(clip: comfy.clip_vision.ClipVisionModel) -> None:
    with patch.object(module, "_KINDS", {}):
        assert clip_embedding(clip).name.startswith("picture encoder, 21 M")
        assert clip_embedding(clip).floor == 0.5
