"""The page in the browser over the same functions as the command line. It shows; the work is done below it."""
