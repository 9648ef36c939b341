"""The dock of a day's list: cases from a folder or a table, scored one after the other, in one table."""
