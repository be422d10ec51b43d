"""Repair a damaged dataset: find what is intact, and assemble a sound dataset of it."""
