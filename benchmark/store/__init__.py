"""The artefact store, content-addressed and written atomically."""
