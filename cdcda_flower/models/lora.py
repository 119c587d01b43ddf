"""LoRA adapters of several users side by side over one frozen base: each row of a batch goes through its user's own.

What a slot computes is what PEFT computes with that adapter alone: y = W x + (alpha / r) B A x (no dropout).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from cdcda_flower.errors import DataError, ModelError, RunError, coded
from cdcda_flower.files import private_files
from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.sources import files_digest
from cdcda_flower.models.tokens import rows_of

_WEIGHTS = "adapter_model.safetensors"


@private_files()
def save_adapter(folder: Path, weights: dict[str, torch.Tensor], config: LoraConfig) -> str:
    """Writes the adapter into an existing folder and returns the digest of its weights."""
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / _WEIGHTS, metadata={"format": "pt"}
    )
    return weights_digest(folder)


def check_finite(weights: Mapping[str, torch.Tensor]) -> None:
    """Raises RunError where a training came to weights that are no numbers: whatever such a model says means nothing."""
    bad = sum(not tensor.isfinite().all() for tensor in weights.values())
    if bad:
        raise coded(
            "not-finite",
            RunError(
                f"training came to NaN or infinite weights ({bad} of {len(weights)} tensors); lower learning-rate "
                "(base-learning-rate where M_base is trained)"
            ),
        )


def weights_digest(folder: Path) -> str:
    """Returns the digest of a stored adapter's weights."""
    return files_digest([folder / _WEIGHTS])


def load_adapter(folder: Path, *, digest: str) -> dict[str, torch.Tensor]:
    """Returns the weights; raises DataError where they are missing or not the ones that were stored."""
    if not (folder / _WEIGHTS).is_file():
        raise DataError(f"adapter {folder} holds no {_WEIGHTS}; train it again")
    found = weights_digest(folder)
    if found != digest:
        raise DataError(
            f"adapter {folder} has digest {found[:12]}, expected {digest[:12]}; it was changed: train it again"
        )
    return load_file(folder / _WEIGHTS)


# PEFT stores an adapter's weights under the name of its own wrapper.
_PEFT = "base_model.model."


class _Route:
    """The slots of the batch now in the model, equally many rows for each, in order; None, before the first: none."""

    slots: torch.Tensor | None = None
    all: bool = False
    """They are all slots, in their order: the stacks serve as they are."""


class _AdaptedProduct(torch.autograd.Function):
    """x W^T + scale x A^T B^T in one node: each product is added into its sum in place, forward and backward.

    Autograd's own way keeps and adds whole outputs and gradients several times, a tenth of a training step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Returns (rows, length, out); `rest` is bias, A (slots, r, in), B (slots, out, r) and the scale."""
        bias, a, b, ctx.scale = rest
        together = x.reshape(len(a), -1, x.shape[-1])
        # All of one type already; what autocast would make of some of them could not be added to the rest.
        with torch.autocast(x.device.type, enabled=False):
            output = torch.nn.functional.linear(together, weight, bias)
            low = torch.bmm(together, a.transpose(1, 2))
            output.baddbmm_(low, b.transpose(1, 2), alpha=ctx.scale)
        ctx.save_for_backward(together, weight, a, b, low)
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Returns the gradients of x, A and B; the base is frozen."""
        together, weight, a, b, low = ctx.saved_tensors
        [gradient] = gradients
        above = gradient.reshape(len(a), -1, gradient.shape[-1])
        between = torch.bmm(above, b).mul_(ctx.scale)
        of_b = torch.bmm(above.transpose(1, 2), low).mul_(ctx.scale)
        of_a = torch.bmm(between.transpose(1, 2), together)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.matmul(above, weight).baddbmm_(between, a).view(*gradient.shape[:-1], -1)
        return of_x, None, None, of_a, of_b, None


class StackedLinear(torch.nn.Module):
    """A frozen linear layer with an adapter per slot: `a` (slots, r, in), `b` (slots, out, r)."""

    def __init__(
        self, base: torch.nn.Linear, a: torch.nn.Parameter, b: torch.nn.Parameter, *, scale: float, route: _Route
    ) -> None:
        super().__init__()
        self.base, self.a, self.b, self._scale, self._route = base, a, b, scale, route

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (rows, length, out) for x (rows, length, in)."""
        route = self._route
        if route.slots is None:
            own: torch.Tensor = self.base(x)
            return own
        a, b = (stack if route.all else rows_of(stack, route.slots) for stack in (self.a, self.b))
        if type(self.base) is torch.nn.Linear:
            dtype = self.base.weight.dtype
            weights = self.base.weight, self.base.bias, a.to(dtype), b.to(dtype)
            adapted: torch.Tensor = _AdaptedProduct.apply(x.to(dtype), *weights, self._scale)  # type: ignore[no-untyped-call]
            return adapted
        own = self.base(x)
        low = torch.bmm(x.to(own.dtype).reshape(len(a), -1, x.shape[-1]), a.to(own.dtype).transpose(1, 2))
        together = own.view(len(a), -1, own.shape[-1])
        return torch.baddbmm(together, low, b.to(own.dtype).transpose(1, 2), alpha=self._scale).view_as(own)

    @torch.no_grad()
    def update(self, slot: int) -> torch.Tensor:
        """Returns what a slot adds to the layer's weight, (alpha / r) B A (out, in)."""
        return self.b[slot] @ self.a[slot] * self._scale


