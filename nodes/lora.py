"""The node that puts LoRAs of any trainer on a model."""

from .host.api import io
from .host.lora import apply_lora, lora_files, lora_path

_NONE = "none"


class GloriaLoRA(io.ComfyNode):
    """One or two LoRAs on a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        files = lora_files()
        return io.Schema(
            node_id="GloriaLoRA",
            display_name="Gloria LoRA",
            category="Gloria/loaders",
            description="Puts a LoRA for Wan on a model, whichever tool it was trained with, and tells what of it was "
            "used. A file of which nothing fits is refused. Put several of these nodes in a row for more LoRAs.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the LoRA is for: load it with Load Gloria DiT."),
                io.Combo.Input(
                    "lora",
                    options=files,
                    tooltip="A file from models/loras. It must be made for this model's size (1.3B, 5B or 14B); the "
                    "report tells what fits. It takes no time while sampling unless the model does not fit on the "
                    "card: then every step has to apply it again.",
                ),
                _strength("strength"),
                io.Combo.Input(
                    "lora_2",
                    options=[_NONE, *files],
                    default=_NONE,
                    optional=True,
                    tooltip="A second LoRA, put on after the first: for example one for speed (lightx2v) and one for "
                    "a character.",
                ),
                _strength("strength_2", optional=True),
                io.Boolean.Input(
                    "settings_of_lora",
                    default=True,
                    optional=True,
                    tooltip="LoRAs trained with Gloria tell where the anchors stood in training, and may bring an "
                    "audio branch. On: the model follows them. Off: it keeps its own settings, and the report warns "
                    "where they differ. Other LoRAs carry no settings, and this changes nothing.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.String.Output(
                    display_name="report",
                    tooltip="What of each file was used and what was not, with the reasons; connect Preview Any.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora: str, lora_2: str = _NONE) -> bool | str:
        """Accept any name: files come and go while the page is open, and loading tells what is wrong."""
        return True

    @classmethod
    def fingerprint_inputs(cls, lora: str, lora_2: str = _NONE, **_others: object) -> str:
        """Return what changes when a file does."""
        stats = [lora_path(name).stat() for name in (lora, lora_2) if name != _NONE]
        return str([(stat.st_mtime_ns, stat.st_size) for stat in stats])

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        lora: str,
        strength: float,
        lora_2: str = _NONE,
        strength_2: float = 1.0,
        settings_of_lora: bool = True,
    ) -> io.NodeOutput:
        """Put the LoRAs on."""
        reports = []
        for name, how_much in ((lora, strength), (lora_2, strength_2)):
            if name != _NONE:
                model, report = apply_lora(model, name, how_much, as_trained=settings_of_lora)
                reports.append(report)
        return io.NodeOutput(model, "\n\n".join(reports))


def _strength(name: str, *, optional: bool = False) -> io.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=-100.0,
        max=100.0,
        step=0.01,
        optional=optional,
        tooltip="How strongly the LoRA changes the model. 1 is as trained; lower it where the picture looks burnt or "
        "stiff, raise it where nothing is seen; below 0 does the opposite; 0 leaves the LoRA out.",
    )
