"""Reading a checkpoint's weights: all of them, or an error."""

from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from likra.errors import LikraError


def load_complete(source: str, **options: Any) -> PreTrainedModel:
    """``AutoModelForCausalLM.from_pretrained``, which fills missing weights with random numbers.

    Raises:
        LikraError: a weight is missing from the checkpoint, or has another shape in it.

    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **{"use_safetensors": True, **options},  # other checkpoints are pickles
    )
    model, info = loaded
    faults = [f"{key} is missing" for key in sorted(info["missing_keys"])]
    for key, stored, shape in sorted(info["mismatched_keys"]):
        faults.append(f"{key} is {list(stored)} and not {list(shape)}")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        where = options.get("gguf_file", source)
        raise LikraError(
            f"the checkpoint '{where}' lacks weights that its configuration asks for: "
            f"{', '.join(faults[:3])}{more}"
        )
    return model
