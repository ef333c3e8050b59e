"""Everything that runs at the user's: models, engines, tracking, systems, media and streams. Never imports torch."""
