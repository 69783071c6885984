import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gloria_core.errors import LoraError
from gloria_core.lora import PeftConfig, read_lora

KEY = "blocks.0.self_attn.q.lora_A.weight"
ONE = {KEY: torch.arange(6.0).reshape(2, 3)}


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("gloria-was-here",)


def test_safetensors_and_pickles_give_the_same(tmp_path: Path) -> None:
    save_file(ONE, tmp_path / "a.safetensors", metadata={"ss_steps": "10"})
    torch.save(ONE, tmp_path / "b.pt")
    torch.save({"state_dict": ONE}, tmp_path / "c.ckpt")
    torch.save(ONE, tmp_path / "d.bin", _use_new_zipfile_serialization=False)
    read = {name: read_lora(tmp_path / name) for name in ("a.safetensors", "b.pt", "c.ckpt", "d.bin")}
    for file in read.values():
        assert list(file.tensors) == [KEY]
        assert torch.equal(file.tensors[KEY], ONE[KEY])
    assert read["a.safetensors"].metadata == {"ss_steps": "10"}


def _write(path: Path, content: object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".safetensors" and isinstance(content, dict):
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.safetensors", b"", "is empty"),
        ("random.safetensors", bytes(range(256)) * 8, "is not safetensors"),
        ("big.safetensors", (10**9).to_bytes(8, "little") + b"{}", "is not safetensors"),
        ("nothing.safetensors", {}, "holds no tensors"),
        ("lora.gguf", b"GGUF....", "is no LoRA file"),
        ("code.pt", Malicious(), "would run code"),
        ("random.pt", b"not a pickle at all", "cut, or a pickle"),
        ("zip.bin", b"PK\x03\x04 and then nothing", "cut, or a pickle"),
        ("list.ckpt", [1, 2, 3], "something else than named tensors"),
        ("mixed.pth", {"a": torch.ones(1), "step": 4}, "something else than named tensors"),
    ],
)
def test_bad_files_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: object, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoraError, match=says):
        read_lora(_write(tmp_path / name, content))
    assert not (tmp_path / "gloria-was-here").exists()


def test_missing_and_cut_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="no LoRA file nothing"):
        read_lora(tmp_path / "nothing.safetensors")
    path = _write(tmp_path / "cut.safetensors", ONE)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(LoraError, match="was cut"):
        read_lora(path)


SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def test_pefts_settings_are_found_beside_the_file_and_in_the_header(tmp_path: Path) -> None:
    beside = tmp_path / "adapter_config.json"
    beside.write_text(json.dumps({**SETTINGS, "use_rslora": True}), encoding="utf-8")
    path = _write(tmp_path / "adapter_model.safetensors", ONE)
    assert read_lora(path).peft == PeftConfig(rank=4, alpha=8.0, rslora=True)
    header = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in SETTINGS.items()})}
    save_file(ONE, path, metadata=header)
    assert read_lora(path).peft == PeftConfig(rank=4, alpha=8.0)


def test_pefts_settings_beside_several_loras_belong_to_its_own_file_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    lone = _write(tmp_path / "epoch5.safetensors", ONE)
    assert read_lora(lone).peft == PeftConfig(rank=4, alpha=8.0)
    own = _write(tmp_path / "adapter_model.safetensors", ONE)
    assert read_lora(lone).peft is None
    assert read_lora(own).peft == PeftConfig(rank=4, alpha=8.0)


@pytest.mark.parametrize(
    "settings",
    [
        "{",
        "[1]",
        '{"r": "four"}',
        '{"r": 0}',
        '{"r": 4, "rank_pattern": {"q": 0}}',
        '{"r": 4, "alpha_pattern": {"(": 1}}',
    ],
)
def test_broken_settings_are_told(tmp_path: Path, settings: str) -> None:
    (tmp_path / "adapter_config.json").write_text(settings, encoding="utf-8")
    with pytest.raises(LoraError, match="PEFT's settings in adapter_config"):
        read_lora(_write(tmp_path / "adapter_model.safetensors", ONE))


def test_pefts_scale_follows_its_patterns() -> None:
    config = PeftConfig(rank=4, alpha=8.0, rank_pattern={"attn1.to_q": 16}, alpha_pattern={r"blocks\.1\..*": 2.0})
    assert config.scale("blocks.0.attn1.to_k") == 2.0
    assert config.scale("blocks.0.attn1.to_q") == 0.5
    assert config.scale("blocks.1.attn1.to_k") == 0.5
    assert PeftConfig(rank=16, alpha=8.0, rslora=True).scale("any") == 2.0
