"""The base model and its LoRA heads: open, train, score, sample."""
