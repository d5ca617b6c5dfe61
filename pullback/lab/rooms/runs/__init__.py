"""The room ``runs``."""
