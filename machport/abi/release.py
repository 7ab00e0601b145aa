"""Which release this program is, also when another one has been installed while it runs."""

from typing import Final

#: As in pyproject.toml; a test compares them.
RELEASE: Final = "0.1.0"
