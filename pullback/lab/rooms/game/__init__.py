"""The room ``game``."""
