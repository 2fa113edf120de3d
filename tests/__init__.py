"""The tests, against real brokers."""
