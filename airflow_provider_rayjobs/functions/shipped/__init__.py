"""Modules that run on the cluster; they import the standard library only."""
