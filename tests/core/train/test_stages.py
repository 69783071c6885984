"""Stages: what each inherits, where it starts from, and how a broken-off one goes on."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from gloria_core.errors import CheckpointError, ConfigError
from gloria_core.train import latest_checkpoint, load_checkpoint
from gloria_core.train.stages import read_stages, train_stages

TEXT = """
[run]
out = "OUT"
total_steps = 3
device = "cpu"
[task]
target = "tiny_task:TinyTask"
[optim]
lr = 0.01
warmup_steps = 1
ema_decay = 0.0
[log]
log_every = 0
held_out_every = 0
sample_every = 0
checkpoint_every = 0
[[stages]]
name = "ears"
run.freeze = ["dit.blocks.1*"]
[[stages]]
name = "eyes"
run.total_steps = 2
objective.audio_dropout = 0.5
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "stages.toml"
    file.write_text(TEXT.replace("OUT", (tmp_path / "run").as_posix()), encoding="utf-8")
    return file


def test_a_stage_changes_what_it_names_and_starts_from_the_one_before(path: Path, tmp_path: Path) -> None:
    first, second = read_stages(path)
    assert (first.run.total_steps, second.run.total_steps) == (3, 2)
    assert (first.run.freeze, second.run.freeze) == (("dit.blocks.1*",), ())
    assert second.objective.audio_dropout == 0.5
    assert first.optim == second.optim
    assert first.run.out == (tmp_path / "run").as_posix() + "/1-ears"
    assert (first.run.init_from, second.run.init_from) == ("", first.run.out)


def test_an_override_holds_in_every_stage(path: Path) -> None:
    assert [config.run.total_steps for config in read_stages(path, ["run.total_steps=7"])] == [7, 7]


def test_stages_train_one_after_the_other(path: Path) -> None:
    first, second = read_stages(path)
    result = train_stages([first, second])
    assert result.finished
    assert result.step == 2
    begin = load_checkpoint(latest_checkpoint(Path(first.run.out)))["dit"]
    end = load_checkpoint(result.checkpoint)["dit"]
    assert not begin["blocks.1.weight"].equal(end["blocks.1.weight"])
    alone = replace(second, run=replace(second.run, out=second.run.out + "-alone", init_from=""))
    fresh = train_stages([alone])
    assert not load_checkpoint(fresh.checkpoint)["dit"]["head.weight"].equal(end["head.weight"])


def test_a_stage_that_was_broken_off_goes_on_and_finished_ones_are_not_repeated(path: Path) -> None:
    whole = load_checkpoint(train_stages(read_stages(path)).checkpoint)["dit"]
    configs = read_stages(path, [f"run.out={path.parent.as_posix()}/broken"])
    train_stages(configs[:1])
    broken = train_stages(configs, resume=True, stop_after_s=0.0)
    assert (broken.finished, broken.step, broken.checkpoint.parent.parent.name) == (False, 1, "2-eyes")
    result = train_stages(configs, resume=True, stop_after_s=math.inf)
    assert result.finished
    assert all(value.equal(whole[name]) for name, value in load_checkpoint(result.checkpoint)["dit"].items())


def test_used_folders_are_told_before_anything_is_trained(path: Path) -> None:
    configs = read_stages(path)
    train_stages(configs)
    with pytest.raises(ConfigError, match="already holds a run"):
        train_stages(configs)
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        train_stages(read_stages(path, [f"run.out={path.parent.as_posix()}/other"]), resume=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "eyes"', 'name = "ears"', "a name of its own"),
        ('name = "eyes"', "", "a name of its own"),
        ('name = "eyes"', 'name = "../eyes"', "a name of its own"),
        ("[[stages]]\nname", "[stages]\nname", "begin each stage with a line"),
        ("run.total_steps", "run.steps", "no setting run.steps"),
    ],
)
def test_wrong_stages_are_refused(path: Path, old: str, new: str, message: str) -> None:
    text = path.read_text(encoding="utf-8")
    if old.startswith("[[stages]]"):
        text = text[: text.rindex("[[stages]]")]
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_stages(path)
