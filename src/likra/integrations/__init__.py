"""Other people's tools on likra's engine. Each module needs its tool, and nothing else needs it."""
