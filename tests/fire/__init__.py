"""Proof by fire: real processes are broken under load, and nothing answered 2xx may be missing."""
