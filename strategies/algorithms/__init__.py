"""One file an algorithm, with both of its halves."""
