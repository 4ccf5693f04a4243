"""Files that were made to harm: what each would do to a reader that believes it, and the sentence that names it."""
