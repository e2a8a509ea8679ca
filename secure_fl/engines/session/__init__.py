"""Parties that live on several machines: one outbound stream a site, in real time."""
