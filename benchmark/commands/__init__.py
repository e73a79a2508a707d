"""The commands of the command line. Each command imports slow libraries inside its function."""
