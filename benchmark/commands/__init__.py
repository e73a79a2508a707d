"""The commands of the command line. Anything slow is imported inside the command that needs it."""
