"""How annotations are enforced under pytest."""

from beartype import BeartypeConf, beartype

# As type checkers do, take an int where a float is asked for.
enforce = beartype(conf=BeartypeConf(is_pep484_tower=True))
