"""From what a user chose (a file, an index of shards, a folder) to one header."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from . import gguf, pickles
from .header import Header, Shapes, TensorInfo, read_safetensors_header
from .unpack import unpacked

_INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_SHOWN = 10
_SHAPES_SHOWN = 3

Shards = tuple[tuple[Path, ...], frozenset[str]]
"""The files of one model, and the tensors that an index promises in them."""

_MISTAKEN = (
    (b"version https://git-lfs", "is a placeholder of Git LFS, not the weights: fetch it with 'git lfs pull'"),
    (b"<", "is a web page, not weights: the download led to a page for people. Use the site's download button"),
)
"""How files begin that are often saved under a model's name."""


def read_header(path: Path) -> Header:
    """Read what stands before the weights: of one file, or of every shard.

    Args:
        path: a .safetensors, .gguf, .pt, .pth, .ckpt or .bin file; a shard or its index.json; or a folder.

    Raises:
        CheckpointError: nothing is there, a shard is missing, or a file is cut, empty, or of another kind.
    """
    shards, promised = _shards(path)
    first = shards[0]
    kind = _container(first)
    if kind == "gguf":
        return Header(path, shards, "gguf", *gguf.read_gguf_header(first))
    if kind == "pickle":
        tensors = {name: TensorInfo(tuple(t.shape), t.dtype, first) for name, t in pickles.read_pickle(first).items()}
        return Header(path, shards, "pickle", tensors, {})
    tensors, metadata = {}, dict[str, str]()
    for shard in shards:
        _container(shard)
        found, notes = read_safetensors_header(shard)
        doubled = sorted(found.keys() & tensors.keys())
        if doubled:
            raise CheckpointError(f"{shard.name} and an earlier part both hold {some(doubled)}. Download both again.")
        tensors |= found
        metadata |= notes
    lost = sorted(promised - tensors.keys())
    if lost:
        raise CheckpointError(
            f"The parts beside {path.name} lack {len(lost)} of the tensors that it names: {some(lost)}. They belong to "
            "another download: download all parts again."
        )
    return Header(path, shards, "safetensors", tensors, metadata)


def read_tensors(header: Header, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Give tensors by the names in the file, mapped: a weight is read from the disk when it is first used.

    Those of a GGUF are unpacked, to bfloat16, and so are held in memory.

    Raises:
        CheckpointError: the file was changed after its header was read, or is too large for this system to map; or it
            is a GGUF, and what unpacks its formats is not installed.
    """
    if header.container == "gguf":
        yield from unpacked(header.files[0], header.tensors, names)
        return
    if header.container == "pickle":
        content = pickles.read_pickle(header.files[0])
        yield from ((name, content[name]) for name in names)
        return
    for path in header.files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in names:
                    if header.tensors[name].file == path:
                        yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path.name} changed while it was read ({error}); wait until its download is complete, and try again."
            ) from error
        except (RuntimeError, MemoryError) as error:  # the system refuses so large a mapping
            raise CheckpointError(
                f"{path.name} ({path.stat().st_size / 1e9:.1f} GB) cannot be mapped into memory ({error}): the system "
                "has not enough memory and swap for it. Use a smaller file (fp8 or GGUF), or add swap."
            ) from error


def some(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:100] for name in names[:_SHOWN]) + more


def misfits(wanted: Shapes, given: Shapes, foreign: Sequence[str] = (), *, whose: str = "of this model") -> str:
    """Say which weights are missing, unknown (``foreign`` among them) or of another shape; empty where all is well."""
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted([*(given.keys() - wanted.keys()), *foreign])
    other = [f"{n} is {given[n]} instead of {shape}" for n, shape in wanted.items() if given.get(n, shape) != shape]
    complaints = []
    if missing:
        complaints.append(f"{len(missing)} of {len(wanted)} weights are missing ({some(missing)})")
    if unknown:
        complaints.append(f"{len(unknown)} are not {whose} ({some(unknown)})")
    if other:
        more = " and more" if len(other) > _SHAPES_SHOWN else ""
        complaints.append(f"{len(other)} have another shape ({'; '.join(other[:_SHAPES_SHOWN])}{more})")
    return "; ".join(complaints)


def _container(path: Path) -> str:
    """Tell a file's kind by its first bytes; raises CheckpointError where they are no weights."""
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path.name}; choose one that is in the models folder.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"The weights file {path.name} cannot be read: {error.strerror}.") from error
    if not start:
        raise CheckpointError(f"{path.name} is empty (0 bytes): its download failed. Download it again.")
    for mark, told in _MISTAKEN:
        if start.lstrip().startswith(mark):
            raise CheckpointError(f"{path.name} {told}.")
    if start.startswith(gguf.MAGIC):
        return "gguf"
    if path.suffix.lower() == ".gguf":
        raise CheckpointError(f"{path.name} is called GGUF but does not begin as one. Download it again.")
    if start.startswith(b"PK\x03\x04") or path.suffix.lower() in pickles.SUFFIXES:
        return "pickle"
    return "safetensors"


