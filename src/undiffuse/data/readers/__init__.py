"""Readers of folders, archives and built-in datasets: each makes a Source."""
