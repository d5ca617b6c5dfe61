"""The room ``arrows``."""
