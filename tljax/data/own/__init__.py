"""Data of the user's own: folders, tables and arrays, examined, divided and prepared once."""
