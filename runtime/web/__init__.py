"""`reenact serve`: the browser page and the HTTP API; nothing outside this folder imports it, but for the command."""
