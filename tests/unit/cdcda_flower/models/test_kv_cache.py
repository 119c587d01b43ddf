"""The decode loop's cache: what transformers' own holds after the same updates, within its room."""

import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from cdcda_flower.models.kv_cache import RoomyLayer, give_room

LAYERS, HEADS, SIZE = 2, 3, 4


def states(rows: int, positions: int, *, seed: int) -> torch.Tensor:
    return torch.randn(rows, HEADS, positions, SIZE, generator=torch.Generator().manual_seed(seed))


def prefilled(*, rows: int, positions: int) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(LAYERS):
        cache.update(states(rows, positions, seed=layer), states(rows, positions, seed=10 + layer), layer)
    return cache


def test_it_holds_what_the_growing_cache_holds() -> None:
    grown, roomy = prefilled(rows=2, positions=5), prefilled(rows=2, positions=5)
    rows = torch.tensor([1, 0, 1])
    grown.batch_select_indices(rows)
    give_room(roomy, rows=rows, room=4)
    assert all(type(layer) is RoomyLayer for layer in roomy.layers)
    left = len(rows)
    for step, keep in enumerate((None, torch.tensor([2, 0]), None, torch.tensor([1]))):
        if keep is not None:
            grown.batch_select_indices(keep)
            roomy.batch_select_indices(keep)
            left = len(keep)
        for layer in range(LAYERS):
            new = states(left, 1, seed=100 + step), states(left, 1, seed=200 + step)
            for ours, theirs in zip(roomy.update(*new, layer), grown.update(*new, layer), strict=True):
                assert torch.equal(ours, theirs)
        assert roomy.get_seq_length() == grown.get_seq_length() == 6 + step
        assert roomy.get_mask_sizes(1, 0) == grown.get_mask_sizes(1, 0)


def test_a_row_taken_twice_is_written_apart() -> None:
    cache = prefilled(rows=1, positions=2)
    give_room(cache, rows=torch.tensor([0, 0]), room=1)
    keys, _ = cache.update(states(2, 1, seed=1), states(2, 1, seed=2), 0)
    assert torch.equal(keys[0, :, :2], keys[1, :, :2])
    assert not torch.equal(keys[0, :, 2], keys[1, :, 2])


def test_a_layer_with_a_sliding_window_goes_on_as_it_is() -> None:
    cache = DynamicCache()
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=8)]
    first = states(2, 3, seed=1)
    cache.update(first, first, 0)
    give_room(cache, rows=torch.tensor([1]), room=1)
    keys, _ = cache.update(states(1, 1, seed=2), states(1, 1, seed=2), 0)
    assert torch.equal(keys[:, :, :3], first[1:])
    assert keys.shape[2] == 4


def test_more_than_its_room_is_refused() -> None:
    cache = prefilled(rows=1, positions=2)
    give_room(cache, rows=torch.tensor([0]), room=1)
    cache.update(states(1, 1, seed=1), states(1, 1, seed=1), 0)
    with pytest.raises(IndexError, match="room for 3 positions, not 4"):
        cache.update(states(1, 1, seed=1), states(1, 1, seed=1), 0)
