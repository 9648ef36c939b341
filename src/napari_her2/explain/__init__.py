"""Maps that show which regions a model used."""
