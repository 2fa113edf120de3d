"""Random tables and events, and what the pages say becomes of them."""
