"""Porters: one file an architecture, each with its tables `SCHEMES` and `arguments`."""
