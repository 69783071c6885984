"""The configurations that nano comes with: every stage of each trains a step, and the result becomes a nano file."""

from pathlib import Path

import pytest

from gloria_core.nano import export as exporting
from gloria_core.nano.bundle import WEIGHTS_FILE, load_bundle, training_record
from gloria_core.nano.task import NanoTask
from gloria_core.train.stages import read_stages, train_stages
from gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole

CONFIGS = sorted((Path(exporting.__file__).parent / "configs").glob("*.toml"))
QUICK = ["run.total_steps=1", "task.options.num_characters=128", "task.options.characters_per_batch=1",
         "run.prefetch=0", "run.device=cpu", "log.held_out_every=0", "log.sample_every=0"]  # fmt: skip


def roles(task: NanoTask, steps: int = 8) -> list[set[AnchorRole]]:
    batches = (task.batch(step, 0, 1) for step in range(steps))
    return [{anchor.role for anchor in batch.anchors or ()} for batch in batches]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_stage_trains_and_the_runs_become_a_nano_file(file: Path, tmp_path: Path) -> None:
    configs = read_stages(file, [*QUICK, f"run.out={tmp_path.as_posix()}"])
    assert train_stages(configs).finished
    out = tmp_path / "nano.safetensors"
    legs = exporting.export([Path(config.run.out) for config in configs], out)
    assert training_record(out) == legs
    new = legs[-len(configs) :]  # those before are of the file that it went on from
    assert [leg["steps"] for leg in new] == [1] * len(configs)
    assert all(leg["clips"] == 3 and "NanoTask" in leg["settings"] for leg in new)
    assert len(legs) == len(new) + (len(training_record(WEIGHTS_FILE)) if configs[0].run.init_from else 0)
    assert load_bundle(out).config.name == "gloria-nano"


def test_a_run_that_went_on_from_a_nano_file_keeps_its_record(tmp_path: Path) -> None:
    file = next(file for file in CONFIGS if file.stem == "nano")
    configs = read_stages(file, [*QUICK, f"run.out={tmp_path.as_posix()}"])[:1]
    train_stages(configs)
    first = tmp_path / "first.safetensors"
    exporting.export([Path(configs[0].run.out)], first)
    again = read_stages(file, [*QUICK, f"run.out={(tmp_path / 'b').as_posix()}", f"run.init_from={first}"])[:1]
    train_stages(again)
    assert len(exporting.export([Path(again[0].run.out)], tmp_path / "second.safetensors")) == 2


def test_the_papers_stages_show_the_anchors_of_the_paper(tmp_path: Path) -> None:
    file = next(file for file in CONFIGS if file.stem == "paper")
    small = {"num_characters": 128, "characters_per_batch": 1, "drop_role": 0.0}
    seen = [roles(NanoTask(**{**config.task.options, **small})) for config in read_stages(file, ["run.out=somewhere"])]
    everything = set(AnchorRole)
    assert seen[0] == [set()] * 8
    assert seen[1] == [{AnchorRole.GLOBAL}] * 8
    assert all(len(found) <= 2 for found in seen[2])
    assert {AnchorRole.VIEW, AnchorRole.EXPRESSION} <= set.union(*seen[2])
    assert seen[3] == [everything] * 8


def test_in_the_spotlight_all_clips_are_told_the_same_emotion_and_its_anchor_is_there() -> None:
    task = NanoTask(num_characters=128, characters_per_batch=1, spotlight=1.0, drop_role=0.0, turn=0.0, front=1.0)
    counts = []
    for step in range(6):
        batch = task.batch(step, 1, 2)
        assert batch.words is not None
        assert batch.anchors is not None
        told = {emotion for emotion in EXPRESSIONS if all(set(row.tolist()) & _words(emotion) for row in batch.words)}
        faces = [anchor.slot for anchor in batch.anchors if anchor.role is AnchorRole.EXPRESSION]
        assert len(told) == 1
        assert told <= set(faces)
        counts.append(len(faces))
        assert batch.anchors.get(AnchorRole.VIEW, VIEWS[0]) is None or len(batch.anchors) > 2
    assert min(counts) < len(EXPRESSIONS)


def _words(emotion: str) -> set[int]:
    from gloria_core.nano.captions import _EMOTION_WORDS
    from gloria_core.nano.text import tokenize

    return {id for word in _EMOTION_WORDS[emotion] for id in tokenize(word)[0] if id}
