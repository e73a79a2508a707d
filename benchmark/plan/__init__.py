"""From a suite to its cells and the jobs that they need."""
