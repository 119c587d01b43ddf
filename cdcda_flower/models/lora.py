"""LoRA adapters of several users side by side over one frozen base: each row of a batch goes through its user's own.

What a slot computes is what PEFT computes with that adapter alone: y = W x + (alpha / r) B A x (no dropout).
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from peft import LoraConfig

from cdcda_flower.errors import ModelError
from cdcda_flower.models.loading import LoadedModel

# PEFT stores an adapter's weights under the name of its own wrapper.
_PEFT = "base_model.model."


class Grouping(NamedTuple):
    """Where each row (rows,) of a batch stands among `slots` times `most` places; `places` None: in order, filling all.

    `own` (rows, slots, 1) is one where the slot is the row's, else zero.
    """

    slots: int
    most: int
    places: torch.Tensor | None
    own: torch.Tensor

    def by_slot(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the rows of x (rows, length, size) by slot: (slots, most * length, size), zero where no row stands."""
        if self.places is None:
            return x.reshape(self.slots, -1, x.shape[-1])
        room = x.new_zeros(self.slots * self.most, *x.shape[1:])
        return room.index_copy(0, self.places, x).view(self.slots, -1, x.shape[-1])

    def by_row(self, grouped: torch.Tensor, length: int) -> torch.Tensor:
        """Returns (rows, length, size) of what is `by_slot`."""
        rows = grouped.view(-1, length, grouped.shape[-1])
        return rows if self.places is None else rows.index_select(0, self.places)


