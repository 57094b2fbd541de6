"""TFDS builders of our own; importing one registers it with TFDS."""
