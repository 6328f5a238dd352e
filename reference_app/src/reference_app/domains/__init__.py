"""One package per system. Each has a module `domain` that offers `DOMAIN` (see `reference_app.services.Domain`)."""
