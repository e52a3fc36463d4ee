"""TDSP documents that fill themselves from a run's files; what no file knows stands in them as an open question."""
