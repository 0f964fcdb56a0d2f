"""What prepares a machine, and the demo. Nothing here is part of the installed command."""
