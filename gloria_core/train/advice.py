"""What to change where a training does not fit into memory. Source: training.md sections C and H."""

from .config import TrainConfig


def out_of_memory(config: TrainConfig, num_blocks: int, peak_mb: float, where: str) -> str:
    """Return a sentence for a training that ran out of memory.

    Args:
        config: its settings.
        num_blocks: blocks of the network; 0 where that is not known.
        peak_mb: the most memory that was taken.
        where: whose memory, for people, such as ``the graphics card``.
    """
    return (
        f"The memory of {where} was not enough: {peak_mb / 1000:.1f} GB were taken when it ran out. "
        f"Try {_or(levers(config, num_blocks)[:3])}, and resume."
    )


def levers(config: TrainConfig, num_blocks: int = 0) -> list[str]:
    """Return what could be changed to save memory, the cheapest in time and quality first, as settings."""
    memory, method, found = config.memory, config.method, []
    if memory.checkpointing == "off":
        found.append("memory.checkpointing = 'blocks' (a third slower, far less memory)")
    if method.kind != "full" and memory.base == "as is":
        found.append("memory.base = 'fp8' (the frozen weights take a quarter)")
    if method.kind != "full" and memory.swap_blocks < num_blocks:
        more = memory.swap_blocks + max(1, (num_blocks - memory.swap_blocks) // 2)
        found.append(f"memory.swap_blocks = {more} (now {memory.swap_blocks} of {num_blocks})")
    if memory.checkpointing == "blocks":
        found.append("memory.checkpointing = 'offload'")
    if method.kind == "full" and config.optim.kind == "adamw":
        found.append("optim.kind = 'torchao.optim.AdamW8bit' (the optimiser takes a quarter)")
    if config.optim.ema_decay and method.kind == "full":
        found.append("optim.ema_decay = 0 (one copy of the weights less)")
    batch = config.task.options.get("batch_size")
    if isinstance(batch, int) and batch > 1:
        found.append(
            f"task.options.batch_size = {max(1, batch // 2)} with optim.accumulation = {config.optim.accumulation * 2}"
        )
    found.append("a smaller picture or shorter clips (a half of either takes half of the activations)")
    if method.kind != "full" and method.rank > 8:
        found.append(f"method.rank = {method.rank // 2}")
    elif method.kind == "full":
        found.append("method.kind = 'lora'")
    return found


def _or(parts: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