class _AdaptedProduct(torch.autograd.Function):
    """x W^T + scale x A^T B^T in one node: each product is added into its sum in place, forward and backward.

    Autograd's own way keeps and adds whole outputs and gradients several times, a tenth of a training step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Returns (rows, length, out); `rest` is bias, A (slots, r, in), B (slots, out, r), the scale, and the grouping."""
        bias, a, b, scale, grouping = rest
        # All of one type already; what autocast would make of some of them could not be added to the rest.
        with torch.autocast(x.device.type, enabled=False):
            output = torch.nn.functional.linear(x, weight, bias)
            grouped = grouping.by_slot(x)
            low = torch.bmm(grouped, a.transpose(1, 2))
            if grouping.places is None:
                output.view(len(a), -1, output.shape[-1]).baddbmm_(low, b.transpose(1, 2), alpha=scale)
            else:
                output.add_(grouping.by_row(torch.bmm(low, b.transpose(1, 2)), x.shape[1]), alpha=scale)
        ctx.scale, ctx.grouping = scale, grouping
        # Not `grouped`: of uneven rows it is a copy with room for the fullest slot's.
        ctx.save_for_backward(x, weight, a, b, low)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Returns the gradients of x, A and B; the base is frozen."""
        x, weight, a, b, low = ctx.saved_tensors
        grouping: Grouping = ctx.grouping
        [gradient] = gradients
        above = grouping.by_slot(gradient)
        between = torch.bmm(above, b).mul_(ctx.scale)
        of_b = torch.bmm(above.transpose(1, 2), low).mul_(ctx.scale)
        of_a = torch.bmm(between.transpose(1, 2), grouping.by_slot(x))
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.matmul(gradient, weight)
            if grouping.places is None:
                of_x.view(len(a), -1, of_x.shape[-1]).baddbmm_(between, a)
            else:
                of_x.add_(grouping.by_row(torch.bmm(between, a), gradient.shape[1]))
        return of_x, None, None, of_a, of_b, None, None


class StackedLinear(torch.nn.Module):
    """A frozen linear layer, with the adapters of the slots that the batch now in the model has rows of.

    `a` (slots, r, in), `b` (slots, out, r) and `grouping` are what `StackedAdapters.route` sets; None: the base alone.
    """

    def __init__(self, base: torch.nn.Linear, *, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a: torch.Tensor | None = None
        self.b: torch.Tensor | None = None
        self.grouping: Grouping | None = None
        self._joined: tuple[torch.Tensor, torch.Tensor] | None = None

    def set_adapters(self, a: torch.Tensor, b: torch.Tensor, grouping: Grouping, *, changed: bool) -> None:
        """Takes the adapters of the next batch's slots; `changed` says whether they are others than before."""
        self.a, self.b, self.grouping = a, b, grouping
        if changed:
            self._joined = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (rows, length, out) for x (rows, length, in); some models give and get (rows * length, ...)."""
        if self.a is None or self.b is None or self.grouping is None:
            own: torch.Tensor = self.base(x)
            return own
        rows = x.reshape(len(self.grouping.own), -1, x.shape[-1])
        return self._adapted(rows, self.a, self.b, self.grouping).view(*x.shape[:-1], -1)

    def _adapted(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, grouping: Grouping) -> torch.Tensor:
        if x.shape[1] == 1 and not torch.is_grad_enabled():
            return self._step(x, a, b, grouping)
        if type(self.base) is torch.nn.Linear:
            weights = self.base.weight, self.base.bias, a, b
            adapted: torch.Tensor = _AdaptedProduct.apply(x.to(a.dtype), *weights, self.scale, grouping)  # type: ignore[no-untyped-call]
            return adapted
        own: torch.Tensor = self.base(x)
        a, b = a.to(own.dtype), b.to(own.dtype)
        low = torch.bmm(grouping.by_slot(x.to(own.dtype)), a.transpose(1, 2))
        return torch.add(own, grouping.by_row(torch.bmm(low, b.transpose(1, 2)), x.shape[1]), alpha=self.scale)

    def _step(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, grouping: Grouping) -> torch.Tensor:
        """Returns what `forward` does for rows of one token: two plain products over all slots, other slots' parts zeroed.

        With a token a row, a product per slot takes longer to call than to compute.
        """
        output: torch.Tensor = self.base(x)
        if self._joined is None:
            self._joined = a.to(output.dtype).flatten(0, 1), b.to(output.dtype).transpose(1, 2).flatten(0, 1)
        down, up = self._joined
        low = torch.nn.functional.linear(x[:, 0].to(output.dtype), down).view(len(x), grouping.slots, -1)
        output[:, 0].addmm_((low * grouping.own).flatten(1), up, alpha=self.scale)
        return output


class StackedAdapters:
    """One base with `slots` adapters on every linear layer but the output matrix, each to be filled and trained alone.

    `parameters[slot]` is all of one slot's weights in one row, so that any optimiser trains a slot as if it were a model
    of its own, in one step over one tensor. The model multiplies by copies in its own type, which `refresh` brings up to
    date.
    """

    def __init__(self, base: LoadedModel, *, slots: int, rank: int, alpha: int) -> None:
        """Replaces the base's linear layers; the caller gives it up to this object."""
        self.model, self.tokenizer, self.device = base.model, base.tokenizer, base.device
        targets = list(_linear_layers(self.model))
        if not targets:
            raise ModelError("the model has no torch.nn.Linear layer, the only kind that adapters attach to here")
        self._layers: list[StackedLinear] = []
        self._shapes = weight_shapes(self.model, rank)
        for name, layer in targets:
            self._layers.append(StackedLinear(layer, scale=alpha / rank))
            _replace(self.model, name, self._layers[-1])
        shape, dtype = (slots, sum(map(math.prod, self._shapes.values()))), self.model.dtype
        # Adapters and their optimiser keep 32 bits at least: an update at a small rate vanishes in 16.
        self._weights = torch.zeros(shape, dtype=torch.promote_types(dtype, torch.float32), device=self.device)
        same = self._weights.dtype is dtype
        self._copies = self._weights if same else torch.zeros(shape, dtype=dtype, device=self.device)
        self.parameters = [torch.nn.Parameter(own) for own in self._weights]
        self._gradients: torch.Tensor | None = None
        self._present: list[int] = []
        self._passed: list[tuple[list[int], list[torch.Tensor]]] = []
        self.config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=sorted({name.rpartition(".")[2] for name, _ in targets}),
            task_type="CAUSAL_LM",
        )

    def route(self, slots: torch.Tensor) -> None:
        """Sends each row of the batches to come through the adapter of its slot (rows,)."""
        of_row: list[int] = slots.tolist()
        counts = Counter(of_row)
        present, most = sorted(counts), max(counts.values())
        index = {slot: place for place, slot in enumerate(present)}
        places = None
        if of_row != sorted(of_row) or min(counts.values()) < most:
            # Each slot has as many places as the fullest: one product for all slots, whatever their rows.
            free = {slot: itertools.count(place * most) for slot, place in index.items()}
            places = torch.tensor([next(free[slot]) for slot in of_row], device=slots.device)
        runs = [self._copies[run] for _, run in _runs(present)]
        weights = self._views(runs[0] if len(runs) == 1 else torch.cat(runs))
        if torch.is_grad_enabled():
            for weight in weights:
                weight.requires_grad_()
            self._passed.append((present, weights))
        own = torch.zeros(len(of_row), len(present), 1, dtype=self._copies.dtype, device=slots.device)
        own[range(len(of_row)), [index[slot] for slot in of_row]] = 1
        grouping = Grouping(len(present), most, places, own)
        # Training needs no joined weights, which take as much memory again.
        changed = present != self._present or torch.is_grad_enabled()
        self._present = present
        for layer, a, b in zip(self._layers, weights[::2], weights[1::2], strict=True):
            layer.set_adapters(a, b, grouping, changed=changed)

    def clear(self, slot: int) -> None:
        """Empties a slot: what goes through it is what the base alone says."""
        self._weights[slot].zero_()
        self.refresh(slot)

    def fresh(self, slot: int, *, seed: int) -> None:
        """Starts a new adapter: A uniform as in PEFT (Kaiming, a = sqrt 5), B zero, so that the update is zero."""
        weights = fresh_weights(self._shapes, seed=seed)
        for name, weight in self._named(slot):
            weight.copy_(weights[name])
        self.refresh(slot)

    def load(self, slot: int, weights: dict[str, torch.Tensor]) -> None:
        """Fills a slot with stored weights; every one of them must be there."""
        if {name: tuple(weight.shape) for name, weight in weights.items()} != self._shapes:
            raise ModelError(
                f"the adapter's {len(weights)} weights do not fit the model's {len(self._shapes)} in name and shape; "
                "was it trained on this model, with this rank?"
            )
        for name, weight in self._named(slot):
            weight.copy_(weights[name])
        self.refresh(slot)

    def refresh(self, slot: int) -> None:
        """Has the model multiply by the slot's weights as they now are."""
        self._present = []
        if self._copies is not self._weights:
            self._copies[slot].copy_(self._weights[slot])

    def weights(self, slot: int) -> dict[str, torch.Tensor]:
        """Returns a copy of a slot's weights under PEFT's names, on the CPU; float32 unless the base is float64."""
        return dict(zip(self._shapes, self._views(self._weights[slot].to("cpu", copy=True)), strict=True))

    def merge(self, slot: int) -> None:
        """Adds a slot's update to the base's weights and takes all adapters off; the object cannot be used afterwards."""
        weights = dict(self._named(slot))
        for name, layer in [(n, m) for n, m in self.model.named_modules() if isinstance(m, StackedLinear)]:
            a, b = (weights[f"{_PEFT}{name}.lora_{part}.weight"] for part in "AB")
            with torch.no_grad():
                layer.base.weight += b @ a * layer.scale
            _replace(self.model, name, layer.base)

    def zero_gradients(self, slots: Iterable[int]) -> None:
        """Sets these slots' gradients to zero; the first call makes room for all, which answering needs not."""
        self._passed = []
        if self._gradients is None:
            self._gradients = torch.zeros_like(self._weights)
            for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
                parameter.grad = gradient
        for slot in slots:
            self._gradients[slot].zero_()

    def add_gradients(self) -> None:
        """Adds to the slots' gradients what the passes since the last call have left."""
        assert self._gradients is not None, "zero_gradients makes their room"
        passed, self._passed = self._passed, []
        for slots, weights in passed:
            # Slots side by side take one addition a layer.
            for places, run in _runs(slots):
                # A prefix leaves the last layer's output unused.
                both = [
                    (into, own.grad[places])
                    for into, own in zip(self._views(self._gradients[run]), weights, strict=True)
                    if own.grad is not None
                ]
                into, added = zip(*both, strict=True)
                torch._foreach_add_(into, added)
            # The layers hold the weights until the next batch comes.
            for weight in weights:
                weight.grad = None

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Returns the weights, in their order, of slots' rows (..., all weights)."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        return [
            part.view(*flat.shape[:-1], *shape)
            for part, shape in zip(torch.split(flat, sizes, -1), self._shapes.values(), strict=True)
        ]

    def _named(self, slot: int) -> Iterator[tuple[str, torch.Tensor]]:
        return zip(self._shapes, self._views(self._weights[slot]), strict=True)


def weight_shapes(model: Any, rank: int) -> dict[str, tuple[int, int]]:
    """Returns the shape of each of an adapter's weights, under PEFT's names, in the order of the model's layers."""
    shapes = {}
    for name, layer in _linear_layers(model):
        shapes[f"{_PEFT}{name}.lora_A.weight"] = rank, layer.in_features
        shapes[f"{_PEFT}{name}.lora_B.weight"] = layer.out_features, rank
    return shapes


def fresh_weights(shapes: Mapping[str, tuple[int, int]], *, seed: int) -> dict[str, torch.Tensor]:
    """Returns a new adapter: A uniform as in PEFT (Kaiming, a = sqrt 5), B zero, so that the update is zero."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        weights[name] = torch.zeros(shape)
        if ".lora_A." in name:
            bound = shape[1] ** -0.5
            weights[name].uniform_(-bound, bound, generator=generator)
    return weights


def _runs(slots: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yields each run of slots that follow each other: where it stands in `slots`, and the slots themselves."""
    start = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            yield slice(start, end), slice(slots[start], slots[end - 1] + 1)
            start = end


def _linear_layers(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    output = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not output:
            yield name, module


def _replace(model: Any, name: str, module: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
