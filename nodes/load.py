"""Nodes that load: a model from a file, the bundled nano, and one of its characters."""

from ..gloria_core.nano.characters import BUNDLED
from .host.api import io
from .host.checkpoints import ATTENTION, BUNDLED_WEIGHTS, WEIGHT_DTYPES, fingerprint, load_model
from .host.nano import character_pictures, load_nano
from .host.paths import model_files
from .sockets import GloriaAnchor

_CATEGORY = "Gloria/loaders"


def _attention_input() -> io.Input:
    return io.Combo.Input(
        "attention",
        options=list(ATTENTION),
        default=ATTENTION[0],
        tooltip="How the anchors are attended to. 'as trained' is right; the other two are for experiments: "
        "'cached' computes "
        "the anchors once for a whole video and is faster, 'joint' recomputes them at every step.",
    )


class LoadDiT(io.ComfyNode):
    """A Gloria or Wan model from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaLoadDiT",
            display_name="Load Gloria DiT",
            category=_CATEGORY,
            description="Loads the model that makes the video: the bundled gloria-nano, or a file of yours from "
            "models/diffusion_models: Gloria, Wan 2.1 (T2V, I2V, FLF2V, Fun-InP) or Wan 2.2 (A14B, TI2V-5B), under any "
            "names that are in use, in full precision, float8 or GGUF. What a file is, is told by its header.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=[BUNDLED_WEIGHTS, *model_files()],
                    default=BUNDLED_WEIGHTS,
                    tooltip="The model. A model in parts is listed once, by its index. Smaller files (fp8, GGUF) need "
                    "less memory and lose a little detail; a GGUF needs the ComfyUI-GGUF pack. A file that is no model "
                    "of a known kind is refused with a reason.",
                ),
                _attention_input(),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default=WEIGHT_DTYPES[0],
                    optional=True,
                    tooltip="What the weights are kept in. 'default' keeps what the file has, without a second copy. "
                    "fp8 halves the memory of a 16-bit file for a little detail and a slower start; 'fast' also "
                    "multiplies in fp8, on cards that can (RTX 40 and newer). Files that are fp8 or GGUF already gain "
                    "nothing, except from 'fast'.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def validate_inputs(cls, weights: str) -> bool | str:
        """Accept any name: files come and go while the page is open, and loading tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, weights: str, attention: str, weight_dtype: str = WEIGHT_DTYPES[0]) -> str:
        """Return what changes when the file changes."""
        return f"{fingerprint(weights)}:{attention}:{weight_dtype}"

    @classmethod
    def execute(cls, weights: str, attention: str, weight_dtype: str = WEIGHT_DTYPES[0]) -> io.NodeOutput:
        """Load the weights."""
        return io.NodeOutput(load_model(weights, attention, weight_dtype))


class Nano(io.ComfyNode):
    """The bundled model with its text encoder and its VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaNano",
            display_name="Gloria Nano",
            category=_CATEGORY,
            description="The small model that comes with the pack: it shows the whole method on any computer, in a "
            "world of "
            "cartoon characters. Nothing has to be downloaded.",
            inputs=[_attention_input()],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def execute(cls, attention: str) -> io.NodeOutput:
        """Load the model."""
        return io.NodeOutput(*load_nano(attention))


class NanoCharacter(io.ComfyNode):
    """The pictures of one of nano's characters."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaNanoCharacter",
            display_name="Gloria Nano Character",
            category=_CATEGORY,
            description="Draws the pictures of a character of the nano world: what you would photograph or generate "
            "for a "
            "character of your own.",
            inputs=[
                io.Combo.Input(
                    "character",
                    options=list(BUNDLED),
                    default=BUNDLED[0],
                    tooltip="Who appears. Through the API also a number: any number is another invented character.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="global_image", tooltip="The character in its scene; also a start image."),
                GloriaAnchor.Output(
                    display_name="anchors", tooltip="Four sides and eight expressions, for the Anchor Set Builder."
                ),
                io.Image.Output(display_name="views", tooltip="The four sides, to look at: front, back, left, right."),
                io.Image.Output(
                    display_name="expressions",
                    tooltip="The eight expressions, to look at: surprise, angry, disgust, fear, contempt, sad, "
                    "neutral, happy.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, character: str) -> bool | str:
        """Accept numbers beside the names; drawing tells what is wrong."""
        return True

    @classmethod
    def execute(cls, character: str) -> io.NodeOutput:
        """Draw the pictures."""
        return io.NodeOutput(*character_pictures(character))
