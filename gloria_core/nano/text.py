"""The nano text encoder: one learned row for each known word, and one for each place in the prompt."""

import torch
from torch import Tensor, nn

from .captions import WORDS
from .captions import words as split

MAX_WORDS = 10
"""Words of a prompt that are read; what comes behind is cut off."""

_IDS = {word: number for number, word in enumerate(WORDS, start=1)}


def tokenize(text: str) -> tuple[list[int], list[str]]:
    """Return word ids (MAX_WORDS of them, counted from 1, padded with 0) and the words that are not known."""
    found = split(text)
    ids = [_IDS[word] for word in found if word in _IDS][:MAX_WORDS]
    return ids + [0] * (MAX_WORDS - len(ids)), [word for word in found if word not in _IDS]


class TextEncoder(nn.Module):
    """Maps word ids (B, L) to rows (B, L, dim); padding (id 0) gives zero rows, as Wan's padded text does."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.word = nn.Embedding(len(WORDS) + 1, dim, padding_idx=0)
        self.place = nn.Embedding(MAX_WORDS, dim)
        self.gain: Tensor
        """How loud each word is (words + 1,); a training run may raise words that are hard to learn."""
        self.register_buffer("gain", torch.ones(len(WORDS) + 1))

    def forward(self, ids: Tensor) -> Tensor:
        """Encode; L is at most MAX_WORDS."""
        place = self.place(torch.arange(ids.shape[1], device=ids.device))
        words = self.word(ids) * self.gain[ids].unsqueeze(-1)
        return (words + place) * (ids != 0).unsqueeze(-1)
