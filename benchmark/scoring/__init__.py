"""From judged examples to figures, intervals and ranks."""
