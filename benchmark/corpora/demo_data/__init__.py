"""The sound and the table of the embedded ``demo`` corpus."""
