"""Measurements of the provider's promises about speed and memory; each is a script of its own."""