def _shards(path: Path) -> Shards:
    if path.is_dir():
        return _of_folder(path)
    if path.name.endswith(".json"):
        return _of_index(path)
    part = _SHARD.fullmatch(path.name)
    if part is None:
        return (path,), frozenset()
    index = path.with_name(part[1] + _INDEX)
    if index.is_file():
        return _of_index(index)
    total = int(part[3])
    parts = [path.with_name(f"{part[1]}-{number:05d}-of-{part[3]}.safetensors") for number in range(1, total + 1)]
    return _present(parts, f"{path.name} is one part of {total}"), frozenset()


def _of_folder(path: Path) -> Shards:
    """Find the one model in a folder: of shards, of one file, or below ``transformer`` in a Diffusers pipeline."""
    inner = path / "transformer"
    if inner.is_dir() and (path / "transformer_2").is_dir():
        raise CheckpointError(
            f"The folder {path.name} holds two experts: choose its folder transformer (high noise) or transformer_2 "
            "(low noise), each with a loader of its own."
        )
    for folder in (path, inner):
        indices, files = sorted(folder.glob(f"*{_INDEX}")), sorted(folder.glob("*.safetensors"))
        if len(indices) == 1:
            return _of_index(indices[0])
        whole = [file for file in files if not _SHARD.fullmatch(file.name)]
        if len(files) == 1 or (files and not whole):
            return _shards(files[0])
        if files:
            raise CheckpointError(f"The folder {path.name} holds {len(files)} weights files; choose one of them: "
                                  f"{some([file.name for file in files])}.")  # fmt: skip
    inside = sorted(part.name for part in path.iterdir() if part.is_dir())
    instead = f"perhaps one of its own: {some(inside)}" if inside else "one with .safetensors files"
    raise CheckpointError(f"The folder {path.name} holds no weights of a model; choose another, {instead}.")


def _of_index(path: Path) -> Shards:
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path.name}; choose one that is in the models folder.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"The index {path.name} is not readable ({str(error)[:200]}). Download it again."
        ) from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(
            f"{path.name} is no index of weights: it has no table 'weight_map'. Choose the file that ends in {_INDEX}."
        )
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name or "\\" in name]
    if outside:
        raise CheckpointError(
            f"The index {path.name} names files outside its own folder ({some(outside)}), which are not opened. "
            "Download the index from the model's maker."
        )
    shards = _present([path.with_name(name) for name in names], f"{path.name} names {len(names)} parts")
    return shards, frozenset(places)


def _present(parts: Sequence[Path], what: str) -> tuple[Path, ...]:
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{what}, and {len(missing)} of them {'is' if len(missing) == 1 else 'are'} missing: {some(missing)}. "
            "Download the missing parts into the same folder."
        )
    return tuple(parts)
