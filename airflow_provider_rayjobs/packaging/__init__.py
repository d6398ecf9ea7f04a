"""Packs local files and uploads them to the cluster."""
