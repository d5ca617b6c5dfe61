"""The room ``optimum``."""
