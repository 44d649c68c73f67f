"""Figures and the HTML report, from the curves of a finished run. Needs no torch."""
