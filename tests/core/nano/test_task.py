import pytest
import torch

from gloria_core.config import ModelConfig
from gloria_core.errors import ConfigError
from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.nano.captions import WORDS, caption
from gloria_core.nano.characters import Characters
from gloria_core.nano.codec import load_codec
from gloria_core.nano.render import Poses
from gloria_core.nano.scenes import CLIP_FRAMES, Speech, draw_anchors, first_clip, middle_clip
from gloria_core.nano.task import NanoTask, nano_config
from gloria_core.nano.text import MAX_WORDS, TextEncoder, tokenize
from gloria_core.nano.textures import paint
from gloria_core.nano.timeline import FPS
from gloria_core.train import load_checkpoint
from gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole, AudioFeatures


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pulse(num_frames: int, at: int) -> Speech:
    """A sound that is loud in every row at and after one frame; its rows are zero elsewhere."""
    opening = (torch.arange(num_frames) >= at).float()
    return Speech(AudioFeatures(opening[:, None].repeat(1, 32), FPS, torch.zeros(32)), opening)


@pytest.fixture(scope="module")
def task() -> NanoTask:
    return NanoTask(num_characters=64, characters_per_batch=2)


def test_batches_depend_on_nothing_but_their_number(task: NanoTask) -> None:
    again = NanoTask(num_characters=64, characters_per_batch=2)
    for step, rank in ((0, 0), (5, 1)):
        a, b = task.batch(step, rank, 2), again.batch(step, rank, 2)
        assert torch.equal(a.latents, b.latents)
        assert a.words is not None
        assert b.words is not None
        assert torch.equal(a.words, b.words)
        assert a.num_prefix == b.num_prefix
    assert not torch.equal(task.batch(0, 0, 2).latents, task.batch(0, 1, 2).latents)


def test_batches_have_the_shapes_of_the_configuration(task: NanoTask) -> None:
    seen = set()
    for step in range(12):
        batch = task.batch(step, 0, 1)
        assert batch.latents.shape == (6, 64, 9, 8, 6)
        assert batch.audio is not None
        assert batch.audio.shape == (6, 9, 8, 32)
        assert batch.anchors is None or 6 % batch.anchors.batch_size == 0
        seen.add(batch.num_prefix)
    assert 4 in seen
    assert seen & {0, 1}


def test_the_mouth_in_a_clip_opens_when_its_window_says_so() -> None:
    """The frames that a latent decodes to are slots 2..5 of its window, in clips from the middle and from the start."""
    atlas, codec = paint(Characters.random(1, generator())), load_codec()
    for draw in (middle_clip, first_clip):
        found = 0
        for seed in range(16):
            clip = draw(atlas, codec, pulse(90, 45), generator(seed))
            if clip.audio.min() < 0:  # now and then a clip is silent, with the silence row of real speech
                continue
            frames = clip.audio[1:, 2:6, 0].flatten()
            mouth = clip.poses.mouth[0, -len(frames) :]
            assert torch.equal(frames, mouth)
            found += bool(0 < mouth.mean() < 1)
        assert found > 2


def test_a_middle_clip_is_nine_latents_of_moving_pictures() -> None:
    clip = middle_clip(paint(Characters.random(1, generator())), load_codec(), Speech.silent(400), generator(3))
    assert clip.latents.shape == (64, 9, 8, 6)
    assert clip.poses.yaw.shape == (1, CLIP_FRAMES)


def test_superset_anchors_come_from_elsewhere_and_plain_ones_from_inside() -> None:
    atlas, codec = paint(Characters.random(1, generator())), load_codec()
    poses = Poses.still(torch.full((1, 5), 0.1), torch.zeros(1, 5, dtype=torch.long), torch.full((1, 5), 0.7))
    outside, inside = (draw_anchors(atlas, codec, generator(1), given) for given in (None, poses))
    back, front = VIEWS.index("back"), VIEWS.index("front")
    assert torch.equal(outside.views[:, back], inside.views[:, back])  # no clip frame shows the back
    assert not torch.equal(outside.views[:, front], inside.views[:, front])
    again = draw_anchors(atlas, codec, generator(2), poses)
    assert torch.equal(again.views[:, front], inside.views[:, front])  # a copy of the clip's frame, whatever was drawn


def test_selecting_slots_keeps_their_pictures_apart() -> None:
    anchors = draw_anchors(paint(Characters.random(1, generator())), load_codec())
    chosen = anchors.select(scene=False, views=("left",), faces=("happy", "sad"))
    assert [(a.role, a.slot) for a in chosen] == [
        (AnchorRole.VIEW, "left"), (AnchorRole.EXPRESSION, "happy"), (AnchorRole.EXPRESSION, "sad"),
    ]  # fmt: skip
    assert torch.equal(chosen.anchors[0].latent, anchors.views[:, VIEWS.index("left")])
    assert torch.equal(chosen.anchors[1].latent, anchors.faces[:, EXPRESSIONS.index("happy")])


def test_words_that_are_not_known_are_named() -> None:
    ids, unknown = tokenize("turns to the left, Frobnicates happy")
    assert unknown == ["frobnicates"]
    assert ids == [WORDS.index(w) + 1 for w in ("turns", "to", "the", "left", "happy")] + [0] * (MAX_WORDS - 5)
    for view in VIEWS:
        for emotion in EXPRESSIONS:
            ids, unknown = tokenize(caption(view, emotion, None, generator(1)))
            assert not unknown
            assert any(ids)


def test_words_of_emotions_can_be_louder_than_others() -> None:
    ids = torch.tensor([tokenize("turns to the left, happy")[0]])
    plain, loud = (NanoTask(emotion_gain=gain).modules()["text_encoder"](ids)[0] for gain in (1.0, 8.0))
    assert torch.equal(plain[:4], loud[:4])
    assert loud[4].norm() > 5 * plain[4].norm()


def test_padding_gives_zero_rows() -> None:
    rows = TextEncoder(16)(torch.tensor([[3, 4, 0, 0]]))
    assert rows.shape == (1, 4, 16)
    assert rows[0, 2:].abs().max() == 0
    assert rows[0, :2].abs().min() > 0


def test_the_configuration_places_anchors_a_chunk_apart() -> None:
    config = nano_config()
    assert config.anchors.smallest_spacing >= config.chunk_latents
    assert len(config.latent_std) == config.out_channels
    assert ModelConfig.from_json(config.to_json()) == config
    same = nano_config(same_position=True)
    assert len({same.anchors.position(AnchorRole.VIEW, v) for v in VIEWS}) == 1
    with pytest.raises(ConfigError, match="joint"):
        nano_config("sideways")  # type: ignore[arg-type]


def test_training_can_go_on_from_the_shipped_weights(task: NanoTask) -> None:
    started = load_checkpoint(WEIGHTS_FILE)
    for key, module in task.modules().items():
        module.load_state_dict(started[key])  # strict: every name and shape fits
    assert started["dit"]["head.head.weight"].dtype == torch.float32
    assert started["dit"]["head.head.weight"].abs().max() > 0
