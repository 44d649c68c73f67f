"""The attention of a forward pass over a forest: which one, on which device.

| where | attention | module |
| --- | --- | --- |
| a CPU, a forest of many branches | block by block | `likra.engine.blockwise` |
| CUDA, a model that takes it | FlexAttention | `likra.engine.flex` |
| elsewhere | the model's own, with a dense mask | `likra.engine.masks` |

The first two take the place of transformers' ``sdpa`` through its own interface of attentions, for
the pass alone. A model's code is never touched.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from likra.engine import flex
from likra.engine.blockwise import blockwise
from likra.engine.masks import dense_mask, for_layers
from likra.engine.packing import Forest

T = TypeVar("T")


def attend(
    model: PreTrainedModel, forest: Forest, copies: int, forward: Callable[[Forest, Any], T]
) -> T:
    """Call a model on copies of a forest with the attention that suits both.

    Where FlexAttention fails, the pass is done with the dense mask, and so are all later ones.

    Args:
        model: a Hugging Face causal language model, with or without adapters.
        forest: on the model's device.
        copies: of the forest, along the first dimension of what the model is given.
        forward: calls the model; is given the forest, which may have got padding at its end, and
            the model's ``attention_mask``.

    Returns:
        What ``forward`` returns.

    """

    def densely() -> T:
        masks = for_layers(
            model,
            lambda window: dense_mask(forest, window, model.dtype).expand(copies, -1, -1, -1),
        )
        with blockwise(model, forest):
            return forward(forest, masks)

    if not flex.is_used(model):
        return densely()
    nodes = flex.padded(forest)
    try:
        with flex.attention(model):
            return forward(nodes, for_layers(model, lambda window: flex.mask(nodes, window)))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of the compiler, of the driver, of the model's code: many types
        reason = f"{type(error).__name__}: {error}"
    result = densely()  # what is wrong for another reason fails here, too
    flex.refuse(model, reason)
    return result
