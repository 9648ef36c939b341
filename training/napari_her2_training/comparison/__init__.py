"""All arms on the same cases, measured alike."""
