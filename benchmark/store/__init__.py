"""The artefact store: content-addressed, written beside and renamed."""
