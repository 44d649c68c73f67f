"""A tiny random model of another model's architecture: few layers, small widths, the same kinds."""

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from likra.engine.masks import FULL, SLIDING, sliding_window

WINDOW = 16  # tokens that a sliding layer sees; the pairs are longer
HEADS = 4
# At most, by the name of a setting; what a configuration does not have is left out.
SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "ffn_hidden_size": 96,
    "n_inner": 96,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
    "num_attention_heads": HEADS,
    "head_dim": 16,
    "rotary_dim": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
    "sliding_window": WINDOW,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SPREAD = 0.15  # of the weights: wide enough for attention to be uneven, so that a wrong mask shows


def tiny_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random model in float32 with a configuration's kinds of layers, in evaluation mode.

    Whatever the configuration lacks, or the library refuses, raises its own error.
    """
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        tiny_config(config), dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=SPREAD)
    return model.eval()


def tiny_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration with few layers and small widths, its layer types and proportions kept."""
    tiny: PreTrainedConfig = copy.deepcopy(config.get_text_config())
    tiny.name_or_path = ""  # else PEFT compares a head of it with that model
    tiny._experts_implementation = "eager"  # the others have no float64
    known = {*tiny.to_dict(), *tiny.attribute_map}
    heads = int(tiny.num_attention_heads)
    n_layers = _n_layers(tiny)
    for name in known:
        value = getattr(tiny, name, None)
        if isinstance(value, list) and len(value) == tiny.num_hidden_layers > n_layers:
            setattr(tiny, name, value[:n_layers])  # one entry for each layer
        if isinstance(value, int) and name in {"num_key_value_heads", "num_kv_heads"}:
            setattr(tiny, name, max(1, HEADS * value // heads))
        if "drop" in name and isinstance(value, float):
            setattr(tiny, name, 0.0)  # it would be drawn for each layout
    for name, value in {**SIZES, "num_hidden_layers": n_layers}.items():
        if name in known and isinstance(own := getattr(tiny, name, None), int):
            setattr(tiny, name, min(own, value))
    for name, token in TOKENS.items():
        if getattr(tiny, name, None) is not None:
            setattr(tiny, name, token)
    _cut_rope(tiny)
    return tiny


def _n_layers(config: PreTrainedConfig) -> int:
    """As many layers as it takes to have one of each type, and two at least."""
    types = getattr(config, "layer_types", None) or []
    first = [types.index(kind) + 1 for kind in set(types)]
    return min(int(config.num_hidden_layers), max(2, *first)) if first else 2


def _cut_rope(config: PreTrainedConfig) -> None:
    """Lists of factors have one for each pair of rotated dimensions."""
    rope = getattr(config, "rope_parameters", None) or {}
    for own in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        head = getattr(config, "head_dim", None) or config.hidden_size // HEADS
        rotated = int(head * own.get("partial_rotary_factor", 1.0)) // 2
        for name in ("long_factor", "short_factor"):
            if isinstance(own.get(name), list):
                own[name] = own[name][:rotated]


def layers_of(config: PreTrainedConfig) -> str:
    """How many layers of a model have which kind of attention, in words."""
    config = config.get_text_config()
    window = sliding_window(config)
    types = getattr(config, "layer_types", None)
    types = types or [FULL if window is None else SLIDING] * config.num_hidden_layers
    counts = {kind: types.count(kind) for kind in dict.fromkeys(types)}
    words = [f"{count} with {kind.replace('_', ' ')}" for kind, count in counts.items()]
    return " and ".join(words) + ("" if window is None else f", the window {window:,} tokens")
