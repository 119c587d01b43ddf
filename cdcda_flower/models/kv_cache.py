"""A key-value cache with room for what will be written: a decode step then writes one position, and copies nothing.

transformers' own growing cache joins two tensors per layer and step, which took as long as the model's products.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values (rows, heads, length, size), views of buffers that are `room` positions longer.

    For decoding alone: it is written in place, which no gradient survives.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, rows: torch.Tensor, room: int) -> None:
        """Copies the given rows of a prefilled layer; a row may be taken several times."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._length = keys.shape[-2]
        self._take((keys, values), rows, room=room)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends positions; returns all keys and values."""
        start, self._length = self._length, self._length + key_states.shape[-2]
        if self._length > self._buffers[0].shape[-2]:
            raise IndexError(f"the cache has room for {self._buffers[0].shape[-2]} positions, not {self._length}")
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self._length] = states
        return self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows of these indices, with what is left of the room."""
        self._take(self._buffers, indices, room=self._buffers[0].shape[-2] - self._length)

    def _take(self, pair: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, *, room: int) -> None:
        keys, values = (self._roomy(states, rows, room) for states in pair)
        self._buffers = keys, values
        self._show()

    def _roomy(self, states: torch.Tensor, rows: torch.Tensor, room: int) -> torch.Tensor:
        _, heads, _, size = states.shape
        buffer = states.new_empty(len(rows), heads, self._length + room, size)
        # Straight into its place: a copy on the way would be fresh memory, whose pages cost more than what is copied.
        torch.index_select(states[:, :, : self._length], 0, rows, out=buffer[:, :, : self._length])
        return buffer

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (buffer[:, :, : self._length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def give_room(cache: Any, *, rows: torch.Tensor, room: int) -> None:
    """Takes rows of a prefilled cache, with room for `room` further positions, in place."""
    for index in range(len(cache.layers)):
        # One layer after the other, so that the old and the new cache are never both held whole.
        cache.layers[index] = _with_room(cache.layers[index], rows, room)


def _with_room(layer: Any, rows: torch.Tensor, room: int) -> Any:
    if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
        return RoomyLayer(layer.keys, layer.values, rows=rows, room=room)
    # Layers of another kind (a sliding window) have their own bookkeeping; they go on as they are.
    layer.batch_select_indices(rows)
    return layer
