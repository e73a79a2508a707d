"""The stages of a run: each a pure function from a job to a stored artefact."""
