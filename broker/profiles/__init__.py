"""What is known about vendors' authorization servers, as data: one TOML file each, every setting with its source.

`generic.toml` says every setting; another file says only what is different. A new vendor is a new file.
"""

from broker.profiles.profile import Profile, profile, profile_names, profile_sources

__all__ = ["Profile", "profile", "profile_names", "profile_sources"]
