"""`likra doctor`: is the forest exact for a model, and how fast is it on this machine?"""
