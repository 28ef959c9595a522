"""What the relay costs: the ladder of its own layers, and the comparison with the peers in `benchmarks.peers`."""
