"""What a forger can send: a table of hostile requests, and the answer that each must get."""
