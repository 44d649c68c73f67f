"""Pure, seeded samplers of wrong answers, and mixtures of them."""
