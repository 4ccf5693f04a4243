"""Everything that the command line does, one function per capability; `undiffuse` has them under the same names."""
