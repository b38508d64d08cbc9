"""What commands in several modules share."""

from typing import Any, Final

HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Every command explains itself by `-h` too."""
