"""The import directions of the project, read off the source; what each rule is for stands beside it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LEVELS = (
    {"train"},
    {"data"},
    {"render"},
    {"characters"},
    {"runs"},
    {"evaluate"},
    {"sampling"},
    {"checkpoint", "anchors", "audio"},
    {"lora", "model", "media"},
    {"protocols"},
    {"families", "names"},
    {"config"},
    {"types", "whole", "events", "tables", "lock"},  # below config: it counts the slots of views and expressions
    {"errors"},  # below both: a setting out of range raises one of them
)
"""Rooms of the core from high to low: each may import those below it, and none beside or above it."""

WHILE_THEY_RUN = {("nano/export.py", "train"), ("render/bundled.py", "nano")}
"""Imports against the directions, allowed inside a function: the command that packs a training run into nano's file,
and the one place where a render without a host takes up the bundled model."""

HOST_MODULES = {
    "comfy", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "latent_preview", "node_helpers",
    "comfy_config", "app",
}  # fmt: skip
CORE_PACKAGES = {"torch", "torchaudio", "numpy", "einops", "safetensors", "av", "PIL"}
"""What the core may import beside the standard library: torch, and what requirements.txt lists."""
OPTIONAL_PACKAGES = {"diffusers", "ftfy", "gguf", "peft", "transformers"}
"""What a function of the core may import when it is called, with a clear message where it is missing."""


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name from the repository's root."""

    file: Path
    line: int
    module: str
    relative: bool
    top: bool
    """True when it runs as soon as the file is imported."""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = file.relative_to(ROOT).parent.parts
    late = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types_only(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        top = node not in late
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, relative=False, top=top)
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) + 1 - node.level],) if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            for alias in node.names:  # the name may be a module of its own
                yield Import(file, node.lineno, f"{module}.{alias.name}" if module else alias.name, node.level > 0, top)


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _all_imports(*folders: str) -> list[Import]:
    return [found for folder in folders for file in _files(folder) for found in _imports(file)]


def _level(room: str) -> int | None:
    return next((index for index, rooms in enumerate(LEVELS) if room in rooms), None)


def _room(file: Path) -> str:
    return file.relative_to(ROOT / "gloria_core").parts[0].removesuffix(".py")


def _broken(found: list[Import]) -> str:
    return "\n".join(sorted({str(item) for item in found}))


def test_every_room_of_the_core_has_its_level() -> None:
    rooms = {_room(file) for file in _files("gloria_core")} - {"__init__", "nano"}
    assert rooms <= set().union(*LEVELS)


def test_rooms_import_only_what_is_below_them() -> None:
    wrong = []
    for item in _all_imports("gloria_core"):
        target = item.module.split(".")
        if target[0] != "gloria_core" or len(target) < 2:
            continue
        room, other = _room(item.file), target[1]
        if room == other or _level(other) is None or room == "__init__":
            continue
        floor = _level("train") if room == "nano" else _level(room)
        assert floor is not None
        here = item.file.relative_to(ROOT / "gloria_core").as_posix()
        if _level(other) <= floor and (item.top or (here, other) not in WHILE_THEY_RUN):
            wrong.append(item)
    assert not wrong, _broken(wrong)


def test_nothing_of_the_core_imports_nano() -> None:
    wrong = [
        item
        for item in _all_imports("gloria_core", "launch")
        if item.module.startswith("gloria_core.nano")
        and item.file != ROOT / "launch" / "preflight.py"  # run.py's demo
        and "nano" not in item.file.relative_to(ROOT).parts
        and (item.top or (item.file.relative_to(ROOT / "gloria_core").as_posix(), "nano") not in WHILE_THEY_RUN)
    ]
    assert not wrong, _broken(wrong)


def test_the_core_knows_no_host() -> None:
    host = HOST_MODULES | {"comfy_api", "nodes"}
    wrong = [item for item in _all_imports("gloria_core") if not item.relative and item.module.split(".")[0] in host]
    assert not wrong, _broken(wrong)


def test_only_nodes_host_imports_the_hosts_inside() -> None:
    """`comfy_api` is the host's public interface: every node file may use it."""
    wrong = [
        item
        for item in [*_all_imports("nodes"), *_imports(ROOT / "__init__.py")]
        if item.module.split(".")[0] in HOST_MODULES and (ROOT / "nodes" / "host") not in item.file.parents
    ]
    assert not wrong, _broken(wrong)


def test_the_packs_root_imports_nothing_of_the_host_when_it_is_imported() -> None:
    """Tools that import the package for other reasons have no host."""
    ours = ("nodes", "gloria_core")
    wrong = [
        item
        for item in _imports(ROOT / "__init__.py")
        if item.top and (item.relative or item.module.startswith(("comfy", *ours, *HOST_MODULES)))
    ]
    assert not wrong, _broken(wrong)


def test_inside_the_pack_imports_are_relative() -> None:
    """The host imports the pack under a name made from its path, and has a module `nodes` of its own."""
    wrong = [
        item
        for item in _all_imports("gloria_core", "nodes")
        if not item.relative and item.module.split(".")[0] in {"gloria_core", "nodes", "launch", "run"}
    ]
    assert not wrong, _broken(wrong)


def test_nodes_import_the_core_and_no_other_nodes() -> None:
    """Node classes never call node classes: what two of them share lives in the core, in `host` or in `sockets`."""
    with_nodes = {file.stem for file in (ROOT / "nodes").glob("*.py") if _defines_a_node(file)}
    wrong = [
        item
        for item in _all_imports("nodes")
        if item.file.name != "extension.py"
        and item.relative
        and item.module.split(".")[:1] == ["nodes"]
        and item.module.split(".")[1] in with_nodes - {item.file.stem}
    ]
    assert with_nodes, "no node classes were found: this test looks for the wrong thing"
    assert not wrong, _broken(wrong)


def _defines_a_node(file: Path) -> bool:
    bases = [
        base
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ]
    return any(isinstance(base, ast.Attribute) and base.attr == "ComfyNode" for base in bases)


def test_the_core_needs_only_what_the_requirements_name() -> None:
    known = CORE_PACKAGES | set(sys.stdlib_module_names)
    foreign = [item for item in _all_imports("gloria_core") if not item.relative]
    wrong = [
        item for item in foreign if item.module.split(".")[0] not in (known if item.top else known | OPTIONAL_PACKAGES)
    ]
    assert not wrong, _broken(wrong)


def test_media_knows_no_networks() -> None:
    layers = [item for item in _all_imports("gloria_core/media") if item.module.startswith("torch.nn")]
    wrong = [item for item in layers if not item.module.startswith("torch.nn.functional")]
    assert not wrong, _broken(wrong)


def test_the_launcher_needs_nothing_installed() -> None:
    own = {"launch", "run"}
    found = [*_all_imports("launch"), *_imports(ROOT / "run.py")]
    wrong = [
        item
        for item in found
        if item.module.split(".")[0] not in own | set(sys.stdlib_module_names)
        and not (item.file.name == "preflight.py" and not item.top)  # that part runs in the environment
    ]
    assert not wrong, _broken(wrong)


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from ..errors import A", ["gloria_core.errors.A"]),
        ("from . import rope", ["gloria_core.model.rope"]),
        ("import comfy.ops", ["comfy.ops"]),
        ("def f():\n    from ..train import loop", ["gloria_core.train.loop"]),
    ],
)
def test_this_files_reader_of_imports(source: str, modules: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "gloria_core" / "model" / "imagined.py"
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: source)
    assert [item.module for item in _imports(file)] == modules
