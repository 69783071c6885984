"""Character files with the host: their model folder, the VAE's digest, anchors to files and back."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths
import torch
from torch import Tensor

from ...gloria_core.anchors.picture import AnchorPicture, on_grid
from ...gloria_core.characters.board import Board, parse_board
from ...gloria_core.characters.character_file import (
    ENDING,
    Character,
    StoredPicture,
    read_character,
    write_character,
)
from ...gloria_core.characters.pictures import encoded, to_image, to_tensor
from ...gloria_core.characters.read import board_pictures, character_pictures
from ...gloria_core.characters.shelf import new_file, save_board
from ...gloria_core.characters.slots import key_of
from ...gloria_core.errors import AnchorError, ConfigError, MediaError
from ...gloria_core.runs.digest import digest_of, digest_of_weights
from ...gloria_core.runs.places import is_file_inside
from ...gloria_core.types import Anchor, AnchorRole, AnchorSet
from ..sockets import EncodedAnchors
from .characters import board_file
from .vae import encode_anchors, grid_px

FOLDER = "gloria_characters"
_DIGESTS: "weakref.WeakKeyDictionary[torch.nn.Module, str]" = weakref.WeakKeyDictionary()
"""Of the weights of VAEs that were asked for."""


def character_folders() -> list[Path]:
    """Return the folders of character files; the first is where new ones go. They are told to the host here."""
    if FOLDER not in folder_paths.folder_names_and_paths or not folder_paths.get_folder_paths(FOLDER):
        folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    _, endings = folder_paths.folder_names_and_paths[FOLDER]
    if isinstance(endings, set):
        endings.add(ENDING)
    return [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]


def character_files() -> list[str]:
    """Return the names of the character files."""
    folders = character_folders()
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(ENDING) and folders]


def character_path(name: str) -> Path:
    """Return the path of a character file; MediaError where there is none of that name below the folders."""
    for folder in character_folders():
        path = folder / name
        if name.endswith(ENDING) and is_file_inside(path, folder):
            return path
    raise MediaError(
        f"There is no character file {name[:200]!r} in models/{FOLDER}; save one with Gloria Save Character, or copy "
        "it there and press R to refresh."
    )


def load_character(name: str, vae: comfy.sd.VAE) -> EncodedAnchors:
    """Read a character file and encode its pictures, or take the latents in it where they are of this very VAE.

    Raises:
        MediaError: the file cannot be used.
        AnchorError: it has no global picture.
    """
    path = character_path(name)
    character = read_character(path)
    pictures = character_pictures(character)
    if not any(picture.role == AnchorRole.GLOBAL for picture in pictures):
        raise AnchorError(
            f"The character {path.stem!r} has no global picture, which every character needs: open it on the board of "
            "a Gloria Anchor Set, and add one."
        )
    known = character.latents if character.vae == vae_digest(vae) else {}
    anchors = tuple(_anchor(vae, picture, known.get(key_of(picture.role, picture.slot))) for picture in pictures)
    return EncodedAnchors(pictures, AnchorSet(anchors))


def save_anchors(anchors: EncodedAnchors, name: str, notes: str, vae: comfy.sd.VAE | None, *, overwrite: bool) -> Path:
    """Write encoded anchors as a character file: their pictures in 8 bits, with latents of those where a VAE is given.

    Raises:
        MediaError: the name is none or taken, or the disk refuses.
    """
    if not anchors.pictures:
        raise AnchorError("There is no picture to save; connect a character that has some.")
    path = new_file(character_folders()[0], name, overwrite=overwrite)
    images = {key_of(p.role, p.slot): to_image(p.image) for p in anchors.pictures}
    pictures = {
        key: StoredPicture(data=encoded(image), label=f"{key}.png", as_is=True) for key, image in images.items()
    }
    character = Character(name=name.strip(), notes=notes, pictures=pictures)
    rounded = tuple(AnchorPicture(p.role, p.slot, to_tensor(images[key_of(p.role, p.slot)])) for p in anchors.pictures)
    write_character(path, _with_latents(character, rounded, vae))
    return path


def save_from_board(board: str, name: str, notes: str, vae: comfy.sd.VAE | None, *, overwrite: bool) -> Path:
    """Write a board as a character file, with latents where a VAE is given; see ``save_anchors``."""
    found = parse_board(board)
    told: Board = replace(found, notes=notes or found.notes)
    folder = character_folders()[0]
    path = folder / (save_board(told, board_file, folder, name, overwrite=overwrite) + ENDING)
    if vae is not None:
        write_character(path, _with_latents(read_character(path), board_pictures(told, board_file), vae))
    return path


def save_character(given: dict[str, Any]) -> Path:
    """Write a character file of what a node was given: anchors or a board."""
    if (given.get("anchors") is None) == (not str(given.get("board") or "").strip()):
        raise ConfigError("Connect either 'anchors' or 'board': one of them is the character that is saved.")
    arguments = (given["name"], given["notes"], given.get("vae"))
    if given.get("anchors") is not None:
        return save_anchors(given["anchors"], *arguments, overwrite=given["overwrite"])
    return save_from_board(given["board"], *arguments, overwrite=given["overwrite"])


def vae_digest(vae: comfy.sd.VAE) -> str:
    """Return the digest of what decides what a VAE makes of a picture: weights, type of numbers, device, grid."""
    module = vae.first_stage_model
    weights = _DIGESTS.get(module)
    if weights is None:
        weights = _DIGESTS[module] = digest_of_weights(module.state_dict().items())
    return digest_of(type(module).__name__, weights, str(vae.vae_dtype), str(vae.device), grid_px(vae))


def _with_latents(character: Character, pictures: tuple[AnchorPicture, ...], vae: comfy.sd.VAE | None) -> Character:
    if vae is None:
        return character
    latents = {key_of(a.role, a.slot): a.latent.cpu().contiguous() for a in encode_anchors(vae, pictures)}
    return replace(character, vae=vae_digest(vae), latents=latents)


def _anchor(vae: comfy.sd.VAE, picture: AnchorPicture, latent: Tensor | None) -> Anchor:
    """Return a picture's anchor; a latent of another size than the picture's is not of it, and is not taken."""
    if latent is not None:
        fitted, stride = on_grid(picture, grid_px(vae)), grid_px(vae) // 2
        if tuple(latent.shape[3:]) == (fitted.shape[1] // stride, fitted.shape[2] // stride):
            return Anchor(picture.role, picture.slot, latent)
    return next(iter(encode_anchors(vae, (picture,))))
