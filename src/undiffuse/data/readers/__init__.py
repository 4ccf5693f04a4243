"""One reader for each kind of data (folder, archive, built-in dataset, Python sequence). Each makes a Source."""
