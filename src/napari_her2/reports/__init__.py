"""Pages about a slide, a case or a study of readers; and a scoring done again."""
