"""``python -m machport`` is the ``machport`` command."""

from machport.cli import main

main(prog_name="machport")
