"""What type checkers and editors see of the provider; `make types` runs it."""
