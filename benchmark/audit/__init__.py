"""The checks of an audit, each a small function."""
