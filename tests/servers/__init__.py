"""Real brokers for the tests: processes of our own that end with the test run."""
