"""The embedded default: a small world of facts, a model that knows it, and questions about it."""
