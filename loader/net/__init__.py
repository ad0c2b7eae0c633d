"""The network below both drivers: TLS, the kind of server at an address, and limits on waiting."""
