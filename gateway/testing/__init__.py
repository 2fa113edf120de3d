"""Unit tests of a routing table: read from YAML, run without a broker, told like a runner's."""
