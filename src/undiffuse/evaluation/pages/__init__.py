"""Sections and plots of the pages that an evaluation, a comparison and the quickstart write."""
