"""The node that saves a model as a checkpoint of ours."""

from .host.api import io, ui
from .host.save import DTYPES, FOLDERS, save_model


class SaveModel(io.ComfyNode):
    """A MODEL as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return io.Schema(
            node_id="GloriaSaveModel",
            display_name="Gloria Save Model",
            category="Gloria/loaders",
            description="Saves a Gloria model with its configuration, one weight at a time: it needs hardly any "
            "memory. Load Gloria DiT reads the file again.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="A model of Load Gloria DiT, with or without LoRAs."),
                io.String.Input(
                    "name",
                    default="gloria/model",
                    tooltip="The file's name without an ending, with folders before it if you like. A number is put "
                    "behind it, so that nothing is ever overwritten.",
                ),
                io.Combo.Input(
                    "folder",
                    options=list(FOLDERS),
                    default=FOLDERS[0],
                    tooltip="Where the file goes. The loaders list both folders; press R to refresh them.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="as loaded",
                    tooltip="The type of the file's numbers. 'as loaded' is what the model has in memory now, which "
                    "may be less than its file had. bf16 takes 2 bytes a number (a 14B model 33 GB), fp32 4. Weights "
                    "that were quantised with scales are written unpacked.",
                ),
                io.Boolean.Input(
                    "with_loras",
                    default=True,
                    tooltip="On: LoRAs on the model are worked into the weights for good. Off: the model is saved "
                    "without them. What other nodes have done to the sampling (a shift, for example) is never saved.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="weights", tooltip="The file's name as Load Gloria DiT lists it after a refresh."
                )
            ],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, name: str, folder: str, dtype: str, with_loras: bool) -> io.NodeOutput:
        """Write the file."""
        path, listed = save_model(model, folder, name, dtype, with_loras=with_loras)
        return io.NodeOutput(listed, ui=ui.PreviewText(f"Saved {path}"))
