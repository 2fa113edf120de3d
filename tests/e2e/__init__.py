"""The gateway as it is seen from outside: its own process, real sockets, real brokers."""
