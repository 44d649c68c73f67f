"""From text to tokens to packed batches; the log-likelihoods of answers."""
