"""How weights travel: records, requests, replies, sums, compression."""
