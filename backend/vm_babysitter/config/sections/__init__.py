"""The sections of the settings, one a module; ``config/settings.py`` names them."""
