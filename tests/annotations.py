"""What checks the arguments and results of the package's functions in ``test_annotations.py``."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int is a float here, as it is for every static type checker."""
