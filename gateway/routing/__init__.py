"""Which destinations an event has: a table compiled from the config, asked per event. Pure."""
