"""The API: HTTP on a unix socket, for the command line and the web pages."""
