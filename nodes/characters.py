"""Nodes for whole characters: the board of their pictures, their files, and filling a board."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..gloria_core.anchors.picture import AnchorPicture
from ..gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole
from .host.analysis import ANALYSIS
from .host.api import io, ui
from .host.character_files import character_files, character_path, load_character, save_character
from .host.characters import board_fingerprint, set_pictures
from .host.fill import SOURCES, chain_of, fill, previews, told
from .host.vae import encode_anchors
from .sockets import EncodedAnchors, GloriaAnchor, GloriaAnchors

_CATEGORY = "Gloria/anchors"


def board_input() -> io.Input:
    """Return the input that holds a board."""
    made = io.String.Input(
        "board",
        multiline=True,
        default="{}",
        optional=True,
        socketless=True,
        tooltip="The board as JSON: which picture of the input folder is in which slot. The page fills it in; without "
        "the page, write it by hand as docs/characters.md tells. Each picture costs a little time in every chunk.",
    )
    made.extra_dict = {"hidden": True}
    return made


def slot_inputs() -> list[io.Input]:
    """Return the sockets of views and expressions, which win over the board."""
    views = [
        io.Image.Input(
            view,
            optional=True,
            tooltip=f"The body, facing the {view if view in ('left', 'right') else view + ' side'} as the camera sees "
            "it, in place of the picture on the board. With neither, the model invents that side.",
        )
        for view in VIEWS
    ]
    expressions = [
        io.Image.Input(
            expression,
            optional=True,
            tooltip=f"The head with the expression '{expression}', in place of the picture on the board. It may stay "
            "empty in both.",
        )
        for expression in EXPRESSIONS
    ]
    return [*views, *expressions]


class AnchorSet(io.ComfyNode):
    """All pictures of one character, from a board or from sockets, encoded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaAnchorSet",
            display_name="Gloria Anchor Set",
            category=_CATEGORY,
            description="One character on a board: a picture of the whole scene, up to four sides of the body and up "
            "to eight expressions. Drop pictures on it, or connect them; what is connected wins.",
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model. Every picture goes through it once."),
                io.Image.Input(
                    "global_image",
                    optional=True,
                    tooltip="One picture of the whole scene at the video's size, in place of the large one on the "
                    "board. It sets the look of the background, and the size of the video. One of the two is needed.",
                ),
                *slot_inputs(),
                GloriaAnchor.Input(
                    "anchors",
                    optional=True,
                    tooltip="Anchors from anchor nodes, in place of the pictures on the board. Each slot takes one "
                    "picture: a slot may not be connected twice.",
                ),
                board_input(),
            ],
            outputs=[
                GloriaAnchors.Output(
                    display_name="anchors", tooltip="The character, for Gloria Apply Anchors or the long sampler."
                ),
                io.Image.Output(
                    display_name="global_image",
                    tooltip="The picture of the whole scene as it is used; also a start image.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, board: str = "{}", **connected: object) -> str:
        """Return what changes when a picture on the board does."""
        return board_fingerprint(board or "{}")

    @classmethod
    def execute(
        cls,
        vae: object,
        global_image: Tensor | None = None,
        anchors: tuple[AnchorPicture, ...] = (),
        board: str = "{}",
        **pictures: Tensor | None,
    ) -> io.NodeOutput:
        """Read the board, add what is connected, and encode."""
        chosen = set_pictures(board, global_image, anchors, pictures)
        main = next(picture for picture in chosen if picture.role == AnchorRole.GLOBAL)
        return io.NodeOutput(EncodedAnchors(chosen, encode_anchors(vae, chosen)), main.image[..., :3])


class SaveCharacter(io.ComfyNode):
    """A character as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaSaveCharacter",
            display_name="Gloria Save Character",
            category=_CATEGORY,
            description="Saves a whole character as one .gloria file in models/gloria_characters: its pictures, its "
            "notes and, with a VAE, its latents. It is safe to give away: a file holds no program.",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "name",
                    default="my character",
                    tooltip="The character's name, also the file's. Letters, digits, spaces, '_', '-' and '.'.",
                ),
                io.String.Input(
                    "notes",
                    multiline=True,
                    default="",
                    tooltip="Whatever you want to remember: the prompt that suits it, where the pictures are from. "
                    "Everyone who gets the file can read it. Costs nothing.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="On: a character of this name is replaced. Off: the node stops instead, and nothing is "
                    "lost.",
                ),
                GloriaAnchors.Input(
                    "anchors",
                    optional=True,
                    tooltip="The character to save. Its pictures are stored as they are used, in 8 bits without loss.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Connect it to store the encoded pictures, too: loading with the same VAE is then faster. "
                    "Costs a few hundred KB.",
                ),
                io.String.Input(
                    "board",
                    optional=True,
                    force_input=True,
                    tooltip="A board as JSON in place of 'anchors': the pictures' own files and crops are stored, so "
                    "that they can be cut anew later.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="character", tooltip="The file's name as Gloria Load Character lists it.")
            ],
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:  # noqa: ANN401 - the inputs of the schema by their names
        """Write the file."""
        path: Path = save_character(given)
        return io.NodeOutput(path.name, ui=ui.PreviewText(f"Saved {path.name} in models/gloria_characters"))


class LoadCharacter(io.ComfyNode):
    """A character from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaLoadCharacter",
            display_name="Gloria Load Character",
            category=_CATEGORY,
            description="Loads a character from a .gloria file in models/gloria_characters.",
            inputs=[
                io.Combo.Input(
                    "character",
                    options=character_files(),
                    tooltip="The file. Press R to refresh the list. To change a character, open it on the board of a "
                    "Gloria Anchor Set.",
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE that belongs to the model. Where the file holds latents of this very VAE they are "
                    "taken, exactly as if they were encoded now; otherwise every picture goes through it once.",
                ),
            ],
            outputs=[
                GloriaAnchors.Output(
                    display_name="anchors", tooltip="The character, for Gloria Apply Anchors or the long sampler."
                ),
                io.Image.Output(display_name="global_image", tooltip="The whole scene; also a start image."),
            ],
        )

    @classmethod
    def validate_inputs(cls, character: str) -> bool | str:
        """Accept any name: files come and go while the page is open, and loading tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, character: str, **connected: object) -> str:
        """Return what changes when the file does."""
        known = character_path(character).stat()
        return f"{character}:{known.st_mtime_ns}:{known.st_size}"

    @classmethod
    def execute(cls, character: str, vae: Any) -> io.NodeOutput:  # noqa: ANN401 - the host's VAE
        """Read the file."""
        anchors = load_character(character, vae)
        main = next(picture for picture in anchors.pictures if picture.role == AnchorRole.GLOBAL)
        return io.NodeOutput(anchors, main.image)


class FillAnchors(io.ComfyNode):
    """Anchors from a sheet, a batch of pictures or a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaFillAnchors",
            display_name="Gloria Fill Anchors",
            category=_CATEGORY,
            description="Takes a turnaround sheet, a batch of pictures or a video apart and says which picture is for "
            "which slot. Pictures go by what they show where a picture analysis is installed, otherwise by their "
            "order; look at the preview and name the slots where it is wrong.",
            inputs=[
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="One sheet with several panels, or a batch of pictures. Panels are read from left to right "
                    "and from top to bottom.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="A video in place of 'images'. The sharpest frames of one turn, to the right first, are "
                    "taken as the views: check them. At most 3000 frames are looked at; it takes a few seconds.",
                ),
                io.Combo.Input(
                    "source",
                    options=list(SOURCES),
                    default=SOURCES[0],
                    optional=True,
                    tooltip="What 'images' is. 'automatic': one picture is a sheet, several are a batch.",
                ),
                *_grid_inputs(),
                io.String.Input(
                    "slots",
                    default="",
                    optional=True,
                    tooltip="Names of slots in the order of the pictures, such as 'front, back, left, right, happy'. "
                    "Empty: 4 are front, right, back, left; 5 the same after a global one; 8 the expressions; 12 or 13 "
                    "all. A video does not use it.",
                ),
                GloriaAnchor.Input(
                    "previous",
                    optional=True,
                    tooltip="Anchors that stay as they are: only the slots that they leave empty are filled.",
                ),
            ],
            outputs=[
                GloriaAnchor.Output(display_name="anchors", tooltip="For 'anchors' of the Gloria Anchor Set."),
                io.Image.Output(display_name="preview", tooltip="The pictures side by side, in the order of the list."),
                io.String.Output(display_name="proposal", tooltip="Slot, picture and score (0 to 1), a line for each."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor | None = None,
        video: Any = None,  # noqa: ANN401 - the host's VIDEO
        previous: tuple[AnchorPicture, ...] = (),
        **settings: Any,  # noqa: ANN401 - source, columns, rows, slots
    ) -> io.NodeOutput:
        """Take the pictures apart and name them."""
        grid = (settings.get("columns", 0), settings.get("rows", 0))
        source, slots = settings.get("source", SOURCES[0]), settings.get("slots", "")
        found = ANALYSIS.use(partial(fill, images, video, source, grid, slots))
        lines = "\n".join(told(found))
        return io.NodeOutput(chain_of(found, previous), previews(found), lines, ui=ui.PreviewText(lines))


def _grid_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            name,
            default=0,
            min=0,
            max=64,
            optional=True,
            tooltip=f"Number of {name} of the sheet. 0 finds the panels by the plain space between them; set both "
            "where panels touch each other.",
        )
        for name in ("columns", "rows")
    ]
