"""What is odd about a routing table that loads, told without broker and without event. Pure."""
