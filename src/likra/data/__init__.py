"""Where questions come from: cards, the harness's own tasks, people's own files."""
