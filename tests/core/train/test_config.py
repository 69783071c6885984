"""The settings: what is read, what is written out, and how wrong ones are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gloria_core.errors import ConfigError
from gloria_core.train.config import TrainConfig, changed_settings, from_table, load_config

MINIMAL = '[run]\ntotal_steps = 5\n[task]\ntarget = "a.b:C"\n'


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_written_out_and_read_back_equal(tmp_path: Path) -> None:
    text = MINIMAL + '[task.options]\nfolder = "it\'s \\"here\\""\nsizes = [1, 2]\nnested = { "a b" = 0.5 }\n'
    config = load_config(_write(tmp_path / "a.toml", text))
    written = config.to_toml()
    assert "ema_decay = 0.999" in written
    assert load_config(_write(tmp_path / "b.toml", written)) == config
    assert config.task.options["nested"] == {"a b": 0.5}


def test_a_file_may_begin_with_the_mark_that_editors_of_windows_write(tmp_path: Path) -> None:
    assert load_config(_write(tmp_path / "a.toml", f"\ufeff{MINIMAL}")) == load_config(
        _write(tmp_path / "b.toml", MINIMAL)
    )


def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.toml", MINIMAL + "[optim]\nwarm_up_steps = 3\n")
    with pytest.raises(ConfigError, match=r"no setting optim\.warm_up_steps; did you mean optim\.warmup_steps"):
        load_config(path)


def test_an_unknown_key_in_a_list_of_tables_is_named_in_full(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.toml", MINIMAL + "[[objective.sigmas]]\nshfit = 3.0\n")
    with pytest.raises(ConfigError, match=r"objective\.sigmas\[0\]\.shfit; did you mean objective\.sigmas\[0\]\.shift"):
        load_config(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[optim]\nlr = 'fast'", "optim.lr is 'fast'; it must be a number"),
        ("[optim]\nbetas = [0.9]", "optim.betas is .* a list of 2"),
        ("[optim]\naccumulation = 1.5", "optim.accumulation is 1.5; it must be a whole number"),
        ("[optim]\naccumulation = true", "optim.accumulation is True; it must be a whole number"),
        ("[optim]\nkind = 'sgd'", "must be one of: adamw, muon"),
        ("[optim]\nema_decay = 1.0", "below 1"),
        ("[optim]\nlr = inf", "optim.lr is inf; it must be above 0 and finite"),
        ("[[objective.sigmas]]\nmean = nan", "objective.sigmas.mean is nan; it must lie between"),
        ("[optim]\nlr = nan", "optim.lr is nan; it must be above 0"),
        ("[optim]\nweight_decay = -0.1", "optim.weight_decay is -0.1; it must be 0 or more"),
        ("[optim]\nmuon_steps = 100", "optim.muon_steps is 100; use 1 to 99"),
        ("[objective]\ntext_dropout = 2", "between 0 and 1"),
        ("[objective]\nsigmas = []", "objective.sigmas is empty"),
        ("[[objective.sigmas]]\nlow = 0.9\nhigh = 0.2", "0 <= low < high <= 1"),
        ("[log]\nkeep = 0", "log.keep is 0; it must be 1 or more"),
        ("optim = 3", "no setting task.optim"),
    ],
)
def test_a_wrong_value_is_told_with_its_rule(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(_write(tmp_path / "a.toml", f"{MINIMAL}{line}\n"))


def test_a_seed_and_threads_that_cannot_be_are_told() -> None:
    for run, told in (({"seed": 2**65}, "run.seed is"), ({"threads": 10**9}, "run.threads is")):
        with pytest.raises(ConfigError, match=f"{told} .*it must lie between"):
            from_table({"run": {"total_steps": 1, **run}, "task": {"target": "a:B"}})


def test_a_missing_setting_a_missing_file_and_broken_toml_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.total_steps is missing"):
        from_table({"run": {}, "task": {"target": "a:B"}})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(_write(tmp_path / "a.toml", "[run\n"))
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(_write(tmp_path / "a.toml", "a = " + "[" * 10_000))


def test_overrides_take_toml_values_plain_words_and_new_options(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.toml", MINIMAL)
    config = load_config(path, ["optim.lr=2e-4", "run.out=runs/one", "run.train=['dit.*']", "task.options.size=3"])
    assert config.optim.lr == 2e-4
    assert config.run.out == "runs/one"
    assert config.run.train == ("dit.*",)
    assert config.task.options == {"size": 3}


@pytest.mark.parametrize("override", ["optim.lr", "lr=3", "run.total_steps.x=3", ".lr=3"])
def test_a_malformed_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(_write(tmp_path / "a.toml", MINIMAL), [override])


def test_changed_settings_names_what_differs(make_config: Callable[..., TrainConfig]) -> None:
    assert changed_settings(make_config(), make_config(optim__lr=0.5)) == {"optim.lr": (0.01, 0.5)}
