"""The score table, and all arithmetic on it. Needs no torch."""
