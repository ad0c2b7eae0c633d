"""The network below both drivers: TLS, what answers at an address, and how long it may be waited for."""
