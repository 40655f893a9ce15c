"""Figures and pages, drawn from numbers that are computed and tested elsewhere."""
