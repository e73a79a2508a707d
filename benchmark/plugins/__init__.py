"""The face for plugin authors: contracts, parameters and registries."""
