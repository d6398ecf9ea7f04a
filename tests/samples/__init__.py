"""Recorded responses of each supported Ray, and the script that records them."""
