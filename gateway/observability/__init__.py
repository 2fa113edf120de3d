"""Metrics, logs and health: what the gateway says of itself."""
