"""A model behind HTTP: requests that wait are answered together, on one loaded base."""
