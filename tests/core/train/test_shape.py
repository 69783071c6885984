"""What batches look like to an estimate."""

from pathlib import Path

from tiny_dit import DitTask

from gloria_core.data.buckets import Sizes, areas_of
from gloria_core.data.cache import Cache
from gloria_core.data.folder import read_dataset
from gloria_core.data.prepare import prepare
from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.nano.encoders import NanoEncoder
from gloria_core.train.config import from_table
from gloria_core.train.shape import largest_shape, shape_of
from tests.core.data.footage import write_folder


def test_a_batch_has_a_shape() -> None:
    shape = shape_of(DitTask().batch(0, 0, 1))
    assert (shape.batch_size, shape.num_latents, shape.height, shape.width) == (2, 3, 4, 4)
    assert (shape.num_prefix, shape.text_rows) == (1, 6)
    assert [(slot, h, w) for _, slot, h, w in shape.anchors] == [("", 4, 4), ("left", 4, 2), ("happy", 2, 2)]


def test_the_largest_batch_of_footage_has_every_anchor_and_no_prefix(tmp_path: Path) -> None:
    write_folder(tmp_path / "mira", num_takes=1, num_chunks=2)
    cache = Cache(tmp_path / "cache")
    manifest, _ = read_dataset(tmp_path / "mira")
    prepare(manifest, NanoEncoder(), cache, Sizes(fps=16.0, areas=areas_of("", "nano"), longest=129, shortest=17))
    options = {"manifest": str(tmp_path / "mira"), "cache": str(tmp_path / "cache"), "weights": str(WEIGHTS_FILE)}
    config = from_table(
        {
            "run": {"total_steps": 1},
            "task": {
                "target": "gloria_core.data.task:FootageTask",
                "options": {**options, "drop_role": 1.0, "prefix": 1.0, "batch_size": 2},
            },
        }
    )
    model, shape = largest_shape(config)
    assert model.codec == "nano"
    assert (shape.batch_size, shape.num_latents, shape.height, shape.width) == (2, 9, 8, 6)
    assert (shape.num_prefix, len(shape.anchors)) == (0, 13)
