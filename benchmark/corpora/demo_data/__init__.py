"""The recordings of the demo corpus."""
