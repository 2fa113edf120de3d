"""What each command of the `gateway` script does; `gateway.cli` only names them."""
