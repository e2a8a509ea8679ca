"""The app that Flower ships; see `secure_fl.engines.flower.bundle`."""

from secure_fl.engines.flower.bundle import app_digest, build_app

__all__ = ["app_digest", "build_app"]