class StackedAdapters:
    """One base with `slots` adapters on every linear layer but the output matrix, each to be filled and trained alone.

    A layer's parameters hold all slots; `parameters[slot]` are views of one slot's weights and gradients, so that any
    optimiser trains a slot as if it were a model of its own.
    """

    def __init__(self, base: LoadedModel, *, slots: int, rank: int, alpha: int) -> None:
        """Replaces the base's linear layers; the caller gives it up to this object."""
        self.model, self.tokenizer, self.device = base.model, base.tokenizer, base.device
        self._route = _Route()
        targets = list(_linear_layers(self.model))
        if not targets:
            raise ModelError("the model has no torch.nn.Linear layer, the only kind that adapters attach to here")
        # Adapters and their optimiser keep 32 bits at least: an update at a small rate vanishes in 16.
        dtype = torch.promote_types(self.model.dtype, torch.float32)
        self._stacks: dict[str, torch.nn.Parameter] = {}
        for name, layer in targets:
            a = _stack(slots, rank, layer.in_features, dtype=dtype, device=self.device)
            b = _stack(slots, layer.out_features, rank, dtype=dtype, device=self.device)
            _replace(self.model, name, StackedLinear(layer, a, b, scale=alpha / rank, route=self._route))
            self._stacks |= {f"{_PEFT}{name}.lora_A.weight": a, f"{_PEFT}{name}.lora_B.weight": b}
        self.parameters = [[torch.nn.Parameter(own) for _, own in self._weights(slot)] for slot in range(slots)]
        self.config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=sorted({name.rpartition(".")[2] for name, _ in targets}),
            task_type="CAUSAL_LM",
        )

    def route(self, slots: torch.Tensor) -> None:
        """Sends each row of the batches to come through the adapter of its slot (rows,)."""
        runs, lengths = torch.unique_consecutive(slots, return_counts=True)
        # One product for all rows of a slot, where the slots have equally many.
        even = bool((lengths == lengths[0]).all())
        self._route.slots = runs if even else slots
        self._route.all = even and torch.equal(runs, torch.arange(len(self.parameters), device=runs.device))

    def clear(self, slot: int) -> None:
        """Empties a slot: what goes through it is what the base alone says."""
        with torch.no_grad():
            for _, weight in self._weights(slot):
                weight.zero_()

    def fresh(self, slot: int, *, seed: int) -> None:
        """Starts a new adapter: A uniform as in PEFT (Kaiming, a = sqrt 5), B zero, so that the update is zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self._weights(slot):
                if ".lora_B." in name:
                    weight.zero_()
                else:
                    bound = weight.shape[1] ** -0.5
                    weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))

    def load(self, slot: int, weights: dict[str, torch.Tensor]) -> None:
        """Fills a slot with stored weights; every one of them must be there."""
        own = dict(self._weights(slot))
        if _shapes(weights) != _shapes(own):
            raise ModelError(
                f"the adapter's {len(weights)} weights do not fit the model's {len(own)} in name and shape; "
                "was it trained on this model, with this rank?"
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(weights[name])

    def weights(self, slot: int) -> dict[str, torch.Tensor]:
        """Returns a copy of a slot's weights under PEFT's names, on the CPU; float32 unless the base is float64."""
        return {name: weight.to("cpu", copy=True) for name, weight in self._weights(slot)}

    def merge(self, slot: int) -> None:
        """Adds a slot's update to the base's weights and takes all adapters off; the object cannot be used afterwards."""
        for name, layer in [(n, m) for n, m in self.model.named_modules() if isinstance(m, StackedLinear)]:
            layer.base.weight += layer.update(slot)
            _replace(self.model, name, layer.base)

    def zero_gradients(self) -> None:
        """Sets all slots' gradients to zero; the first call makes room for them, which answering needs not."""
        for index, stack in enumerate(self._stacks.values()):
            if stack.grad is None:
                stack.grad = torch.zeros_like(stack)
                # Autograd adds into a gradient that is there, so the views of it stay true.
                for slot, parameters in enumerate(self.parameters):
                    parameters[index].grad = stack.grad[slot]
            stack.grad.zero_()

    def _weights(self, slot: int) -> Iterator[tuple[str, torch.Tensor]]:
        for name, stack in self._stacks.items():
            yield name, stack.detach()[slot]


def _linear_layers(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    output = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not output:
            yield name, module


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


def _replace(model: Any, name: str, module: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _stack(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))
