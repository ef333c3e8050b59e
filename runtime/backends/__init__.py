"""What executes graphs; each backend is imported only when it is used."""
