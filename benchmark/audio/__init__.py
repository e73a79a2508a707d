"""Audio: 16-bit PCM, files, batches of clips."""
